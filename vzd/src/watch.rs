//! Watching a VE until its init has ended, and what follows.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use ve::accounts::Meter;
use ve::monitor::Order;
use vzsys::process::{Ended, PidFd, ProcRef, timespec};

use crate::console::Console;
use crate::saver::Saver;

/// How often the counters are read that the kernel keeps no highest value of.
const SAMPLE: Duration = Duration::from_secs(5);

/// The VE's init, as we know it.
#[derive(Debug)]
pub(crate) enum Init {
    /// Our child: its exit status tells how it ended.
    Child(PidFd, ProcRef),
    /// Somebody else's.
    Stranger(PidFd, ProcRef),
}

impl Init {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Child(fd, _) | Self::Stranger(fd, _) => fd.as_fd(),
        }
    }

    fn name(&self) -> ProcRef {
        match self {
            Self::Child(_, init) | Self::Stranger(_, init) => *init,
        }
    }

    /// How it ended, in one word for `vzctl`. The kernel ends the init of a pid namespace by these two
    /// signals when it calls reboot(2) (since 3.4; reboot(2), "Behavior inside PID namespaces").
    fn how_it_ended(&self) -> String {
        let ended = match self {
            Self::Child(fd, _) => fd.reap().ok(),
            Self::Stranger(fd, init) => fd.ended_elsewhere(*init),
        };
        match ended {
            Some(Ended::Killed(libc_signal::SIGHUP)) => "reboot".to_owned(),
            Some(Ended::Killed(libc_signal::SIGINT)) => "halt".to_owned(),
            Some(Ended::Killed(signal)) => format!("signal:{signal}"),
            Some(Ended::Exited(code)) => format!("exit:{code}"),
            None => "unknown".to_owned(),
        }
    }
}

mod libc_signal {
    pub(super) const SIGHUP: i32 = rustix::process::Signal::HUP.as_raw();
    pub(super) const SIGINT: i32 = rustix::process::Signal::INT.as_raw();
}

/// A monitor at work.
#[derive(Debug)]
pub(crate) struct Watch {
    ctid: u32,
    vzctl: PathBuf,
    init: Init,
    console: Option<Console>,
    meter: Option<Meter>,
    due: Instant,
    /// Kills for want of memory that were told.
    told: u64,
    teller: Option<Child>,
    saver: Option<Saver>,
    mender: Option<Child>,
}

impl Watch {
    pub(crate) fn new(order: &Order, init: Init, master: Option<OwnedFd>) -> Self {
        let console = master.and_then(|master| Console::serve(&order.run_dir, master));
        let meter = Meter::of(order.ctid, &order.run_dir, init.name().pid);
        // An adopted VE's earlier ones were told by the monitor before.
        let told = meter.as_ref().map_or(0, Meter::oom_kills);
        Self {
            ctid: order.ctid,
            vzctl: order.vzctl.clone(),
            init,
            console,
            meter,
            due: Instant::now() + SAMPLE,
            told,
            teller: None,
            saver: Saver::await_in(&order.run_dir),
            mender: None,
        }
    }

    /// Returns only when `vzctl` could not be executed at the end.
    pub(crate) fn run(mut self) -> ExitCode {
        while !self.wait() {}
        self.tell_kills();
        let how = self.init.how_it_ended();
        drop(self.console.take());
        self.hand_over(&how)
    }

    /// One round; `true` when init has ended.
    fn wait(&mut self) -> bool {
        let (ended, of_saver, of_console) = {
            let init = self.init.fd();
            let mut fds = vec![PollFd::new(&init, PollFlags::IN)];
            if let Some(saver) = &self.saver {
                saver.register(&mut fds);
            }
            let before = fds.len();
            if let Some(console) = &self.console {
                console.register(&mut fds);
            }
            let left = self.due.saturating_duration_since(Instant::now());
            if poll(&mut fds, timespec(self.meter.as_ref().map(|_| left)).as_ref()).is_err() {
                return false;
            }
            let mut ready: Vec<PollFlags> = fds.iter().skip(1).map(PollFd::revents).collect();
            let console = ready.split_off(before - 1);
            (!fds[0].revents().is_empty(), ready, console)
        };
        if let Some(console) = &mut self.console {
            console.serve_ready(&of_console);
        }
        if !ended && self.saver.as_mut().is_some_and(|saver| saver.serve_ready(&of_saver)) {
            self.mend();
        }
        if !ended && Instant::now() >= self.due {
            self.sample();
        }
        ended
    }

    fn sample(&mut self) {
        if let Some(meter) = &self.meter {
            meter.keep();
        }
        self.tell_kills();
        self.due = Instant::now() + SAMPLE;
    }

    /// Has `vzctl` log what the kernel has killed in the VE for want of memory. Nobody waits for it: a log on a dead
    /// disk must not stop the monitor. What comes while one is at work is told by the next.
    fn tell_kills(&mut self) {
        let working = self.teller.as_mut().is_some_and(|teller| matches!(teller.try_wait(), Ok(None)));
        let kills = self.meter.as_ref().map_or(0, Meter::oom_kills);
        let Some(new) = kills.checked_sub(self.told).filter(|new| *new > 0 && !working) else { return };
        if let Some(child) = self.call(&["__oom", &self.ctid.to_string(), &new.to_string()]) {
            self.teller = Some(child);
            self.told = kills;
        }
    }

    /// Has `vzctl` let the VE go on, or end it, as it was left by whoever saved it.
    fn mend(&mut self) {
        // The one before has ended long since, with its saver.
        drop(self.mender.as_mut().map(Child::try_wait));
        self.mender = self.call(&["__mend", &self.ctid.to_string()]);
    }

    fn call(&self, words: &[&str]) -> Option<Child> {
        let mut vzctl = Command::new(&self.vzctl);
        vzctl.args(words).env_clear().env("PATH", vzsys::spawn::PATH);
        vzctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        vzctl.spawn().ok()
    }

    /// Becomes `vzctl`: it takes the lock, removes what is left of the VE, and starts it again if it
    /// rebooted. Exec, so that nothing of the monitor stays in memory.
    fn hand_over(&self, how: &str) -> ExitCode {
        let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let file = text(self.vzctl.as_os_str().as_bytes());
        let ctid = self.ctid.to_string();
        // Which life it was: until that has the lock, a verb may have begun another.
        let ProcRef { pid, start_time } = self.init.name();
        let (pid, start_time) = (pid.to_string(), start_time.to_string());
        let argv = ["vzctl", "__ended", &ctid, how, &pid, &start_time].map(|word| text(word.as_bytes()));
        let env = [format!("PATH={}", vzsys::spawn::PATH)].map(|entry| text(entry.as_bytes()));
        let _ = nix::unistd::execve(&file, &argv, &env);
        ExitCode::from(3)
    }
}
