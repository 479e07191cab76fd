//! The table as text, byte for byte as `/proc/user_beancounters` and `/proc/bc/*/resources` have it, and back.
use std::fmt::Write;

use vzconf::units::UNLIMITED;

use crate::beancounter::{Beancounter, Counter};
use crate::resource::Resource;

/// The only version that readers take.
const VERSION: &str = "Version: 2.5";
/// A row of no resource: a number that the kernel once used, or kept for later.
const DUMMY: Counter = Counter { held: 0, maxheld: 0, barrier: UNLIMITED, limit: UNLIMITED, failcnt: 0 };

/// `/proc/user_beancounters`: 24 rows for each, dummies among them and no `swappages`.
#[must_use]
pub fn user_beancounters(all: &[Beancounter]) -> String {
    let mut text = header(all.len());
    for beancounter in all {
        for (resource, counter) in beancounter.iter().filter(|(r, _)| *r != Resource::Swappages) {
            row(
                &mut text,
                (resource == Resource::Kmemsize).then_some(beancounter.id),
                resource.name(),
                counter,
            );
            let dummies = match resource {
                Resource::Shmpages => 1,
                Resource::Numfile => 3,
                _ => 0,
            };
            (0..dummies).for_each(|_| row(&mut text, None, "dummy", &DUMMY));
        }
    }
    text
}

/// `/proc/bc/resources`: 21 rows for each.
#[must_use]
pub fn bc_resources(all: &[Beancounter]) -> String {
    let mut text = header(all.len());
    for beancounter in all {
        for (resource, counter) in beancounter.iter() {
            row(
                &mut text,
                (resource == Resource::Kmemsize).then_some(beancounter.id),
                resource.name(),
                counter,
            );
        }
    }
    text
}

/// `/proc/bc/ID/resources`: 21 rows, no header, no id.
#[must_use]
pub fn resources_of(one: &Beancounter) -> String {
    let mut text = String::with_capacity(ROW * Resource::ALL.len());
    for (resource, counter) in one.iter() {
        row(&mut text, None, resource.name(), counter);
    }
    text
}

/// The width of a row, its line break included.
const ROW: usize = 130;

/// With room for so many blocks.
fn header(all: usize) -> String {
    let mut text = String::with_capacity(ROW * (2 + 24 * all));
    let _ = writeln!(text, "{VERSION}");
    let _ = writeln!(
        text,
        "{:>10}  {:<12} {:>20} {:>20} {:>20} {:>20} {:>20}",
        "uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"
    );
    text
}

fn row(text: &mut String, id: Option<u32>, name: &str, counter: &Counter) {
    let _ = match id {
        Some(id) => write!(text, "{id:>10}: "),
        None => write!(text, "{:12}", ""),
    };
    let _ = write!(text, "{name:<12}");
    let Counter { held, maxheld, barrier, limit, failcnt } = *counter;
    for number in [held, maxheld, barrier, limit, failcnt] {
        text.push(' ');
        right(text, number);
    }
    text.push('\n');
}

/// A number in a column of 20, as `{number:>20}` makes it: tables of all VEs have thousands of them.
fn right(text: &mut String, mut number: u64) {
    let mut column = [b' '; 20];
    for digit in column.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(std::str::from_utf8(&column).unwrap_or_default());
}

/// Why a text is no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Another version than 2.5.
    #[error("the table is not of version 2.5 but says {0:?}")]
    Version(String),
    /// A line that is no row.
    #[error("line {line} of the table is no row: {text:?}")]
    Row {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// Reads a table in any of its widths, with or without dummies and `swappages`. Rows of unknown names are passed over;
/// 2^31-1, the "unlimited" of 32-bit kernels, is [`UNLIMITED`].
///
/// # Errors
/// [`ParseError`].
pub fn parse(text: &str) -> Result<Vec<Beancounter>, ParseError> {
    let mut lines = text.lines().enumerate();
    let version = lines.next().map_or("", |(_, line)| line.trim());
    if version != VERSION {
        return Err(ParseError::Version(version.to_owned()));
    }
    let mut all: Vec<Beancounter> = Vec::new();
    for (number, line) in lines.skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let broken = || ParseError::Row { line: number + 1, text: line.to_owned() };
        let mut words = line.split_whitespace().peekable();
        if let Some(id) = words.peek().and_then(|word| word.strip_suffix(':')) {
            all.push(Beancounter::new(id.parse().map_err(|_| broken())?));
            words.next();
        }
        let name = words.next().ok_or_else(broken)?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().map_err(|_| broken())?;
        let &[held, maxheld, barrier, limit, failcnt] = numbers.as_slice() else { return Err(broken()) };
        let last = all.last_mut().ok_or_else(broken)?;
        if let Some(resource) = Resource::named(name) {
            let (barrier, limit) = (long(barrier), long(limit));
            last[resource] = Counter { held, maxheld, barrier, limit, failcnt };
        }
    }
    Ok(all)
}

