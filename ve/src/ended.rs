//! What happens when a VE ends by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use vzsys::process::ProcRef;

use crate::dismantle::Root;
use crate::error::Result;
use crate::node::Ve;
use crate::start;
use crate::state::State;

/// How a life ended, as the monitor saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `reboot` inside.
    Reboot,
    /// `halt` or `poweroff` inside.
    Halt,
    /// Its init went otherwise: `exit:3`, `signal:11`, `unknown`.
    Died(String),
}

impl Reason {
    /// The monitor's word.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "reboot" => Self::Reboot,
            "halt" => Self::Halt,
            other => Self::Died(other.to_owned()),
        }
    }
}

/// A VE whose init reboots at once is not started more often than this: its restarts would fill the host's
/// time and log, and have its lock whenever a verb wants it.
const SHORTEST: Duration = Duration::from_secs(3);
/// How often somebody who waits for that looks whether a verb has made it pointless.
const LOOK: Duration = Duration::from_millis(100);

/// One life of a VE, from a start to its end: a VE has many, and what is said of one must not be done to
/// the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(ProcRef);

impl Life {
    /// The life whose init had this pid and start time, in the monitor's words.
    #[must_use]
    pub fn parse(pid: &str, start_time: &str) -> Option<Self> {
        Some(Self(ProcRef { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? }))
    }

    /// What is known of it, if it is over and nobody has tidied up.
    fn left(self, run_dir: &Path) -> Option<State> {
        State::load(run_dir).filter(|state| state.init == self.0 && !state.alive())
    }

    /// Waits before a VE that was started a moment ago is started again; not any longer when a verb has
    /// tidied up meanwhile. The caller does not have the lock, so that a verb has it at once.
    pub fn settle(self, run_dir: &Path, reason: &Reason) {
        let (Reason::Reboot, Some(state)) = (reason, self.left(run_dir)) else { return };
        let until = Instant::now() + SHORTEST.saturating_sub(state.uptime());
        while self.left(run_dir).is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Tidies up after a life that is over, and starts the VE again if it rebooted. Whoever stopped it by a verb
/// has tidied up already; then there is nothing to do. The caller has the lock.
///
/// # Errors
/// As [`start::start`] after a reboot; 3 when something could not be removed.
pub fn ended(ve: &Ve<'_>, life: Life, reason: &Reason) -> Result<()> {
    if life.left(&ve.run_dir()).is_none() {
        return Ok(());
    }
    match reason {
        Reason::Reboot => ve.say(0, "Container rebooted"),
        Reason::Halt => ve.say(0, "Container was halted from inside"),
        Reason::Died(how) => ve.say(-1, &format!("The init of the container ended unexpectedly ({how})")),
    }
    start::tear_down(ve, Root::Unmount)?;
    match reason {
        Reason::Reboot => start::start(ve, start::Options { force: true, ..start::Options::default() }),
        Reason::Halt | Reason::Died(_) => Ok(()),
    }
}
