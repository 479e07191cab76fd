//! Answering the system calls that [`crate::trap`] stops (seccomp_unotify(2)).
//!
//! Two processes have every listener: one answers, the other waits for its death and goes on in its place. The kernel
//! gives a call out once only; one that was given to a process which then died would wait for ever. So it is received
//! right into memory that both share ([`InFlight`]): a process that is killed in the kernel dies only when the call is
//! there, or was not taken at all.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::raw::last_errno;
use crate::trap::Abi;

const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (b'!' as u64) << 8 | number
}

const RECV: u64 = request(3, 0, size_of::<libc::seccomp_notif>());
const SEND: u64 = request(3, 1, size_of::<libc::seccomp_notif_resp>());
const ID_VALID: u64 = request(1, 2, size_of::<u64>());
const ADDFD: u64 = request(1, 3, size_of::<libc::seccomp_notif_addfd>());
const SET_FLAGS: u64 = request(1, 4, size_of::<u64>());

/// A stopped call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    id: u64,
    /// The thread that made it, in our pid namespace. Only while [`Listener::waits`] says so is it still that one.
    pub tid: i32,
    /// By which interface; `None` for one that the filter does not know.
    pub abi: Option<Abi>,
    /// The call's number there.
    pub number: i32,
    /// Its arguments as passed.
    pub arguments: [u64; 6],
}

impl From<libc::seccomp_notif> for Notification {
    fn from(from: libc::seccomp_notif) -> Self {
        Self {
            id: from.id,
            tid: i32::try_from(from.pid).unwrap_or(0),
            abi: Abi::from_audit(from.data.arch),
            number: from.data.nr,
            arguments: from.data.args,
        }
    }
}

/// Where the calls of one filter stop. When the last process under the filter has ended, poll(2) says `HUP`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes over what [`crate::trap::install`] returned.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        // The caller sleeps while we answer: better on its processor than on another that has to wake up (6.6).
        let sync_wake_up = 1;
        // SAFETY: SET_FLAGS takes its flags by value. An older kernel refuses, and is only slower.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS as _, sync_wake_up as libc::c_ulong) };
        Self(fd)
    }

    /// Whether the caller still waits for this answer. What was learned about `tid` before counts only then.
    #[must_use]
    pub fn waits(&self, call: &Notification) -> bool {
        // SAFETY: ID_VALID reads the number, which lives for the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID as _, &raw const call.id) == 0 }
    }

    /// The kernel carries the call out as if nothing had been.
    ///
    /// # Errors
    /// `ENOENT` when the caller is gone.
    pub fn proceed(&self, call: &Notification) -> Result<()> {
        self.send(call, 0, 0, SECCOMP_CONTINUE)
    }

    /// The call returns this.
    ///
    /// # Errors
    /// `ENOENT` when the caller is gone.
    pub fn answer(&self, call: &Notification, value: i64) -> Result<()> {
        self.send(call, value, 0, 0)
    }

    /// The call fails.
    ///
    /// # Errors
    /// `ENOENT` when the caller is gone.
    pub fn refuse(&self, call: &Notification, errno: Errno) -> Result<()> {
        self.send(call, 0, -errno.raw_os_error(), 0)
    }

    fn send(&self, call: &Notification, val: i64, error: i32, flags: u32) -> Result<()> {
        let mut response = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: the request's number says how large the response is; it lives for the call.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), SEND as _, &raw mut response) };
        if r == 0 { Ok(()) } else { Err(SysError::new("ioctl", "SECCOMP_IOCTL_NOTIF_SEND", last_errno())) }
    }

    /// The call returns a new descriptor of this file, both at once (5.14). This waits for the caller to take it, which
    /// no signal but a deadly one keeps it from.
    ///
    /// # Errors
    /// `ENOENT` when the caller is gone; others when it cannot have one more descriptor: it then still waits.
    pub fn give(&self, call: &Notification, file: BorrowedFd<'_>, close_on_exec: bool) -> Result<()> {
        let add = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: file.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
        };
        // SAFETY: the request's number says how large `add` is; the kernel reads it. `file` lives for the call.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), ADDFD as _, &raw const add) };
        if r >= 0 { Ok(()) } else { Err(SysError::new("ioctl", "SECCOMP_IOCTL_NOTIF_ADDFD", last_errno())) }
    }
}

const SECCOMP_CONTINUE: u32 = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[repr(C)]
struct Shared {
    listener: u64,
    attempts: u64,
    call: libc::seccomp_notif,
}

/// The one call that is being answered, in memory that survives whoever answers it. Copies of the process share it;
/// only one of them at a time may use it.
#[derive(Debug)]
pub struct InFlight(NonNull<Shared>);

