//! Which VEs run: `/run/vz/<CTID>/state.json` names the init, `/proc` says whether it is alive.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use vzconf::{Ctid, Paths};

/// Most of a state file that is worth reading; a real one is a few KiB.
const STATE_MAX: u64 = 1 << 20;

/// What is known of a VE that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Runtime {
    /// When its init was started, in clock ticks since the host booted.
    pub(super) start_time: u64,
}

#[derive(Deserialize)]
struct State {
    init: Init,
}

#[derive(Deserialize)]
struct Init {
    pid: u32,
    start_time: u64,
}

impl Runtime {
    /// The VE, if it runs. A state file that is missing, unreadable or stale means it does not.
    pub(super) fn of(paths: &Paths, ctid: Ctid) -> Option<Self> {
        let mut text = Vec::new();
        let file = std::fs::File::open(paths.run_dir(ctid).join("state.json")).ok()?;
        file.take(STATE_MAX).read_to_end(&mut text).ok()?;
        let State { init } = serde_json::from_slice(&text).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", init.pid)).ok()?;
        (alive_since(&stat)? == init.start_time).then_some(Self { start_time: init.start_time })
    }

    /// Seconds since its init was started, by the clock that goes on while the host sleeps and is
    /// never set (the wall clock often is, just after boot).
    pub(super) fn uptime(self) -> f64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
        let started = self.start_time as f64 / rustix::param::clock_ticks_per_second() as f64;
        (now - started).max(0.0)
    }
}

/// Start time of a process that is not just an exit status waiting to be collected.
fn alive_since(stat: &str) -> Option<u64> {
    // The command, field 2, may contain anything, blanks and brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // Field 22; `fields` stands before field 4.
    fields.nth(22 - 4)?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_command_is_called() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(alive_since(&format!("77 (init) S {tail}")), Some(4711));
        assert_eq!(alive_since(&format!("77 (a) Z b) R {tail}")), Some(4711));
        assert_eq!(alive_since(&format!("77 (init) Z {tail}")), None);
        assert_eq!(alive_since("77 (init) S 1 2"), None);
        assert_eq!(alive_since(""), None);
    }
}
