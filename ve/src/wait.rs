//! `vzctl start --wait`: has the guest reached its default target?

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, inotify, openat};
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
    let Ok(root) = root_of(state) else { return Outcome::Ended };
    let watch = watch_dir(&root);
    loop {
        if inside(&root, Path::new(READY_MARK)).is_ok() {
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

/// The root directory of init, which may have links anywhere in it.
fn root_of(state: &State) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, format!("/proc/{}/root", state.init.pid), flags, Mode::empty())
}

/// A path of the VE, as the VE sees it.
fn inside(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), how)
}

fn watch_dir(root: &OwnedFd) -> Option<OwnedFd> {
    let dir = inside(root, Path::new(READY_MARK).parent()?).ok()?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    inotify::add_watch(&watch, path, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).ok()?;
    Some(watch)
}
