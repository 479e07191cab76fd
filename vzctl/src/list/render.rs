//! Rows as columns of text.

use std::borrow::Cow;

use super::fields::{Align, Field};
use super::options::Options;
use super::row::Row;
use super::value::{Room, Value};

/// The whole listing, each line ended.
pub(super) fn text(rows: &[Row], options: &Options) -> String {
    let mut out = String::new();
    if options.header {
        line(&mut out, &options.fields, |out, field, _| pad(out, field.header, field.heading, field.width));
    }
    for row in rows {
        line(&mut out, &options.fields, |out, field, place| {
            let room =
                if options.trim && place == Place::Inner { Room::Column(field.width) } else { Room::Free };
            let value = field.of(row);
            pad(out, &printable(value.text(room)), alignment(field, value), field.width);
        });
    }
    out
}

/// All field names with their headings, as `vzlist -L` shows them.
pub(super) fn field_names() -> String {
    super::fields::field_table()
        .iter()
        .map(|field| format!("{:<15} {:<15}\n", field.name, field.header))
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Inner,
    Last,
}

fn line(out: &mut String, fields: &[&'static Field], cell: impl Fn(&mut String, &'static Field, Place)) {
    let start = out.len();
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        cell(out, field, if at + 1 == fields.len() { Place::Last } else { Place::Inner });
    }
    let end = start + out[start..].trim_end().len();
    out.truncate(end);
    out.push('\n');
}

/// Load and uptime stand unpadded, except for the dash of those that have none.
fn alignment(field: &Field, value: Value<'_>) -> Align {
    if value.is_unset() { Align::Right } else { field.align }
}

fn pad(out: &mut String, text: &str, align: Align, width: usize) {
    let blanks = width.saturating_sub(text.chars().count());
    match align {
        Align::Left => {
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', blanks));
        }
        Align::Right => {
            out.extend(std::iter::repeat_n(' ', blanks));
            out.push_str(text);
        }
        Align::Bare => out.push_str(text),
    }
}

/// A value must neither break its line nor speak to the terminal.
fn printable(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        return text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>().into();
    }
    text
}
