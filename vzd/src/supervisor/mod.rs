//! `vzmon notify`: answers the calls of a VE that its filter stops (`--features procbc:on`, `sysinfo:on`).
//!
//! While nobody has a listener, every call that stops there fails; while somebody has it and does not answer, it
//! waits. So there are two of us, copies of one process with the same descriptors:
//!
//! ```text
//!  server ── answers; gives each new listener to ──▶ keeper ── waits for the server's end
//!    │ the keeper died: makes a new one                │ the server died: becomes the server, makes a new keeper,
//!    ▼                                                 ▼ finishes the call that was in the dead one's hands
//! ```
//! A server that a caller holds up (see [`watchdog`]) is ended only when its keeper has a keeper of its own.
//!
//! Neither needs the monitor, which may die and be replaced meanwhile. When the VE's init has ended, both end.

mod answer;
mod block;
mod caller;
mod path;
mod reply;
mod watchdog;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::Pid;
use ve::monitor::Charge;
use vzsys::channel::Channel;
use vzsys::notify::{FromSupervisor, InFlight, Listener, ToSupervisor};
use vzsys::process::{PidFd, timespec};
use vzsys::raw::{self, Cloned};
use vzsys::{Result, spawn};

use self::answer::Desk;
use self::watchdog::Watchdog;

/// The argument that makes us this program.
pub(crate) const WORD: &str = "notify";
/// How often a keeper is tried for, when none can be made.
const AGAIN: Duration = Duration::from_secs(1);
/// When a machine has stood still, a server's time is over before it could do anything.
const SECOND_LOOK: Duration = Duration::from_millis(20);
/// As many give a listener at the same time.
const VISITORS: usize = 64;

/// Starts the supervisor of a VE whose init was just cloned. Its socket is there on return.
pub(crate) fn begin(charge: &Charge) -> Result<()> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let path = ve::monitor::supervisor_socket(&charge.run_dir);
    let socket = crate::console::open_socket(&path)
        .map_err(|errno| vzsys::SysError::new("bind", path.display(), errno))?;
    let (ours, theirs) = Channel::pair()?;
    let pid = spawn::detached(&program, &[WORD, &charge.ctid.to_string()], &theirs, None)?;
    ours.send(charge, Some(socket.as_fd()))?;
    drop(theirs);
    // It leaves us at once: whoever ends it later, we would not wait for it.
    PidFd::open(pid)?.map_or(Ok(()), |process| process.reap().map(drop))
}

/// The program.
pub(crate) fn main() -> ExitCode {
    let Some(custody) = take_charge() else { return ExitCode::from(20) };
    match raw::clone3(0, None, 0) {
        Ok(Cloned::Child) => {
            custody.work();
            raw::exit_now(0)
        }
        Ok(Cloned::Parent { .. }) => raw::exit_now(0),
        Err(_) => ExitCode::from(3),
    }
}

fn take_charge() -> Option<Custody> {
    let channel = Channel::from_fd(raw::inherited_fd(spawn::CHANNEL_FD).ok()?);
    let (charge, socket) = channel.receive::<Charge>().ok()??;
    let name = std::ffi::CString::new(format!("vznotify {}", charge.ctid)).unwrap_or_default();
    let _ = rustix::thread::set_name(&name);
    // The last to be chosen when memory is short, where we may say so.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    let init = charge.init.open().ok()??;
    Some(Custody {
        charge,
        init,
        socket: socket?,
        listeners: Vec::new(),
        next: 1,
        in_flight: InFlight::new().ok()?,
        watchdog: Rc::new(Watchdog::new().ok()?),
    })
}

/// All that both of us have.
struct Custody {
    charge: Charge,
    init: PidFd,
    socket: OwnedFd,
    /// By numbers that both of us use.
    listeners: Vec<(u64, Listener)>,
    next: u64,
    in_flight: InFlight,
    watchdog: Rc<Watchdog>,
}

/// Server to keeper: the listener of that number comes with this message.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Keep(u64);

/// The server's view of the keeper.
struct Keeper {
    channel: Channel,
    process: PidFd,
}

/// Why a role ends.
enum Then {
    /// The VE is gone.
    End,
    /// The other one is: we are the server now, and need a keeper.
    Go,
    /// The same, once this server is given up.
    Relieve(Late),
}

