//! Processes, named so that a reused pid is never mistaken for the one that was meant.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::error::{Call, Result, SysError};
use crate::raw;

/// A process by pid and start time (field 22 of `/proc/PID/stat`, clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcRef {
    /// Process id in the host's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
}

impl ProcRef {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn of(pid: i32) -> Result<Self> {
        let start_time = start_time(pid).ok_or_else(|| SysError::new("open", stat_path(pid), Errno::SRCH))?;
        Ok(Self { pid, start_time })
    }

    /// Whether that process is still there and not a zombie.
    #[must_use]
    pub fn alive(&self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.dead)
    }

    /// Whether it was killed, be it that it has not noticed yet, or that it is on its way: a frozen one keeps its SIGKILL
    /// on cgroup v1, and goes with it on v2. Waits 50 ms to be sure that it was not.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        let deadline = Instant::now() + UNSEEN;
        loop {
            let going = read_stat(self.pid)
                .is_none_or(|stat| stat.start_time != self.start_time || stat.dead || stat.exiting);
            if going || kill_is_pending(self.pid) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(UNSEEN / 10);
        }
    }

    /// A pidfd of that process; `None` when it is gone.
    ///
    /// # Errors
    /// The errno of pidfd_open(2), other than `ESRCH`.
    pub fn open(&self) -> Result<Option<PidFd>> {
        let Some(fd) = PidFd::open(self.pid)? else { return Ok(None) };
        // Opened first, compared after: the number cannot have changed hands in between.
        Ok(self.alive().then_some(fd))
    }
}

/// Resets every signal to its default action and lets all through again: for what is about to be executed.
pub fn default_signals() {
    raw::reset_signals();
}

/// Holds all signals back, for [`next_signal`]. Also the first process of a PID namespace is then sent those that it
/// has no handler for.
pub fn hold_signals() {
    raw::block_signals();
}

/// Waits for one of the signals that are held back; `None` when none has come in time. Without a time it waits for
/// good.
#[must_use]
pub fn next_signal(timeout: Option<Duration>) -> Option<i32> {
    loop {
        match raw::wait_signal(timeout) {
            Ok(number) => return Some(number),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Sends a signal by its number, real-time ones too. A process that is gone needs none.
pub fn send(pid: i32, number: i32) {
    raw::kill(pid, number);
}

struct Stat {
    start_time: u64,
    dead: bool,
    waits: bool,
    /// It is on its way out of the kernel.
    exiting: bool,
    /// Wait status, of a zombie.
    exit_code: i32,
}

/// include/linux/sched.h
const PF_EXITING: u32 = 4;
/// Between the moment that a process takes its SIGKILL and the one that it begins to exit nothing tells of it.
const UNSEEN: Duration = Duration::from_millis(50);

fn stat_path(pid: i32) -> String {
    format!("/proc/{pid}/stat")
}

fn read_stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(stat_path(pid)).ok()?;
    // The command name may hold anything, ')' too: fields are counted from the last one.
    let end = text.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let (dead, waits) = (matches!(state, "Z" | "X" | "x"), state == "D");
    let exiting = fields.nth(5)?.parse::<u32>().is_ok_and(|flags| flags & PF_EXITING != 0);
    let start_time = fields.nth(12)?.parse().ok()?;
    let exit_code = fields.nth(29).and_then(|field| field.parse().ok()).unwrap_or(0);
    Some(Stat { start_time, dead, waits, exiting, exit_code })
}

fn kill_is_pending(pid: i32) -> bool {
    const KILL: u64 = 1 << (Signal::KILL.as_raw() - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & KILL != 0)
    })
}

/// The start time of a process, zombies included; `None` when there is no such pid.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    read_stat(pid).map(|stat| stat.start_time)
}

/// Whether it waits for something that no signal ends.
#[must_use]
pub fn is_held(pid: i32) -> bool {
    read_stat(pid).is_some_and(|stat| stat.waits)
}

/// How many threads this process has. One that was just joined may be on its way out of the kernel for
/// a moment; it is waited for.
#[must_use]
pub fn threads() -> usize {
    let count = || std::fs::read_dir("/proc/self/task").map_or(1, |dir| dir.count().max(1));
    let deadline = Instant::now() + Duration::from_millis(20);
    loop {
        match count() {
            1 => return 1,
            n if Instant::now() >= deadline => return n,
            _ => std::thread::yield_now(),
        }
    }
}

