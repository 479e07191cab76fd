//! Serves a VE the files that stand for the kernel's in its `/proc` and `/sys`, and its beancounters; and the host the
//! tables of all VEs.
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
mod files;
mod of_host;
mod of_ve;
mod wire;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use ve::monitor::Charge;
use ve::state::State;
use ve::views::LOCK;
use vzconf::{Ctid, Paths};
use vzsys::fuse::Connection;
use vzsys::launch;
use vzsys::mount::Detached;
use vzsys::process::{PidFd, timespec};
use vzsys::raw::{self, Cloned};
use vzsys::{Call, Result};

use self::desk::{Desk, Next};
use self::files::Files;
use self::of_host::HostFiles;
use self::of_ve::VeFiles;

/// When the first keeper comes.
const FIRST: Duration = Duration::from_millis(50);
/// How often a keeper is tried for, when none can be made.
const AGAIN: Duration = Duration::from_secs(1);
/// How long something else than a request may go unnoticed: longer than until the next tick of the clock, to which no
/// timer has to be set.
const LOOK: Duration = Duration::from_millis(20);
/// The argument that makes us the host's server.
pub(crate) const WORD: &str = "proc";
/// The argument that makes us the server of a running VE whose servers were killed.
pub(crate) const MEND: &str = "views";
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
        name(charge.ctid);
        if let Ok(Some(init)) = charge.init.open()
            // Whatever the monitor had open is not ours.
            && raw::close_all_but(&[connection.as_fd(), init.as_fd()]).is_ok()
        {
            // Without the lock nobody would know that we are gone, and that is all.
            let lock = File::create(charge.run_dir.join(LOCK)).ok().filter(|lock| lock.try_lock().is_ok());
            serve_ve(connection, init, &charge, lock);
        }
        raw::exit_now(0);
    }
    Ok(())
}

/// Until the VE has ended, or has unmounted all.
fn serve_ve(connection: Connection, init: PidFd, charge: &Charge, lock: Option<File>) {
    let desk = Desk::new(VeFiles::new(charge, lock.as_ref()));
    let mut server = Server { connection, init: Some(init), desk, gone: false };
    server.work();
    if server.gone && lock.is_some() {
        // The VE wants none: this is nobody's to mend.
        let _ = std::fs::remove_file(charge.run_dir.join(LOCK));
    }
    // Held until here, by the copies as well.
    drop(lock);
}

/// `vzmon views CTID`: mounts the views of a VE anew and serves them, when nobody else does.
pub(crate) fn mend_main(ctid: Option<String>) -> ExitCode {
    let Some(ctid) = ctid.and_then(|word| word.parse::<Ctid>().ok()) else { return ExitCode::from(2) };
    match mend(&Paths::host().run_dir(ctid), ctid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}

fn mend(run_dir: &Path, ctid: Ctid) -> Result<()> {
    let lock = File::open(run_dir.join(LOCK)).ok().filter(|lock| lock.try_lock().is_ok());
    let (Some(lock), Some(state)) = (lock, State::load(run_dir)) else { return Ok(()) };
    let Some(init) = state.init.open()? else { return Ok(()) };
    let (connection, views) = open()?;
    name(ctid.get());
    // Somebody has to answer what is asked while they are put into place.
    if matches!(raw::clone3(raw::CLONE_PARENT, None, 0)?, Cloned::Child) {
        // It asks what we serve: with the connection in its own hands it would wait for us for ever when we are killed,
        // and all readers with it. The lock it keeps: nobody else may put anything there until it has ended.
        drop(connection);
        let done = launch::put_again(init.as_fd(), &ve::views::places(), &views);
        raw::exit_now(i32::from(done.is_err()));
    }
    drop(views);
    let base = state.ids.map_or(0, |ids| ids.base);
    let charge = Charge { ctid: ctid.get(), run_dir: run_dir.to_owned(), init: state.init, base, load: true };
    serve_ve(connection, init, &charge, Some(lock));
    Ok(())
}

/// `vzmon proc`: serves the host's tables at `/run/vz/proc` until that is unmounted. One at a time.
pub(crate) fn host_main() -> ExitCode {
    let paths = Paths::host();
    match serve_host(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}

fn serve_host(paths: &Paths) -> Result<()> {
    let place = ve::host_files::place(paths);
    let lock = ve::host_files::lock(paths).call("open", || place.display().to_string())?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    // What is left of those who were killed.
    vzsys::mount::umount_lazy(&place)?;
    std::fs::create_dir_all(&place).call("mkdir", || place.display().to_string())?;
    let (connection, mount) = open()?;
    name(0);
    mount.attach(&place)?;
    drop(mount);
    let desk = Desk::new(HostFiles::new(paths.clone(), Some(&lock)));
    Server { connection, init: None, desk, gone: false }.work();
    // Held until here, by the copies as well.
    drop::<File>(lock);
    Ok(())
}

fn name(ctid: u32) {
    let name = std::ffi::CString::new(format!("vzviews {ctid}")).unwrap_or_default();
    let _ = rustix::thread::set_name(&name);
    // The last to be chosen when memory is short, where we may say so.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
}

/// All that both of us have.
struct Server<F: Files> {
    connection: Connection,
    /// With it the VE ends.
    init: Option<PidFd>,
    desk: Desk<F>,
    /// It is mounted nowhere any more.
    gone: bool,
}

/// Why a role ends.
enum Then {
    /// The VE is gone.
    End,
    /// The other one is: we are the server now, and need a keeper.
    Go,
}

impl Then {
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::End => Self::End,
            Self::Go => next(),
        }
    }
}

