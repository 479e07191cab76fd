//! What one row is worth: whether it is shown, and how urgent it is.

use beancounters::{Counter, Resource};
use vzconf::units::UNLIMITED;

use super::options::{Options, Thresholds};

/// How urgent a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// Nothing to see.
    Calm,
    /// Close to the limit, or has been.
    Close,
    /// Something was refused, or is beyond the barrier.
    Failing,
}

/// A row, with what is known of the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) resource: Resource,
    /// Its numbers; the refusals are those since the last run when that is asked for.
    pub(super) counter: Counter,
    /// How much more, or less, is held than at the last run; `None` when that is not known.
    pub(super) change: Option<i128>,
}

impl Row {
    pub(super) fn grade(&self, thresholds: Thresholds) -> Grade {
        let Counter { held, maxheld, barrier, limit, failcnt } = self.counter;
        let barrier = if barrier == 0 { limit } else { barrier };
        let above = |number: u64, part: f64| number as f64 > barrier as f64 * part;
        if failcnt > 0 || held > barrier {
            Grade::Failing
        } else if above(held, thresholds.held) || above(maxheld, thresholds.maxheld) {
            Grade::Close
        } else {
            Grade::Calm
        }
    }

    /// What has no barrier is shown when all is asked for, what is calm unless quiet is; what changed, always.
    pub(super) fn is_shown(&self, options: &Options) -> bool {
        let unlimited = self.counter.barrier >= UNLIMITED;
        let calm = options.quiet && self.grade(options.thresholds) == Grade::Calm;
        !(calm || unlimited && !options.verbose) || self.change.is_some_and(|change| change != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::read;
    use super::*;

    fn row(held: u64, maxheld: u64, barrier: u64, limit: u64, failcnt: u64) -> Row {
        let counter = Counter { held, maxheld, barrier, limit, failcnt };
        Row { resource: Resource::Numproc, counter, change: None }
    }

    #[test]
    fn grades_follow_the_thresholds() {
        let thresholds = Thresholds { held: 0.5, maxheld: 0.8 };
        for (row, grade) in [
            (row(50, 80, 100, 100, 0), Grade::Calm),
            (row(51, 51, 100, 100, 0), Grade::Close),
            (row(0, 81, 100, 100, 0), Grade::Close),
            (row(101, 101, 100, 200, 0), Grade::Failing),
            (row(0, 0, 100, 100, 1), Grade::Failing),
            // without a barrier the limit counts
            (row(40, 40, 0, 100, 0), Grade::Calm),
            (row(60, 60, 0, 100, 0), Grade::Close),
            (row(0, 0, 0, UNLIMITED, 0), Grade::Calm),
            (row(1, 1, 0, 0, 0), Grade::Failing),
        ] {
            assert_eq!(row.grade(thresholds), grade, "{row:?}");
        }
    }

    #[test]
    fn what_is_shown_is_what_was_asked_for() {
        let (calm, free) = (row(1, 1, 100, 100, 0), row(1, 1, UNLIMITED, UNLIMITED, 5));
        assert!(calm.is_shown(&read("")) && !calm.is_shown(&read("-q")));
        assert!(!free.is_shown(&read("")) && !free.is_shown(&read("-q")) && free.is_shown(&read("-v")));
        let changed = |row: Row, change| Row { change: Some(change), ..row };
        assert!(changed(calm, -1).is_shown(&read("-q -i")) && !changed(calm, 0).is_shown(&read("-q -i")));
        assert!(changed(free, 1).is_shown(&read("-i")));
    }
}
