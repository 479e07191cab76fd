//! The one place that starts programs of the host.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::raw::{self, Cloned};

/// Where programs of the host are looked for; `PATH` of the caller is not trusted.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The number under which a detached program finds its channel.
pub const CHANNEL_FD: i32 = 3;

/// Finds a program of the host by its absolute path.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// A host program with a scrubbed environment: `PATH`, `HOME=/`, `TERM=linux` and what is added.
///
/// # Errors
/// `ENOENT` when it is not installed.
pub fn command(name: &str) -> Result<Command> {
    let path = find(name).ok_or_else(|| SysError::new("execve", name, Errno::NOENT))?;
    Ok(program(&path))
}

/// The same of a program whose path is known.
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the spawner
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", PATH).env("HOME", "/").env("TERM", "linux").stdin(Stdio::null());
    command
}

/// Runs a command with `input` on its standard input and collects what it prints.
///
/// # Errors
/// The errno of starting it or of the pipes.
pub fn feed(mut command: Command, input: &[u8]) -> Result<(ExitStatus, String, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().call("execve", || &name)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(SysError::from_io("write", &name, &error));
            }
            _ => {}
        }
    }
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut out).call("read", || &name)?;
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut err).call("read", || &name)?;
    }
    let status = child.wait().call("waitpid", || &name)?;
    Ok((status, out, err))
}

/// Starts a program that outlives us: own session, nothing of ours but the channel (as descriptor 3),
/// in a cgroup v2 directory where one is given. The caller must be single-threaded.
///
/// # Errors
/// The errno of clone3(2). A program that cannot be executed closes the channel.
pub fn detached(
    program: &Path,
    arguments: &[&str],
    channel: &Channel,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<i32> {
    let file = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| SysError::new("execve", program.display(), Errno::INVAL))?;
    let argv: Vec<CString> = std::iter::once(&file)
        .cloned()
        .chain(arguments.iter().filter_map(|text| CString::new(*text).ok()))
        .collect();
    let env = [format!("PATH={PATH}"), "HOME=/".to_owned(), "TERM=linux".to_owned()]
        .map(|text| CString::new(text).unwrap_or_default());
    match raw::clone3(0, cgroup, libc::SIGCHLD)? {
        Cloned::Parent { pid, .. } => Ok(pid),
        Cloned::Child => {
            if detach(channel).is_ok() {
                let _ = nix::unistd::execve(&file, &argv, &env);
            }
            raw::exit_now(127)
        }
    }
}

fn detach(channel: &Channel) -> Result<()> {
    rustix::process::setsid().call("setsid", || "")?;
    rustix::process::chdir("/").call("chdir", || "/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open", || "/dev/null")?;
    // Above the numbers that are about to be overwritten.
    let keep = rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), 10).call("fcntl", || "F_DUPFD")?;
    for number in 0..3 {
        raw::dup_onto(null.as_fd(), number)?;
    }
    raw::cloexec_from(3)?;
    raw::dup_onto(keep.as_fd(), CHANNEL_FD)?;
    // `null` may have been one of the numbers below 3.
    std::mem::forget(null);
    raw::reset_signals();
    Ok(())
}

/// Runs `work` in a copy of this process that outlives it, with no files of ours open but `/dev/null`,
/// at the lowest priority. When it cannot be started, the work is done here and now.
pub fn in_background(work: impl FnOnce()) {
    match raw::clone3(0, None, 0) {
        Ok(Cloned::Parent { .. }) => {}
        Err(_) => work(),
        Ok(Cloned::Child) => {
            if quiet_copy().is_ok() {
                work();
            }
            raw::exit_now(0)
        }
    }
}

fn quiet_copy() -> Result<()> {
    // Whoever waits for the end of a pipe of ours must not wait for the background work.
    alone(&[])?;
    let _ = rustix::process::nice(19);
    Ok(())
}

