//! The cgroups that a VE has made below its own: recorded when it is saved, made again before it is restored.
//!
//! CRIU makes only those that have processes in them; systemd watches its empty ones too.
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tree::{self, Dir};
use crate::ve_cgroup::VeCgroup;

/// Files of a cgroup2 that whoever owns it may have set, parents' before children's. What is not there or as the kernel made it is not recorded.
const KNOBS: [(&str, &str); 18] = [
    ("cgroup.subtree_control", ""),
    ("cgroup.max.descendants", "max"),
    ("cgroup.max.depth", "max"),
    ("memory.min", "0"),
    ("memory.low", "0"),
    ("memory.high", "max"),
    ("memory.max", "max"),
    ("memory.swap.max", "max"),
    ("memory.swap.high", "max"),
    ("memory.zswap.max", "max"),
    ("memory.oom.group", "0"),
    ("cpu.weight", "100"),
    ("cpu.idle", "0"),
    ("cpu.max", "max 100000"),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
    ("pids.max", "max"),
    ("io.weight", "default 100"),
];
/// Files that whoever made a cgroup may have given to somebody else: those that are delegated, and those by which a
/// service asks to be told of pressure.
const GIVEN: [&str; 7] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.subtree_control",
    "tasks",
    "memory.pressure",
    "cpu.pressure",
    "io.pressure",
];
/// One that nobody is given, in a cgroup2 and in a v1 one: it belongs to whoever made the cgroup.
const KEPT: [&str; 2] = ["cgroup.events", "notify_on_release"];
/// A VE can have no more than that.
const MOST: usize = 8192;

/// One directory below a VE's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Branch {
    /// Where, below the VE's own: the names' bytes.
    path: Vec<u8>,
    /// Whose it is, counted from the VE's root.
    uid: u32,
    /// The same of its group.
    gid: u32,
    /// The same of its files.
    #[serde(default)]
    files: (u32, u32),
    /// Files that belong to somebody else.
    #[serde(default)]
    given: Vec<(String, u32, u32)>,
    /// Values that were set, by file.
    set: Vec<(String, String)>,
}

impl Branch {
    fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.path.clone()))
    }
}

/// All that a VE has made, in the trees that it may make cgroups in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branches {
    /// Below its directory of v2, parents first; and the values set in that itself.
    v2: Vec<Branch>,
    /// Below that of `name=systemd`.
    systemd: Vec<Branch>,
}

impl Branches {
    /// Records those of a VE whose ids begin at `base` (0 without a user namespace). The VE is frozen, or they may change
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn of(cgroup: &VeCgroup, base: u32) -> Result<Branches> {
        let v2 = cgroup.v2_dir().map_or(Ok(Vec::new()), |dir| record(&dir, base, true))?;
        let systemd = systemd_dir(cgroup).map_or(Ok(Vec::new()), |dir| record(&dir, base, false))?;
        Ok(Branches { v2, systemd })
    }

