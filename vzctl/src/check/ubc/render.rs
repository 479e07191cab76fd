//! The table of vzubc as text.

use std::fmt::Write as _;

use beancounters::{Beancounter, Counter};

use super::super::suffix::{number, percent, plain};
use super::Standing;
use super::options::Options;
use super::past::Past;
use super::row::{Grade, Row};

const BRIGHT: &str = "\x1b[1;32m";
const FAILING: &str = "\x1b[1;31m";
const CLOSE: &str = "\x1b[1;33m";
const NORMAL: &str = "\x1b[0;39m";

/// All tables, each with its heading; of a VE without a row worth showing nothing.
pub(super) fn render(
    tables: &[Beancounter],
    options: &Options,
    past: &mut Past,
    standing: Option<&Standing>,
) -> String {
    let mut text = String::new();
    for table in tables {
        let rows = past.rows(table, options);
        let mut shown = rows.iter().filter(|row| row.is_shown(options)).peekable();
        if shown.peek().is_none() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        heading(&mut text, table.id, options);
        for row in shown {
            line(&mut text, row, options, standing.filter(|_| options.verbose));
        }
    }
    if !text.is_empty() {
        let _ = writeln!(text, "{}", rule(options));
    }
    text
}

fn rule(options: &Options) -> String {
    "-".repeat(if options.incremental { 71 } else { 64 })
}

fn heading(text: &mut String, id: u32, options: &Options) {
    let (begin, end) = if options.color { (BRIGHT, NORMAL) } else { ("", "") };
    let (change, under) = if options.incremental { ("  +/-  ", "-------") } else { ("", "") };
    let plus = if options.relative { '+' } else { ' ' };
    let _ = writeln!(
        text,
        "{begin}{}\n\
         CT {id:<10}| HELD{change} Bar% Lim%| MAXH Bar% Lim%| BAR | LIM |{plus}FAIL\n\
         -------------+-{under}--------------+---------------+-----+-----+------{end}",
        rule(options)
    );
}

fn line(text: &mut String, row: &Row, options: &Options, standing: Option<&Standing>) {
    let Row { resource, counter, change } = row;
    let Counter { held, maxheld, barrier, limit, failcnt } = *counter;
    let color = options.color.then(|| match row.grade(options.thresholds) {
        Grade::Failing => FAILING,
        Grade::Close => CLOSE,
        Grade::Calm => NORMAL,
    });
    let change = if options.incremental { difference(row, *change) } else { String::new() };
    let note = standing.map(|standing| format!("  {}", standing(*resource))).unwrap_or_default();
    let _ = writeln!(
        text,
        "{}{:>13}|{:>5}{change} {:>4} {:>4}|{:>5} {:>4} {:>4}|{:>5}|{:>5}| {:>5}{note}",
        color.unwrap_or_default(),
        resource.name(),
        number(*resource, held),
        percent(held, barrier),
        percent(held, limit),
        number(*resource, maxheld),
        percent(maxheld, barrier),
        percent(maxheld, limit),
        number(*resource, barrier),
        number(*resource, limit),
        plain(failcnt),
    );
    if options.color {
        text.push_str(NORMAL);
    }
}

