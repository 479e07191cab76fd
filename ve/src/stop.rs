//! `vzctl stop`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use vzconf::{Action, Exit};
use vzsys::fault;
use vzsys::join::Session;
use vzsys::process::{Ended, PidFd};

use crate::cgroup;
use crate::dismantle::{self, Root};
use crate::error::{Doing, Error, Result};
use crate::exec::{self, Door};
use crate::node::Ve;
use crate::scripts;
use crate::start::{self, how};
use crate::state::{State, StopWay};

/// How to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Kill at once.
    pub fast: bool,
    /// Leave the root mounted.
    pub skip_umount: bool,
}

/// What `stop` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It ran, and does not any more.
    Now,
    /// It was not running.
    Already,
}

/// How long a killed VE may take to disappear: it waits for processes in uninterruptible calls.
const KILL: Duration = Duration::from_secs(60);

/// Stops a VE: by its guest's own shutdown, and by force when that takes longer than STOP_TIMEOUT.
///
/// # Errors
/// 79 when `CTID.stop` fails (the VE goes on), 33 when it cannot be stopped.
pub fn stop(ve: &Ve<'_>, options: Options) -> Result<Stopped> {
    let Some(state) = ve.running() else {
        dismantle::mend(ve)?;
        return Ok(Stopped::Already);
    };
    let failed = || format!("cannot stop container {}", ve.ctid);
    let Some(init) = state.init.open().doing(Exit::Stop, failed)? else {
        dismantle::mend(ve)?;
        return Ok(Stopped::Already);
    };
    run_stop_script(ve, options)?;
    fault::point("stop.begun");
    let mut halting = None;
    let clean = !options.fast && shut_down(ve, &state, &init, &mut halting)?;
    if !clean {
        kill(ve, &init, &mut halting)?;
    }
    fault::point("stop.ended");
    start::tear_down(ve, if options.skip_umount { Root::Keep } else { Root::Unmount })?;
    ve.say(0, "Container was stopped");
    Ok(Stopped::Now)
}

/// `CTID.stop` may forbid the stop, but not by never ending: it is run by the VE's own shell.
fn run_stop_script(ve: &Ve<'_>, options: Options) -> Result<()> {
    let Some((path, text)) = scripts::inside(ve, Action::Stop)? else { return Ok(()) };
    let time = Duration::from_secs(ve.config.stop_timeout());
    let door = Door::open(ve)?;
    let failed = match exec::feed_script_until(ve.ctid, &door, &text, Some(Instant::now() + time)) {
        Ok(Some(Ended::Exited(0))) => return Ok(()),
        Ok(Some(ended)) => return Err(Error::Script { path, how: how(ended) }),
        Ok(None) => Error::advised(
            Exit::ActionScript,
            format!("{} {}", path.display(), scripts::too_slow(time)),
            format!("without waiting for it: vzctl stop {} --fast", ve.ctid),
        ),
        Err(error) => error,
    };
    if !options.fast {
        return Err(failed);
    }
    ve.say(-1, &format!("WARNING: {}", crate::describe(&failed)));
    Ok(())
}

/// The guest's own shutdown program, when it is one of ours to reap: as long as a process of a pid
/// namespace is somebody's zombie, the kernel does not let its init go.
type Halting = Option<Session>;

/// Asks the guest to shut down and waits; `false` when it did not.
fn shut_down(ve: &Ve<'_>, state: &State, init: &PidFd, halting: &mut Halting) -> Result<bool> {
    ve.say(0, "Stopping container ...");
    let deadline = Instant::now() + Duration::from_secs(ve.config.stop_timeout());
    let asked = match &state.stop {
        StopWay::Signal(number) => init
            .signal_number(*number)
            .map(|()| None)
            .doing(Exit::Stop, || format!("cannot signal the init of container {}", ve.ctid)),
        StopWay::Run(argv) => {
            Door::open(ve).and_then(|door| exec::run_quietly(ve.ctid, &door, argv, deadline)).map(Some)
        }
    };
    match asked {
        Ok(session) => *halting = session,
        Err(error) => {
            let why = crate::describe(&error);
            ve.say(-1, &format!("WARNING: the container cannot be asked to stop: {why}"));
            return Ok(false);
        }
    }
    wait_ended(init, halting, deadline).doing(Exit::Stop, || format!("cannot wait for container {}", ve.ctid))
}

/// Waits for init, and reaps the shutdown program when that has ended first.
fn wait_ended(init: &PidFd, halting: &mut Halting, deadline: Instant) -> vzsys::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(session) = halting else { return init.wait_ended(Some(left)) };
        let (over, reapable) = vzsys::process::first_ended(init, &session.process, left)?;
        if reapable && let Some(session) = halting.take() {
            session.process.reap()?;
        }
        if over || left.is_zero() {
            return Ok(over);
        }
    }
}

fn kill(ve: &Ve<'_>, init: &PidFd, halting: &mut Halting) -> Result<()> {
    ve.say(0, "Killing container ...");
    let failed = || format!("cannot kill container {}", ve.ctid);
    // The end of a pid namespace's init is the end of all in it.
    init.signal(Signal::KILL).doing(Exit::Stop, failed)?;
    // A frozen VE dies only when its cgroup is killed, or thawed.
    cgroup::kill(ve)?;
    if wait_ended(init, halting, Instant::now() + KILL).doing(Exit::Stop, failed)? {
        return Ok(());
    }
    Err(Error::advised(
        Exit::Stop,
        "Unable to stop container: operation timed out",
        "A process is stuck in the kernel; try again later: vzctl stop --fast",
    ))
}
