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
pub(super) struct Still<'a> {
    cgroup: &'a VeCgroup,
    since: Instant,
    over: bool,
    _heir: Option<Heir>,
}

impl<'a> Still<'a> {
    /// # Errors
    /// 3: they do not stop. Then they all go on.
    pub(super) fn begin(ve: &Ve<'_>, cgroup: &'a VeCgroup) -> Result<Self> {
        if cgroup.is_frozen() {
            // Somebody suspended it, and lets it go when it suits.
            return Ok(Self { cgroup, since: Instant::now(), over: true, _heir: None });
        }
        let heir = Heir::appoint(|| drop(cgroup.thaw()))
            .doing(Exit::System, || format!("cannot prepare to freeze container {}", ve.ctid))?;
        let since = Instant::now();
        cgroup.freeze(since + FREEZE)?;
        Ok(Self { cgroup, since, over: false, _heir: Some(heir) })
    }

    /// Lets them go; returns for how long they stood still, the wait for the last one to stop included.
    ///
    /// # Errors
    /// The file of the cgroup that could not be written.
    pub(super) fn end(mut self) -> Result<Duration> {
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
