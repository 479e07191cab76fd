//! Which VEs run: `/run/vz/<CTID>/state.json` names the init, `/proc` says whether it is alive.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use vzconf::{Ctid, Paths};
use vzsys::process::ProcRef;

/// Most of a state file that is worth reading; a real one is below a KiB.
const STATE_MAX: u64 = 1 << 20;

/// What a listing wants to know of a VE that runs. Only that much of the state file is looked at, so
/// that a listing gets on with the state files of older and newer versions.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Runtime {
    init: ProcRef,
    /// Seconds of the boot-time clock.
    started_at_boottime: Option<f64>,
}

impl Runtime {
    /// The VE, if it runs. A state file that is missing, unreadable or stale means it does not.
    pub(super) fn of(paths: &Paths, ctid: Ctid) -> Option<Self> {
        let mut text = Vec::new();
        let file = std::fs::File::open(paths.run_dir(ctid).join("state.json")).ok()?;
        file.take(STATE_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|runtime: &Self| runtime.init.alive())
    }

    /// Seconds since it was started, by the clock that goes on while the host sleeps and is never set
    /// (the wall clock often is, just after boot).
    pub(super) fn uptime(self) -> f64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let started = self.started_at_boottime.unwrap_or(self.init.start_time as f64 / ticks);
        (now - started).max(0.0)
    }
}

/// CTIDs that have a directory below `/run/vz`; whether they run is [`Runtime::of`]'s to say.
pub(super) fn candidates(paths: &Paths) -> Vec<Ctid> {
    numbered(paths.run_root(), "")
}

/// The CTIDs among the names `<CTID><suffix>` in a directory; none when it cannot be read.
pub(super) fn numbered(directory: &Path, suffix: &str) -> Vec<Ctid> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let ctid = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let ctid: Ctid = name.to_str()?.strip_suffix(suffix)?.parse().ok()?;
        // `0101.conf` is nobody's config: the VE's own name has no leading zero.
        (!ctid.is_host() && name.to_str()? == format!("{ctid}{suffix}")).then_some(ctid)
    };
    entries.filter_map(Result::ok).filter_map(ctid).collect()
}