fn long(number: u64) -> u64 {
    if number == i32::MAX as u64 { UNLIMITED } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Beancounter {
        let mut one = Beancounter::new(101);
        one[Resource::Kmemsize] =
            Counter { held: 11_214_848, maxheld: 16_646_144, failcnt: 0, ..Counter::default() };
        one[Resource::Lockedpages] = Counter { barrier: 65536, limit: 65536, ..Counter::default() };
        one
    }

    #[test]
    fn rows_are_as_wide_as_the_kernel_made_them() {
        let text = user_beancounters(&[sample()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Version: 2.5");
        assert_eq!(
            lines[1],
            "       uid  resource                     held              maxheld              barrier                limit              failcnt"
        );
        assert_eq!(
            lines[2],
            "       101: kmemsize                 11214848             16646144  9223372036854775807  9223372036854775807                    0"
        );
        assert_eq!(
            lines[3],
            "            lockedpages                     0                    0                65536                65536                    0"
        );
        assert_eq!(lines.len(), 26);
        assert!(lines[2..].iter().all(|line| line.len() == ROW - 1));
        let dummies: Vec<usize> = (0..24).filter(|i| lines[2 + i].contains(" dummy ")).collect();
        assert_eq!(dummies, [4, 20, 21, 22]);
        assert!(lines[25].contains("numiptent") && !text.contains("swappages"));
    }

    #[test]
    fn bc_has_swappages_and_no_dummies() {
        let text = bc_resources(&[sample(), Beancounter::new(0)]);
        assert_eq!(text.lines().count(), 2 + 2 * 21);
        assert!(
            !text.contains("dummy") && text.lines().last().is_some_and(|line| line.contains("swappages"))
        );
        let one = resources_of(&sample());
        assert_eq!(one.lines().count(), 21);
        assert!(one.starts_with("            kmemsize "));
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        assert_eq!(parse("Version: 2.4\n"), Err(ParseError::Version("Version: 2.4".to_owned())));
        for bad in [
            "kmemsize 1 2 3 4 5",
            "101: kmemsize 1 2 3 4",
            "101: kmemsize 1 2 3 4 x",
            "x: kmemsize 1 2 3 4 5",
        ] {
            let text = format!("{VERSION}\ntitles\n{bad}\n");
            assert_eq!(parse(&text), Err(ParseError::Row { line: 3, text: bad.to_owned() }));
        }
    }

    #[test]
    fn narrow_tables_and_32_bit_unlimited_are_read() {
        let text = "Version: 2.5\n       uid  resource           held    maxheld    barrier      limit    failcnt\n      101:  kmemsize        2096128    2326528   11055923   11377049          0\n            numproc              15         20 2147483647 2147483647          3\n            dummy                 0          0          0          0          0\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0][Resource::Kmemsize].barrier, 11_055_923);
        assert_eq!(all[0][Resource::Numproc].limit, UNLIMITED);
        assert_eq!(all[0][Resource::Numproc].failcnt, 3);
    }

    fn counter() -> impl Strategy<Value = Counter> {
        let number = || prop_oneof![0..i32::MAX as u64, (1_u64 << 31)..=UNLIMITED];
        (number(), number(), number(), number(), any::<u64>()).prop_map(
            |(held, maxheld, barrier, limit, failcnt)| Counter { held, maxheld, barrier, limit, failcnt },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(blocks in prop::collection::vec((any::<u32>(), prop::collection::vec(counter(), 21)), 0..4)) {
            let all: Vec<Beancounter> = blocks.into_iter().map(|(id, counters)| {
                let mut one = Beancounter::new(id);
                Resource::ALL.into_iter().zip(counters).for_each(|(resource, counter)| one[resource] = counter);
                one
            }).collect();
            prop_assert_eq!(&parse(&bc_resources(&all)).unwrap(), &all);
            let mut classic = all;
            for one in &mut classic {
                one[Resource::Swappages] = Counter::default();
            }
            prop_assert_eq!(&parse(&user_beancounters(&classic)).unwrap(), &classic);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(Version: 2.5\n.*\n)?(.|\n){0,300}") {
            let _ = parse(&text);
        }
    }
}
