//! Two layers of an overlay become one: what nobody needs for itself any more, and the one right below it.
//!
//! ```text
//! from   etc/  a   b⌀        into   etc/  b   c        into, after   etc/  a   b⌀   c
//! ```
//! All is moved by renames into the lower one: nothing is copied, and what was hidden is free afterwards. Each step can be
//! done again, so whoever is killed in the middle is gone on with ([`settle`](super::stack::settle)); a file is in one
//! of the two at any moment. Nobody has either mounted meanwhile.
//!
//! The layers were written by a hostile VE: names are looked up one directory at a time, and no link is followed.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, fchmod,
    fchown, futimens, lgetxattr, lsetxattr, openat, openat2, renameat, statat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use vzsys::{Call, SysError, fault, quota};

use crate::mirror::{Which, copy_xattrs, names, path_in};
use crate::removal;

/// Hides what lies below a directory of the same name.
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// Says that names of copied-up files are in a directory.
const IMPURE: &CStr = c"trusted.overlay.impure";
/// What refers to a layer below by a path or by its data: that may be the one it is merged with.
const REFERRING: [&CStr; 2] = [c"trusted.overlay.redirect", c"trusted.overlay.metacopy"];
/// Deeper trees stay two layers.
const LONGEST: usize = 3000;
/// Renames may need blocks for directories; a merge that has begun must be able to end.
const ROOM: u64 = 16 << 20;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether two layers can be merged to the end, before anything says that they are.
pub(crate) fn is_possible(from: &Path, into: &Path) -> vzsys::Result<bool> {
    if vzsys::room::free(into)? < ROOM {
        return Ok(false);
    }
    let merge = Merge::open(from, into)?;
    let project = |top: &OwnedFd| quota::project(top.as_fd()).ok();
    // Kernels move nothing from one project to another.
    if project(&merge.from) != project(&merge.into) {
        return Ok(false);
    }
    let mut dirs = vec![PathBuf::new()];
    while let Some(path) = dirs.pop() {
        let dir = below(merge.from.as_fd(), &path)?;
        for name in names(&dir, &path)? {
            let entry = path.join(OsStr::from_bytes(name.to_bytes()));
            if REFERRING.iter().any(|key| has(&path_in(dir.as_fd(), &name), key))
                || entry.as_os_str().len() > LONGEST
            {
                return Ok(false);
            }
            let stat = stat(&dir, &name, &entry)?;
            if stat.is_some_and(|stat| is_dir(&stat)) {
                dirs.push(entry);
            }
        }
    }
    Ok(true)
}

/// Moves all of one layer into the one below it. Any part may have been done before.
pub(super) fn merge(from: &Path, into: &Path) -> vzsys::Result<()> {
    // It was moved whole, and removed.
    if std::fs::symlink_metadata(from).is_err() {
        return Ok(());
    }
    Merge::open(from, into)?.directory(Path::new(""))
}

struct Merge {
    from: OwnedFd,
    into: OwnedFd,
}

impl Merge {
    fn open(from: &Path, into: &Path) -> vzsys::Result<Self> {
        let open =
            |path: &Path| openat(CWD, path, DIR, Mode::empty()).call("open", || path.display().to_string());
        Ok(Self { from: open(from)?, into: open(into)? })
    }

    /// One directory that both have; its attributes are those of the upper one.
    fn directory(&self, path: &Path) -> vzsys::Result<()> {
        let (from, into) = (below(self.from.as_fd(), path)?, below(self.into.as_fd(), path)?);
        let own = rustix::fs::fstat(&from).call("fstat", || path.display().to_string())?;
        for name in names(&from, path)? {
            self.name(&from, &into, &name, &path.join(OsStr::from_bytes(name.to_bytes())))?;
        }
        dress(&from, &into, &own).map_err(|errno| SysError::new("set attributes", path.display(), errno))
    }

    fn name(&self, from: &OwnedFd, into: &OwnedFd, name: &CStr, path: &Path) -> vzsys::Result<()> {
        let Some(upper) = stat(from, name, path)? else { return Ok(()) };
        let lower = stat(into, name, path)?;
        let (up, file) = (path_in(from.as_fd(), name), OsStr::from_bytes(name.to_bytes()));
        match lower {
            Some(lower) if is_dir(&upper) && is_dir(&lower) && !is_opaque(&up) => {
                self.directory(path)?;
                removal::remove_at(from.as_fd(), file)?;
                return Ok(());
            }
            // What hid all below goes; so the directory has to do that from now on.
            Some(_) if is_dir(&upper) => {
                lsetxattr(&up, OPAQUE, b"y", XattrFlags::empty())
                    .map_err(|errno| SysError::new("lsetxattr", path.display(), errno))?;
                removal::remove_at(into.as_fd(), file)?;
            }
            Some(lower) if is_dir(&lower) => removal::remove_at(into.as_fd(), file)?,
            _ => {}
        }
        let moved = match renameat(from, name, into, name) {
            Err(Errno::PERM) if removal::unprotect(from.as_fd(), name) => renameat(from, name, into, name),
            done => done,
        };
        moved.call("rename", || path.display().to_string())?;
        fault::point("snapshot-delete.moved");
        Ok(())
    }
}