impl<F: Files> Server<F> {
    /// Until the VE has ended. It waits for its first answers while it starts: a keeper comes after them.
    fn work(&mut self) {
        if matches!(self.serve(None, FIRST), Then::End) {
            return;
        }
        loop {
            let me = rustix::process::getpid();
            let then = match raw::clone3(0, None, Signal::CHILD.as_raw()) {
                Ok(Cloned::Child) => self.keep(me).and(|| self.succeed()),
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
    fn keep(&mut self, server: Pid) -> Then {
        self.desk.stand_by();
        let process = PidFd::open(server.as_raw_nonzero().get()).ok().flatten();
        // While it is our parent nobody else has its number.
        let Some(process) = process.filter(|_| rustix::process::getppid() == Some(server)) else {
            return Then::Go;
        };
        loop {
            let (init, server) = (self.init_fd(), process.as_fd());
            let mut fds = vec![PollFd::new(&server, PollFlags::IN)];
            fds.extend(init.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            if poll(&mut fds, None).is_err() {
                continue;
            }
            return if ready(&fds, 1) { Then::End } else { Then::Go };
        }
    }

    /// From keeper to server. A keeper comes only where there is still something to serve: the server that had nothing
    /// left to do ended as one does that was killed.
    fn succeed(&mut self) -> Then {
        self.desk.inherit();
        // Somebody was killed with this in his hands.
        self.desk.serve(&mut self.connection);
        let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
        let looked = poll(&mut fds, timespec(Some(Duration::ZERO)).as_ref());
        self.gone = looked.is_ok() && fds[0].revents().contains(PollFlags::ERR);
        if self.gone { Then::End } else { Then::Go }
    }

    /// Without a keeper for a while only.
    fn serve(&mut self, keeper: Option<&PidFd>, alone: Duration) -> Then {
        let begun = Instant::now();
        let mut looked = begun;
        let mut wake = Wake::default();
        loop {
            if keeper.is_none() && begun.elapsed() >= alone {
                return Then::Go;
            }
            self.desk.tick();
            let left = if keeper.is_none() { Some(alone) } else { self.desk.left() };
            let round = if looked.elapsed() < LOOK && self.asks_at_once() {
                Some(Round { asked: true, ..Round::default() })
            } else {
                let round = self.wait(keeper, left);
                looked = Instant::now();
                round
            };
            let answered = match round {
                Some(Round { ended: true, .. }) => return Then::End,
                Some(Round { asked: true, .. }) => self.answer(&mut wake),
                Some(Round { alone: true, .. }) => return Then::Go,
                _ => Ok(()),
            };
            if answered.is_err() {
                self.gone = true;
                return Then::End;
            }
        }
    }

    /// Answers the request that is there, and those that follow at once.
    fn answer(&mut self, wake: &mut Wake) -> Result<()> {
        let mut since = None;
        loop {
            let next = match self.connection.receive()? {
                Some(_) => self.desk.serve(&mut self.connection),
                None if since.is_some_and(|since: Instant| since.elapsed() < Wake::LONG) => continue,
                None => {
                    wake.slept(since.is_some());
                    return Ok(());
                }
            };
            if next == Next::Whenever || !wake.stays() {
                return Ok(());
            }
            since = Some(Instant::now());
        }
    }

    fn init_fd(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(AsFd::as_fd)
    }

    /// Whoever was answered mostly asks the next question at once. To wait for that alone takes less time than to wait
    /// for all that may happen.
    fn asks_at_once(&self) -> bool {
        let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
        poll(&mut fds, timespec(Some(LOOK)).as_ref()).is_ok_and(|n| n > 0)
    }

    /// `None` when nothing came in time.
    fn wait(&self, keeper: Option<&PidFd>, left: Option<Duration>) -> Option<Round> {
        let (init, keeper) = (self.init_fd(), keeper.map(AsFd::as_fd));
        let mut fds = vec![PollFd::new(&self.connection, PollFlags::IN)];
        fds.extend(init.iter().chain(&keeper).map(|fd| PollFd::new(fd, PollFlags::IN)));
        if !poll(&mut fds, timespec(left).as_ref()).is_ok_and(|n| n > 0) {
            return None;
        }
        let of_keeper = if init.is_some() { 2 } else { 1 };
        Some(Round {
            asked: ready(&fds, 0),
            ended: init.is_some() && ready(&fds, 1),
            alone: ready(&fds, of_keeper),
        })
    }
}

/// Whether to stay awake until a request that is sure to come. A reader on another processor is answered without waking
/// us first, which takes longer than all the rest; one that waits for ours would only be held up.
#[derive(Default)]
struct Wake {
    /// For so many requests it is not tried again.
    rest: u32,
}

impl Wake {
    /// Longer than it takes to wake a reader.
    const LONG: Duration = Duration::from_micros(50);
    /// After this many requests the reader may have moved.
    const PAUSE: u32 = 200;

    fn stays(&mut self) -> bool {
        self.rest = self.rest.saturating_sub(1);
        self.rest == 0
    }

    /// Nothing came in time.
    fn slept(&mut self, tried: bool) {
        if tried {
            self.rest = Self::PAUSE;
        }
    }
}

/// What happened.
#[derive(Default)]
struct Round {
    ended: bool,
    asked: bool,
    alone: bool,
}

fn ready(fds: &[PollFd<'_>], at: usize) -> bool {
    fds.get(at).is_some_and(|fd| !fd.revents().is_empty())
}
