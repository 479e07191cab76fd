//! What became of each line.

use serde_json::json;
use vzconf::foreign::Fate;

use super::Outcome;
use crate::report::Report;

pub(super) fn show(report: &Report, as_json: bool, outcome: &Outcome<'_>) {
    if as_json {
        report.output(&format!("{:#}\n", object(outcome)));
        return;
    }
    let mut text = String::new();
    for fate in [Fate::Mapped, Fate::Kept, Fate::Left, Fate::Missing] {
        let notes: Vec<_> = outcome.foreign.notes.iter().filter(|note| note.fate == fate).collect();
        if notes.is_empty() {
            continue;
        }
        text.push_str(&format!("{}:\n", fate.word()));
        for note in notes {
            text.push_str(&format!("  {}\n      {}\n", note.line, note.detail));
        }
    }
    if outcome.foreign.shift > 0 {
        text.push_str(&format!("{} is taken off all ids on its disk\n", outcome.foreign.shift));
    }
    match &outcome.plan {
        Some(plan) => text.push_str(&format!("would {plan}\n")),
        None => text
            .push_str(&format!("Container {0} was imported; start it with: vzctl start {0}\n", outcome.ctid)),
    }
    for line in text.lines() {
        report.line(0, line);
    }
}

fn object(outcome: &Outcome<'_>) -> serde_json::Value {
    let notes: Vec<_> = outcome
        .foreign
        .notes
        .iter()
        .map(|note| json!({"line": note.line, "fate": note.fate.word(), "detail": note.detail}))
        .collect();
    let files = outcome.origin.files.as_ref();
    json!({
        "ctid": outcome.ctid.get(),
        "kind": outcome.origin.kind.word(),
        "config": outcome.origin.config.as_ref().map(|path| path.display().to_string()),
        "files": files.map(|files| json!({"path": files.path(), "kind": files.kind()})),
        "shift": outcome.foreign.shift,
        "name": outcome.foreign.name,
        "imported": outcome.plan.is_none(),
        "notes": notes,
    })
}
