//! Removing private areas: out of the way at once, deleted in the background.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with};
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::Call;

use super::LayoutError;
use crate::removal;

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
        Err(error) => match vzsys::SysError::from_io("mkdir", trash.display(), &error) {
            error if error.is_full() => parent,
            error => return Err(error),
        },
    };
    let moved = move_into(path, trash)?;
    if trash == parent {
        // It may hold set-uid programs of a VE's root, and others may enter where it lies now.
        close_tree(&moved)?;
    }
    Ok(trash.to_owned())
}

/// Closes the top of a tree that waits to be deleted, if it is a directory.
fn close_tree(tree: &Path) -> vzsys::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, tree, flags, Mode::empty()) {
        // Gone: a sweeper was faster.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
        opened => {
            opened.and_then(|dir| fchmod(dir, Mode::RWXU)).call("fchmod", || tree.display().to_string())
        }
    }
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
fn move_into(path: &Path, trash: &Path) -> vzsys::Result<PathBuf> {
    for number in 0_u32.. {
        let target = trash.join(format!("{PREFIX}{}.{number}", std::process::id()));
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done.call("rename", || path.display().to_string()).map(|()| target),
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
    let Ok(entries) = Dir::read_from(&held) else { return };
    for entry in entries.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(PREFIX.as_bytes()) {
            // Nobody is there to be told; what stays is tried again by the next sweep.
            let _ = removal::remove_at(held.as_fd(), name);
        }
    }
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
    fn a_tree_that_waits_beside_its_old_place_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let area = dir.path().join("private");
        fs::create_dir(&area).unwrap();
        fs::set_permissions(&area, fs::Permissions::from_mode(0o755)).unwrap();
        let moved = move_into(&area, dir.path()).unwrap();
        close_tree(&moved).unwrap();
        assert_eq!(fs::metadata(&moved).unwrap().mode() & 0o777, 0o700);
        fs::write(dir.path().join("file"), "").unwrap();
        close_tree(&dir.path().join("file")).unwrap();
        close_tree(&dir.path().join("gone")).unwrap();
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
