//! A VE's `/dev`: a tmpfs made on the host's side, because a user namespace may not make device nodes.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, mkdirat, mknodat, openat,
    statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::umask;
use serde::{Deserialize, Serialize};

use super::LaunchPlan;
use crate::error::{Call, Result, SysError};
use crate::idmap::{self, IdRange};
use crate::mount::{Detached, Opt};

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A device node below `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path below `/dev`.
    pub path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

const USUAL: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The file system for a VE's `/dev`, with nothing in it, attached nowhere.
///
/// # Errors
/// The errno of fsopen(2) and its like.
pub fn empty(ids: Option<IdRange>) -> Result<Detached> {
    let base = ids.map_or(0, |ids| ids.base);
    let options = [
        Opt::value("mode", "0755"),
        Opt::value("size", "1m"),
        Opt::value("nr_inodes", 4096),
        Opt::value("uid", base),
        Opt::value("gid", base),
    ];
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Detached::new("tmpfs", "dev", &options, attrs)
}

/// Adds `base` to the ids of all that is in a directory tree of ours, itself included: a tree that was saved with the
/// ids that a VE sees.
///
/// # Errors
/// The errno of open(2), getdents(2) or fchownat(2).
pub fn shift(dir: BorrowedFd<'_>, base: u32) -> Result<()> {
    let mut seen = HashSet::new();
    let stat = fstat(dir).call("fstat", || "dev")?;
    give(dir, c"", &stat, base)?;
    shift_below(dir, base, &mut seen, 0)
}

fn shift_below(dir: BorrowedFd<'_>, base: u32, seen: &mut HashSet<u64>, depth: u32) -> Result<()> {
    // No tree that was unpacked within its limits is deeper.
    if depth > 64 {
        return Err(SysError::new("openat", "dev", Errno::LOOP));
    }
    let entries = Dir::read_from(dir).call("getdents", || "dev")?;
    for entry in entries {
        let entry = entry.call("getdents", || "dev")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).call("fstatat", || name.to_string_lossy())?;
        // A file with several names is given once.
        if !seen.insert(stat.st_ino) {
            continue;
        }
        give(dir, name, &stat, base)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = openat(dir, name, flags, Mode::empty()).call("openat", || name.to_string_lossy())?;
            shift_below(below.as_fd(), base, seen, depth + 1)?;
        }
    }
    Ok(())
}

fn give(dir: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat, base: u32) -> Result<()> {
    let (uid, gid) = (stat.st_uid.saturating_add(base), stat.st_gid.saturating_add(base));
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
        .call("fchownat", || name.to_string_lossy())?;
    // A change of owner takes set-user-ID bits away.
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if mode.intersects(Mode::SUID | Mode::SGID) && !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        chmodat(dir, name, mode, AtFlags::empty()).call("fchmodat", || name.to_string_lossy())?;
    }
    Ok(())
}

/// Makes the file system with its nodes, owned by the VE's root, attached nowhere.
pub(super) fn make(plan: &LaunchPlan) -> Result<Detached> {
    let dev = empty(plan.ids)?;
    let mask = umask(Mode::empty());
    let filled = idmap::as_ve_root(plan.ids, || fill(dev.as_fd(), &plan.devices));
    umask(mask);
    filled.map(|()| dev)
}

fn fill(dev: BorrowedFd<'_>, more: &[Device]) -> Result<()> {
    for (name, major, minor) in USUAL {
        node(dev, Path::new(name), DeviceKind::Char, (major, minor), 0o666)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(dev, name, Mode::from_raw_mode(0o755)).call("mkdirat", || name)?;
    }
    // Init's console and an empty file are mount points and masks.
    mknodat(dev, "console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0)
        .call("mknodat", || "console")?;
    for (name, target) in LINKS {
        symlinkat(target, dev, name).call("symlinkat", || name)?;
    }
    for device in more {
        parents(dev, &device.path)?;
        node(dev, &device.path, device.kind, (device.major, device.minor), device.mode)?;
    }
    Ok(())
}

/// Makes the directories above a node. The tree is ours and fresh, so names are all that can go wrong.
fn parents(dev: BorrowedFd<'_>, path: &Path) -> Result<()> {
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(SysError::new("mknodat", path.display(), Errno::INVAL));
    }
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    above.reverse();
    for dir in above {
        match mkdirat(dev, dir, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(SysError::new("mkdirat", dir.display(), errno)),
        }
    }
    Ok(())
}

fn node(dev: BorrowedFd<'_>, path: &Path, kind: DeviceKind, number: (u32, u32), mode: u32) -> Result<()> {
    let file_type = match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let dev_number = rustix::fs::makedev(number.0, number.1);
    match mknodat(dev, path, file_type, Mode::from_raw_mode(mode), dev_number) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(SysError::new("mknodat", path.display(), errno)),
    }
}
