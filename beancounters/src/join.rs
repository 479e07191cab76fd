//! How a process gets into a VE's cgroup.
//!
//! **v1.** The process itself, while it has one thread, writes `0` to each `tasks` file. That moves one
//! thread, so the kernel takes no thread-group lock; a pid written to `cgroup.procs` takes it, and the
//! first one after a quiet time waits for an RCU grace period (12 ms where `tasks` takes 0.02 ms).
//!
//! **v2.** clone3(CLONE_INTO_CGROUP) starts the process inside. Where?
//!
//! * Its init: in `vz/<CTID>` itself, the root of the VE's cgroup namespace. It is empty and has nothing
//!   in `cgroup.subtree_control` then.
//! * Processes that join later (`exec`, `enter`): a systemd guest has moved itself to `init.scope` and
//!   enabled controllers for its children, so nothing may live in `vz/<CTID>` any more (EBUSY; only the
//!   host's root is exempt) — and a process put there *before* would keep systemd from enabling them. They
//!   go to the leaf `vz/<CTID>/.exec`, which the host keeps for itself: were it the VE's, it could
//!   make it an inner node and lock the admin out. The VE sees it, counts it in its limits, and its
//!   root may move the processes to its own slices (login sessions).
//! * On a hybrid host, and wherever v2 has no controllers for the VE, nothing can ever be enabled: they go
//!   to `vz/<CTID>` itself.
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::knob;
use crate::ve_cgroup::{PATH_FLAGS, VeCgroup};

/// The leaf for processes that join; the others are tried when a VE has taken the name.
const LEAVES: [&str; 4] = [".exec", ".exec-1", ".exec-2", ".exec-3"];

/// What a new process of the VE needs, opened beforehand: it may join after it has lost sight of the
/// host's files.
#[derive(Debug)]
pub struct JoinPlan {
    /// v1 `tasks` files, one per hierarchy; the single-threaded process writes `0` to each.
    pub v1_tasks: Vec<OwnedFd>,
    /// v2 directory for `CLONE_INTO_CGROUP`.
    pub unified: Option<OwnedFd>,
}

impl VeCgroup {
    /// For the VE's init.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn init_plan(&self) -> Result<JoinPlan> {
        Ok(JoinPlan { v1_tasks: self.v1_tasks()?, unified: self.unified_dir()? })
    }

    /// For processes that join the running VE.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn exec_plan(&self) -> Result<JoinPlan> {
        Ok(JoinPlan { v1_tasks: self.v1_tasks()?, unified: self.exec_dir()? })
    }

    /// The v1 `tasks` files; co-mounted controllers share one.
    #[must_use]
    pub fn v1_task_paths(&self) -> Vec<PathBuf> {
        self.hierarchies().v1().iter().map(|h| self.dir_in(&h.mount).join("tasks")).collect()
    }

    /// The v1 `tasks` files, open for writing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn v1_tasks(&self) -> Result<Vec<OwnedFd>> {
        let open = |path: PathBuf| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| Error::file("open", path, errno))
        };
        self.v1_task_paths().into_iter().map(open).collect()
    }

    /// The v2 directory that init is cloned into; `None` on legacy hosts.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn unified_dir(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let fd = rustix::fs::open(&dir, PATH_FLAGS, Mode::empty());
        fd.map(Some).map_err(|errno| Error::file("open", dir, errno))
    }

    /// The v2 directory that joining processes are cloned into, made if need be; `None` on legacy hosts.
    ///
    /// # Errors
    /// [`Error::File`]; `EBUSY` when the VE has made all possible leaves its own.
    pub fn exec_dir(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        if knob::read(&dir.join("cgroup.controllers")).map_or(true, |list| list.is_empty()) {
            return self.unified_dir();
        }
        for leaf in LEAVES.map(|name| dir.join(name)) {
            let failed = |errno| Error::file("create", &leaf, errno);
            match rustix::fs::mkdirat(CWD, &leaf, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let fd = match rustix::fs::open(&leaf, PATH_FLAGS, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue, // the VE may remove it, and it alone suffers
                Err(errno) => return Err(failed(errno)),
            };
            if rustix::fs::fstat(&fd).map_err(failed)?.st_uid == rustix::process::geteuid().as_raw() {
                return Ok(Some(fd));
            }
        }
        Err(Error::file("find a free leaf in", dir, Errno::BUSY))
    }
}