impl InFlight {
    /// Nothing is in flight.
    ///
    /// # Errors
    /// The errno of mmap(2).
    pub fn new() -> Result<Self> {
        let length = size_of::<Shared>();
        // SAFETY: a new mapping where the kernel likes, nothing that exists is touched.
        let at = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        };
        let at = at.call("mmap", || length)?;
        NonNull::new(at.cast()).map(Self).ok_or_else(|| SysError::new("mmap", length, Errno::NOMEM))
    }

    /// Takes the next call, which must be there: poll(2) said so, and nobody else receives. `None` when its caller is
    /// gone meanwhile. `number` is what the listener is called by whoever may have to go on.
    pub fn receive(&mut self, number: u64, listener: &Listener) -> Option<Notification> {
        self.clear();
        let shared = self.0.as_ptr();
        // SAFETY: the mapping is a Shared, zeroed at first and never unmapped; nobody else writes to it. The request's
        // number says that the kernel writes a seccomp_notif, which must be zero before.
        let r = unsafe {
            (&raw mut (*shared).listener).write_volatile(number);
            (&raw mut (*shared).attempts).write_volatile(0);
            libc::ioctl(listener.0.as_raw_fd(), RECV as _, &raw mut (*shared).call)
        };
        if r == 0 { self.pending().map(|(_, call)| call) } else { None }
    }

    /// What was taken and not called answered: its listener's number and the call.
    #[must_use]
    pub fn pending(&self) -> Option<(u64, Notification)> {
        let shared = self.0.as_ptr();
        // SAFETY: as above; any bytes are a valid Shared.
        let (number, call) = unsafe {
            ((&raw const (*shared).listener).read_volatile(), (&raw const (*shared).call).read_volatile())
        };
        (call.id != 0).then(|| (number, call.into()))
    }

    /// How often the pending call was begun, this time included.
    pub fn attempt(&mut self) -> u64 {
        let attempts = &raw mut self.shared().attempts;
        // SAFETY: a live field of the mapping.
        unsafe {
            let now = attempts.read_volatile() + 1;
            attempts.write_volatile(now);
            now
        }
    }

    /// It is answered.
    pub fn clear(&mut self) {
        // SAFETY: a seccomp_notif is plain numbers, of which zero is one.
        let nothing = unsafe { std::mem::zeroed() };
        let call = &raw mut self.shared().call;
        // SAFETY: a live field of the mapping.
        unsafe { call.write_volatile(nothing) };
    }

    fn shared(&mut self) -> &mut Shared {
        // SAFETY: the mapping lives as long as the process, and by contract nobody else uses it now.
        unsafe { self.0.as_mut() }
    }
}

/// What is said to a VE's supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// The listener that comes with this message is to be served.
    Serve,
}

/// The supervisor's reply.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// The listener is in safe hands.
    Serving,
}

/// How long a supervisor that died may take to be replaced.
const REPLACED: Duration = Duration::from_secs(5);

/// Whether a supervisor listens at this socket.
#[must_use]
pub fn reachable(socket: &Path) -> bool {
    dial(socket).is_ok()
}

fn dial(path: &Path) -> Result<Channel> {
    let name = || path.display().to_string();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .call("socket", || "AF_UNIX, SOCK_SEQPACKET")?;
    // Where those queue up whom nobody receives, the queue may be full.
    set_socket_timeout(&socket, Timeout::Send, Some(REPLACED)).call("setsockopt", || "SO_SNDTIMEO")?;
    let address = SocketAddrUnix::new(path).call("connect", name)?;
    connect(&socket, &address).call("connect", name)?;
    Ok(Channel::from_fd(socket))
}

/// Gives a listener to the supervisor at this socket. Returns when more than one process has it.
///
/// # Errors
/// `ETIMEDOUT`, or the errno of connect(2).
pub fn entrust(socket: &Path, listener: BorrowedFd<'_>) -> Result<()> {
    let deadline = Instant::now() + REPLACED;
    while Instant::now() < deadline {
        let channel = dial(socket)?;
        // One that dies in the middle of this is replaced at once, and its successor asked.
        if channel.send(&ToSupervisor::Serve, Some(listener)).is_ok()
            && channel.ready_by(deadline)?
            && matches!(channel.receive(), Ok(Some((FromSupervisor::Serving, _))))
        {
            return Ok(());
        }
    }
    Err(SysError::new("entrust", socket.display(), Errno::TIMEDOUT))
}

/// Whether this is said of a supervisor that is there and does nothing, stopped for instance.
pub(crate) fn is_hanging(error: &SysError) -> bool {
    matches!((error.call(), error.errno()), ("entrust", Errno::TIMEDOUT) | ("connect", Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        assert_eq!(
            [RECV, SEND, ID_VALID, ADDFD, SET_FLAGS],
            [0xC050_2100, 0xC018_2101, 0x4008_2102, 0x4018_2103, 0x4008_2104]
        );
    }

    #[test]
    fn nothing_is_pending_until_something_was_received() {
        let mut in_flight = InFlight::new().unwrap();
        assert_eq!(in_flight.pending(), None);
        assert_eq!((in_flight.attempt(), in_flight.attempt()), (1, 2));
        in_flight.clear();
        assert_eq!(in_flight.pending(), None);
    }
}
