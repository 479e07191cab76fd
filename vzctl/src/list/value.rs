//! The kinds of value a field can have. A kind knows its text (what stands for "unset", whether
//! it may be cut) and its order; [`super::json`] knows its JSON.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

use vzconf::Ctid;

use super::row::{Column, Counter, Disk, DiskColumn, Status, Switch};

/// One value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A CTID.
    Id(Ctid),
    /// Free text; cut to the column unless it is the last one.
    Text(Option<&'a str>),
    /// A word of ours, never cut.
    Word(Option<&'a str>),
    /// Status word.
    Status(Status),
    /// Several words; only the first is shown unless the column is the last one.
    List(&'a [String]),
    /// A number; unset is `-`, null.
    Number(Option<u64>),
    /// A number where 0 says as little as unset: `-`, and 0 in JSON.
    Limit(Option<u64>),
    /// A number where 0 counts; unset is `-`, and 0 in JSON.
    Level(Option<u64>),
    /// A place in the boot order. Equal places go by CTID, downwards, so that the reversed order
    /// (the one that boots) has them upwards.
    Order {
        /// `BOOTORDER`
        order: Option<u64>,
        /// Whose.
        ctid: Ctid,
    },
    /// A ratio.
    Ratio(Option<f64>),
    /// Yes, no, or unset.
    Flag(Option<bool>),
    /// Names with on or off.
    Switches(&'a [Switch]),
    /// Load averages.
    Load(Option<[f64; 3]>),
    /// Seconds.
    Uptime(Option<f64>),
    /// One number of a beancounter.
    Counter {
        /// All its numbers.
        counter: &'a Counter,
        /// The one asked for.
        column: Column,
    },
    /// One number of a disk limit.
    Disk {
        /// All its numbers.
        disk: Option<Disk>,
        /// The one asked for.
        column: DiskColumn,
    },
}

/// How much of a value there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The whole of it: last column, or `--no-trim`.
    Free,
    /// This many characters, and of a list only the first element.
    Column(usize),
}

/// Text of what is unset.
const UNSET: Cow<'static, str> = Cow::Borrowed("-");

impl<'a> Value<'a> {
    /// Its text, without padding.
    pub fn text(self, room: Room) -> Cow<'a, str> {
        match self {
            Self::Id(ctid) => ctid.to_string().into(),
            Self::Text(value) => cut(value.map_or(UNSET, Cow::Borrowed), room),
            Self::Word(value) => value.map_or(UNSET, Cow::Borrowed),
            Self::Status(status) => status.word().into(),
            Self::List(list) => list_text(list, room),
            Self::Number(value) | Self::Level(value) | Self::Order { order: value, .. } => {
                value.map_or(UNSET, |value| value.to_string().into())
            }
            Self::Limit(value) => value.filter(|v| *v != 0).map_or(UNSET, |value| value.to_string().into()),
            Self::Ratio(value) => value.map_or(UNSET, |value| general(value).into()),
            Self::Flag(value) => value.map_or(UNSET, |value| if value { "yes" } else { "no" }.into()),
            Self::Switches([]) => UNSET,
            Self::Switches(switches) => cut(switches_text(switches).into(), room),
            Self::Load(value) => {
                value.map_or(UNSET, |[one, five, fifteen]| format!("{one:.2}/{five:.2}/{fifteen:.2}").into())
            }
            Self::Uptime(value) => value.map_or(UNSET, |seconds| uptime_text(seconds).into()),
            Self::Counter { .. } | Self::Disk { .. } => {
                self.grouped().map_or(UNSET, |value| value.to_string().into())
            }
        }
    }

    /// Whether this is one of the kinds that stand unpadded only when set: `-` is always padded.
    pub fn is_unset(self) -> bool {
        matches!(self, Self::Load(None) | Self::Uptime(None))
    }

    /// The number of a beancounter or disk field, where it means anything.
    fn grouped(self) -> Option<u64> {
        match self {
            Self::Counter { counter, column } => counter.column(column),
            Self::Disk { disk, column } => disk
                .map(|disk| disk.column(column))
                .filter(|value| column != DiskColumn::Usage || *value != 0),
            _ => None,
        }
    }

    /// Sort order of two values of one field: unset before set, text by its bytes.
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Id(a), Self::Id(b)) => a.cmp(&b),
            (Self::Text(a), Self::Text(b)) | (Self::Word(a), Self::Word(b)) => a.cmp(&b),
            // smart_name mixes names and ids
            (Self::Id(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Id(_)) => Ordering::Greater,
            (Self::Status(a), Self::Status(b)) => a.cmp(&b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b))
            | (Self::Limit(a), Self::Limit(b))
            | (Self::Level(a), Self::Level(b)) => a.cmp(&b),
            (Self::Order { order: a, ctid: x }, Self::Order { order: b, ctid: y }) => {
                (a, Reverse(x)).cmp(&(b, Reverse(y)))
            }
            (Self::Ratio(a), Self::Ratio(b)) | (Self::Uptime(a), Self::Uptime(b)) => {
                by_float(a.as_slice(), b.as_slice())
            }
            (Self::Load(a), Self::Load(b)) => {
                by_float(a.as_ref().map_or(&[], |a| a.as_slice()), b.as_ref().map_or(&[], |b| b.as_slice()))
            }
            (Self::Flag(a), Self::Flag(b)) => a.cmp(&b),
            (Self::Switches(a), Self::Switches(b)) => switches_text(a).cmp(&switches_text(b)),
            (a @ (Self::Counter { .. } | Self::Disk { .. }), b) => a.grouped().cmp(&b.grouped()),
            _ => Ordering::Equal,
        }
    }
}

