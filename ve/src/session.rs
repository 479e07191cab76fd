//! Programs in a running VE: pipes or a terminal between them and us.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use vzsys::join::Session;
use vzsys::process::{Ended, timespec};
use vzsys::{Call, Result, SysError};

/// How long a killed program may take to go.
const KILLED: Duration = Duration::from_secs(5);
/// How often a terminal that nobody in the VE has open is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a terminal is read after the end of its program: more than the kernel keeps of what that wrote,
/// and an end of what a process left behind goes on to write.
const LAST_WORDS: u32 = 64;

/// Pipes of a session: our ends and the program's.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Three pipes; the second value is what the program gets as its standard files.
pub(crate) fn pipes() -> Result<(Pipes, [OwnedFd; 3])> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call("pipe2", || "");
    let ((in_r, in_w), (out_r, out_w), (err_r, err_w)) = (pipe()?, pipe()?, pipe()?);
    for fd in [&in_w, &out_r, &err_r] {
        set_nonblocking(fd.as_fd())?;
        // They belong to the host's root. Programs that open /dev/stderr, of whatever user in the VE, open
        // them anew; nobody else has a way to them.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(0o666)).call("fchmod", || "pipe")?;
    }
    Ok((Pipes { stdin: in_w, stdout: out_r, stderr: err_r }, [in_r, out_w, err_w]))
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd).call("fcntl", || "F_GETFL")?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).call("fcntl", || "F_SETFL")
}

/// Signals that end us, caught; as before on drop.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What came after the program's end was meant for it too.
        while self.next().is_some() {}
        let _ = self.before.thread_set_mask();
    }
}

/// Signals that end us are for the program instead: what is typed at our terminal is meant for it.
/// Blocked first, so that none is lost between here and the poll.
pub(crate) fn catch_signals() -> Result<Signals> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
        set.add(signal);
    }
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).call("sigprocmask", || "SIG_BLOCK")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let fd = SignalFd::with_flags(&set, flags).call("signalfd", || "")?;
    Ok(Signals { fd, before })
}

/// Where the program's input comes from.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Our own standard input, while it is open.
    Ours,
    /// These bytes, then the end.
    Bytes(&'a [u8]),
}

/// Carries bytes between us and the program until it has ended; what it wrote by then is passed on.
/// A background process that keeps its output open does not hold us. A program that has not ended at
/// `deadline` is killed: `None`.
pub(crate) fn carry(
    session: &Session,
    pipes: Pipes,
    input: Input<'_>,
    signals: &Signals,
    deadline: Option<Instant>,
) -> Result<Option<Ended>> {
    let ours = rustix::stdio::stdin();
    let mut carrier = Carrier {
        stdin: Some(pipes.stdin),
        pending: match input {
            Input::Ours => Vec::new(),
            Input::Bytes(bytes) => bytes.to_vec(),
        },
        more: matches!(input, Input::Ours),
        outputs: [
            Some((pipes.stdout, rustix::stdio::stdout())),
            Some((pipes.stderr, rustix::stdio::stderr())),
        ],
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ready = carrier.wait(session, ours, signals, left)?;
        if ready.signal {
            pass_signals(session, signals);
        }
        carrier.feed(ours, ready.input, ready.stdin);
        carrier.drain(ready.outputs);
        if ready.ended {
            carrier.drain_rest();
            return session.process.reap().map(Some);
        }
        if left.is_some_and(|left| left.is_zero()) {
            kill_and_reap(session)?;
            return Ok(None);
        }
    }
}

/// Ends a program of a VE. One that is frozen or stuck in the kernel is left to the host's init.
pub(crate) fn kill_and_reap(session: &Session) -> Result<()> {
    let _ = kill(Pid::from_raw(-session.pid), Signal::SIGKILL);
    session.process.signal_number(Signal::SIGKILL as i32)?;
    if session.process.wait_ended(Some(KILLED))? { session.process.reap().map(drop) } else { Ok(()) }
}

