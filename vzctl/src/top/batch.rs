//! vztop without a terminal: text for people's logs, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;
use vzconf::units::UNLIMITED;

use super::column::Column;
use super::options::Options;
use super::sampler::{Row, Sampler, Snapshot, in_units};
use super::units::{cut, size, time};
use super::view::View;
use crate::check::Error;

/// Prints what it sees every so often, first after one delay: rates need two looks.
///
/// # Errors
/// That of standard output; that nobody reads on is none.
pub(super) fn run(mut sampler: Sampler, options: &Options) -> Result<(), Error> {
    let view = View::new(options);
    sampler.look();
    let mut left = options.times;
    loop {
        std::thread::sleep(options.delay);
        let snapshot = sampler.look();
        let text = if options.json { json(&snapshot, &view) } else { text(&snapshot, &view) };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(Error::io("write to standard output", source)),
        }
        left = left.map(|left| left - 1);
        if left == Some(0) {
            return Ok(());
        }
    }
}

/// The heading: how the host is.
pub(super) fn heading(snapshot: &Snapshot, shown: usize) -> String {
    let host = &snapshot.host;
    let [one, five, fifteen] = host.load;
    let busy = snapshot.busy.map_or("-".to_owned(), |busy| format!("{busy:.1}"));
    let many = if shown == snapshot.rows.len() {
        format!("{shown}")
    } else {
        format!("{shown} of {}", snapshot.rows.len())
    };
    format!(
        "{}  running {many}  cpu {busy}% of {}  ram {} of {}  load {one:.2} {five:.2} {fifteen:.2}  swap {} of {}  up {}",
        snapshot.at,
        host.cpus,
        size(host.ram_used as f64),
        size(host.ram as f64),
        size(host.swap_used as f64),
        size(host.swap as f64),
        time(host.uptime),
    )
}

/// As wide as its column, or wider when it does not fit.
fn padded(column: Column, text: &str) -> String {
    let width = column.width();
    if column.is_text() { format!("{:<width$}", cut(text, width)) } else { format!("{text:>width$}") }
}

fn text(snapshot: &Snapshot, view: &View) -> String {
    let rows = view.rows(snapshot);
    let mut out = heading(snapshot, rows.len()) + "\n";
    let mut line = |cells: Vec<String>| {
        let _ = writeln!(out, "{}", cells.join(" ").trim_end());
    };
    line(Column::ALL.iter().map(|column| padded(*column, column.title())).collect());
    for row in rows {
        line(Column::ALL.iter().map(|column| padded(*column, &column.cell(row))).collect());
    }
    out + "\n"
}

#[derive(Serialize)]
struct Look<'s> {
    at: &'s str,
    host: HostNow,
    containers: Vec<Container<'s>>,
}

#[derive(Serialize)]
struct HostNow {
    cpus: usize,
    cpu_percent: Option<f64>,
    load: [f64; 3],
    uptime: u64,
    ram: u64,
    ram_used: u64,
    swap: u64,
    swap_used: u64,
}

#[derive(Serialize)]
struct Container<'s> {
    ctid: u32,
    name: Option<&'s str>,
    uptime: u64,
    cpu_percent: Option<f64>,
    cpu_cap_percent: Option<f64>,
    ram: u64,
    ram_limit: Option<u64>,
    swap: u64,
    procs: u64,
    procs_limit: Option<u64>,
    read_bytes_per_second: Option<f64>,
    written_bytes_per_second: Option<f64>,
    fails: u64,
    beancounters: BTreeMap<&'static str, Counter>,
}

#[derive(Serialize)]
struct Counter {
    held: u64,
    maxheld: u64,
    barrier: Option<u64>,
    limit: Option<u64>,
    failcnt: u64,
    refused_now: u64,
}

