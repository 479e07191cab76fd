//! The cgroup of one VE: `vz/<CTID>` in every hierarchy.
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use vzconf::Ctid;

use crate::error::{Error, Result};
use crate::hierarchy::{Controller, Hierarchies, V1};
use crate::kept::{Kept, open_directory};
use crate::knob::{self, Length};

/// All VEs are siblings below this directory, so that CPU weights are compared between them alone.
const PARENT: &str = "vz";
/// What a kernel too old to list them lets a delegatee own.
const DELEGATE: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control";
/// The v1 files of `name=systemd` that its old guests write to.
const DELEGATE_V1: [&str; 2] = ["cgroup.procs", "tasks"];
/// A VE may make this many cgroups, this deep: far above what nested systems need, and below what
/// makes removal or host memory suffer.
const MAX_DESCENDANTS: &str = "4096";
const MAX_DEPTH: &str = "64";
/// How long an aborted start may take to get rid of its cgroup.
const UNDO: Duration = Duration::from_secs(2);

/// The cgroup of a VE in all hierarchies. One that was created is removed again on drop, with all its
/// processes, until [`VeCgroup::commit`].
#[derive(Debug)]
pub struct VeCgroup {
    hierarchies: Hierarchies,
    ctid: Ctid,
    undo: bool,
    kept: Option<Kept>,
}

impl VeCgroup {
    /// Makes the cgroup, empty and with the kernel's default limits; remains of a VE that ended badly
    /// are replaced. `owner` (host ids of the VE's root) may then make cgroups below it on v2 and in
    /// `name=systemd`, but not change its limits.
    ///
    /// The caller holds the VE's lock and is root.
    ///
    /// # Errors
    /// [`Error::Populated`] when processes are still in it, [`Error::File`] otherwise; nothing that was
    /// made is left.
    pub fn create(hierarchies: &Hierarchies, ctid: Ctid, owner: Option<(u32, u32)>) -> Result<VeCgroup> {
        let mut ve = VeCgroup { hierarchies: hierarchies.clone(), ctid, undo: false, kept: None };
        if ve.is_populated()? {
            return Err(Error::Populated { ctid, path: ve.main_dir().unwrap_or_default() });
        }
        ve.undo = true;
        if let Some(mount) = hierarchies.v2() {
            ve.make_v2(mount, owner)?;
        }
        for hierarchy in hierarchies.v1() {
            ve.make_v1(hierarchy, owner)?;
        }
        Ok(ve)
    }

