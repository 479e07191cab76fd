//! Making a program of ours make one more system call, while it waits in another.
//!
//! CRIU insists on being root when it starts, and the kernel asks whose a user namespace is when it is made and when
//! the limits of its processes are read: each VE's is its own owner's ([`crate::idmap::clone_as_owner`]). So CRIU
//! becomes that owner at a moment when it waits for us, keeping all its capabilities
//! ([`crate::serve::Serve::keep_capabilities`]).

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::Errno;

use crate::error::{Call, Result, SysError};

/// `syscall`, as it lies in memory.
const SYSCALL: i64 = 0x050f;
/// A register that the kernel leaves alone when it decides whether to begin a system call again.
const NO_CALL: u64 = u64::MAX;
/// What the kernel has a call return that it will begin again: ERESTARTSYS, -NOINTR, -NOHAND, -_RESTARTBLOCK.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];

/// Changes the effective user of a child of ours that waits in a system call; the call goes on waiting. Its children's
/// files in `/proc` are then that user's, as they are for any process that did not change its user.
///
/// # Errors
/// The errno of ptrace(2), or of the calls that the child made; `EPROTO` when it was not waiting in a call.
pub fn set_effective_user(child: i32, user: u32) -> Result<()> {
    let pid = Pid::from_raw(child);
    ptrace::seize(pid, Options::empty()).call("ptrace", || format!("SEIZE, {child}"))?;
    let done = ptrace::interrupt(pid)
        .call("ptrace", || format!("INTERRUPT, {child}"))
        .and_then(|()| stopped(pid))
        .and_then(|()| calls_inside(pid, user));
    // A child that is gone needs none.
    let detached = ptrace::detach(pid, None).call("ptrace", || format!("DETACH, {child}"));
    done.and(detached)
}

fn stopped(pid: Pid) -> Result<()> {
    match waitpid(pid, None).call("waitpid", || pid)? {
        WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => Ok(()),
        _ => Err(SysError::new("waitpid", pid, Errno::SRCH)),
    }
}

fn calls_inside(pid: Pid, user: u32) -> Result<()> {
    let before = ptrace::getregs(pid).call("ptrace", || format!("GETREGS, {pid}"))?;
    let at = before.rip.wrapping_sub(2);
    let code = ptrace::read(pid, std::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0)))
        .call("ptrace", || format!("PEEKTEXT, {at:#x}"))?;
    // A negative number is no call but a fault or an interrupt.
    if code & 0xffff != SYSCALL || i64::from_ne_bytes(before.orig_rax.to_ne_bytes()) < 0 {
        return Err(SysError::new("ptrace", format!("{pid} is in no system call"), Errno::PROTO));
    }
    // A call that is over must not be made again: a message would be sent twice.
    let interrupted = RESTARTS.contains(&i64::from_ne_bytes(before.rax.to_ne_bytes()));
    let same = u64::MAX;
    let at_call = libc::user_regs_struct { rip: at, orig_rax: NO_CALL, ..before };
    let made =
        one(pid, at_call, "setresuid", libc::SYS_setresuid, [same, u64::from(user), same]).and_then(|()| {
            let set_dumpable = libc::PR_SET_DUMPABLE.unsigned_abs().into();
            one(pid, at_call, "prctl", libc::SYS_prctl, [set_dumpable, 1, 0])
        });
    let then = if interrupted {
        // As if it had not begun yet.
        libc::user_regs_struct { rax: before.orig_rax, ..at_call }
    } else {
        libc::user_regs_struct { orig_rax: NO_CALL, ..before }
    };
    ptrace::setregs(pid, then).call("ptrace", || format!("SETREGS, {pid}"))?;
    made
}

/// Makes one call; it must return 0.
fn one(
    pid: Pid,
    at: libc::user_regs_struct,
    name: &'static str,
    number: libc::c_long,
    arguments: [u64; 3],
) -> Result<()> {
    let [rdi, rsi, rdx] = arguments;
    let regs = libc::user_regs_struct { rax: number.unsigned_abs(), rdi, rsi, rdx, ..at };
    ptrace::setregs(pid, regs).call("ptrace", || format!("SETREGS, {pid}"))?;
    step(pid)?;
    let answer = ptrace::getregs(pid).call("ptrace", || format!("GETREGS, {pid}"))?.rax;
    match i32::try_from(i64::from_ne_bytes(answer.to_ne_bytes())) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(SysError::new(name, format!("in {pid}"), Errno::from_raw_os_error(-errno))),
        Err(_) => Err(SysError::new(name, format!("in {pid}"), Errno::PROTO)),
    }
}

/// One instruction, which is a system call.
fn step(pid: Pid) -> Result<()> {
    loop {
        ptrace::step(pid, None).call("ptrace", || format!("SINGLESTEP, {pid}"))?;
        match waitpid(pid, None).call("waitpid", || pid)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => return Ok(()),
            WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => {}
            _ => return Err(SysError::new("waitpid", pid, Errno::SRCH)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn a_waiting_child_becomes_another_user_and_goes_on_waiting() {
        let script = "echo ready; read line; grep ^Uid: /proc/$$/status; echo $line";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        // Until it waits for its line.
        while let Err(error) = set_effective_user(pid, 12_345) {
            assert!(error.errno() == Errno::PROTO && std::time::Instant::now() < deadline, "{error}");
        }
        writeln!(child.stdin.take().unwrap(), "hello").unwrap();
        let uid = said.next().unwrap().unwrap();
        assert_eq!(uid.split_whitespace().collect::<Vec<_>>(), ["Uid:", "0", "12345", "0", "12345"]);
        assert_eq!(said.next().unwrap().unwrap(), "hello");
        assert!(child.wait().unwrap().success());
    }
}
