//! `vzinit`, the first process of a VE that was made of an image without an init.
//!
//! ```text
//! /.vz/init ─ fork ─▶ /.vz/init --run ─ session, user, directory, environment ─▶ exec the image's command
//!   waits for signals: passes them on, reaps, ends with the command
//! ```
//!
//! It runs inside, as root of the VE, and is as little trusted as anything there. It changes no signal handlers: what
//! it waits for is blocked, and a blocked signal reaches even the first process of a PID namespace.

mod child;
mod image_run;
mod user;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use vzsys::launch::{ImageCommand, OWN_COMMAND, OWN_INIT};

/// The second stage.
const RUN: &str = "--run";
/// How long a command that was asked to end may take, as with other runtimes of images.
const GRACE: Duration = Duration::from_secs(10);
/// How long the rest may take when the command has ended.
const REST: Duration = Duration::from_secs(3);
/// Tells the host that the VE is up.
const READY: &str = "/run/.vzready";

/// The program.
pub(crate) fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == RUN) {
        return child::main();
    }
    let command = match load() {
        Ok(command) => command,
        Err(reason) => return complain(&reason),
    };
    image_run::restore();
    if command.as_init {
        ready();
        return child::become_it(&command);
    }
    match First::start(command) {
        Ok(mut first) => first.run(),
        Err(reason) => complain(&reason),
    }
}

fn complain(reason: &str) -> ExitCode {
    eprintln!("vzinit: {reason}");
    ExitCode::FAILURE
}

/// What the image runs.
fn load() -> Result<ImageCommand, String> {
    let text = fs::read(OWN_COMMAND).map_err(|error| format!("cannot read {OWN_COMMAND}: {error}"))?;
    let command: ImageCommand =
        serde_json::from_slice(&text).map_err(|error| format!("{OWN_COMMAND}: {error}"))?;
    if command.command.is_empty() {
        return Err(format!("{OWN_COMMAND} has no command"));
    }
    Ok(command)
}

/// Whoever waits for the VE to be up need not wait longer.
fn ready() {
    if let Err(error) = fs::write(READY, "") {
        eprintln!("vzinit: cannot write {READY}: {error}");
    }
}

/// The first process at work.
struct First {
    command: ImageCommand,
    main: Pid,
    /// When what is left is killed.
    deadline: Option<Instant>,
    /// How the command ended, once it has.
    ended: Option<u8>,
}

impl First {
    #[allow(clippy::disallowed_methods)] // inside a VE there is no host to be protected from
    fn start(command: ImageCommand) -> Result<Self, String> {
        vzsys::process::hold_signals();
        let child = Command::new(Path::new(OWN_INIT)).arg(RUN).spawn();
        let child = child.map_err(|error| format!("cannot start {OWN_INIT} {RUN}: {error}"))?;
        let main = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        ready();
        Ok(Self { command, main: Pid::from_raw(main), deadline: None, ended: None })
    }

    fn run(&mut self) -> ExitCode {
        loop {
            if let Some(code) = self.reap() {
                return ExitCode::from(code);
            }
            match self.wait() {
                Some(signal) => self.take(signal),
                None => self.time_is_up(),
            }
        }
    }

    /// The next signal, or none in time.
    fn wait(&self) -> Option<i32> {
        vzsys::process::next_signal(self.deadline.map(|at| at.saturating_duration_since(Instant::now())))
    }

    fn take(&mut self, signal: i32) {
        const CHLD: i32 = Signal::SIGCHLD as i32;
        const TERM: i32 = Signal::SIGTERM as i32;
        const PWR: i32 = Signal::SIGPWR as i32;
        match signal {
            CHLD => {}
            TERM | PWR => self.stop(),
            // What somebody inside sends to the first process is meant for the image's.
            _ if self.ended.is_none() => vzsys::process::send(self.main.as_raw(), signal),
            _ => {}
        }
    }

    /// Asks the command to end, in the way that it wants.
    fn stop(&mut self) {
        if self.ended.is_some() || self.deadline.is_some() {
            return;
        }
        vzsys::process::send(self.main.as_raw(), self.command.stop_number());
        let _ = kill(self.main, Signal::SIGCONT);
        if self.command.shell {
            // A shell at a terminal ignores SIGTERM, and ends when the terminal goes.
            let _ = kill(self.main, Signal::SIGHUP);
        }
        self.deadline = Some(Instant::now() + GRACE);
    }

    fn time_is_up(&mut self) {
        self.deadline = None;
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }

    /// Collects all that have ended. Returns what to end with when nobody is left.
    fn reap(&mut self) -> Option<u8> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.gone(pid, u8::try_from(code & 0xff).unwrap_or(1)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.gone(pid, 128 + u8::try_from(signal as i32).unwrap_or(0));
                }
                Ok(WaitStatus::StillAlive) => return None,
                Err(Errno::ECHILD) => return self.ended.or(Some(1)),
                _ => {}
            }
        }
    }

    fn gone(&mut self, pid: Pid, code: u8) {
        if pid != self.main {
            return;
        }
        self.ended = Some(code);
        self.deadline = Some(Instant::now() + REST);
        let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        let _ = kill(Pid::from_raw(-1), Signal::SIGCONT);
    }
}