impl Ended {
    /// From a wait status, as wait(2) encodes it.
    fn from_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited(status >> 8 & 0xff),
            signal => Self::Killed(signal),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

/// A descriptor of one process (pidfd_open(2), 5.3).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Takes over a descriptor that came from clone3(2).
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens a process; `None` when there is no such pid.
    ///
    /// # Errors
    /// The errno of pidfd_open(2), other than `ESRCH`.
    pub fn open(pid: i32) -> Result<Option<Self>> {
        let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
        match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(SysError::new("pidfd_open", pid, errno)),
        }
    }

    /// Sends a signal; a process that is gone is no error.
    ///
    /// # Errors
    /// The errno of pidfd_send_signal(2), other than `ESRCH`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(SysError::new("pidfd_send_signal", format_args!("{signal:?}"), errno)),
        }
    }

    /// The same by number, for real-time signals.
    ///
    /// # Errors
    /// The errno of pidfd_send_signal(2), other than `ESRCH`.
    pub fn signal_number(&self, signal: i32) -> Result<()> {
        crate::raw::pidfd_signal(self.0.as_fd(), signal)
    }

    /// Waits until the process has ended or `timeout` is over; `true` when it has ended.
    ///
    /// # Errors
    /// The errno of poll(2).
    pub fn wait_ended(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match rustix::event::poll(&mut fds, timespec(left).as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("poll", "pidfd", errno)),
            }
        }
    }

    /// How a process ended that is not our child: by its pidfd (6.15), or from its zombie while there is
    /// one. `None` when nobody can tell any more.
    #[must_use]
    pub fn ended_elsewhere(&self, process: ProcRef) -> Option<Ended> {
        let zombie =
            || read_stat(process.pid).filter(|stat| stat.dead && stat.start_time == process.start_time);
        let status = zombie().map(|stat| stat.exit_code);
        status.or_else(|| crate::raw::pidfd_wait_status(self.0.as_fd())).map(Ended::from_status)
    }

    /// Reaps the process, which must be our child; blocks until it has ended.
    ///
    /// # Errors
    /// The errno of waitid(2).
    pub fn reap(&self) -> Result<Ended> {
        use rustix::process::{WaitId, WaitIdOptions};
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return Ok(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Ended::Exited(code),
                        (None, Some(signal)) => Ended::Killed(signal),
                        (None, None) => Ended::Killed(0),
                    });
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("waitid", "pidfd", errno)),
            }
        }
    }
}

/// Waits until one of two processes has ended or `timeout` is over; tells which have.
///
/// # Errors
/// The errno of poll(2).
pub fn first_ended(a: &PidFd, b: &PidFd, timeout: Duration) -> Result<(bool, bool)> {
    let mut fds = [PollFd::new(&a.0, PollFlags::IN), PollFd::new(&b.0, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timespec(Some(timeout)).as_ref()) {
        Ok(_) => Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
        Err(Errno::INTR) => Ok((false, false)),
        Err(errno) => Err(SysError::new("poll", "pidfds", errno)),
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A poll(2) timeout; `None` waits for ever.
#[must_use]
pub fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(t.subsec_nanos()),
    })
}

/// Opens a namespace of a process, such as `net`, for setns(2) or for netlink.
///
/// # Errors
/// The errno of open(2).
pub fn namespace(pid: i32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    rustix::fs::open(
        &path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .call("open", || path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::zombie_processes)] // reaped through its pidfd, after its zombie was looked at
    fn a_process_is_known_by_its_start_time_too() {
        let me = ProcRef::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(me.open().unwrap().is_some());
        let child = std::process::Command::new("false").spawn().unwrap();
        let number = ProcRef::of(i32::try_from(child.id()).unwrap()).unwrap();
        let fd = PidFd::open(number.pid).unwrap().unwrap();
        assert!(fd.wait_ended(Some(Duration::from_secs(10))).unwrap());
        assert_eq!(fd.ended_elsewhere(number), Some(Ended::Exited(1)));
        assert_eq!(fd.reap().unwrap(), Ended::Exited(1));
        let other = ProcRef { start_time: me.start_time + 1, ..me };
        assert!(!other.alive());
        assert!(other.open().unwrap().is_none());
    }

    #[test]
    fn who_was_killed_is_doomed_and_who_stands_still_is_not() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let number = ProcRef::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!number.is_doomed());
        send(number.pid, Signal::STOP.as_raw());
        assert!(!number.is_doomed());
        send(number.pid, Signal::KILL.as_raw());
        assert!(number.is_doomed());
        child.wait().unwrap();
        assert!(number.is_doomed());
    }
}
