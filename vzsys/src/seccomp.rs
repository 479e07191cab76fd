//! The system calls that a VE may not make.
//!
//! A deny list, because a VE is a whole system: what is listed reaches the host (modules, kexec,
//! clocks, raw ports), escapes path rules (`open_by_handle_at`), or makes state that CRIU cannot
//! save (io_uring, nested namespaces; docs/kernel-features.md). Both x86 ABIs are covered, so that
//! 32-bit guests live and cannot be used to get around the list. Calls that are always allowed cost
//! a bitmap look-up only (kernel 5.11).

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, ENOSYS, ENOTTY,
    EPERM, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, sock_filter,
};
use serde::{Deserialize, Serialize};

use crate::btrfs;
use crate::error::Result;
use crate::raw;

pub(crate) const OFFSET_NR: u32 = 0;
pub(crate) const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = offset_arg(0);
const OFFSET_ARG1: u32 = offset_arg(1);
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

/// Namespaces that CRIU cannot save below a VE's own: cgroup, UTS, IPC, user, PID.
const NESTED: u32 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID) as u32;
/// In clone(2) this bit belongs to the exit signal; only unshare(2) means the time namespace by it.
const NEWTIME: u32 = 0x80;

/// Whether a VE may make namespaces that a live migration cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nesting {
    /// No: every process of the VE can be checkpointed.
    Refused,
    /// Yes (`--features nesting:on`): containers inside work, live migration may not.
    Allowed,
}

#[derive(Clone, Copy)]
enum Rule {
    Errno(i32),
    /// `EPERM` when the first argument has one of these bits.
    FlagsRefused(u32),
    /// `ENOTTY`, as for a request that nobody knows, when the second argument is one of these.
    RequestsRefused(&'static [u32]),
}

struct Call {
    name: &'static str,
    x86_64: Option<u32>,
    i386: Option<u32>,
    rule: Rule,
}

const fn call(name: &'static str, x86_64: u32, i386: u32, errno: i32) -> Call {
    Call { name, x86_64: Some(x86_64), i386: Some(i386), rule: Rule::Errno(errno) }
}

const fn only32(name: &'static str, i386: u32, errno: i32) -> Call {
    Call { name, x86_64: None, i386: Some(i386), rule: Rule::Errno(errno) }
}

const fn only64(name: &'static str, x86_64: u32, errno: i32) -> Call {
    Call { name, x86_64: Some(x86_64), i386: None, rule: Rule::Errno(errno) }
}

/// Refused to every VE.
const ALWAYS: &[Call] = &[
    call("init_module", 175, 128, EPERM),
    call("finit_module", 313, 350, EPERM),
    call("delete_module", 176, 129, EPERM),
    call("kexec_load", 246, 283, EPERM),
    only64("kexec_file_load", 320, EPERM),
    call("iopl", 172, 110, EPERM),
    call("ioperm", 173, 101, EPERM),
    call("swapon", 167, 87, EPERM),
    call("swapoff", 168, 115, EPERM),
    call("settimeofday", 164, 79, EPERM),
    only32("stime", 25, EPERM),
    call("clock_settime", 227, 264, EPERM),
    only32("clock_settime64", 404, EPERM),
    call("acct", 163, 51, EPERM),
    call("syslog", 103, 103, EPERM),
    call("open_by_handle_at", 304, 342, EPERM),
    call("lookup_dcookie", 212, 253, EPERM),
    call("bpf", 321, 357, EPERM),
    call("perf_event_open", 298, 336, EPERM),
    call("add_key", 248, 286, ENOSYS),
    call("request_key", 249, 287, ENOSYS),
    call("keyctl", 250, 288, ENOSYS),
    call("uselib", 134, 86, ENOSYS),
    call("nfsservctl", 180, 169, ENOSYS),
    only32("vm86", 166, EPERM),
    only32("vm86old", 113, EPERM),
    Call {
        name: "ioctl that makes a subvolume of btrfs",
        x86_64: Some(16),
        i386: Some(54),
        rule: Rule::RequestsRefused(&btrfs::MAKERS),
    },
    call("io_uring_setup", 425, 425, ENOSYS),
    call("io_uring_enter", 426, 426, ENOSYS),
    call("io_uring_register", 427, 427, ENOSYS),
];

/// Refused to a VE without nesting. clone3 passes its flags in memory, which a filter cannot read:
/// with `ENOSYS` libc uses clone(2), whose flags it can.
const NO_NESTING: &[Call] = &[
    call("clone3", 435, 435, ENOSYS),
    Call { name: "clone", x86_64: Some(56), i386: Some(120), rule: Rule::FlagsRefused(NESTED) },
    Call { name: "unshare", x86_64: Some(272), i386: Some(310), rule: Rule::FlagsRefused(NESTED | NEWTIME) },
];

/// Where the lower half of an argument is; flags are never in the upper one.
pub(crate) const fn offset_arg(number: u32) -> u32 {
    16 + 8 * number
}

pub(crate) fn stmt(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

pub(crate) fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(BPF_JMP | code | BPF_K).unwrap_or_default(), jt, jf, k }
}

