//! The system calls of a VE that the host answers: a second filter beside the deny list of [`crate::seccomp`].
//!
//! A filter sees numbers, not what a pointer points to. So every call that looks up a path stops until the host has
//! said whether it is the one that it answers, or goes on. Where the flags tell that it cannot be that one (to write,
//! to make something, a descriptor's own state), it never stops.

use std::os::fd::OwnedFd;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, sock_filter,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::raw;
use crate::seccomp::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, OFFSET_ARCH, OFFSET_NR, jump, offset_arg, stmt};

/// What of a VE's calls the host answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trapped {
    /// Look-ups of a path (`--features procbc:on`).
    pub paths: bool,
    /// sysinfo(2) and sched_getaffinity(2) (`--features sysinfo:on`).
    pub sysinfo: bool,
}

impl Trapped {
    /// Whether there is anything to answer.
    #[must_use]
    pub fn any(self) -> bool {
        self.paths || self.sysinfo
    }
}

/// The system call interfaces of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// 64 bit.
    X86_64,
    /// 32 bit.
    I386,
}

impl Abi {
    /// By its number in a notification.
    #[must_use]
    pub fn from_audit(arch: u32) -> Option<Self> {
        match arch {
            AUDIT_ARCH_X86_64 => Some(Self::X86_64),
            AUDIT_ARCH_I386 => Some(Self::I386),
            _ => None,
        }
    }
}

/// A call that stops, and where its arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// open(2): path, flags.
    Open,
    /// openat(2): directory, path, flags.
    OpenAt,
    /// openat2(2): directory, path, `struct open_how`.
    OpenAt2,
    /// stat(2) and lstat(2) with the ABI's own `struct stat`: path, buffer.
    Stat,
    /// The same with `struct stat64` of i386.
    Stat64,
    /// newfstatat(2): directory, path, buffer; fstatat64(2) on i386.
    StatAt,
    /// statx(2): directory, path, flags, mask, buffer.
    Statx,
    /// access(2): path, mode.
    Access,
    /// faccessat(2), faccessat2(2): directory, path, mode.
    AccessAt,
    /// readlink(2): path.
    Readlink,
    /// readlinkat(2): directory, path.
    ReadlinkAt,
    /// sysinfo(2): buffer.
    Sysinfo,
    /// sched_getaffinity(2): thread, length, buffer.
    Affinity,
}

struct Row {
    call: Call,
    x86_64: Option<u32>,
    i386: Option<u32>,
    /// An argument and bits of it with which the call goes on unseen.
    unseen: Option<(u32, i32)>,
}

const fn row(call: Call, x86_64: u32, i386: u32, unseen: Option<(u32, i32)>) -> Row {
    Row { call, x86_64: Some(x86_64), i386: Some(i386), unseen }
}

/// To write or to make a file; a directory. These bits are the same for both ABIs.
const NOT_TO_READ: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_DIRECTORY;

/// The most frequent first.
const PATHS: &[Row] = &[
    row(Call::OpenAt, 257, 295, Some((2, NOT_TO_READ))),
    row(Call::StatAt, 262, 300, Some((3, libc::AT_EMPTY_PATH))),
    row(Call::Statx, 332, 383, Some((2, libc::AT_EMPTY_PATH))),
    row(Call::Open, 2, 5, Some((1, NOT_TO_READ))),
    row(Call::Stat, 4, 106, None),
    row(Call::Stat, 6, 107, None),
    row(Call::Access, 21, 33, None),
    row(Call::AccessAt, 269, 307, None),
    row(Call::AccessAt, 439, 439, None),
    row(Call::Readlink, 89, 85, None),
    row(Call::ReadlinkAt, 267, 305, None),
    row(Call::OpenAt2, 437, 437, None),
    Row { call: Call::Stat64, x86_64: None, i386: Some(195), unseen: None },
    Row { call: Call::Stat64, x86_64: None, i386: Some(196), unseen: None },
];

const SYSINFO: &[Row] = &[row(Call::Sysinfo, 99, 116, None), row(Call::Affinity, 204, 242, None)];

fn rows(trapped: Trapped) -> impl Iterator<Item = &'static Row> {
    let paths: &[Row] = if trapped.paths { PATHS } else { &[] };
    let sysinfo: &[Row] = if trapped.sysinfo { SYSINFO } else { &[] };
    paths.iter().chain(sysinfo)
}

impl Row {
    fn number(&self, abi: Abi) -> Option<u32> {
        match abi {
            Abi::X86_64 => self.x86_64,
            Abi::I386 => self.i386,
        }
    }
}

/// Which call stopped.
#[must_use]
pub fn call(abi: Abi, number: i32) -> Option<Call> {
    let number = number.unsigned_abs();
    PATHS.iter().chain(SYSINFO).find(|row| row.number(abi) == Some(number)).map(|row| row.call)
}

