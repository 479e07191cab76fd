//! VEs that are looked at again and again: what was opened for one look serves the next.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vzconf::Ctid;
use vzsys::process::{PidFd, timespec};

use crate::accounts::Meter;
use crate::state::State;

/// Descriptors that are left for everything else.
const OTHERS: u64 = 64;
/// As many as a VE may take: its files, its directories, its init.
const EACH: u64 = 24;
/// No limit is a limit too: what a table of a very large host would take.
const MOST: u64 = 1 << 18;

/// By number. A VE is known until its init has ended, or it has no run-time directory any more.
#[derive(Debug)]
pub(crate) struct Known {
    lives: BTreeMap<Ctid, Life>,
    /// How many may be known.
    room: usize,
}

/// A VE from start to stop.
#[derive(Debug)]
pub(crate) struct Life {
    init: PidFd,
    pub(crate) state: State,
    pub(crate) meter: Meter,
}

impl Known {
    /// Nobody yet. This process may open as many files from now on as it is ever allowed to.
    pub(crate) fn new() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let most = maximum.unwrap_or(MOST).min(MOST).max(current.unwrap_or(MOST));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).is_ok();
        let files = if raised { most } else { current.unwrap_or(MOST) };
        let room = files.saturating_sub(OTHERS) / EACH;
        Self { lives: BTreeMap::new(), room: usize::try_from(room).unwrap_or(usize::MAX) }
    }

    pub(crate) fn get(&self, ctid: Ctid) -> Option<&Life> {
        self.lives.get(&ctid)
    }

    /// Adds one that runs, if there is room.
    pub(crate) fn add(&mut self, ctid: Ctid, state: &State, meter: impl FnOnce() -> Option<Meter>) {
        if self.lives.len() < self.room
            && let Ok(Some(init)) = state.init.open()
            && let Some(meter) = meter()
        {
            self.lives.insert(ctid, Life { init, state: state.clone(), meter });
        }
    }

    /// Forgets those that have ended.
    pub(crate) fn forget_ended(&mut self) {
        let ended: Vec<Ctid> = {
            let fds = self.lives.values().map(|life| life.init.as_fd());
            let fds: Vec<_> = fds.collect();
            let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            if !poll(&mut fds, timespec(Some(Duration::ZERO)).as_ref()).is_ok_and(|n| n > 0) {
                return;
            }
            let over = self.lives.keys().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
            over.map(|(ctid, _)| *ctid).collect()
        };
        self.lives.retain(|ctid, _| !ended.contains(ctid));
    }

    /// Forgets those that are not among these.
    pub(crate) fn keep_only(&mut self, there: impl Fn(Ctid) -> bool) {
        self.lives.retain(|ctid, _| there(*ctid));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.lives.clear();
    }
}
