//! What is known of a running VE: `/run/vz/CTID/state.json`, gone with a reboot of the host.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use templates::dist::Stop;
use vzconf::{Exit, Paths};
use vzsys::Call;
use vzsys::idmap::IdRange;
use vzsys::launch::Confinement;
use vzsys::process::ProcRef;

use crate::error::{Doing, Result};

const FILE: &str = "state.json";

/// The state of a VE from start to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    pub version: u32,
    /// Whose.
    pub ctid: u32,
    /// Its init.
    pub init: ProcRef,
    /// Its monitor.
    pub monitor: ProcRef,
    /// When it was started, in seconds of the host's boot-time clock.
    pub started_at_boottime: f64,
    /// The same in seconds since 1970.
    pub started_at: f64,
    /// Its ids; none for a privileged VE.
    pub ids: Option<IdRange>,
    /// What its processes are confined by.
    pub confinement: Confinement,
    /// Where its root is mounted on the host.
    pub root: PathBuf,
    /// How its guest is asked to end.
    pub stop: StopWay,
    /// Whether its guest tells when it is up.
    pub tells_ready: bool,
}

/// How a guest is asked to end: [`Stop`] in a form that can be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopWay {
    /// This signal to its init.
    Signal(i32),
    /// This program inside.
    Run(Vec<String>),
}

impl From<Stop> for StopWay {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Signal(number) => Self::Signal(number),
            Stop::Run(argv) => Self::Run(argv.iter().map(|word| (*word).to_owned()).collect()),
        }
    }
}

impl State {
    /// Reads the state of a VE that was started and not cleaned up since; whether it still runs is
    /// [`State::alive`]'s matter. A damaged file counts as none: what it described is found again by
    /// looking at the world.
    #[must_use]
    pub fn load(run_dir: &Path) -> Option<Self> {
        let bytes = fs::read(run_dir.join(FILE)).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|state: &Self| state.version == 1)
    }

    /// Writes the state: whole or not at all.
    ///
    /// # Errors
    /// The call that failed, exit 3.
    pub fn save(&self, run_dir: &Path) -> Result<()> {
        let what = || format!("cannot save the state in {}", run_dir.display());
        let json = serde_json::to_vec(self).unwrap_or_default();
        let temp = run_dir.join(".state.json.tmp");
        let write = || {
            // On tmpfs: no fsync, the file is worthless after a power cut.
            let mut file = fs::File::create(&temp).call("open", || temp.display().to_string())?;
            file.write_all(&json).call("write", || temp.display().to_string())?;
            fs::rename(&temp, run_dir.join(FILE)).call("rename", || temp.display().to_string())
        };
        write().doing(Exit::System, what)
    }

    /// For how long the VE runs.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        Duration::try_from_secs_f64(boottime() - self.started_at_boottime).unwrap_or_default()
    }

    /// Whether its init is still there.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.init.alive()
    }
}

/// Seconds since the host's boot, on the clock of [`State`].
pub(crate) fn boottime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)).as_secs_f64()
}

/// Forgets a VE that has ended: removes its run-time directory.
///
/// # Errors
/// The call that failed, exit 3.
pub fn forget(paths: &Paths, ctid: vzconf::Ctid) -> Result<()> {
    let dir = paths.run_dir(ctid);
    // The state first: without it the VE is not running for anybody.
    let _ = fs::remove_file(dir.join(FILE));
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(Exit::System, || format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
