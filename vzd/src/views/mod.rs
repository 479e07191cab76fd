//! Serves a VE the files that stand for the kernel's in its `/proc` and `/sys`, and its beancounters.
//!
//! While nobody has the connection, reads fail; while somebody has it and does not answer, readers wait and cannot
//! even be killed. So there are two of us, copies of one process that share the request in flight:
//!
//! ```text
//!  server ── answers                         keeper ── waits for the server's end
//!    │ the keeper died: makes a new one        │ the server died: answers what was in its hands, goes on as
//!    ▼                                         ▼ the server, makes a new keeper
//! ```
//! Neither needs the monitor, which may die and be replaced meanwhile. When the VE's init has ended, both end, and what
//! is still read there fails. Neither is in the VE's cgroups: a frozen VE is answered like any other.

mod desk;
mod tree;
mod wire;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use ve::monitor::Charge;
use vzsys::Result;
use vzsys::fuse::Connection;
use vzsys::mount::Detached;
use vzsys::process::{PidFd, timespec};
use vzsys::raw::{self, Cloned};

use self::desk::Desk;

/// When the first keeper comes.
const FIRST: Duration = Duration::from_millis(50);
/// How often a keeper is tried for, when none can be made.
const AGAIN: Duration = Duration::from_secs(1);
/// As mount tables show it.
const SOURCE: &str = "vzproc";

/// A file system that nobody serves yet.
pub(crate) fn open() -> Result<(Connection, Detached)> {
    Connection::open(SOURCE)
}

/// Serves it from now on, until the VE has ended. The caller keeps nothing of it.
pub(crate) fn begin(connection: Connection, charge: Charge) -> Result<()> {
    // Not our child, whom nobody would wait for, but one of our parent, which ends soon.
    if matches!(raw::clone3(raw::CLONE_PARENT, None, 0)?, Cloned::Child) {
        if let Some(server) = Server::new(connection, &charge) {
            server.work();
        }
        raw::exit_now(0);
    }
    Ok(())
}

/// All that both of us have.
struct Server {
    connection: Connection,
    init: PidFd,
    desk: Desk,
}

/// Why a role ends.
enum Then {
    /// The VE is gone.
    End,
    /// The other one is: we are the server now, and need a keeper.
    Go,
}

impl Server {
    fn new(connection: Connection, charge: &Charge) -> Option<Self> {
        let name = std::ffi::CString::new(format!("vzviews {}", charge.ctid)).unwrap_or_default();
        let _ = rustix::thread::set_name(&name);
        // The last to be chosen when memory is short, where we may say so.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
        let init = charge.init.open().ok()??;
        // Whatever the monitor had open is not ours.
        raw::close_all_but(&[connection.as_fd(), init.as_fd()]).ok()?;
        Some(Self { connection, init, desk: Desk::new(charge) })
    }

    /// Until the VE has ended. It waits for its first answers while it starts: a keeper comes after them.
    fn work(mut self) {
        if matches!(self.serve(None, FIRST), Then::End) {
            return;
        }
        loop {
            let me = rustix::process::getpid();
            let then = match raw::clone3(0, None, Signal::CHILD.as_raw()) {
                Ok(Cloned::Child) => {
                    let then = self.keep(me);
                    self.desk.inherit();
                    then
                }
                Ok(Cloned::Parent { pidfd, .. }) => {
                    let keeper = PidFd::from_fd(pidfd);
                    let then = self.serve(Some(&keeper), AGAIN);
                    if matches!(then, Then::Go) {
                        let _ = keeper.reap();
                    }
                    then
                }
                Err(_) => self.serve(None, AGAIN),
            };
            if matches!(then, Then::End) {
                return;
            }
        }
    }

    /// Until the server has ended.
    fn keep(&self, server: Pid) -> Then {
        let process = PidFd::open(server.as_raw_nonzero().get()).ok().flatten();
        // While it is our parent nobody else has its number.
        let Some(process) = process.filter(|_| rustix::process::getppid() == Some(server)) else {
            return Then::Go;
        };
        loop {
            let (init, server) = (self.init.as_fd(), process.as_fd());
            let mut fds = [PollFd::new(&init, PollFlags::IN), PollFd::new(&server, PollFlags::IN)];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if ready(&fds, 0) {
                return Then::End;
            }
            return Then::Go;
        }
    }

    /// Without a keeper for a while only.
    fn serve(&mut self, keeper: Option<&PidFd>, alone: Duration) -> Then {
        // Somebody was killed with this in his hands.
        self.desk.serve(&mut self.connection);
        let begun = Instant::now();
        loop {
            if keeper.is_none() && begun.elapsed() >= alone {
                return Then::Go;
            }
            self.desk.tick();
            let left = if keeper.is_none() { Some(alone) } else { self.desk.left() };
            match self.wait(keeper, left) {
                Some(Round { ended: true, .. }) => return Then::End,
                Some(Round { asked: true, .. }) => match self.connection.receive() {
                    Ok(Some(_)) => self.desk.serve(&mut self.connection),
                    Ok(None) => {}
                    // It is mounted nowhere any more.
                    Err(_) => return Then::End,
                },
                Some(Round { alone: true, .. }) => return Then::Go,
                _ => {}
            }
        }
    }

    /// `None` when nothing came in time.
    fn wait(&self, keeper: Option<&PidFd>, left: Option<Duration>) -> Option<Round> {
        let init = self.init.as_fd();
        let keeper_fd = keeper.map(AsFd::as_fd);
        let mut fds = vec![PollFd::new(&init, PollFlags::IN), PollFd::new(&self.connection, PollFlags::IN)];
        fds.extend(keeper_fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if !poll(&mut fds, timespec(left).as_ref()).is_ok_and(|n| n > 0) {
            return None;
        }
        Some(Round { ended: ready(&fds, 0), asked: ready(&fds, 1), alone: ready(&fds, 2) })
    }
}

/// What happened.
struct Round {
    ended: bool,
    asked: bool,
    alone: bool,
}

fn ready(fds: &[PollFd<'_>], at: usize) -> bool {
    fds.get(at).is_some_and(|fd| !fd.revents().is_empty())
}