    /// Makes them again in a cgroup that is fresh. A tree that this host does not have is left out.
    ///
    /// # Errors
    /// [`Error::File`]: also for a record that names something outside of the VE's cgroup.
    pub fn make(&self, cgroup: &VeCgroup, base: u32) -> Result<()> {
        if let Some(dir) = cgroup.v2_dir() {
            self.v2.iter().try_for_each(|branch| make(&dir, branch, base))?;
        }
        if let Some(dir) = systemd_dir(cgroup) {
            self.systemd.iter().try_for_each(|branch| make(&dir, branch, base))?;
        }
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v2.len() + self.systemd.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn systemd_dir(cgroup: &VeCgroup) -> Option<PathBuf> {
    let named = cgroup.hierarchies().v1().iter().find(|hierarchy| hierarchy.systemd)?;
    Some(cgroup.dir_in(&named.mount))
}

fn record(top: &Path, base: u32, v2: bool) -> Result<Vec<Branch>> {
    let failed = |errno| Error::file("read", top, errno);
    let Some(dir) = Dir::open(top).map_err(failed)? else { return Ok(Vec::new()) };
    let mut branches = Vec::new();
    tree::walk_named(dir, |dir, path| {
        if branches.len() >= MOST {
            return Err(Errno::TOOBIG);
        }
        let stat = rustix::fs::fstat(dir)?;
        let below = |id: u32| id.saturating_sub(base);
        let (uid, gid) = (below(stat.st_uid), below(stat.st_gid));
        let owner = |name: &str| {
            let stat = rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some((below(stat.st_uid), below(stat.st_gid)))
        };
        let files = KEPT.iter().find_map(|name| owner(name)).unwrap_or_default();
        let given = GIVEN.iter().filter_map(|name| {
            let (uid, gid) = owner(name)?;
            ((uid, gid) != files).then(|| ((*name).to_owned(), uid, gid))
        });
        // The VE's own directory has no name below itself, and its limits are the host's to set.
        let knobs = if !v2 {
            &KNOBS[..0]
        } else if path.as_os_str().is_empty() {
            &KNOBS[..1]
        } else {
            &KNOBS[..]
        };
        let set = knobs.iter().filter_map(|(name, usual)| {
            let value = read(dir, name)?;
            (value != *usual).then(|| ((*name).to_owned(), value))
        });
        let (path, given, set) = (path.as_os_str().as_bytes().to_vec(), given.collect(), set.collect());
        branches.push(Branch { path, uid, gid, files, given, set });
        Ok(())
    })
    .map_err(failed)?;
    Ok(branches)
}

fn read(dir: &Dir, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty()).ok()?;
    let mut buffer = [0_u8; 4096];
    let n = rustix::io::read(&file, &mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..n]).trim_end().to_owned())
}

fn make(top: &Path, branch: &Branch, base: u32) -> Result<()> {
    let path = branch.path();
    let failed = |errno| Error::file("create", top.join(&path), errno);
    // A record is a file that somebody may have made.
    if path.components().any(|part| !matches!(part, Component::Normal(_))) || path.has_root() {
        return Err(failed(Errno::INVAL));
    }
    let Some(mut dir) = Dir::open(top).map_err(failed)? else { return Err(failed(Errno::NOENT)) };
    for part in path.components() {
        let name = part.as_os_str();
        match rustix::fs::mkdirat(dir.as_fd(), name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        dir = dir.named(name).map_err(failed)?;
    }
    if !path.as_os_str().is_empty() {
        give(&dir, branch, base).map_err(failed)?;
    }
    for (name, value) in branch.set.iter().filter(|(name, _)| KNOBS.iter().any(|(known, _)| known == name)) {
        // What this kernel or this place in the tree does not take is as for a guest that would set it here.
        write(&dir, name, value);
    }
    Ok(())
}

/// To whom it belonged, with its files: programs of the VE have some of them open, for writing too.
fn give(dir: &Dir, branch: &Branch, base: u32) -> std::result::Result<(), Errno> {
    let own = |name: &str, (uid, gid): (u32, u32)| {
        let id = |id: u32| base.checked_add(id).ok_or(Errno::INVAL);
        let (uid, gid) = (Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?));
        let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        match rustix::fs::chownat(dir.as_fd(), name, Some(uid), Some(gid), flags) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    };
    for entry in rustix::fs::Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        if entry.file_type() == FileType::RegularFile {
            own(&entry.file_name().to_string_lossy(), branch.files)?;
        }
    }
    let given = branch.given.iter().filter(|(name, ..)| GIVEN.contains(&name.as_str()));
    for (name, uid, gid) in given {
        own(name, (*uid, *gid))?;
    }
    own("", (branch.uid, branch.gid))
}

fn write(dir: &Dir, name: &str, value: &str) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(file) = rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty()) else { return };
    if name == "cgroup.subtree_control" {
        for controller in value.split(' ').filter(|name| !name.is_empty()) {
            let _ = rustix::io::write(&file, format!("+{controller}").as_bytes());
        }
    } else {
        let _ = rustix::io::write(&file, value.as_bytes());
    }
}
