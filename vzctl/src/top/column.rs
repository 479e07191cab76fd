//! The columns of the list.

use std::cmp::Ordering;

use super::sampler::Row;
use super::units::{size, time};

/// One of them. By it rows can be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Ctid,
    Name,
    Cpu,
    Cap,
    Ram,
    Limit,
    Swap,
    Procs,
    Read,
    Write,
    Fails,
    Uptime,
}

impl Column {
    /// From left to right.
    pub(super) const ALL: [Self; 12] = [
        Self::Ctid,
        Self::Name,
        Self::Cpu,
        Self::Cap,
        Self::Ram,
        Self::Limit,
        Self::Swap,
        Self::Procs,
        Self::Read,
        Self::Write,
        Self::Fails,
        Self::Uptime,
    ];

    /// Those that fit into so many letters, with a blank between them. What tells least is left out first; what rows are
    /// sorted by stays.
    pub(super) fn fitting(width: usize, sort: Self) -> Vec<Self> {
        let dispensable = [
            Self::Swap,
            Self::Uptime,
            Self::Cap,
            Self::Limit,
            Self::Write,
            Self::Read,
            Self::Name,
            Self::Fails,
            Self::Procs,
            Self::Ram,
        ];
        let mut all = Self::ALL.to_vec();
        for column in dispensable.into_iter().filter(|column| *column != sort) {
            let needed: usize = all.iter().map(|column| column.width() + 1).sum();
            if needed <= width + 1 {
                break;
            }
            all.retain(|kept| *kept != column);
        }
        all
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ctid => "ctid",
            Self::Name => "name",
            Self::Cpu => "cpu",
            Self::Cap => "cap",
            Self::Ram => "ram",
            Self::Limit => "limit",
            Self::Swap => "swap",
            Self::Procs => "procs",
            Self::Read => "read",
            Self::Write => "write",
            Self::Fails => "fails",
            Self::Uptime => "uptime",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ctid => "CTID",
            Self::Name => "NAME",
            Self::Cpu => "CPU%",
            Self::Cap => "CAP%",
            Self::Ram => "RAM",
            Self::Limit => "LIMIT",
            Self::Swap => "SWAP",
            Self::Procs => "PROCS",
            Self::Read => "READ/s",
            Self::Write => "WRITE/s",
            Self::Fails => "FAILS",
            Self::Uptime => "UPTIME",
        }
    }

    /// In letters.
    pub(super) const fn width(self) -> usize {
        match self {
            Self::Ctid => 10,
            Self::Name => 16,
            Self::Cpu | Self::Cap | Self::Read | Self::Uptime => 6,
            Self::Ram | Self::Limit | Self::Swap | Self::Procs => 5,
            Self::Write => 7,
            Self::Fails => 9,
        }
    }

    /// Text begins at the left, numbers end at the right.
    pub(super) const fn is_text(self) -> bool {
        matches!(self, Self::Name)
    }

    pub(super) fn cell(self, row: &Row) -> String {
        let bytes = |bytes: u64| size(bytes as f64);
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Ctid => row.ctid.to_string(),
            Self::Name => row.name.clone(),
            Self::Cpu => or_none(row.cpu.map(|percent| format!("{percent:.1}"))),
            Self::Cap => or_none(row.cap.map(|percent| format!("{percent:.0}"))),
            Self::Ram => bytes(row.ram),
            Self::Limit => or_none(row.ram_limit.map(bytes)),
            Self::Swap => bytes(row.swap),
            Self::Procs => row.procs.to_string(),
            Self::Read => or_none(row.read.map(size)),
            Self::Write => or_none(row.written.map(size)),
            Self::Fails => {
                let more: u64 = row.refused.iter().map(|(_, more)| more).sum();
                if more > 0 { format!("{} +{more}", row.fails) } else { row.fails.to_string() }
            }
            Self::Uptime => time(row.uptime),
        }
    }

    /// What one looks for first: names from A, numbers of VEs from the lowest, all else from the highest.
    pub(super) fn order(self, a: &Row, b: &Row) -> Ordering {
        let number = |a: f64, b: f64| b.total_cmp(&a);
        let part = |a: Option<f64>, b: Option<f64>| number(a.unwrap_or(-1.0), b.unwrap_or(-1.0));
        match self {
            Self::Ctid => Ordering::Equal,
            Self::Name => a.name.is_empty().cmp(&b.name.is_empty()).then_with(|| a.name.cmp(&b.name)),
            Self::Cpu => part(a.cpu, b.cpu),
            Self::Cap => part(a.cap, b.cap),
            Self::Ram => b.ram.cmp(&a.ram),
            Self::Limit => b.ram_limit.cmp(&a.ram_limit),
            Self::Swap => b.swap.cmp(&a.swap),
            Self::Procs => b.procs.cmp(&a.procs),
            Self::Read => part(a.read, b.read),
            Self::Write => part(a.written, b.written),
            Self::Fails => {
                let more = |row: &Row| row.refused.iter().map(|(_, more)| more).sum::<u64>();
                (more(b), b.fails).cmp(&(more(a), a.fails))
            }
            Self::Uptime => b.uptime.cmp(&a.uptime),
        }
        .then_with(|| a.ctid.cmp(&b.ctid))
    }

    /// The one to the right, or to the left; the ends are no neighbours.
    pub(super) fn beside(self, right: bool) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        let at = if right { at + 1 } else { at.saturating_sub(1) };
        Self::ALL.get(at).copied().unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::{idle, row};
    use super::*;

    #[test]
    fn names_lead_to_columns() {
        for column in Column::ALL {
            assert_eq!(Column::named(column.name()), Some(column));
            assert!(column.title().len() <= column.width());
        }
        assert_eq!(Column::named("nosuch"), None);
        assert_eq!(Column::Ctid.beside(false), Column::Ctid);
        assert_eq!(Column::Ctid.beside(true), Column::Name);
        assert_eq!(Column::Uptime.beside(true), Column::Uptime);
    }

    #[test]
    fn a_narrow_screen_has_fewer_columns() {
        assert_eq!(Column::fitting(200, Column::Cpu), Column::ALL);
        let width = |columns: &[Column]| columns.iter().map(|column| column.width() + 1).sum::<usize>() - 1;
        let usual = Column::fitting(80, Column::Uptime);
        assert!(
            width(&usual) <= 80 && usual.contains(&Column::Name) && usual.contains(&Column::Uptime),
            "{usual:?}"
        );
        assert_eq!(Column::fitting(1, Column::Cpu), [Column::Ctid, Column::Cpu]);
    }

    #[test]
    fn what_one_looks_for_is_first() {
        let mut busy = row(&idle(102), "b");
        busy.cpu = Some(99.0);
        busy.fails = 1;
        let mut failing = row(&idle(101), "");
        failing.refused = vec![(beancounters::Resource::Numproc, 1)];
        failing.fails = 1;
        let first = |column: Column| {
            let mut rows = [&busy, &failing];
            rows.sort_by(|a, b| column.order(a, b));
            rows[0].ctid.get()
        };
        assert_eq!((first(Column::Cpu), first(Column::Ctid), first(Column::Name)), (102, 101, 102));
        assert_eq!(
            (first(Column::Fails), first(Column::Ram)),
            (101, 101),
            "what refuses now, the lower number"
        );
        assert_eq!(Column::Fails.cell(&failing), "1 +1");
    }
}