/// A server that is held up by a caller.
struct Late {
    process: PidFd,
    pid: Pid,
    channel: Channel,
}

impl Custody {
    /// Until the VE has ended.
    fn work(mut self) {
        let mut late = None;
        loop {
            let me = rustix::process::getpid();
            let then = match self.split() {
                Ok((Cloned::Child, channel)) => {
                    // Its parent may be killed before it does this.
                    if let Some(Late { process, pid, .. }) = late.take() {
                        self.watchdog.give_up(process, pid);
                    }
                    self.keep(channel, me)
                }
                Ok((Cloned::Parent { pidfd, .. }, channel)) => {
                    let keeper = Keeper { channel, process: PidFd::from_fd(pidfd) };
                    self.relieve(late.take(), Some(&keeper));
                    let then = self.serve(Some(&keeper));
                    if matches!(then, Then::Go) {
                        let _ = keeper.process.reap();
                    }
                    then
                }
                Err(_) => {
                    self.relieve(late.take(), None);
                    self.serve(None)
                }
            };
            late = match then {
                Then::End => return,
                Then::Go => None,
                Then::Relieve(late) => Some(late),
            };
            self.watchdog.call_off();
        }
    }

    /// Ends a server. What it acknowledged until then we have, and our keeper.
    fn relieve(&mut self, late: Option<Late>, keeper: Option<&Keeper>) {
        let Some(Late { process, pid, channel }) = late else { return };
        self.watchdog.give_up(process, pid);
        let known = self.listeners.len();
        while channel.ready(Some(Duration::ZERO)).unwrap_or(false) && self.take_over(&channel) {}
        for (number, listener) in &self.listeners[known..] {
            let _ = keeper.map(|keeper| keeper.channel.send(&Keep(*number), Some(listener.as_fd())));
        }
    }

    fn split(&self) -> Result<(Cloned, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        let cloned = raw::clone3(0, None, libc_sigchld())?;
        let end = if matches!(cloned, Cloned::Child) { theirs } else { ours };
        Ok((cloned, end))
    }

