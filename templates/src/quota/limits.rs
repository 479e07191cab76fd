//! What a VE may use of a disk, and what of that holds at a given moment.
//!
//! A barrier may be exceeded for a time (`QUOTATIME`); then it holds as the limit does. Kernels know that too, but with
//! one time for all ids of a file system, and btrfs not at all. So the kernel is told of a barrier of its own only
//! where its time is the one asked for. Else it is told a hard limit alone, and whoever looks at the VE (its monitor
//! every few seconds, each verb) lowers that to the barrier when the time is up, and raises it again when the VE is
//! below.

use serde::{Deserialize, Serialize};
use vzconf::{Config, Pair};
use vzsys::quota::Grace;

/// A VE without `QUOTATIME` has three days, as with OpenVZ.
const USUAL_GRACE: u64 = 259_200;

/// A pair in the form it is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// May be exceeded for a time. 0 is none.
    pub barrier: u64,
    /// Is never exceeded. 0 is none.
    pub limit: u64,
}

impl Bounds {
    /// No limit.
    pub const NONE: Self = Self { barrier: 0, limit: 0 };
}

impl From<Pair> for Bounds {
    fn from(pair: Pair) -> Self {
        // A barrier above the limit, or none at all, never matters.
        let barrier = if pair.barrier == 0 { pair.limit } else { pair.barrier.min(pair.limit) };
        Self { barrier, limit: pair.limit }
    }
}

/// The disk limits of a VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// KiB.
    pub space: Bounds,
    /// Number.
    pub inodes: Bounds,
    /// For how many seconds a barrier may be exceeded.
    pub grace: u64,
}

impl Limits {
    /// Those of a configuration; `None` when it has none, or `DISK_QUOTA=no`.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let bounds = |pair: Option<Pair>| pair.map_or(Bounds::NONE, Bounds::from);
        let limits = Self {
            space: bounds(config.diskspace()),
            inodes: bounds(config.diskinodes()),
            grace: config.quotatime().unwrap_or(USUAL_GRACE),
        };
        let any = limits.space.limit != 0 || limits.inodes.limit != 0;
        (config.disk_quota() && any).then_some(limits)
    }

    /// Who counts the time.
    pub(super) fn timing(&self, kernel: Option<Grace>) -> Timing {
        let distinct = |bounds: Bounds| bounds.barrier != bounds.limit;
        if self.grace == 0 || !distinct(self.space) && !distinct(self.inodes) {
            return Timing::None;
        }
        if kernel == Some(Grace { space: self.grace, inodes: self.grace }) {
            Timing::Kernel
        } else {
            Timing::Ours
        }
    }
}

/// Who counts for how long a barrier is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Nobody: it holds at once.
    None,
    /// The kernel, whose time is the same.
    Kernel,
    /// We.
    Ours,
}

/// What the kernel is told of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InForce {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// What holds now, and since when the barrier is exceeded (seconds since 1970).
pub(super) fn in_force(
    bounds: Bounds,
    grace: u64,
    timing: Timing,
    usage: u64,
    since: Option<u64>,
    now: u64,
) -> (InForce, Option<u64>) {
    match timing {
        Timing::None => {
            (InForce { soft: 0, hard: if grace == 0 { bounds.barrier } else { bounds.limit } }, None)
        }
        Timing::Kernel => (InForce { soft: bounds.barrier, hard: bounds.limit }, None),
        Timing::Ours if bounds.limit == 0 || usage <= bounds.barrier => {
            (InForce { soft: 0, hard: bounds.limit }, None)
        }
        Timing::Ours => {
            // A clock that was set back must not give more time than there is.
            let since = since.unwrap_or(now).min(now);
            let over = now - since >= grace;
            (InForce { soft: 0, hard: if over { bounds.barrier } else { bounds.limit } }, Some(since))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Bounds = Bounds { barrier: 100, limit: 110 };

    fn limits(grace: u64) -> Limits {
        Limits { space: PAIR, inodes: Bounds::NONE, grace }
    }

    #[test]
    fn without_time_the_barrier_is_the_limit() {
        assert_eq!(limits(0).timing(None), Timing::None);
        let (now, since) = in_force(PAIR, 0, Timing::None, 500, Some(3), 10);
        assert_eq!((now, since), (InForce { soft: 0, hard: 100 }, None));
        // One value needs no time.
        let both = Limits { space: Bounds { barrier: 7, limit: 7 }, ..limits(60) };
        assert_eq!(both.timing(None), Timing::None);
        assert_eq!(in_force(both.space, 60, Timing::None, 0, None, 0).0.hard, 7);
    }

    #[test]
    fn the_kernel_counts_where_its_time_is_the_same() {
        let same = Grace { space: 60, inodes: 60 };
        assert_eq!(limits(60).timing(Some(same)), Timing::Kernel);
        assert_eq!(limits(61).timing(Some(same)), Timing::Ours);
        assert_eq!(limits(60).timing(Some(Grace { inodes: 5, ..same })), Timing::Ours);
        assert_eq!(limits(60).timing(None), Timing::Ours);
        assert_eq!(in_force(PAIR, 60, Timing::Kernel, 105, None, 0).0, InForce { soft: 100, hard: 110 });
    }

    #[test]
    fn a_barrier_holds_when_its_time_is_up_and_gives_way_below_it() {
        let at = |usage, since, now| in_force(PAIR, 60, Timing::Ours, usage, since, now);
        assert_eq!(at(100, None, 1000), (InForce { soft: 0, hard: 110 }, None));
        assert_eq!(at(101, None, 1000), (InForce { soft: 0, hard: 110 }, Some(1000)));
        assert_eq!(at(105, Some(1000), 1059), (InForce { soft: 0, hard: 110 }, Some(1000)));
        assert_eq!(at(105, Some(1000), 1060), (InForce { soft: 0, hard: 100 }, Some(1000)));
        assert_eq!(at(100, Some(1000), 2000), (InForce { soft: 0, hard: 110 }, None));
        // The clock was set back.
        assert_eq!(at(105, Some(5000), 1000), (InForce { soft: 0, hard: 110 }, Some(1000)));
    }

    #[test]
    fn odd_pairs_are_put_right() {
        let bounds = |barrier, limit| Bounds::from(Pair { barrier, limit });
        assert_eq!(bounds(0, 5), Bounds { barrier: 5, limit: 5 });
        assert_eq!(bounds(9, 5), Bounds { barrier: 5, limit: 5 });
    }
}