/// One line. Bytes and pieces; no limit is null.
fn json(snapshot: &Snapshot, view: &View) -> String {
    let host = &snapshot.host;
    let look = Look {
        at: &snapshot.stamp,
        host: HostNow {
            cpus: host.cpus,
            cpu_percent: snapshot.busy.map(rounded),
            load: host.load,
            uptime: host.uptime.as_secs(),
            ram: host.ram,
            ram_used: host.ram_used,
            swap: host.swap,
            swap_used: host.swap_used,
        },
        containers: view.rows(snapshot).into_iter().map(Container::new).collect(),
    };
    // Numbers, texts and maps with keys of text: nothing that JSON has not.
    serde_json::to_string(&look).unwrap_or_default() + "\n"
}

impl<'s> Container<'s> {
    fn new(row: &'s Row) -> Self {
        let counters = row.counters.iter().map(|(resource, counter)| {
            let bound = |value: u64| (value < UNLIMITED).then(|| in_units(resource, value));
            let refused = row.refused.iter().find(|(of, _)| *of == resource);
            let counter = Counter {
                held: in_units(resource, counter.held),
                maxheld: in_units(resource, counter.maxheld),
                barrier: bound(counter.barrier),
                limit: bound(counter.limit),
                failcnt: counter.failcnt,
                refused_now: refused.map_or(0, |(_, more)| *more),
            };
            (resource.name(), counter)
        });
        Self {
            ctid: row.ctid.get(),
            name: Some(row.name.as_str()).filter(|name| !name.is_empty()),
            uptime: row.uptime.as_secs(),
            cpu_percent: row.cpu.map(rounded),
            cpu_cap_percent: row.cap.map(rounded),
            ram: row.ram,
            ram_limit: row.ram_limit,
            swap: row.swap,
            procs: row.procs,
            procs_limit: row.procs_limit,
            read_bytes_per_second: row.read.map(rounded),
            written_bytes_per_second: row.written.map(rounded),
            fails: row.fails,
            beancounters: counters.collect(),
        }
    }
}

/// To hundredths: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use beancounters::Resource;

    use super::super::sampler::tests::{idle, row};
    use super::*;

    fn snapshot() -> Snapshot {
        let mut web = idle(101);
        web.counters[Resource::Numproc] =
            beancounters::Counter { held: 12, limit: 100, failcnt: 3, ..Default::default() };
        web.counters[Resource::Physpages].held = 256;
        let rows = vec![row(&idle(2_000_000_000), ""), row(&web, "a-name-that-is-too-long")];
        Snapshot {
            at: "12:00:00".to_owned(),
            stamp: "2026-01-02T03:04:05.000Z".to_owned(),
            rows,
            ..Snapshot::default()
        }
    }

    #[test]
    fn text_is_a_heading_titles_and_rows() {
        let text = text(&snapshot(), &View::new(&Options::default()));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("12:00:00  running 2  cpu -% of 0  ram 0 of 0  load 0.00"), "{text}");
        assert_eq!(
            lines[1],
            "      CTID NAME               CPU%   CAP%   RAM LIMIT  SWAP PROCS READ/s WRITE/s     FAILS UPTIME"
        );
        assert_eq!(
            lines[2],
            "       101 a-name-that-is-…    0.0      -  1.0M     -     0    12      0       0      3 +3  1m00s"
        );
        assert_eq!(
            lines[3],
            "2000000000                     0.0      -     0     -     0     0      0       0         0  1m00s"
        );
        assert_eq!(lines[4], "");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = json(&snapshot(), &View::new(&Options { filter: "101".to_owned(), ..Options::default() }));
        assert_eq!(text.matches('\n').count(), 1);
        let look: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(look["at"], "2026-01-02T03:04:05.000Z");
        let [web] = look["containers"].as_array().unwrap().as_slice() else { panic!("{text}") };
        assert_eq!((&web["ctid"], &web["ram"]), (&101.into(), &1_048_576.into()));
        assert_eq!(web["ram_limit"], serde_json::Value::Null);
        let numproc = &web["beancounters"]["numproc"];
        assert_eq!((&numproc["limit"], &numproc["refused_now"]), (&100.into(), &3.into()));
        assert_eq!(web["beancounters"]["physpages"]["held"], 1_048_576);
    }
}
