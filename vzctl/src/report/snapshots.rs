//! `vzctl snapshot-list`.

use std::fmt::Write as _;

use serde_json::json;
use ve::snapshot::Listed;

use crate::cli::{Column, FIELDS, Field, ListOptions};

/// What there is to show, one name and its heading in a line.
pub fn names() -> String {
    FIELDS.iter().fold(String::new(), |mut text, field| {
        let _ = writeln!(text, "{:<15} {:<15}", field.name, field.header);
        text
    })
}

/// The snapshots as a table.
pub fn table(all: &[Listed], options: &ListOptions) -> String {
    let mut text = String::new();
    if options.header {
        line(&mut text, &options.fields, |field| field.header.to_owned());
    }
    for listed in all {
        line(&mut text, &options.fields, |field| cell(listed, field.column));
    }
    text
}

/// The last column is not padded.
fn line(text: &mut String, fields: &[&'static Field], cell: impl Fn(&Field) -> String) {
    for (at, field) in fields.iter().enumerate() {
        let cell = cell(field);
        if at + 1 == fields.len() {
            text.push_str(&cell);
        } else {
            let _ = write!(text, "{cell:<width$} ", width = field.width);
        }
    }
    text.push('\n');
}

/// A description may have line breaks, which a table may not.
fn cell(listed: &Listed, column: Column) -> String {
    let plain = |text: &str| text.replace(char::is_control, " ");
    match column {
        Column::Uuid => listed.item.id.to_string(),
        Column::Parent => listed.item.parent.map(|id| id.to_string()).unwrap_or_default(),
        Column::Current => if listed.current { "*" } else { " " }.to_owned(),
        Column::Date => plain(&listed.item.date),
        Column::Name => plain(&listed.item.name),
        Column::Description => plain(&listed.item.description),
        Column::Device => listed.device.clone().unwrap_or_default(),
        Column::Target => listed.target.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    }
}

/// The snapshots as a JSON array on one line.
pub fn json(all: &[Listed]) -> String {
    let objects = all.iter().map(|listed| {
        json!({
            "uuid": listed.item.id.to_string(),
            "parent_uuid": listed.item.parent.map(|id| id.to_string()),
            "current": listed.current,
            "date": listed.item.date,
            "name": listed.item.name,
            "desc": listed.item.description,
            "device": listed.device,
            "target": listed.target,
        })
    });
    format!("{}\n", serde_json::Value::Array(objects.collect()))
}