    fn keep(&mut self, channel: Channel, server: Pid) -> Then {
        let process = PidFd::open(server.as_raw_nonzero().get()).ok().flatten();
        // While it is our parent nobody else has its number.
        let process = process.filter(|_| rustix::process::getppid() == Some(server));
        loop {
            let (ended, spoke, late, gone) = {
                let init = self.init.as_fd();
                let mut fds = vec![
                    PollFd::new(&init, PollFlags::IN),
                    PollFd::new(&channel, PollFlags::IN),
                    PollFd::new(&*self.watchdog, PollFlags::IN),
                ];
                // Their calls are the server's business; only their end is ours too.
                fds.extend(self.listeners.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::empty())));
                if poll(&mut fds, None).is_err() {
                    continue;
                }
                (ready(&fds, 0), ready(&fds, 1), ready(&fds, 2), unused(&fds[3..]))
            };
            if ended {
                return Then::End;
            }
            self.forget(&gone);
            if spoke && !self.take_over(&channel) {
                return Then::Go;
            }
            if late
                && !channel.ready(Some(SECOND_LOOK)).unwrap_or(true)
                && self.watchdog.expired()
                && let Some(process) = process
            {
                return Then::Relieve(Late { process, pid: server, channel });
            }
        }
    }

    /// One more listener; `false` when the server is gone.
    fn take_over(&mut self, server: &Channel) -> bool {
        match server.receive::<Keep>() {
            Ok(Some((Keep(number), fd))) => {
                self.listeners.extend(fd.map(|fd| (number, Listener::from_fd(fd))));
                self.next = number + 1;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    fn serve(&mut self, keeper: Option<&Keeper>) -> Then {
        let mut desk = Desk::new(&self.charge, Rc::clone(&self.watchdog));
        self.finish(&mut desk);
        let mut visitors = Vec::new();
        let begun = Instant::now();
        loop {
            if keeper.is_none() && begun.elapsed() >= AGAIN {
                return Then::Go;
            }
            desk.tick();
            let Some(round) = self.wait(keeper, &visitors, desk.left()) else { continue };
            if round.ended {
                return Then::End;
            }
            // First what would be lost to us by forgetting listeners: the places are those of before.
            for at in round.calls {
                self.take(at, &mut desk);
            }
            self.forget(&round.gone);
            for at in round.visitors.into_iter().rev() {
                let visitor = visitors.swap_remove(at);
                self.receive(&visitor, keeper);
            }
            if round.knock {
                self.accept(&mut visitors);
            }
            if round.keeper {
                return Then::Go;
            }
        }
    }

    /// Somebody was killed with this call in his hands.
    fn finish(&mut self, desk: &mut Desk) {
        let Some((number, call)) = self.in_flight.pending() else { return };
        if let Some((_, listener)) = self.listeners.iter().find(|(known, _)| *known == number) {
            desk.answer(listener, &call, self.in_flight.attempt());
        }
        self.in_flight.clear();
    }

    fn take(&mut self, at: usize, desk: &mut Desk) {
        let (number, listener) = &self.listeners[at];
        if let Some(call) = self.in_flight.receive(*number, listener) {
            desk.answer(listener, &call, self.in_flight.attempt());
        }
        self.in_flight.clear();
    }

    fn forget(&mut self, gone: &[usize]) {
        for at in gone.iter().rev() {
            self.listeners.swap_remove(*at);
        }
    }

    fn accept(&self, visitors: &mut Vec<Channel>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(visitor) = accept_with(&self.socket, flags)
            && visitors.len() < VISITORS
        {
            visitors.push(Channel::from_fd(visitor));
        }
    }

    /// A listener is acknowledged when both of us have it.
    fn receive(&mut self, visitor: &Channel, keeper: Option<&Keeper>) {
        let Ok(Some((ToSupervisor::Serve, Some(fd)))) = visitor.receive::<ToSupervisor>() else { return };
        let number = self.next;
        self.next += 1;
        // One that cannot take it is dead, and its successor has it from us.
        let _ = keeper.map(|keeper| keeper.channel.send(&Keep(number), Some(fd.as_fd())));
        self.listeners.push((number, Listener::from_fd(fd)));
        let _ = visitor.send(&FromSupervisor::Serving, None);
    }

    /// `None` when nothing came in time.
    fn wait(&self, keeper: Option<&Keeper>, visitors: &[Channel], left: Option<Duration>) -> Option<Round> {
        let init = self.init.as_fd();
        let mut fds = vec![PollFd::new(&init, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(self.listeners.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        fds.extend(visitors.iter().map(|visitor| PollFd::new(visitor, PollFlags::IN)));
        fds.extend(keeper.map(|keeper| PollFd::new(&keeper.channel, PollFlags::IN)));
        let timeout = if keeper.is_none() { Some(AGAIN) } else { left };
        if !poll(&mut fds, timespec(timeout).as_ref()).is_ok_and(|n| n > 0) {
            return None;
        }
        let listeners = 2..2 + self.listeners.len();
        let visitors = listeners.end..listeners.end + visitors.len();
        Some(Round {
            ended: ready(&fds, 0),
            knock: ready(&fds, 1),
            calls: calls(&fds[listeners.clone()]),
            gone: unused(&fds[listeners]),
            keeper: ready(&fds, visitors.end),
            visitors: (0..visitors.len()).filter(|at| ready(&fds, visitors.start + at)).collect(),
        })
    }
}

/// What is to be done, listeners and visitors by their places.
struct Round {
    ended: bool,
    knock: bool,
    keeper: bool,
    calls: Vec<usize>,
    gone: Vec<usize>,
    visitors: Vec<usize>,
}

fn ready(fds: &[PollFd<'_>], at: usize) -> bool {
    fds.get(at).is_some_and(|fd| !fd.revents().is_empty())
}

fn calls(listeners: &[PollFd<'_>]) -> Vec<usize> {
    (0..listeners.len()).filter(|at| listeners[*at].revents().contains(PollFlags::IN)).collect()
}

fn unused(listeners: &[PollFd<'_>]) -> Vec<usize> {
    let is = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR);
    (0..listeners.len()).filter(|at| is(&listeners[*at])).collect()
}

fn libc_sigchld() -> i32 {
    rustix::process::Signal::CHILD.as_raw()
}

/// Gives a listener of this VE to its supervisor.
pub(crate) fn entrust(run_dir: &Path, listener: &OwnedFd) -> Result<()> {
    vzsys::notify::entrust(&ve::monitor::supervisor_socket(run_dir), listener.as_fd())
}
