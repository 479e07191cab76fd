//! How long a caller's memory may keep us.
//!
//! Reading it takes what its page faults take. With a FUSE file below it that is as long as the caller wants, and not
//! even a signal ends it. So the server sets a timer that the keeper waits for: then the server is given up, and the
//! keeper goes on in its place.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use vzsys::process::{PidFd, is_held};
use vzsys::{Call, Result};

/// Longer than a page from a slow disk takes.
const PATIENCE: Duration = Duration::from_millis(500);
/// Once somebody has used it up, others get this much,
const WARY: Duration = Duration::from_millis(20);
/// for so long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// A killed server that nobody holds has ended by then.
const ENDS: Duration = Duration::from_millis(200);
/// How often it is asked whether somebody does.
const STEP: Duration = Duration::from_millis(4);
/// As many servers may be held. Then no memory is read any more until one is let go.
const HELD: usize = 4;

/// As a time to expire: not at all. As a time to wait: none.
const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The timer that both have, and those who met its end.
#[derive(Debug)]
pub(super) struct Watchdog {
    timer: OwnedFd,
    held: RefCell<Vec<PidFd>>,
    last: Cell<Option<Instant>>,
}

impl Watchdog {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).call("timerfd_create", || "")?;
        Ok(Self { timer, held: RefCell::default(), last: Cell::new(None) })
    }

    fn set(&self, after: Duration) {
        let it_value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        };
        let timer = Itimerspec { it_interval: NEVER, it_value };
        // Of valid values it cannot fail.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }

    /// Does what a caller's memory may hold up, unless too many are held up by it already.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let held = &mut *self.held.borrow_mut();
        held.retain(|server| !server.wait_ended(Some(Duration::ZERO)).unwrap_or(false));
        if held.len() >= HELD {
            return None;
        }
        let wary = self.last.get().is_some_and(|last| last.elapsed() < REMEMBERED);
        self.set(if wary { WARY } else { PATIENCE });
        let done = work();
        self.set(Duration::ZERO);
        Some(done)
    }

    /// Whether somebody has used up all of it.
    pub(super) fn expired(&self) -> bool {
        let mut timer = [PollFd::new(&self.timer, PollFlags::IN)];
        poll(&mut timer, Some(&NEVER)).is_ok_and(|n| n > 0)
    }

    /// Whoever set it is dead.
    pub(super) fn call_off(&self) {
        self.set(Duration::ZERO);
    }

    /// The keeper gives a server up: whenever that is let go, it ends before it does anything more. One that was let go
    /// just now may be in the midst of something that the keeper must find done.
    pub(super) fn give_up(&self, server: PidFd, pid: Pid) {
        let _ = server.signal(Signal::KILL);
        let deadline = Instant::now() + ENDS;
        while !server.wait_ended(Some(STEP)).unwrap_or(true)
            && !is_held(pid.as_raw_nonzero().get())
            && Instant::now() < deadline
        {}
        self.held.borrow_mut().push(server);
        self.last.set(Some(Instant::now()));
    }
}

impl AsFd for Watchdog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
