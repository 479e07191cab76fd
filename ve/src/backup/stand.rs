//! A running VE that is saved stands still for the last pass over its files.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use beancounters::VeCgroup;
use templates::backup::{Fault, Stand};
use templates::changes;
use vzconf::{Exit, Lock};
use vzsys::process::ProcRef;
use vzsys::spawn::Heir;

use crate::cgroup;
use crate::error::{Error, Result};
use crate::node::Ve;
use crate::snapshot::{self, Still};

/// A verb may be at work on the VE; most are short.
const BUSY: Duration = Duration::from_secs(30);

/// A VE that ran when it was begun to be saved.
pub(super) struct Standing<'a> {
    ve: &'a Ve<'a>,
    /// Its init.
    init: ProcRef,
    cgroup: VeCgroup,
    heir: Heir,
    /// For how long it stood still in all.
    pub(super) stood: Cell<Duration>,
}

impl<'a> Standing<'a> {
    /// Called as long as this process has one thread.
    ///
    /// # Errors
    /// 3.
    pub(super) fn new(ve: &'a Ve<'a>, init: ProcRef) -> Result<Self> {
        let gone = || Error::refused(Exit::System, format!("the cgroups of container {} are gone", ve.ctid));
        let cgroup = cgroup::open(ve)?.ok_or_else(gone)?;
        let heir = snapshot::heir(ve, &cgroup)?;
        Ok(Self { ve, init, cgroup, heir, stood: Cell::default() })
    }

    fn held(&self, work: &mut dyn FnMut() -> std::result::Result<u64, Fault>) -> Result<Ended> {
        let ve = self.ve;
        let lock = Lock::wait(&ve.node.global.lock_dir(), ve.ctid, Instant::now() + BUSY)?;
        let ended = match ve.running() {
            // Stopped meanwhile: nobody changes anything, and nobody starts it under the lock.
            None => Ended::from(work()),
            Some(state) if state.init == self.init => self.frozen(work)?,
            Some(_) => Ended::Failed(Fault::Restless(format!(
                "container {} was started anew meanwhile; the same command goes on with what was saved",
                ve.ctid
            ))),
        };
        lock.release()?;
        Ok(ended)
    }

    fn frozen(&self, work: &mut dyn FnMut() -> std::result::Result<u64, Fault>) -> Result<Ended> {
        let still = Still::begin_under(self.ve, &self.cgroup, &self.heir)?;
        let stopped = Instant::now();
        vzsys::fault::point("backup.frozen");
        let done = work();
        let worked = stopped.elapsed();
        let took = still.end()?;
        self.stood.set(self.stood.get() + took);
        if let Ok(looked) = &done {
            self.say(&format!(
                "The container stood still for {:.1} ms: {:.1} ms until it did, {:.1} ms for {looked} directories",
                took.as_secs_f64() * 1e3,
                (took - worked.min(took)).as_secs_f64() * 1e3,
                worked.as_secs_f64() * 1e3,
            ));
        }
        Ok(Ended::from(done))
    }
}

/// How the last pass ended, apart from how the VE was held.
enum Ended {
    Done,
    Failed(Fault),
}

impl From<std::result::Result<u64, Fault>> for Ended {
    fn from(done: std::result::Result<u64, Fault>) -> Self {
        match done {
            Ok(_) => Self::Done,
            Err(fault) => Self::Failed(fault),
        }
    }
}

impl Stand for Standing<'_> {
    fn mapped(&self) -> std::result::Result<Vec<PathBuf>, Fault> {
        if self.ve.running().is_none() {
            return Ok(Vec::new());
        }
        let processes = self.cgroup.processes().map_err(|error| Fault::Restless(error.to_string()))?;
        Ok(changes::mapped(&processes)?)
    }

    fn hold(
        &self,
        work: &mut dyn FnMut() -> std::result::Result<u64, Fault>,
    ) -> std::result::Result<(), Fault> {
        match self.held(work).map_err(|error| restless(&error))? {
            Ended::Done => Ok(()),
            Ended::Failed(fault) => Err(fault),
        }
    }

    fn say(&self, words: &str) {
        self.ve.say(1, words);
    }
}

fn restless(error: &Error) -> Fault {
    Fault::Restless(crate::describe(error))
}
