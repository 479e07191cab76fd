//! `vzctl start --wait`: has the guest reached its default target?

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify;
use templates::dist::READY_MARK;
use vzsys::process::timespec;

use crate::state::State;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The guest is up.
    Up,
    /// The time is over.
    TimedOut,
    /// Its init has ended.
    Ended,
}

/// Waits until the guest makes its mark in its `/run`, which it does through a unit, an inittab line or
/// a service that were put there before init.
pub(crate) fn until_up(state: &State, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let Ok(Some(init)) = state.init.open() else { return Outcome::Ended };
    let mark = format!("/proc/{}/root{READY_MARK}", state.init.pid);
    let watch = watch_dir(&mark);
    loop {
        if std::fs::symlink_metadata(&mark).is_ok() {
            return Outcome::Up;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Outcome::TimedOut;
        }
        // Woken by the mark's directory; where that cannot be watched, by the clock.
        let pause =
            if watch.is_some() { left.min(Duration::from_secs(1)) } else { Duration::from_millis(50) };
        let mut fds = vec![rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)];
        if let Some(watch) = &watch {
            fds.push(rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN));
        }
        let _ = rustix::event::poll(&mut fds, timespec(Some(pause)).as_ref());
        if !fds[0].revents().is_empty() {
            return Outcome::Ended;
        }
        if let Some(watch) = &watch {
            let _ = rustix::io::read(watch, &mut [0_u8; 4096]);
        }
    }
}

fn watch_dir(mark: &str) -> Option<std::os::fd::OwnedFd> {
    let dir = Path::new(mark).parent()?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).ok()?;
    Some(watch)
}