    /// The cgroup of a VE that was started before; `None` when there is none. One system call.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(hierarchies: &Hierarchies, ctid: Ctid) -> Result<Option<VeCgroup>> {
        let ve = VeCgroup { hierarchies: hierarchies.clone(), ctid, undo: false, kept: None };
        let Some(dir) = ve.main_dir() else { return Ok(None) };
        match rustix::fs::access(&dir, rustix::fs::Access::EXISTS) {
            Ok(()) => Ok(Some(ve)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::file("look up", dir, errno)),
        }
    }

    /// For whoever reads the same files again and again: they stay open.
    #[must_use]
    pub fn keep_open(self) -> VeCgroup {
        let mut ve = self;
        ve.kept = Some(Kept::default());
        ve
    }

    /// A file of it, without the last line break.
    pub(crate) fn read(&self, path: &Path, length: Length) -> std::result::Result<String, Errno> {
        match &self.kept {
            Some(kept) => kept.read(path, length),
            None => knob::read_as(path, length),
        }
    }

    /// A file of it as text, empty when it cannot be read.
    pub(crate) fn text(&self, path: &Path, length: Length) -> String {
        self.read(path, length).unwrap_or_default()
    }

    /// A question about its v2 directory; `None` without one.
    pub(crate) fn in_v2_dir<T>(&self, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        let dir = self.v2_dir()?;
        match &self.kept {
            Some(kept) => kept.in_directory(&dir, ask).ok(),
            None => open_directory(&dir).ok().map(|fd| ask(fd.as_fd())),
        }
    }

    /// A file of it with one number; `None` when it is absent or holds `max`.
    pub(crate) fn number(&self, path: &Path) -> Option<u64> {
        self.read(path, Length::Short).ok()?.parse().ok()
    }

    /// The VE whose cgroup a path of `/proc/PID/cgroup` leads into. What a VE makes itself lies deeper, so the first
    /// match is the truth.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Ctid> {
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            // `0101` is nobody's directory: a VE's own name has no leading zero.
            let ctid = parts.peek().filter(|_| part == PARENT).and_then(|name| {
                let ctid: Ctid = name.parse().ok()?;
                (!ctid.is_host() && ctid.to_string() == **name).then_some(ctid)
            });
            if ctid.is_some() {
                return ctid;
            }
        }
        None
    }

    /// The cgroup stays from now on.
    pub fn commit(&mut self) {
        self.undo = false;
    }

    /// Whose it is.
    #[must_use]
    pub fn ctid(&self) -> Ctid {
        self.ctid
    }

    /// The hierarchies it is in.
    #[must_use]
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    pub(crate) fn dir_in(&self, mount: &Path) -> PathBuf {
        let mut dir = parent_in(mount);
        dir.push(self.ctid.to_string());
        dir
    }

    /// Its v2 directory.
    #[must_use]
    pub fn v2_dir(&self) -> Option<PathBuf> {
        self.hierarchies.v2().map(|mount| self.dir_in(mount))
    }

    /// Its v1 directory of this controller.
    pub(crate) fn v1_dir(&self, controller: Controller) -> Option<PathBuf> {
        self.hierarchies.v1_with(controller).map(|mount| self.dir_in(mount))
    }

    /// A file of this controller, by its name in either generation.
    pub(crate) fn file(&self, controller: Controller, v1: &str, v2: &str) -> Option<PathBuf> {
        match self.v1_dir(controller) {
            Some(dir) => Some(dir.join(v1)),
            None => Some(self.v2_dir()?.join(v2)),
        }
    }

    /// The directory that is asked first.
    pub(crate) fn main_dir(&self) -> Option<PathBuf> {
        self.hierarchies.mounts().next().map(|mount| self.dir_in(mount))
    }

    /// Its directories, v2 first.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.mounts().map(|mount| self.dir_in(mount))
    }

    fn make_v2(&self, mount: &Path, owner: Option<(u32, u32)>) -> Result<()> {
        let dir = self.fresh_directory(mount)?;
        enable_controllers(mount, &dir);
        for (file, value) in [("cgroup.max.descendants", MAX_DESCENDANTS), ("cgroup.max.depth", MAX_DEPTH)] {
            tolerate_missing("write", &dir.join(file), knob::write(&dir.join(file), value))?;
        }
        let Some(owner) = owner else { return Ok(()) };
        let list = knob::read(self.hierarchies.delegate_list()).unwrap_or_else(|_| DELEGATE.to_owned());
        // The kernel's list is of plain names; anything else would not be ours to give away.
        give(&dir, list.lines().filter(|file| !file.contains('/')), owner)
    }

    fn make_v1(&self, hierarchy: &V1, owner: Option<(u32, u32)>) -> Result<()> {
        let dir = self.fresh_directory(&hierarchy.mount)?;
        if hierarchy.controllers.contains(&Controller::Cpuset) {
            let parent = parent_in(&hierarchy.mount);
            inherit_cpuset(&hierarchy.mount, &parent)?;
            inherit_cpuset(&parent, &dir)?;
        }
        match owner {
            Some(owner) if hierarchy.systemd => give(&dir, DELEGATE_V1.into_iter(), owner),
            _ => Ok(()),
        }
    }

    /// A new `vz/<CTID>`; what was left of an earlier one goes first, and its limits with it.
    fn fresh_directory(&self, mount: &Path) -> Result<PathBuf> {
        let dir = self.dir_in(mount);
        let deadline = Instant::now() + UNDO;
        loop {
            match rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o755)) {
                Ok(()) => return Ok(dir),
                Err(Errno::NOENT) => make_parent(mount)?,
                Err(Errno::EXIST) => {
                    let gone = crate::removal::remove_dir(&dir, deadline)?;
                    if !gone {
                        return Err(Error::Populated { ctid: self.ctid, path: dir });
                    }
                }
                Err(errno) => return Err(Error::file("create", dir, errno)),
            }
            if Instant::now() > deadline {
                return Err(Error::file("create", dir, Errno::AGAIN));
            }
        }
    }
}