/// Closes descriptors, in their order, in a process of its own, once we no longer have them: closing the last one of a mount may
/// take as long as the kernel needs to sync the disk below it. When it cannot be started, they are closed here.
pub fn close_in_background(fds: Vec<OwnedFd>) {
    let Ok((wait, ours)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else { return };
    match raw::clone3(0, None, 0) {
        Ok(Cloned::Parent { .. }) | Err(_) => {
            drop(fds);
            drop(ours);
        }
        Ok(Cloned::Child) => {
            let kept: Vec<BorrowedFd<'_>> = std::iter::once(&wait).chain(&fds).map(AsFd::as_fd).collect();
            let _ = alone(&kept);
            let _ = rustix::io::read(&wait, &mut [0_u8; 1]);
            // One by one: the end of a process closes a lock without waiting for the mount before it.
            drop(fds);
            raw::exit_now(0)
        }
    }
}

/// Leaves a copy of this process nothing of ours but these, in a session of its own.
fn alone(kept: &[BorrowedFd<'_>]) -> Result<()> {
    rustix::process::setsid().call("setsid", || "")?;
    rustix::process::chdir("/").call("chdir", || "/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).call("open", || "/dev/null")?;
    for number in 0..3 {
        raw::dup_onto(null.as_fd(), number)?;
    }
    // It is closed with all others below.
    std::mem::forget(null);
    raw::close_all_but(kept)
}

/// A copy of this process that does one thing beside it.
#[derive(Debug)]
pub struct Beside {
    pidfd: OwnedFd,
    code: Option<i32>,
}

impl Beside {
    /// Does `work` in a copy of this process, in a session of its own, with nothing of ours open but `kept`, which we
    /// have no more. What it returns is the copy's exit code. The caller must be single-threaded.
    ///
    /// # Errors
    /// The errno of clone3(2).
    pub fn start(kept: Vec<OwnedFd>, work: impl FnOnce(Vec<OwnedFd>) -> i32) -> Result<Self> {
        match raw::clone3(0, None, libc::SIGCHLD)? {
            Cloned::Parent { pidfd, .. } => Ok(Self { pidfd, code: None }),
            Cloned::Child => {
                let open: Vec<BorrowedFd<'_>> = kept.iter().map(AsFd::as_fd).collect();
                let code = if alone(&open).is_ok() { work(kept) } else { 127 };
                raw::exit_now(code)
            }
        }
    }

    /// The exit code of one that has ended; -1 when a signal ended it. With `wait` it is waited for.
    pub fn ended(&mut self, wait: bool) -> Option<i32> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        if self.code.is_none() {
            let options = WaitIdOptions::EXITED;
            let options = if wait { options } else { options | WaitIdOptions::NOHANG };
            self.code = match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Ok(Some(status)) => Some(status.exit_status().unwrap_or(-1)),
                Ok(None) | Err(Errno::INTR) => None,
                Err(_) => Some(-1),
            };
        }
        self.code
    }

    /// Ends it.
    pub fn kill(&mut self) {
        if self.ended(false).is_none() {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
            self.ended(true);
        }
    }
}

/// Somebody who goes on when this process is killed; at the end of the value it is not needed any more.
#[derive(Debug)]
pub struct Heir(OwnedFd);

/// What an heir is told: from now on it is needed, it is not, it never will be.
const NEEDED: u8 = b'!';
const SPARED: u8 = b'-';
const OVER: u8 = b'.';

impl Heir {
    /// Does `work` in a copy of this process if this one ends before the value does, however it ends.
    ///
    /// # Errors
    /// The errno of pipe2(2) or clone3(2): then nobody would do it.
    pub fn appoint(work: impl FnOnce()) -> Result<Self> {
        let heir = Self::prepare(work)?;
        heir.arm()?;
        Ok(heir)
    }

    /// The same, but only from [`Heir::arm`] to [`Heir::disarm`]: for a process that is going to have several threads, and can
    /// appoint nobody any more then.
    ///
    /// # Errors
    /// As [`Heir::appoint`].
    pub fn prepare(work: impl FnOnce()) -> Result<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (wait, ours) = rustix::pipe::pipe_with(flags).call("pipe2", || "CLOEXEC")?;
        match raw::clone3(0, None, 0)? {
            Cloned::Parent { .. } => Ok(Self(ours)),
            Cloned::Child => {
                let ready = alone(&[wait.as_fd()]).is_ok();
                if inherits(&wait) && ready {
                    work();
                }
                raw::exit_now(0)
            }
        }
    }

    /// From now on it is needed.
    ///
    /// # Errors
    /// `EPIPE`: it was killed.
    pub fn arm(&self) -> Result<()> {
        self.tell(NEEDED)
    }

    /// It is not needed for now.
    pub fn disarm(&self) {
        // One that was killed needs no word.
        let _ = self.tell(SPARED);
    }

    fn tell(&self, word: u8) -> Result<()> {
        rustix::io::write(&self.0, &[word]).call("write", || "the heir's pipe").map(drop)
    }
}

/// Waits for the other side's end; returns whether it is to be gone on with.
fn inherits(wait: &OwnedFd) -> bool {
    let mut needed = false;
    let mut word = [0_u8; 1];
    loop {
        match rustix::io::read(wait, &mut word) {
            Err(Errno::INTR) => {}
            Ok(0) => return needed,
            Ok(_) if word[0] == NEEDED => needed = true,
            Ok(_) if word[0] == SPARED => needed = false,
            _ => return false,
        }
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = self.tell(OVER);
    }
}