fn refuse(errno: i32) -> sock_filter {
    stmt(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

/// The rules of one ABI: the call's number is in the accumulator at the start.
fn abi(calls: &[&Call], number: impl Fn(&Call) -> Option<u32>) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for call in calls {
        let Some(nr) = number(call) else { continue };
        match call.rule {
            Rule::Errno(errno) => program.extend([jump(BPF_JEQ, nr, 0, 1), refuse(errno)]),
            Rule::FlagsRefused(bits) => program.extend([
                jump(BPF_JEQ, nr, 0, 5),
                stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_ARG0),
                stmt(BPF_ALU | BPF_AND | BPF_K, bits),
                jump(BPF_JEQ, 0, 1, 0),
                refuse(EPERM),
                stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            ]),
            Rule::RequestsRefused(requests) => {
                let each = u8::try_from(requests.len()).unwrap_or(u8::MAX);
                program.extend([
                    jump(BPF_JEQ, nr, 0, 2 * each + 2),
                    stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_ARG1),
                ]);
                for request in requests {
                    program.extend([jump(BPF_JEQ, *request, 0, 1), refuse(ENOTTY)]);
                }
                program.push(stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
            }
        }
    }
    program.push(stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    program
}

/// Assembles the filter of a VE.
#[must_use]
pub fn program(nesting: Nesting) -> Vec<sock_filter> {
    let extra = if nesting == Nesting::Refused { NO_NESTING } else { &[] };
    let calls: Vec<&Call> = ALWAYS.iter().chain(extra).collect();
    let native = abi(&calls, |call| call.x86_64);
    let compat = abi(&calls, |call| call.i386);
    let mut program = vec![
        stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_ARCH),
        jump(BPF_JEQ, AUDIT_ARCH_X86_64, 3, 0),
        jump(BPF_JEQ, AUDIT_ARCH_I386, 1, 0),
        refuse(EPERM),
        // The compat rules lie behind the native ones, further than a conditional jump reaches.
        stmt(BPF_JMP | libc::BPF_JA, 0),
    ];
    let jump_to_compat = program.len() - 1;
    program.push(stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_NR));
    program.extend([jump(BPF_JGE, X32_BIT, 0, 1), refuse(ENOSYS)]);
    program.extend(native);
    let distance = program.len() - jump_to_compat - 1;
    program[jump_to_compat].k = u32::try_from(distance).unwrap_or_default();
    program.push(stmt(BPF_LD | BPF_W | BPF_ABS, OFFSET_NR));
    program.extend(compat);
    program
}

/// Installs the filter of a VE on this process, for good.
///
/// # Errors
/// The errno of seccomp(2).
pub fn install(nesting: Nesting) -> Result<()> {
    raw::seccomp_filter(&program(nesting))
}