impl Drop for VeCgroup {
    fn drop(&mut self) {
        if self.undo {
            // The start has failed, and says why; that its processes are gone is all that matters here.
            let deadline = Instant::now() + UNDO;
            let _ = self.kill_all();
            let _ = self.wait_empty(deadline);
            let _ = self.remove(deadline);
        }
    }
}

pub(crate) fn parent_in(mount: &Path) -> PathBuf {
    mount.join(PARENT)
}

fn make_parent(mount: &Path) -> Result<()> {
    let parent = parent_in(mount);
    match rustix::fs::mkdir(&parent, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The mount point itself is not there: going on would loop.
        Err(errno) => Err(Error::file("create", parent, errno)),
    }
}

/// Turns on, down to the VE, what the v2 tree has to offer. One that cannot be turned on (a controller
/// in v1 use, real-time tasks in the way) shows later as limits that are not enforced.
fn enable_controllers(mount: &Path, dir: &Path) {
    let Ok(offered) = knob::read(&mount.join("cgroup.controllers")) else { return };
    let has = knob::read(&dir.join("cgroup.controllers")).unwrap_or_default();
    let listed = |list: &str, name: &str| list.split(' ').any(|n| n == name);
    let missing: Vec<&str> = Controller::V2
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| listed(&offered, name) && !listed(&has, name))
        .collect();
    if missing.is_empty() {
        return;
    }
    for level in [mount.to_owned(), parent_in(mount)] {
        let file = level.join("cgroup.subtree_control");
        let all = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        if knob::write(&file, &all).is_err() {
            for name in &missing {
                let _ = knob::write(&file, &format!("+{name}"));
            }
        }
    }
}

/// A v1 cpuset without CPUs and nodes takes no process: copies the parent's. The parent of all VEs is
/// brought up to date too, after CPUs went offline and came back.
fn inherit_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (source, target) = (from.join(file), to.join(file));
        let value = match knob::read(&source) {
            Ok(value) => value,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(Error::file("read", source, errno)),
        };
        if knob::read(&target).is_ok_and(|now| now != value) {
            knob::write(&target, &value).map_err(|errno| Error::file("write", target, errno))?;
        }
    }
    Ok(())
}

/// Delegation: the directory and these of its files belong to the VE's root.
fn give<'a>(dir: &Path, files: impl Iterator<Item = &'a str>, owner: (u32, u32)) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let chown = |path: &Path| {
        let done = rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        tolerate_missing("chown", path, done)
    };
    files.map(|file| dir.join(file)).try_for_each(|path| chown(&path))?;
    chown(dir)
}

/// Kernels differ in the files they have.
fn tolerate_missing(action: &'static str, path: &Path, done: std::result::Result<(), Errno>) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::file(action, path, errno)),
    }
}

pub(crate) const PATH_FLAGS: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_outermost_ve() {
        for (path, ctid) in [
            ("/vz/101", Some(101)),
            ("/vz/101/vz/5/x", Some(101)),
            ("/outer/vz/7/init.scope", Some(7)),
            ("/vz", None),
            ("/vz/", None),
            ("/vz/0", None),
            ("/vz/0101", None),
            ("/vz/x/5", None),
            ("/user.slice/5", None),
            ("", None),
        ] {
            assert_eq!(VeCgroup::of_path(path).map(Ctid::get), ctid, "{path}");
        }
    }
}
