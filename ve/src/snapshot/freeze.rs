//! A VE that stands still for a moment.

use std::time::{Duration, Instant};

use beancounters::VeCgroup;
use vzconf::Exit;
use vzsys::spawn::Heir;

use crate::error::{Doing, Result};
use crate::node::Ve;

/// Processes that wait for a disk stop when it has answered.
const FREEZE: Duration = Duration::from_secs(20);

/// The processes of a VE stand still as long as the value lives. Whoever is killed meanwhile has an heir that lets
/// them go.
#[derive(Debug)]
pub(crate) struct Still<'a> {
    cgroup: &'a VeCgroup,
    since: Instant,
    over: bool,
    _heir: Option<Guard<'a>>,
}

/// An heir for this time.
#[derive(Debug)]
enum Guard<'a> {
    Own(#[expect(dead_code, reason = "it lives as long as it is needed")] Heir),
    Lent(&'a Heir),
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Self::Lent(heir) = self {
            heir.disarm();
        }
    }
}

/// Somebody who lets a VE go when this process is killed between [`Still::begin_under`] and its end: for one that is going to
/// have threads.
///
/// # Errors
/// 3.
pub(crate) fn heir(ve: &Ve<'_>, cgroup: &VeCgroup) -> Result<Heir> {
    Heir::prepare(|| drop(cgroup.thaw())).doing(Exit::System, || cannot(ve))
}

fn cannot(ve: &Ve<'_>) -> String {
    format!("cannot prepare to freeze container {}", ve.ctid)
}

impl<'a> Still<'a> {
    /// # Errors
    /// 3: they do not stop. Then they all go on.
    pub(crate) fn begin(ve: &Ve<'_>, cgroup: &'a VeCgroup) -> Result<Self> {
        let appoint = || Heir::appoint(|| drop(cgroup.thaw())).map(Guard::Own);
        Self::guarded(ve, cgroup, appoint)
    }

    /// The same with an heir that was prepared.
    ///
    /// # Errors
    /// As [`Still::begin`].
    pub(crate) fn begin_under(ve: &Ve<'_>, cgroup: &'a VeCgroup, heir: &'a Heir) -> Result<Self> {
        Self::guarded(ve, cgroup, || heir.arm().map(|()| Guard::Lent(heir)))
    }

    fn guarded(
        ve: &Ve<'_>,
        cgroup: &'a VeCgroup,
        guard: impl FnOnce() -> vzsys::Result<Guard<'a>>,
    ) -> Result<Self> {
        if cgroup.is_frozen() {
            // Somebody suspended it, and lets it go when it suits.
            return Ok(Self { cgroup, since: Instant::now(), over: true, _heir: None });
        }
        let heir = guard().doing(Exit::System, || cannot(ve))?;
        let since = Instant::now();
        // (Dropped on a failure: then they are let go as well.)
        let still = Self { cgroup, since, over: false, _heir: Some(heir) };
        cgroup.freeze(since + FREEZE)?;
        Ok(still)
    }

    /// Lets them go; returns for how long they stood still, the wait for the last one to stop included.
    ///
    /// # Errors
    /// The file of the cgroup that could not be written.
    pub(crate) fn end(mut self) -> Result<Duration> {
        if !std::mem::replace(&mut self.over, true) {
            self.cgroup.thaw()?;
        }
        Ok(self.since.elapsed())
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if !self.over {
            // Something failed, and is told.
            let _ = self.cgroup.thaw();
        }
    }
}
