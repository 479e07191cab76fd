//! How a move is shown: lines, a bar, a table of phases, JSON.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use migrate::source::Outcome;
use migrate::{Observer, Phase};
use serde_json::json;

use super::words::Manner;
use crate::report::{Bar, Report};

/// The user at the source.
#[derive(Debug)]
pub(super) struct Watch {
    report: Rc<Report>,
    manner: Manner,
    bar: RefCell<Option<(String, Bar)>>,
}

impl Watch {
    pub(super) fn new(report: &Rc<Report>, manner: Manner) -> Self {
        Self { report: Rc::clone(report), manner, bar: RefCell::new(None) }
    }
}

impl Observer for Watch {
    fn say(&self, level: i32, text: &str) {
        *self.bar.borrow_mut() = None;
        self.report.line(level, text);
    }

    fn phase(&self, phase: Phase) {
        *self.bar.borrow_mut() = None;
        if self.manner.verbose > 1 {
            self.report.line(2, &format!("   phase: {} ({})", phase.word(), phase.about()));
        }
    }

    fn progress(&self, label: &str, done: u64, total: u64) {
        if self.manner.json {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        if bar.as_ref().is_none_or(|(shown, _)| shown != label) {
            *bar = Some((label.to_owned(), self.report.bar(label, (total > 0).then_some(total))));
        }
        if let Some((_, bar)) = &*bar {
            bar.reach(done);
        }
    }
}

/// The table of `-t`: what took how long.
pub(super) fn table(outcome: &Outcome) -> String {
    let mut text = String::from("   Phase      Time [s]\n");
    for (phase, took) in outcome.times.taken() {
        let _ = writeln!(text, "   {:<9} {:>9.3}  {}", phase.word(), took.as_secs_f64(), phase.about());
    }
    if let Some(gap) = gap(outcome) {
        let _ = writeln!(
            text,
            "   {:<9} {:>9.3}  from its stop here to its start there",
            "down",
            gap.as_secs_f64()
        );
    }
    if outcome.memory > 0 {
        let _ = writeln!(
            text,
            "   {} bytes of memory; {} packets came meanwhile and followed it",
            outcome.memory, outcome.packets
        );
    }
    let files: u64 = outcome.passes.iter().sum();
    let _ = writeln!(
        text,
        "   {files} bytes of files in {} passes, {} bytes sent",
        outcome.passes.len(),
        outcome.sent
    );
    text
}

/// How long the container was down, or stood still.
fn gap(outcome: &Outcome) -> Option<Duration> {
    if outcome.frozen.is_some() {
        return outcome.frozen;
    }
    let taken = outcome.times.taken();
    let synced = taken.iter().any(|(phase, _)| *phase == Phase::Sync);
    let within = |phase: &Phase| *phase >= Phase::Stop && *phase <= Phase::Start;
    synced.then(|| taken.iter().filter(|(phase, _)| within(phase)).map(|(_, took)| *took).sum())
}

/// The object of `--json`.
pub(super) fn object(ctid: &str, destination: &str, failed: Option<(u8, &str)>, outcome: &Outcome) -> String {
    let phases: serde_json::Map<String, serde_json::Value> = outcome
        .times
        .taken()
        .iter()
        .map(|(phase, took)| (phase.word().to_owned(), json!(took.as_micros() as u64 / 1000)))
        .collect();
    let object = json!({
        "ctid": ctid,
        "destination": destination,
        "ok": failed.is_none(),
        "exit": failed.map_or(0, |(exit, _)| exit),
        "error": failed.map(|(_, text)| text),
        "phases_ms": phases,
        "down_ms": gap(outcome).map(|gap| gap.as_micros() as u64 / 1000),
        "frozen_ms": outcome.frozen.map(|frozen| frozen.as_micros() as u64 / 1000),
        "memory_bytes": outcome.memory,
        "packets": outcome.packets,
        "passes_bytes": outcome.passes,
        "sent_bytes": outcome.sent,
    });
    format!("{object}\n")
}
