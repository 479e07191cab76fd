//! A VE's own range of user and group ids, and the user namespaces that carry it.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::{Call, Result, SysError};
use crate::process::{self, PidFd};
use crate::raw::{self, Cloned};

/// How many ids a VE has, as every common guest expects.
pub const RANGE: u32 = 65536;

/// The host ids of a VE: its uid and gid 0 are `base` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First host uid and gid.
    pub base: u32,
    /// How many ids follow one another.
    pub count: u32,
}

impl IdRange {
    /// The 65536 ids from `base`.
    #[must_use]
    pub fn at(base: u32) -> Self {
        Self { base, count: RANGE }
    }

    /// Writes the maps of a process that was just cloned into a new user namespace.
    ///
    /// # Errors
    /// The errno of the write; needs `CAP_SETUID` and `CAP_SETGID` here.
    pub fn write_maps(&self, pid: i32) -> Result<()> {
        let map = format!("0 {} {}\n", self.base, self.count);
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, &map).call("write", || format!("{path}, {map:?}"))?;
        }
        Ok(())
    }

    /// A user namespace with this range and nobody in it, for idmapped mounts.
    ///
    /// # Errors
    /// The errno of clone3(2), of the maps or of opening the namespace.
    pub fn user_namespace(&self) -> Result<OwnedFd> {
        let (pid, pidfd) = raw::clone_waiting(libc::CLONE_NEWUSER as u64)?;
        let child = PidFd::from_fd(pidfd);
        let opened = self.write_maps(pid).and_then(|()| process::namespace(pid, "user"));
        child.signal(Signal::KILL)?;
        child.reap()?;
        opened
    }
}

/// Runs `work` with the file-system ids of the VE's root, so that files it makes in an idmapped tree
/// belong to that root. Capabilities stay as they are (setfsuid drops the file ones by itself).
///
/// # Errors
/// The errno of changing the ids, or what `work` returned.
pub fn as_ve_root<T, E: From<SysError>>(
    range: Option<IdRange>,
    work: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let Some(range) = range else { return work() };
    let _back = FsIds::enter(range.base)?;
    work()
}

struct FsIds;

impl FsIds {
    fn enter(base: u32) -> Result<Self> {
        let caps = raw::permitted()?;
        raw::set_fs_ids(base, base)?;
        let guard = Self;
        raw::set_caps(caps)?;
        Ok(guard)
    }
}

impl Drop for FsIds {
    fn drop(&mut self) {
        // Root may always take its own ids back.
        let _ = raw::set_fs_ids(0, 0);
    }
}

/// clone3 as `owner`, for whom the kernel then accounts namespaces and processes, with all capabilities
/// kept. The caller is root again afterwards; the child stays `owner`, because in a new user namespace
/// no other id exists for it until its maps are written.
///
/// # Errors
/// The errno of changing ids or capabilities, or of clone3(2).
pub fn clone_as_owner(owner: u32, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let caps = raw::permitted()?;
    let uid = rustix::process::Uid::from_raw(owner);
    let root = rustix::process::Uid::ROOT;
    rustix::thread::set_thread_res_uid(root, uid, root).call("setresuid", || owner)?;
    let cloned = raw::set_caps(caps).and_then(|()| raw::clone3(flags, cgroup, libc::SIGCHLD));
    if matches!(cloned, Ok(Cloned::Child)) {
        return cloned;
    }
    rustix::thread::set_thread_res_uid(root, root, root).call("setresuid", || "0")?;
    raw::set_caps(caps)?;
    cloned
}

/// Whether the errno says that a filesystem or kernel cannot do idmapped mounts.
#[must_use]
pub fn unsupported(error: &SysError) -> bool {
    matches!(error.errno(), Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_made_as_ve_root_belong_to_it_and_we_are_root_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        as_ve_root(Some(IdRange::at(1_000_000)), || {
            std::fs::write(&file, "x").map_err(|e| SysError::from_io("write", "f", &e))
        })
        .unwrap();
        let meta = std::fs::metadata(&file).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1_000_000, 1_000_000));
        std::fs::write(dir.path().join("g"), "x").unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("g")).unwrap().uid(), 0);
    }

    #[test]
    fn a_user_namespace_for_mounts_has_the_range() {
        let fd = IdRange::at(2_000_000).user_namespace().unwrap();
        drop(fd);
    }
}
