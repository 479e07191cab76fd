//! What running VEs use, from their accounts.

use std::collections::HashMap;

use beancounters::{Beancounter, Hierarchies, Record, Usage, VeCgroup};
use ve::accounts::Accounts;
use vzconf::{Ctid, Paths};

use crate::list::row::{Resource, Row};

/// How much is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// How many processes there are: one file.
    Numproc,
    /// The limits in force too: one more.
    Limits,
    /// All counters.
    All,
}

/// Which VEs are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that were named: their processes are looked through.
    Named,
    /// Whichever run: what costs such a walk is as the monitor counted it last.
    Everybody,
}

/// The host's counters, found once.
#[derive(Debug)]
pub(super) struct Meter {
    depth: Depth,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Nothing is counted here.
    Nowhere,
    Cgroups(Hierarchies),
    Each(Box<Accounts>),
    All(HashMap<u32, Beancounter>),
}

impl Meter {
    /// Finds the counters. Where there are none, nothing is counted.
    pub(super) fn new(paths: &Paths, depth: Depth, whose: Whose) -> Self {
        let source = if !super::is_host(paths) {
            None
        } else if depth < Depth::All {
            Hierarchies::detect().ok().map(Source::Cgroups)
        } else {
            Accounts::new(paths).ok().map(|accounts| match whose {
                Whose::Named => Source::Each(Box::new(accounts)),
                Whose::Everybody => {
                    Source::All(accounts.all().into_iter().map(|table| (table.id, table)).collect())
                }
            })
        };
        Self { depth, source: source.unwrap_or(Source::Nowhere) }
    }

    /// Fills in what is counted; a counter that is not read stays unknown, rather than 0.
    pub(super) fn read(&self, row: &mut Row, paths: &Paths) {
        match &self.source {
            Source::Nowhere => {}
            Source::Cgroups(hierarchies) => self.few(row, hierarchies, paths),
            Source::Each(accounts) => fill(row, accounts.of(row.ctid).as_ref()),
            Source::All(tables) => fill(row, tables.get(&row.ctid.get())),
        }
    }

    fn few(&self, row: &mut Row, hierarchies: &Hierarchies, paths: &Paths) {
        if let Ok(Some(cgroup)) = VeCgroup::open(hierarchies, row.ctid) {
            row.counter_mut(Resource::Numproc).held = Some(Usage::numproc(&cgroup));
        }
        let recorded = |ctid: Ctid| Some(Record::load(&paths.run_dir(ctid))?.beancounter(ctid.get()));
        if let Some(table) = (self.depth == Depth::Limits).then(|| recorded(row.ctid)).flatten() {
            limits(row, &table);
        }
    }
}

fn fill(row: &mut Row, table: Option<&Beancounter>) {
    let Some(table) = table else { return };
    for (resource, now) in table.iter() {
        let counter = row.counter_mut(resource);
        (counter.held, counter.maxheld) = (Some(now.held), Some(now.maxheld));
        counter.failcnt = Some(now.failcnt);
    }
    limits(row, table);
}

fn limits(row: &mut Row, table: &Beancounter) {
    for (resource, now) in table.iter() {
        let counter = row.counter_mut(resource);
        (counter.barrier, counter.limit) = (now.barrier, now.limit);
    }
}