fn abi(trapped: Trapped, abi: Abi) -> Vec<sock_filter> {
    let notify = stmt(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    let allow = stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    let mut program = vec![stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_NR)];
    for row in rows(trapped) {
        let Some(number) = row.number(abi) else { continue };
        match row.unseen {
            None => program.extend([jump(BPF_JEQ, number, 0, 1), notify]),
            Some((argument, bits)) => program.extend([
                jump(BPF_JEQ, number, 0, 4),
                stmt(BPF_LD | BPF_W | BPF_ABS, offset_arg(argument)),
                jump(BPF_JSET, bits.unsigned_abs(), 1, 0),
                notify,
                allow,
            ]),
        }
    }
    program.push(allow);
    program
}

/// Assembles the filter. ABIs that it does not know are the deny list's business.
#[must_use]
pub fn program(trapped: Trapped) -> Vec<sock_filter> {
    let (native, compat) = (abi(trapped, Abi::X86_64), abi(trapped, Abi::I386));
    let distance = u32::try_from(native.len()).unwrap_or_default();
    let mut program = vec![
        stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_ARCH),
        jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
        // The compat rules lie further than a conditional jump reaches.
        stmt(BPF_JMP | libc::BPF_JA, distance),
    ];
    program.extend(native);
    program.push(jump(BPF_JEQ, AUDIT_ARCH_I386, 1, 0));
    program.push(stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    program.extend(compat);
    program
}

/// Installs the filter on this process, for good: from now on the calls stop until somebody answers them at the
/// returned listener, and fail by `ENOSYS` when nobody has it any more.
///
/// # Errors
/// The errno of seccomp(2); `EBUSY` when this process has such a filter already.
pub fn install(trapped: Trapped) -> Result<OwnedFd> {
    raw::seccomp_listener(&program(trapped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::tests::run_with;

    const BOTH: Trapped = Trapped { paths: true, sysinfo: true };

    fn run(trapped: Trapped, arch: u32, number: u32, arguments: [u32; 6]) -> u32 {
        run_with(&program(trapped), |offset| match offset {
            OFFSET_NR => number,
            OFFSET_ARCH => arch,
            _ => arguments[(offset as usize - 16) / 8],
        })
    }

    #[test]
    fn every_listed_call_stops_under_both_abis_and_no_other() {
        for (arch, abi) in [(AUDIT_ARCH_X86_64, Abi::X86_64), (AUDIT_ARCH_I386, Abi::I386)] {
            assert_eq!(Abi::from_audit(arch), Some(abi));
            for number in 0..600 {
                let stops = call(abi, i32::try_from(number).unwrap());
                let want = if stops.is_some() { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
                assert_eq!(run(BOTH, arch, number, [0; 6]), want, "{abi:?} {number}");
                let only_sysinfo = run(Trapped { paths: false, sysinfo: true }, arch, number, [0; 6]);
                let is_number = matches!(stops, Some(Call::Sysinfo | Call::Affinity));
                assert_eq!(only_sysinfo == SECCOMP_RET_USER_NOTIF, is_number, "{abi:?} {number}");
                let only_paths = run(Trapped { paths: true, sysinfo: false }, arch, number, [0; 6]);
                let is_path = stops.is_some() && !is_number;
                assert_eq!(only_paths == SECCOMP_RET_USER_NOTIF, is_path, "{abi:?} {number}");
            }
        }
        assert_eq!(run(BOTH, 0xC000_00B7, 56, [0; 6]), SECCOMP_RET_ALLOW);
    }

    #[test]
    fn what_cannot_be_ours_by_its_flags_does_not_stop() {
        let flags = |at: usize, bits: i32| {
            let mut arguments = [0; 6];
            arguments[at] = bits.unsigned_abs();
            arguments
        };
        for bits in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_DIRECTORY | libc::O_CLOEXEC] {
            assert_eq!(run(BOTH, AUDIT_ARCH_X86_64, 257, flags(2, bits)), SECCOMP_RET_ALLOW);
            assert_eq!(run(BOTH, AUDIT_ARCH_I386, 5, flags(1, bits)), SECCOMP_RET_ALLOW);
        }
        let read = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        assert_eq!(run(BOTH, AUDIT_ARCH_X86_64, 257, flags(2, read)), SECCOMP_RET_USER_NOTIF);
        assert_eq!(run(BOTH, AUDIT_ARCH_X86_64, 262, flags(3, libc::AT_EMPTY_PATH)), SECCOMP_RET_ALLOW);
        assert_eq!(run(BOTH, AUDIT_ARCH_X86_64, 332, flags(2, libc::AT_EMPTY_PATH)), SECCOMP_RET_ALLOW);
    }
}
