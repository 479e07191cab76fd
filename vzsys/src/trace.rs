//! Making a program of ours make one more system call, while it waits in another.
//!
//! CRIU insists on being root when it starts, and the kernel asks whose a user namespace is when it is made and when
//! the limits of its processes are read: each VE's is its own owner's ([`crate::idmap::clone_as_owner`]). So CRIU
//! becomes that owner at a moment when it waits for us, keeping all its capabilities
//! ([`crate::serve::Serve::keep_capabilities`]).

use std::time::{Duration, Instant};

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

/// How long a child may take until it waits: one that was just started is still being loaded, and one that has just spoken
/// may be on its way. On a busy machine that takes a while.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(1);

/// Changes the effective user of a child of ours that waits in a system call, or will within ten seconds; the call goes on
/// waiting. Its children's files in `/proc` are then that user's, as they are for any process that did not change its user.
///
/// # Errors
/// The errno of ptrace(2), or of the calls that the child made; `EPROTO` when it does not wait in a call.
pub fn set_effective_user(child: i32, user: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !try_to_set(child, user)? {
        if Instant::now() >= deadline {
            return Err(SysError::new("ptrace", format!("{child} is in no system call"), Errno::PROTO));
        }
        std::thread::sleep(AGAIN);
    }
    Ok(())
}

/// `false` when it is in no call now, and nothing was changed.
fn try_to_set(child: i32, user: u32) -> Result<bool> {
    let pid = Pid::from_raw(child);
    ptrace::seize(pid, Options::empty()).call("ptrace", || format!("SEIZE, {child}"))?;
    let done = ptrace::interrupt(pid)
        .call("ptrace", || format!("INTERRUPT, {child}"))
        .and_then(|()| stopped(pid))
        .and_then(|()| calls_inside(pid, user));
    // A child that is gone needs none.
    let detached = ptrace::detach(pid, None).call("ptrace", || format!("DETACH, {child}"));
    done.and_then(|done| detached.map(|()| done))
}

fn stopped(pid: Pid) -> Result<()> {
    match waitpid(pid, None).call("waitpid", || pid)? {
        WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => Ok(()),
        _ => Err(SysError::new("waitpid", pid, Errno::SRCH)),
    }
}

fn calls_inside(pid: Pid, user: u32) -> Result<bool> {
    let before = ptrace::getregs(pid).call("ptrace", || format!("GETREGS, {pid}"))?;
    let at = before.rip.wrapping_sub(2);
    let code = ptrace::read(pid, std::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0)))
        .call("ptrace", || format!("PEEKTEXT, {at:#x}"))?;
    // A negative number is no call but a fault or an interrupt.
    if code & 0xffff != SYSCALL || i64::from_ne_bytes(before.orig_rax.to_ne_bytes()) < 0 {
        return Ok(false);
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
    made.map(|()| true)
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
    fn a_child_that_is_busy_is_waited_for() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read line; id -u";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        set_effective_user(i32::try_from(child.id()).unwrap(), 12_345).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_waiting_child_becomes_another_user_and_goes_on_waiting() {
        let script = "echo ready; read line; grep ^Uid: /proc/$$/status; echo $line";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        let pid = i32::try_from(child.id()).unwrap();
        set_effective_user(pid, 12_345).unwrap();
        writeln!(child.stdin.take().unwrap(), "hello").unwrap();
        let uid = said.next().unwrap().unwrap();
        assert_eq!(uid.split_whitespace().collect::<Vec<_>>(), ["Uid:", "0", "12345", "0", "12345"]);
        assert_eq!(said.next().unwrap().unwrap(), "hello");
        assert!(child.wait().unwrap().success());
    }
}