fn difference(row: &Row, change: Option<i128>) -> String {
    let change = change.unwrap_or(0);
    let sign = match change {
        0 => return " ".repeat(7),
        1.. => '+',
        _ => '-',
    };
    // The difference of two numbers below 2^63.
    let size = u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX);
    format!("{:>7}", format!("{sign}{}", number(row.resource, size)))
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::read;
    use super::*;
    use beancounters::Resource;
    use std::path::Path;

    fn sample(id: u32) -> Beancounter {
        let mut ve = Beancounter::new(id);
        let mut row = |resource, held, maxheld, barrier, limit, failcnt| {
            ve[resource] = Counter { held, maxheld, barrier, limit, failcnt };
        };
        row(Resource::Kmemsize, 5_242_880, 11_534_336, 11_055_923, 11_377_049, 0);
        row(Resource::Physpages, 14_021, 20_113, 0, 65_536, 12);
        row(Resource::Numproc, 30, 41, 240, 240, 0);
        row(Resource::Numpty, 1, 1, 16, 16, 0);
        ve
    }

    fn show(line: &str, tables: &[Beancounter], store: &Path, standing: Option<&Standing>) -> String {
        let options = read(line);
        let mut past = Past::open(store, &options).unwrap();
        let text = render(tables, &options, &mut past, standing);
        past.keep(|_| true).unwrap();
        text
    }

    #[test]
    fn a_table_is_as_it_always_was() {
        let text = show("", &[sample(101), sample(7)], Path::new("/nonexistent"), None);
        let block = |id| {
            format!(
                "\
----------------------------------------------------------------
CT {id:<10}| HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL
-------------+---------------+---------------+-----+-----+------
     kmemsize|   5M  47%  46%|  11M 104% 101%|10.5M|10.8M|    - \n\
\x20     numproc|  30   12%  12%|  41   17%  17%| 240 | 240 |    - \n\
\x20   physpages|54.8M   -   21%|78.6M   -   30%|   - | 256M|   12 \n\
\x20 vmguarpages|   -    -    - |   -    -    - |   - |   - |    - \n\
\x20      numpty|   1    6%   6%|   1    6%   6%|  16 |  16 |    - \n"
            )
        };
        assert_eq!(text, format!("{}\n{}{}\n", block(101), block(7), "-".repeat(64)));
    }

    #[test]
    fn quiet_shows_what_is_worth_notice() {
        let text = show("-q", &[sample(101)], Path::new("/nonexistent"), None);
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_once('|')).map(|(n, _)| n.trim()).collect();
        assert_eq!(names, ["CT 101", "kmemsize", "physpages"]);
        assert_eq!(show("-q -qh 1 -qm 99", &[Beancounter::new(5)], Path::new("/nonexistent"), None), "");
    }

    #[test]
    fn verbose_shows_all_rows_and_how_they_stand() {
        let text = show("-v", &[sample(101)], Path::new("/nonexistent"), Some(&|_| "stored".to_owned()));
        assert_eq!(text.lines().filter(|line| line.ends_with("  stored")).count(), Resource::ALL.len());
        let plain = show("-v", &[sample(101)], Path::new("/nonexistent"), None);
        assert_eq!(plain.lines().count(), 3 + Resource::ALL.len() + 1);
        assert!(
            !show("", &[sample(101)], Path::new("/nonexistent"), Some(&|_| "stored".to_owned()))
                .contains("stored")
        );
    }

    #[test]
    fn colours_are_by_urgency() {
        let text = show("-c", &[sample(101)], Path::new("/nonexistent"), None);
        let begins = |name: &str, color: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            assert!(
                line.trim_start_matches(NORMAL).starts_with(color.trim_start_matches(NORMAL)),
                "{line:?}"
            );
            assert_eq!(line.contains("\x1b[1;"), color != NORMAL, "{line:?}");
        };
        assert!(text.starts_with(BRIGHT));
        begins("physpages", FAILING);
        begins("kmemsize", CLOSE);
        begins("numproc", NORMAL);
    }

    #[test]
    fn differences_have_their_column() {
        let store = tempfile::tempdir().unwrap();
        show("-i -r", &[sample(101)], store.path(), None);
        let mut later = sample(101);
        later[Resource::Numproc].held = 25;
        later[Resource::Physpages].held += 256;
        later[Resource::Physpages].failcnt += 3;
        later[Resource::Kmemsize].held += 1536;
        let text = show("-i -r", &[later], store.path(), None);
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert_eq!(line("CT "), "CT 101       | HELD  +/-   Bar% Lim%| MAXH Bar% Lim%| BAR | LIM |+FAIL");
        assert_eq!(
            line("numproc"),
            "      numproc|  25     -5   10%  10%|  41   17%  17%| 240 | 240 |    - "
        );
        assert_eq!(
            line("physpages"),
            "    physpages|55.8M    +1M   -   21%|78.6M   -   30%|   - | 256M|    3 "
        );
        assert!(line("kmemsize").contains("|   5M  +1.5K "), "{text}");
        assert!(line("numpty").contains("|   1           6%"), "{text}");
        assert!(text.starts_with(&"-".repeat(71)) && text.ends_with(&format!("\n{}\n", "-".repeat(71))));
    }
}