fn by_float(a: &[f64], b: &[f64]) -> Ordering {
    let different = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    different.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn cut(text: Cow<'_, str>, room: Room) -> Cow<'_, str> {
    let Room::Column(width) = room else { return text };
    match text.char_indices().nth(width) {
        None => text,
        Some((end, _)) => match text {
            Cow::Borrowed(text) => text[..end].into(),
            Cow::Owned(mut text) => {
                text.truncate(end);
                text.into()
            }
        },
    }
}

fn list_text(list: &[String], room: Room) -> Cow<'_, str> {
    match (list, room) {
        ([], _) => UNSET,
        ([first, ..], Room::Column(_)) => cut(first.as_str().into(), room),
        (all, Room::Free) => all.join(" ").into(),
    }
}

fn switches_text(switches: &[Switch]) -> String {
    let words: Vec<_> =
        switches.iter().map(|s| format!("{}:{}", s.name, if s.on { "on" } else { "off" })).collect();
    words.join(",")
}

fn uptime_text(seconds: f64) -> String {
    // Saturating by definition of `as`; a negative uptime (a clock set back) shows as 0.
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    format!("{:03}d{:02}h:{:02}m:{:02}s", days, hours % 24, minutes % 60, seconds % 60)
}

/// The shortest of fixed and scientific notation with six significant digits, as `%g` has it.
pub(super) fn general(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return without_zeros(&format!("{value:.places$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(digits), exponent.abs())
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_look_like_percent_g() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (0.333_333_33, "0.333333"),
            (100_000.0, "100000"),
            (1_234_567.0, "1.23457e+06"),
            (0.000_01, "1e-05"),
            (-2.5, "-2.5"),
            (999_999.9, "1e+06"),
        ] {
            assert_eq!(general(value), text);
        }
    }

    #[test]
    fn uptimes_keep_their_shape() {
        assert_eq!(uptime_text(183_845.9), "002d03h:04m:05s");
        assert_eq!(uptime_text(0.2), "000d00h:00m:00s");
        assert_eq!(uptime_text(-5.0), "000d00h:00m:00s");
        assert_eq!(uptime_text(86400.0 * 1234.0), "1234d00h:00m:00s");
    }

    #[test]
    fn cutting_counts_characters_not_bytes() {
        assert_eq!(Value::Text(Some("äöüß")).text(Room::Column(3)), "äöü");
        assert_eq!(Value::Text(Some("äöü")).text(Room::Column(3)), "äöü");
        assert_eq!(Value::Text(Some("")).text(Room::Column(3)), "");
    }
}
