//! The system calls that no crate wraps. The only file of the launch path with `unsafe`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::error::{Result, SysError};

/// `CLONE_INTO_CGROUP` (5.7); libc's constant of that name overflows to 0.
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_NEWTIME` (5.6).
pub const CLONE_NEWTIME: u64 = 0x80;
/// `CLONE_NEWNS`.
pub const CLONE_NEWNS: u64 = libc::CLONE_NEWNS as u64;

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// What `clone3` did, seen from either side.
#[derive(Debug)]
pub enum Cloned {
    /// We are the new process.
    Child,
    /// We are the caller: the child's pid in our pid namespace, and a pidfd of it.
    Parent {
        /// Process id in the caller's pid namespace.
        pid: i32,
        /// Refers to that very process, whatever happens to the number.
        pidfd: OwnedFd,
    },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Creates a process as fork(2) does, in new namespaces (`flags`) and, when given, in a cgroup v2
/// directory. The child goes on after this call with a copy of the caller's memory.
///
/// # Errors
/// The errno of clone3(2); `EINVAL` too when the caller has more than one thread, because a copied
/// process must not find a lock held by a thread that was not copied.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>, exit_signal: i32) -> Result<Cloned> {
    if crate::process::threads() != 1 {
        return Err(SysError::new("clone3", "the caller has several threads", Errno::INVAL));
    }
    // SAFETY: with one thread, nobody else can have held an allocator or libc lock at the moment of the
    // copy, so the child may run ordinary code.
    unsafe { clone3_any(flags, cgroup, exit_signal) }
}

/// For [`clone3`]: the new process is another child of our parent.
pub const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// A copy of this process as another child of its parent. For a process that is itself such a copy
/// and has made no thread: it may stand in foreign namespaces, where `/proc` cannot be asked.
pub(crate) fn clone_sibling() -> Result<Cloned> {
    // SAFETY: the only caller runs in the child of `clone3`, which started with one thread and made
    // no other, so no lock can be held by a thread that is not copied.
    unsafe { clone3_any(CLONE_PARENT, None, 0) }
}

/// A process in new namespaces that only waits to be killed, or for its parent's death.
///
/// # Errors
/// The errno of clone3(2).
pub fn clone_waiting(flags: u64) -> Result<(i32, OwnedFd)> {
    // SAFETY: the child does nothing but prctl, pause and _exit, which take no lock and no memory.
    match unsafe { clone3_any(flags, None, libc::SIGCHLD)? } {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => loop {
            // SAFETY: plain system calls without pointers, async-signal-safe.
            unsafe {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
                    libc::_exit(1);
                }
                libc::pause();
            }
        },
    }
}

/// # Safety
/// In a process with several threads the child may call async-signal-safe functions only.
unsafe fn clone3_any(flags: u64, cgroup: Option<BorrowedFd<'_>>, exit_signal: i32) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(exit_signal.unsigned_abs()),
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(dir.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a live, initialised clone_args of the size given; without CLONE_VM and with
    // no stack the child runs on its own copy of this stack, as after fork(2); what it may do there is
    // the caller's promise. `pidfd` outlives the call, and the kernel writes it before return.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), std::mem::size_of::<CloneArgs>())
    };
    match pid {
        -1 => Err(SysError::new("clone3", format_args!("flags={flags:#x}"), last_errno())),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor for us (CLONE_PIDFD); nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd })
        }
    }
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr, what: &str) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is a NUL-terminated literal, `attr` a live struct of the size given; the
    // kernel only reads both.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(SysError::new("mount_setattr", what, last_errno())) }
}

/// Makes a detached mount show its files with ids mapped by `userns` (5.12; the filesystem must
/// support it).
///
/// # Errors
/// The errno of mount_setattr(2): `EINVAL` when the filesystem cannot be idmapped.
pub fn mount_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<()> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns.as_raw_fd().unsigned_abs()),
    };
    mount_setattr(mount, false, &attr, "IDMAP")
}

/// Sets and clears `MOUNT_ATTR_*` flags on a mount.
///
/// # Errors
/// The errno of mount_setattr(2).
pub fn mount_attrs(mount: BorrowedFd<'_>, set: u64, clear: u64) -> Result<()> {
    let attr = MountAttr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    mount_setattr(mount, false, &attr, "attributes")
}

/// Makes a tree that is attached nowhere nobody's peer: nothing that is mounted in it shows elsewhere, nor the
/// other way round.
///
/// # Errors
/// The errno of mount_setattr(2).
pub fn mount_private(mount: BorrowedFd<'_>) -> Result<()> {
    let attr = MountAttr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    mount_setattr(mount, true, &attr, "private")
}

/// setns(2) on a pidfd: joins several namespaces of a process at once (5.8), or on a namespace file.
///
/// # Errors
/// The errno of setns(2).
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: setns takes a descriptor, valid for the life of the borrow, and plain flags.
    let r = unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) };
    if r == 0 { Ok(()) } else { Err(SysError::new("setns", format_args!("{flags:#x}"), last_errno())) }
}

/// setfsuid(2) and setfsgid(2); both report no error, so the result is asked for and compared.
///
/// # Errors
/// `EPERM` when the ids did not change.
pub fn set_fs_ids(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: plain integers in, plain integers out; -1 is the documented way to ask.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    let same = u32::try_from(now.0) == Ok(uid) && u32::try_from(now.1) == Ok(gid);
    if same { Ok(()) } else { Err(SysError::new("setfsuid", uid, Errno::PERM)) }
}

/// Marks every descriptor from `first` up close-on-exec (5.11), or closes them (5.9).
///
/// # Errors
/// The errno of close_range(2).
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed, so no owner's descriptor becomes invalid.
    let r = unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    if r == 0 { Ok(()) } else { Err(SysError::new("close_range", first, last_errno())) }
}

/// Installs a seccomp filter on the calling thread. Needs `CAP_SYS_ADMIN` in its user namespace.
///
/// # Errors
/// The errno of seccomp(2).
pub fn seccomp_filter(program: &[libc::sock_filter]) -> Result<()> {
    let len = u16::try_from(program.len())
        .map_err(|_| SysError::new("seccomp", "program too long", Errno::TOOBIG))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `fprog` describes a live slice of exactly `len` instructions; the kernel copies it.
    let r = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&fprog))
    };
    if r == 0 { Ok(()) } else { Err(SysError::new("seccomp", "SET_MODE_FILTER", last_errno())) }
}

/// Installs a seccomp filter whose `USER_NOTIF` calls wait for an answer at the returned listener. Needs
/// `CAP_SYS_ADMIN` in its user namespace. A call that is being answered is interrupted by fatal signals only, where
/// the kernel can do that (5.19); before, a signal that is caught ends it as it ends a slow read.
///
/// # Errors
/// The errno of seccomp(2); `EBUSY` when a filter of this process has a listener already.
pub fn seccomp_listener(program: &[libc::sock_filter]) -> Result<OwnedFd> {
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let len = u16::try_from(program.len())
        .map_err(|_| SysError::new("seccomp", "program too long", Errno::TOOBIG))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let install = |more: libc::c_ulong| {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | more;
        // SAFETY: `fprog` describes a live slice of exactly `len` instructions; the kernel copies it.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&fprog))
        };
        // SAFETY: with this flag the kernel returns a new descriptor, which nobody else owns.
        if fd >= 0 { Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }) } else { Err(last_errno()) }
    };
    install(WAIT_KILLABLE_RECV)
        .or_else(|errno| if errno == Errno::INVAL { install(0) } else { Err(errno) })
        .map_err(|errno| SysError::new("seccomp", "SET_MODE_FILTER, NEW_LISTENER", errno))
}

/// Ends the process at once, without running destructors or flushing: for a copied child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Makes `fd` the descriptor `target` as dup2(2), without close-on-exec.
///
/// # Errors
/// The errno of dup2(2).
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    // SAFETY: for use on 0, 1 and 2 just before exec: nothing in this program owns those three.
    let r = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if r >= 0 { Ok(()) } else { Err(SysError::new("dup2", target, last_errno())) }
}

/// Resets every signal to its default action and unblocks all: a program started for a VE must not
/// inherit what its starter ignored.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler code; invalid numbers only fail with EINVAL.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain data, initialised by sigemptyset before use.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Holds all signals back.
pub fn block_signals() {
    // SAFETY: sigset_t is plain data, initialised by sigfillset before use.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Takes one of all signals that are held back, or waits for one.
///
/// # Errors
/// `EAGAIN` when none came in time.
pub fn wait_signal(timeout: Option<std::time::Duration>) -> rustix::io::Result<i32> {
    let time = timeout.map(|left| libc::timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: sigset_t is plain data, initialised by sigfillset before use; `time` is null or lives until the end.
    let number = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), time)
    };
    if number > 0 { Ok(number) } else { Err(last_errno()) }
}

/// kill(2) with any number.
pub fn kill(pid: i32, number: i32) {
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(pid, number) };
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// `EBADF` when nothing is open under that number.
pub fn inherited_fd(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_SETFD on an arbitrary number is harmless; it fails when the number is not open.
    let r = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if r < 0 {
        return Err(SysError::new("fcntl", number, last_errno()));
    }
    // SAFETY: the descriptor is open, was made for us by our starter (documented protocol), and this
    // is called once at the start of main, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes `pty` the controlling terminal of the calling session leader.
///
/// # Errors
/// The errno of ioctl(TIOCSCTTY).
pub fn set_controlling_tty(pty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument; the descriptor lives for the call.
    let r = unsafe { libc::ioctl(pty.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if r == 0 { Ok(()) } else { Err(SysError::new("ioctl", "TIOCSCTTY", last_errno())) }
}

/// Drops one capability from the bounding set.
///
/// # Errors
/// The errno of prctl(2); `EINVAL` for a number that this kernel does not have.
pub fn drop_bounding(cap: u32) -> Result<()> {
    // SAFETY: plain integers.
    let r = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0) };
    if r == 0 {
        Ok(())
    } else {
        Err(SysError::new("prctl", format_args!("CAPBSET_DROP, {cap}"), last_errno()))
    }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// The permitted capability set of the calling thread, as a bit mask.
///
/// # Errors
/// The errno of capget(2).
pub fn permitted() -> Result<u64> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 uses a header and an array of two data structs, both live and writable.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if r != 0 {
        return Err(SysError::new("capget", "self", last_errno()));
    }
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Sets effective and permitted to `caps`, inheritable to nothing.
///
/// # Errors
/// The errno of capset(2).
#[allow(clippy::cast_possible_truncation)] // the two halves of a 64-bit mask
pub fn set_caps(caps: u64) -> Result<()> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let half = |bits: u32| CapData { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(caps as u32), half((caps >> 32) as u32)];
    // SAFETY: version 3 uses a header and an array of two data structs, both live; the kernel reads them.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if r == 0 { Ok(()) } else { Err(SysError::new("capset", format_args!("{caps:#x}"), last_errno())) }
}

/// Leaves the session keyring of whoever started us, so that a VE never sees a host user's keys. A
/// kernel without keyrings has none to leave.
pub fn join_new_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read through pointers.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// pidfd_send_signal(2) with any signal number, real-time ones included; a process that is gone is no
/// error.
///
/// # Errors
/// The errno of the call, other than `ESRCH`.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a descriptor, an integer, a null siginfo and no flags: nothing is read through pointers.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if r == 0 {
        return Ok(());
    }
    match last_errno() {
        Errno::SRCH => Ok(()),
        errno => Err(SysError::new("pidfd_send_signal", signal, errno)),
    }
}

/// Closes every descriptor from 3 up but these. Only for a copy of a process on its way to exec or `_exit`:
/// values that own such descriptors must never be dropped or used any more.
///
/// # Errors
/// The errno of close_range(2).
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.retain(|number| *number >= 3);
    kept.sort_unstable();
    let firsts = std::iter::once(3).chain(kept.iter().map(|number| number + 1));
    let lasts = kept.iter().map(|number| number - 1).chain([u32::MAX]);
    for (first, last) in firsts.zip(lasts).filter(|(first, last)| first <= last) {
        // SAFETY: the caller is a copy of a process that never drops what it inherited, so no owner's
        // close can hit a number that was given out anew.
        let r = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if r != 0 {
            return Err(SysError::new("close_range", first, last_errno()));
        }
    }
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The wait status of a process that has ended, also for those who are not its parent (6.15). `None`
/// on older kernels, and until it has been reaped.
#[must_use]
pub fn pidfd_wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info), whose first version has the size of ours: 64 bytes.
    const GET_INFO: libc::c_ulong =
        3 << 30 | (std::mem::size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xFF0B;
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's number says how large `info` is; it is live and writable for the call.
    let r = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (r == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}
