//! Rows as JSON, laid out as the reference does it, but always valid: strings are escaped.

use std::fmt::Write as _;

use super::options::Options;
use super::row::{Row, Switch};
use super::value::{Value, general};

/// The whole array, with its last line ended.
pub(super) fn json(rows: &[Row], options: &Options) -> String {
    if rows.is_empty() {
        return "[]\n".to_owned();
    }
    let mut out = String::from("[");
    for (at, row) in rows.iter().enumerate() {
        out.push_str(if at == 0 { "\n  {" } else { ",\n  {" });
        for (at, field) in options.fields.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            out.push_str("    \"");
            out.push_str(field.name);
            out.push_str("\": ");
            value(&mut out, field.of(row));
        }
        out.push_str("\n  }");
    }
    out.push_str("\n]\n");
    out
}

fn value(out: &mut String, value: Value<'_>) {
    match value {
        Value::Id(ctid) => number(out, ctid),
        Value::Text(text) | Value::Word(text) => match text {
            Some(text) => string(out, text),
            None => out.push_str("null"),
        },
        Value::Status(status) => string(out, status.word()),
        Value::List(list) => array(out, list.iter(), |out, item| string(out, item)),
        Value::Number(number) | Value::Order { order: number, .. } => optional(out, number),
        Value::Limit(set) | Value::Level(set) => number(out, set.unwrap_or(0)),
        Value::Ratio(ratio) => optional(out, ratio.filter(|r| r.is_finite()).map(general)),
        Value::Flag(flag) => optional(out, flag),
        Value::Switches([]) => out.push_str("null"),
        Value::Switches(switches) => {
            object(out, switches.iter().map(|Switch { name, on }| (name.as_str(), *on)))
        }
        Value::Load(None) => out.push_str("null"),
        Value::Load(Some(load)) => {
            array(out, load.iter(), |out, load| number(out, format_args!("{load:.2}")))
        }
        Value::Uptime(uptime) => number(out, format_args!("{:.3}", uptime.unwrap_or(0.0).max(0.0))),
        Value::Counter { counter, .. } => {
            // Parsers do sums with these: what is not counted is 0, as the reference has it.
            object(
                out,
                [
                    ("held", counter.held.unwrap_or(0)),
                    ("maxheld", counter.maxheld.unwrap_or(0)),
                    ("barrier", counter.barrier),
                    ("limit", counter.limit),
                    ("failcnt", counter.failcnt.unwrap_or(0)),
                ],
            );
        }
        Value::Disk { disk: None, .. } => out.push_str("null"),
        Value::Disk { disk: Some(disk), .. } => {
            object(out, [("usage", disk.usage), ("softlimit", disk.soft), ("hardlimit", disk.hard)]);
        }
    }
}

fn number(out: &mut String, number: impl std::fmt::Display) {
    // Writing to a String never fails.
    let _ = write!(out, "{number}");
}

fn optional(out: &mut String, value: Option<impl std::fmt::Display>) {
    match value {
        Some(value) => number(out, value),
        None => out.push_str("null"),
    }
}

fn string(out: &mut String, text: &str) {
    // Escaping is a JSON writer's job; this is the one there is.
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn array<T>(out: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    out.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(out, item);
    }
    out.push(']');
}

fn object<'k, V: std::fmt::Display>(out: &mut String, members: impl IntoIterator<Item = (&'k str, V)>) {
    out.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        out.push_str(if at == 0 { "\n      " } else { ",\n      " });
        string(out, name);
        number(out, format_args!(": {value}"));
    }
    out.push_str("\n    }");
}
