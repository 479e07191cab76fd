//! Limits that refuse while one looks.

use std::collections::VecDeque;

use beancounters::Resource;
use vzconf::Ctid;

use super::sampler::Snapshot;

/// As many are remembered.
const KEPT: usize = 200;

/// A limit has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alarm {
    /// The time of day.
    pub(super) at: String,
    pub(super) ctid: Ctid,
    pub(super) resource: Resource,
    /// How often since the look before.
    pub(super) more: u64,
    /// How often since the VE's start.
    pub(super) total: u64,
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, ctid, resource, more, total } = self;
        write!(f, "{at}  container {ctid}: {resource} refused {more} more, {total} in all")
    }
}

/// Those of late, the newest last.
#[derive(Debug, Default)]
pub(super) struct Alarms(VecDeque<Alarm>);

impl Alarms {
    pub(super) fn take(&mut self, snapshot: &Snapshot) {
        for row in &snapshot.rows {
            for (resource, more) in &row.refused {
                let total = row.counters[*resource].failcnt;
                let at = snapshot.at.clone();
                self.0.push_back(Alarm { at, ctid: row.ctid, resource: *resource, more: *more, total });
            }
        }
        while self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Alarm> {
        self.0.iter().rev()
    }
}
