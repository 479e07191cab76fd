//! Removing private areas: out of the way at once, deleted in the background.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::Call;

use super::LayoutError;

const PREFIX: &str = "vzctl-rm-me.";

/// Renames `path` into a `vztmp` directory of its own file system: `preferred` (such as `/vz/vztmp`)
/// when that is on the same one, else one beside it. Returns that directory, for [`sweep`]. Needs no room:
/// where a full disk has none for a new directory, the tree waits beside its old place.
///
/// # Errors
/// [`LayoutError::Call`] with exit 52.
pub fn discard(path: &Path, preferred: &Path) -> Result<PathBuf, LayoutError> {
    let failed = || LayoutError::call(format!("cannot remove {}", path.display()), Exit::FsDelPrvt);
    let parent = path.parent().unwrap_or(Path::new("/"));
    let device = |p: &Path| fs::metadata(p).map(|meta| meta.dev()).ok();
    let same = preferred.parent().and_then(device) == device(parent);
    let beside = parent.join(".vztmp");
    if same {
        match discard_into(path, preferred) {
            // One file system, mounted twice: rename(2) goes within one mount only.
            Err(error) if error.errno() == Errno::XDEV => {}
            done => return done.map_err(failed()),
        }
    }
    discard_into(path, &beside).map_err(failed())
}

fn discard_into(path: &Path, trash: &Path) -> vzsys::Result<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    // What lies here may hold set-uid programs of a VE's root.
    let trash = match fs::DirBuilder::new().mode(0o700).create(trash) {
        Ok(()) => trash,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            close(trash)?;
            trash
        }
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => parent,
        Err(error) => return Err(vzsys::SysError::from_io("mkdir", trash.display(), &error)),
    };
    move_into(path, trash)?;
    Ok(trash.to_owned())
}

/// An earlier version, or the admin, made it for everybody to enter.
fn close(trash: &Path) -> vzsys::Result<()> {
    let meta = fs::metadata(trash).call("stat", || trash.display().to_string())?;
    if meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(trash, fs::Permissions::from_mode(0o700))
        .call("chmod", || trash.display().to_string())
}

/// Under a name that nothing has yet.
fn move_into(path: &Path, trash: &Path) -> vzsys::Result<()> {
    for number in 0_u32.. {
        let target = trash.join(format!("{PREFIX}{}.{number}", std::process::id()));
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done.call("rename", || path.display().to_string()),
        }
    }
    Err(vzsys::SysError::new("rename", path.display(), Errno::EXIST))
}

/// Deletes what [`discard`] left in `trash`. One sweeper at a time; the next one waits and looks again, so
/// that nothing is left to nobody. The lock is on the directory itself: a full disk has no room for a
/// lock file. Never follows a link out.
pub fn sweep(trash: &Path) {
    let Ok(held) = fs::File::open(trash) else { return };
    if held.lock().is_err() {
        return;
    }
    // Trees that were too deep come back as new entries: until a round changes nothing.
    let mut sweeper = Sweeper { trash: held.as_fd(), number: 0 };
    while sweeper.round() {}
}

/// A VE can nest directories deeper than there are descriptors or stack.
const DEEP: u32 = 64;

struct Sweeper<'a> {
    /// Held open: its path may change while we work.
    trash: BorrowedFd<'a>,
    number: u32,
}

impl Sweeper<'_> {
    /// Whether anything was removed.
    fn round(&mut self) -> bool {
        let mut removed = false;
        for name in names(self.trash) {
            if name.to_bytes().starts_with(PREFIX.as_bytes()) {
                removed |= self.remove(self.trash, &name, 0).is_ok();
            }
        }
        removed
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: u32) -> rustix::io::Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => return done,
        }
        if depth == DEEP {
            return self.put_aside(dir, name);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(dir, name, flags, Mode::empty())?;
        for entry in names(inner.as_fd()) {
            self.remove(inner.as_fd(), &entry, depth + 1)?;
        }
        unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    /// Moves what lies too deep to the top, where a later round finds it.
    fn put_aside(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
        loop {
            let aside = format!("{PREFIX}deep.{}.{}", std::process::id(), self.number);
            self.number += 1;
            match renameat_with(dir, name, self.trash, &aside, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

/// The entries of a directory; none of one that cannot be read.
fn names(dir: BorrowedFd<'_>) -> Vec<CString> {
    let entries = Dir::read_from(dir).into_iter().flatten().flatten();
    let own = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    entries.map(|entry| entry.file_name().to_owned()).filter(|name| !own(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discarded_tree_is_gone_at_once_and_swept_later() {
        let dir = tempfile::tempdir().unwrap();
        let area = dir.path().join("private");
        fs::create_dir_all(area.join("a/b")).unwrap();
        let trash = discard(&area, &dir.path().join("vztmp")).unwrap();
        assert!(!area.exists());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 1);
        sweep(&trash);
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    }

    #[test]
    fn a_trash_that_others_can_enter_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let (area, trash) = (dir.path().join("private"), dir.path().join("vztmp"));
        fs::create_dir(&area).unwrap();
        fs::create_dir(&trash).unwrap();
        fs::set_permissions(&trash, fs::Permissions::from_mode(0o755)).unwrap();
        discard(&area, &trash).unwrap();
        assert_eq!(fs::metadata(&trash).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_stack_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let area = dir.path().join("private");
        fs::create_dir(&area).unwrap();
        let mut at = fs::File::open(&area).unwrap();
        for _ in 0..100_000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            at = openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap().into();
        }
        let trash = discard(&area, &dir.path().join("vztmp")).unwrap();
        sweep(&trash);
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (area, other) = (dir.path().join("private"), dir.path().join("other"));
        for path in [&area, &other] {
            fs::create_dir(path).unwrap();
        }
        fs::write(other.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&other, area.join("link")).unwrap();
        let trash = discard(&area, &dir.path().join("vztmp")).unwrap();
        sweep(&trash);
        assert!(other.join("file").exists());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    }
}