/// The names of the refused calls, for the documentation.
pub fn refused(nesting: Nesting) -> impl Iterator<Item = &'static str> {
    let extra: &[Call] = if nesting == Nesting::Refused { NO_NESTING } else { &[] };
    ALWAYS.iter().chain(extra).map(|call| call.name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the kernel would answer, by running the program as it does.
    pub(crate) fn run_with(program: &[sock_filter], load: impl Fn(u32) -> u32) -> u32 {
        let (mut pc, mut acc) = (0_usize, 0_u32);
        loop {
            let i = program[pc];
            let code = u32::from(i.code);
            pc += 1;
            let skip = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match code {
                c if c == BPF_LD | BPF_W | BPF_ABS => acc = load(i.k),
                c if c == BPF_ALU | BPF_AND | BPF_K => acc &= i.k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => pc += skip(acc == i.k),
                c if c == BPF_JMP | BPF_JGE | BPF_K => pc += skip(acc >= i.k),
                c if c == BPF_JMP | libc::BPF_JSET | BPF_K => pc += skip(acc & i.k != 0),
                c if c == BPF_JMP | libc::BPF_JA => pc += i.k as usize,
                c if c == BPF_RET | BPF_K => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn run(program: &[sock_filter], arch: u32, nr: u32, arg0: u32) -> u32 {
        run_with(program, |offset| match offset {
            OFFSET_NR => nr,
            OFFSET_ARCH => arch,
            OFFSET_ARG0 => arg0,
            OFFSET_ARG1 => arg0,
            _ => panic!("load of {offset}"),
        })
    }

    const EPERM_RET: u32 = SECCOMP_RET_ERRNO | EPERM as u32;
    const ENOSYS_RET: u32 = SECCOMP_RET_ERRNO | ENOSYS as u32;

    #[test]
    fn every_listed_call_is_refused_under_both_abis() {
        let program = program(Nesting::Refused);
        for call in ALWAYS {
            let Rule::Errno(errno) = call.rule else { continue };
            let want = SECCOMP_RET_ERRNO | errno.unsigned_abs();
            for (arch, nr) in [(AUDIT_ARCH_X86_64, call.x86_64), (AUDIT_ARCH_I386, call.i386)] {
                if let Some(nr) = nr {
                    assert_eq!(run(&program, arch, nr, 0), want, "{}", call.name);
                }
            }
        }
    }

    #[test]
    fn no_subvolumes_are_made_and_other_requests_pass() {
        for nesting in [Nesting::Refused, Nesting::Allowed] {
            let program = program(nesting);
            for (arch, ioctl) in [(AUDIT_ARCH_X86_64, 16), (AUDIT_ARCH_I386, 54)] {
                for request in btrfs::MAKERS {
                    assert_eq!(run(&program, arch, ioctl, request), SECCOMP_RET_ERRNO | ENOTTY as u32);
                }
                assert_eq!(run(&program, arch, ioctl, 0x5401), SECCOMP_RET_ALLOW);
            }
        }
    }

    #[test]
    fn ordinary_calls_pass_and_foreign_abis_do_not() {
        for nesting in [Nesting::Refused, Nesting::Allowed] {
            let program = program(nesting);
            for arch in [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386] {
                assert_eq!(run(&program, arch, 3, 0), SECCOMP_RET_ALLOW);
            }
            assert_eq!(run(&program, AUDIT_ARCH_X86_64, X32_BIT | 1, 0), ENOSYS_RET);
            assert_eq!(run(&program, 0xC000_00B7, 1, 0), EPERM_RET);
        }
    }

    #[test]
    fn nested_namespaces_are_refused_and_threads_and_mount_namespaces_are_not() {
        let closed = program(Nesting::Refused);
        let open = program(Nesting::Allowed);
        for (arch, clone, unshare) in [(AUDIT_ARCH_X86_64, 56, 272), (AUDIT_ARCH_I386, 120, 310)] {
            for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWUTS, libc::CLONE_NEWIPC, libc::CLONE_NEWCGROUP] {
                for nr in [clone, unshare] {
                    assert_eq!(run(&closed, arch, nr, flag as u32), EPERM_RET);
                    assert_eq!(run(&open, arch, nr, flag as u32), SECCOMP_RET_ALLOW);
                }
            }
            assert_eq!(run(&closed, arch, unshare, NEWTIME), EPERM_RET);
            for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_THREAD | libc::SIGCHLD] {
                assert_eq!(run(&closed, arch, clone, flag as u32), SECCOMP_RET_ALLOW);
            }
            assert_eq!(run(&closed, arch, 435, 0), ENOSYS_RET);
        }
    }
}