struct Carrier<'a> {
    stdin: Option<OwnedFd>,
    pending: Vec<u8>,
    more: bool,
    outputs: [Option<(OwnedFd, BorrowedFd<'a>)>; 2],
}

#[derive(Default)]
struct Ready {
    ended: bool,
    signal: bool,
    input: bool,
    stdin: bool,
    outputs: [bool; 2],
}

impl Carrier<'_> {
    fn wait(
        &self,
        session: &Session,
        ours: BorrowedFd<'_>,
        signals: &Signals,
        left: Option<Duration>,
    ) -> Result<Ready> {
        let signals = signals.as_fd();
        let want = |yes: bool, flags| if yes { flags } else { PollFlags::empty() };
        let mut fds =
            vec![PollFd::new(&session.process, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let mut index = [None; 4];
        // Input is taken only as fast as the program reads: what follows us in a script keeps its share.
        let read_ours = self.stdin.is_some() && self.more && self.pending.is_empty();
        if read_ours {
            index[0] = Some(fds.len());
            fds.push(PollFd::from_borrowed_fd(ours, PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin {
            index[1] = Some(fds.len());
            fds.push(PollFd::new(stdin, want(!self.pending.is_empty(), PollFlags::OUT)));
        }
        for (i, output) in self.outputs.iter().enumerate() {
            if let Some((fd, _)) = output {
                index[2 + i] = Some(fds.len());
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll", "session", errno)),
        }
        let at = |i: Option<usize>| i.is_some_and(|i| !fds[i].revents().is_empty());
        Ok(Ready {
            ended: at(Some(0)),
            signal: at(Some(1)),
            input: at(index[0]),
            stdin: at(index[1]),
            outputs: [at(index[2]), at(index[3])],
        })
    }

    fn feed(&mut self, ours: BorrowedFd<'_>, input: bool, stdin: bool) {
        if input {
            let mut buffer = vec![0_u8; 65536];
            match rustix::io::read(ours, &mut buffer) {
                Ok(0) | Err(_) => self.more = false,
                Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
            }
        }
        let Some(fd) = &self.stdin else { return };
        if (input || stdin) && !self.pending.is_empty() {
            match rustix::io::write(fd, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.stdin = None,
            }
        } else if stdin {
            // The program has closed its input.
            self.stdin = None;
        }
        if self.pending.is_empty() && !self.more {
            self.stdin = None;
        }
    }

    /// Passes on what was written until now, and nothing that a process left behind goes on to write: it
    /// would hold us for ever.
    fn drain_rest(&mut self) {
        for (from, to) in self.outputs.iter().flatten() {
            let mut left = rustix::io::ioctl_fionread(from).unwrap_or(0);
            let mut buffer = vec![0_u8; 65536];
            while left > 0 {
                match rustix::io::read(from, &mut buffer) {
                    Ok(n) if n > 0 && write_all(*to, &buffer[..n]) => left = left.saturating_sub(n as u64),
                    Err(Errno::INTR) => {}
                    _ => break,
                }
            }
        }
    }

    /// Passes on what is there.
    fn drain(&mut self, ready: [bool; 2]) {
        for (output, ready) in self.outputs.iter_mut().zip(ready) {
            let Some((from, to)) = output else { continue };
            if !ready {
                continue;
            }
            let mut buffer = vec![0_u8; 65536];
            match rustix::io::read(&*from, &mut buffer) {
                Ok(n) if n > 0 => {
                    if !write_all(*to, &buffer[..n]) {
                        *output = None;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) | Err(_) => *output = None,
            }
        }
    }
}

/// Writes all of it, also to a non-blocking file; `false` when nobody reads it any more.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Passes signals to the program's process group (it leads a session of its own). `true` when the
/// terminal changed its size.
fn pass_signals(session: &Session, signals: &Signals) -> bool {
    let mut resized = false;
    while let Some(signal) = signals.next() {
        if signal == Signal::SIGWINCH {
            resized = true;
        } else {
            let group = Pid::from_raw(-session.pid);
            let _ = kill(group, signal);
            // A stopped program would not take it.
            let _ = kill(group, Signal::SIGCONT);
        }
    }
    resized
}

/// Takes the signals that came; `true` when none asked us to end.
pub(crate) fn only_resized(signals: &Signals) -> bool {
    let mut only = true;
    while let Some(signal) = signals.next() {
        only &= signal == Signal::SIGWINCH;
    }
    only
}

/// Our terminal in raw mode; put back on drop.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Copies the settings and size of our terminal to the program's.
fn copy_terminal(master: &OwnedFd) {
    if let Ok(settings) = tcgetattr(rustix::stdio::stdin()) {
        let _ = tcsetattr(master, OptionalActions::Now, &settings);
    }
    copy_size(master);
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Connects our terminal with the program's until it has ended. `typed` is entered first, as if by hand.
pub(crate) fn converse(session: &Session, typed: &[u8], signals: &Signals) -> Result<Ended> {
    let Some(master) = &session.terminal else {
        return Err(SysError::new("ioctl", "no terminal", Errno::NOTTY));
    };
    copy_terminal(master);
    let _raw = std::io::stdin().is_terminal().then(Raw::enter);
    set_nonblocking(master.as_fd())?;
    let mut line = Line { master, pending: typed.to_vec(), more: true, closed: false };
    let mut rest = LAST_WORDS;
    loop {
        let ready = line.wait(session, signals)?;
        if ready.signal && pass_signals(session, signals) {
            copy_size(master);
        }
        line.feed(ready.input, ready.stdin);
        let spoke = ready.outputs[0] && line.show();
        if ready.ended {
            rest -= 1;
            if !spoke || rest == 0 {
                return session.process.reap();
            }
        }
    }
}

/// A terminal of a VE and what is on its way to it: writing never waits, or two that both wait for the
/// other to read would wait for ever.
struct Line<'a> {
    master: &'a OwnedFd,
    pending: Vec<u8>,
    more: bool,
    /// Nobody in the VE has it open at the moment.
    closed: bool,
}

impl Line<'_> {
    fn wait(&self, session: &Session, signals: &Signals) -> Result<Ready> {
        let mut fds = vec![
            PollFd::new(&session.process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        if !self.closed {
            let out = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(self.master, PollFlags::IN | out));
        }
        let read_ours = self.more && self.pending.is_empty();
        if read_ours {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        match poll(&mut fds, timespec(self.closed.then_some(LOOK)).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll", "terminal", errno)),
        }
        let events = |i: usize| fds.get(i).map_or(PollFlags::empty(), PollFd::revents);
        let master = if self.closed { PollFlags::empty() } else { events(2) };
        Ok(Ready {
            ended: !events(0).is_empty(),
            signal: !events(1).is_empty(),
            input: read_ours && !events(if self.closed { 2 } else { 3 }).is_empty(),
            stdin: self.closed || master.contains(PollFlags::OUT),
            // A closed one is read all the same: somebody may have opened it again.
            outputs: [
                self.closed || master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
                false,
            ],
        })
    }

    fn feed(&mut self, input: bool, writable: bool) {
        if input {
            let mut buffer = [0_u8; 16384];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(n) if n > 0 => self.pending.extend_from_slice(&buffer[..n]),
                Ok(_) | Err(_) => {
                    self.more = false;
                    // The end of the input is what Ctrl-D would say.
                    self.pending.push(4);
                }
            }
        }
        if (input || writable) && !self.pending.is_empty() {
            match rustix::io::write(self.master, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// Passes on what the program says; `false` when it said nothing.
    fn show(&mut self) -> bool {
        let mut buffer = [0_u8; 16384];
        match rustix::io::read(self.master, &mut buffer) {
            Ok(n) if n > 0 => {
                self.closed = false;
                write_all(rustix::stdio::stdout(), &buffer[..n])
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.closed = false;
                false
            }
            // EIO: all its ends in the VE are closed.
            Ok(_) | Err(_) => {
                self.closed = true;
                false
            }
        }
    }
}

/// `/dev/null` as all three standard files.
pub(crate) fn nothing() -> Result<[OwnedFd; 3]> {
    let open = || {
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .call("open", || "/dev/null")
    };
    Ok([open()?, open()?, open()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_as_before_when_a_session_is_over() {
        let before = SigSet::thread_get_mask().unwrap();
        let signals = catch_signals().unwrap();
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        // One that came for the session is gone with it.
        drop(signals);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
