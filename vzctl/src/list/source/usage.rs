//! What running VEs use, as far as this kernel counts it.

use beancounters::{Hierarchies, Usage, VeCgroup};
use vzconf::Paths;

use crate::list::row::{Resource, Row};

/// How much is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// One file.
    Numproc,
    /// All of them.
    All,
}

/// The host's cgroups, found once.
#[derive(Debug)]
pub(super) struct Meter(Option<Hierarchies>);

impl Meter {
    /// Finds the cgroups. Where there are none, nothing is counted.
    pub(super) fn new(paths: &Paths) -> Self {
        Self(if super::is_host(paths) { Hierarchies::detect().ok() } else { None })
    }

    /// Fills in what is counted; a counter that is not read stays unknown, rather than 0.
    pub(super) fn read(&self, row: &mut Row, depth: Depth) {
        let Some(hierarchies) = &self.0 else { return };
        let Ok(Some(cgroup)) = VeCgroup::open(hierarchies, row.ctid) else { return };
        if depth == Depth::Numproc {
            row.counter_mut(Resource::Numproc).held = Some(Usage::numproc(&cgroup));
            return;
        }
        fill(row, &Usage::read(&cgroup));
    }
}

fn fill(row: &mut Row, usage: &Usage) {
    for (resource, held, maxheld) in [
        (Resource::Numproc, Some(usage.numproc), usage.numproc_peak),
        (Resource::Physpages, Some(usage.physpages), usage.physpages_peak),
        (Resource::Swappages, usage.swappages, None),
    ] {
        let counter = row.counter_mut(resource);
        (counter.held, counter.maxheld) = (held, maxheld);
    }
}