/// Gives a directory of the lower layer what the upper one's has; what it is to the layers below it stays.
fn dress(from: &OwnedFd, into: &OwnedFd, own: &Stat) -> Result<(), Errno> {
    let path = |dir: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    let (up, low) = (path(from), path(into));
    let hides = is_opaque(&low);
    let impure = [&up, &low].into_iter().any(|path| has(path, IMPURE));
    fchown(into, Some(Uid::from_raw(own.st_uid)), Some(Gid::from_raw(own.st_gid)))?;
    fchmod(into, Mode::from_raw_mode(own.st_mode & 0o7777))?;
    copy_xattrs(&up, &low, Which::Plain).map_err(|error| error.errno())?;
    for (key, is_set) in [(OPAQUE, hides), (IMPURE, impure)] {
        if is_set {
            lsetxattr(&low, key, b"y", XattrFlags::empty())?;
        }
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
    // their types differ between kernels' headers
    let times = Timestamps {
        last_access: time(own.st_atime, own.st_atime_nsec as i64),
        last_modification: time(own.st_mtime, own.st_mtime_nsec as i64),
    };
    futimens(into, &times)
}

fn below(root: BorrowedFd<'_>, path: &Path) -> vzsys::Result<OwnedFd> {
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, name, DIR, Mode::empty(), how).call("openat2", || path.display().to_string())
}

fn stat(dir: &OwnedFd, name: &CStr, path: &Path) -> vzsys::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(SysError::new("fstatat", path.display(), errno)),
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    lgetxattr(path, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

fn has(path: &Path, key: &CStr) -> bool {
    lgetxattr(path, key, &mut [0_u8; 0][..]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use vzsys::mount::{Detached, Opt};

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    /// What an overlay of these layers shows: path, kind, bytes or target.
    fn shown(layers: &[PathBuf]) -> Option<Vec<String>> {
        let lower = layers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let options = [Opt::value("lowerdir", lower)];
        let overlay = Detached::new("overlay", "overlay", &options, rustix::mount::MountAttrFlags::empty());
        let overlay = match overlay {
            Ok(overlay) => overlay,
            Err(error) => {
                println!("\nSKIP: needs root, and overlays: {error}");
                return None;
            }
        };
        let mut all = Vec::new();
        let mut dirs = vec![PathBuf::from(format!("{}/.", overlay.proc_path()))];
        let top = dirs[0].clone();
        while let Some(dir) = dirs.pop() {
            let meta = fs::symlink_metadata(&dir).unwrap();
            let name = dir.strip_prefix(&top).unwrap().display().to_string();
            all.push(format!("{name}/ {:o} {}", meta.mode(), meta.mtime()));
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    dirs.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let name = path.strip_prefix(&top).unwrap().display().to_string();
                    all.push(format!("{name} {:o} {} {text}", meta.mode(), meta.nlink()));
                }
            }
        }
        all.sort();
        Some(all)
    }

    #[test]
    fn the_overlay_shows_the_same_before_and_after() {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let [base, into, from] = ["base", "into", "from"].map(|name| work.path().join(name));
        for file in ["etc/a", "etc/b", "gone/x", "opaque/old", "file-then-dir/x", "dir/deep/base", "white"] {
            write(base.join(file), "base");
        }
        for file in ["etc/b", "etc/c", "opaque/mid", "dir/deep/mid", "dir-then-file/x", "dir/same"] {
            write(into.join(file), "into");
        }
        whiteout(&into.join("gone"));
        write(into.join("file-then-dir"), "a file");
        whiteout(&into.join("white"));
        for file in [
            "etc/a",
            "etc/new",
            "opaque/top",
            "gone/again",
            "file-then-dir/new",
            "dir/deep/top",
            "dir-then-file",
        ] {
            write(from.join(file), "from");
        }
        fs::hard_link(from.join("etc/new"), from.join("dir/deep/linked")).unwrap();
        whiteout(&from.join("etc/b"));
        whiteout(&from.join("dir/same"));
        write(from.join("white"), "back");
        // As the kernel makes them over what was hidden.
        for path in ["opaque", "gone", "file-then-dir"] {
            match lsetxattr(from.join(path), OPAQUE, b"y", XattrFlags::empty()) {
                Ok(()) => {}
                Err(error) => return println!("\nSKIP: needs trusted attributes: {error}"),
            }
        }
        fs::set_permissions(from.join("dir"), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let Some(before) = shown(&[from.clone(), into.clone(), base.clone()]) else { return };
        assert!(is_possible(&from, &into).unwrap());
        merge(&from, &into).unwrap();
        assert_eq!(fs::read_dir(&from).unwrap().count(), 0);
        assert_eq!(shown(&[into.clone(), base.clone()]).unwrap(), before);
        // Again is nothing.
        merge(&from, &into).unwrap();
        assert_eq!(shown(&[into, base]).unwrap(), before);
    }

    #[test]
    fn what_refers_to_the_layer_below_is_left_alone() {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let [into, from] = ["into", "from"].map(|name| work.path().join(name));
        fs::create_dir_all(&into).unwrap();
        fs::create_dir_all(from.join("moved")).unwrap();
        if lsetxattr(from.join("moved"), REFERRING[0], b"/old", XattrFlags::empty()).is_err() {
            return println!("\nSKIP: needs trusted attributes");
        }
        assert!(!is_possible(&from, &into).unwrap());
    }
}
