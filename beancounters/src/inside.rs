//! Limits of a VE that no cgroup has: they are set in its own instances and namespaces, from outside.
use std::fs;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Pid, Resource as Rlimits, Rlimit, prlimit};
use vzconf::units::page_size;
use vzconf::{Config, Pair};
use vzsys::elsewhere::in_ipc;
use vzsys::{Call, SysError, process};

use crate::error::{Error, Result};
use crate::files;
use crate::limit_plan::Unenforced;
use crate::limits::{Limits, Param, finite};
use crate::rows::ptys;
use crate::ve_cgroup::VeCgroup;

const SHMALL: &str = "/proc/sys/kernel/shmall";
/// What the kernel begins with: as good as none.
const SHMALL_ENDLESS: u64 = u64::MAX - (1 << 24);
/// The kernel's own `NR_UNIX98_PTY_MAX`.
const PTYS_ENDLESS: u64 = 1 << 20;
/// A page of the table, whatever the kernel's own are.
const PAGE: u64 = 4096;

impl Limits {
    /// Sets what is set inside, on a VE whose init is mounted and not yet released, or runs.
    ///
    /// # Errors
    /// [`Error::Inside`] when the kernel does not take a value.
    pub fn apply_inside(&self, init: i32, ve: &VeCgroup) -> Result<Vec<Unenforced>> {
        let mut lost = Vec::new();
        let failed = |param| move |source| Error::Inside { param, ctid: ve.ctid(), source };
        if let Some(pair) = self.numpty {
            let most = finite(pair).map_or(PTYS_ENDLESS, |most| most.min(PTYS_ENDLESS));
            if !ptys::limit(init, most).map_err(failed(Param::Numpty))? {
                let why = "its /dev/pts is not a devpts".to_owned();
                lost.push(Unenforced { param: Param::Numpty, why });
            }
        }
        if let Some(pair) = self.shmpages {
            limit_shared_memory(init, pair).map_err(failed(Param::Shmpages))?;
        }
        if let Some(pair) = self.numfile {
            lost.extend(files::limit(init, ve.ctid(), pair)?);
        }
        Ok(lost)
    }

    /// Sets what each process has for itself, on all that run. A VE that starts has it from its first process.
    ///
    /// # Errors
    /// [`Error::Inside`], [`Error::File`].
    pub fn apply_to_processes(&self, ve: &VeCgroup) -> Result<Vec<Unenforced>> {
        let Some(pair) = self.lockedpages else { return Ok(Vec::new()) };
        for pid in ve.processes()? {
            match limit_locked(pid, lockable_by(pair)) {
                Ok(()) => {}
                Err(error) if error.errno() == Errno::PERM => {
                    let why = format!("of processes that run already, without CAP_SYS_RESOURCE: {error}");
                    return Ok(vec![Unenforced { param: Param::Lockedpages, why }]);
                }
                Err(source) => {
                    return Err(Error::Inside { param: Param::Lockedpages, ctid: ve.ctid(), source });
                }
            }
        }
        Ok(Vec::new())
    }
}

/// The bytes that each process of a VE may lock; `None` when its configuration does not say.
#[must_use]
pub fn lockable(config: &Config) -> Option<u64> {
    config.ubc("lockedpages").and_then(lockable_by)
}

/// How many signals may be queued in a VE; `None` when its configuration does not say.
#[must_use]
pub fn queueable(config: &Config) -> Option<u64> {
    config.ubc("numsiginfo").and_then(finite)
}

fn lockable_by(pair: Pair) -> Option<u64> {
    finite(pair).map(|pages| pages.saturating_mul(PAGE))
}

/// System V segments of the VE's namespace, by their size.
fn limit_shared_memory(init: i32, pair: Pair) -> std::result::Result<(), SysError> {
    let ipc = process::namespace(init, "ipc")?;
    let pages = |pages: u64| pages.saturating_mul(PAGE).div_ceil(page_size()).min(SHMALL_ENDLESS);
    let text = finite(pair).map_or(SHMALL_ENDLESS, pages).to_string();
    in_ipc(ipc.as_fd(), || match fs::write(SHMALL, &text) {
        // Since 6.9 the file is that of the namespace's own root, and of nobody else.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => as_owner(init, &text),
        done => done.call("write", || SHMALL),
    })
}

/// The same as the VE's root. For a thread that ends afterwards.
fn as_owner(init: i32, text: &str) -> std::result::Result<(), SysError> {
    let map = fs::read_to_string(format!("/proc/{init}/uid_map")).call("read", || "uid_map")?;
    let owner = map.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    let owner: u32 = owner.ok_or_else(|| SysError::new("read", "uid_map", Errno::INVAL))?;
    let (root, uid) = (rustix::process::Uid::ROOT, rustix::process::Uid::from_raw(owner));
    rustix::thread::set_thread_res_uid(root, uid, root).call("setresuid", || owner)?;
    fs::write(SHMALL, text).call("write", || SHMALL)
}

/// Of a process that runs; one that is gone is fine. Those that it makes have the same.
fn limit_locked(pid: i32, bytes: Option<u64>) -> std::result::Result<(), SysError> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(()) };
    match prlimit(Some(number), Rlimits::Memlock, Rlimit { current: bytes, maximum: bytes }) {
        Ok(_) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(SysError::new("prlimit", format_args!("{pid}, MEMLOCK"), errno)),
    }
}
