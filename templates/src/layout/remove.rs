//! Removing private areas: out of the way at once, deleted in the background.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
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
    let trash = if same { preferred.to_owned() } else { parent.join(".vztmp") };
    // What lies here may hold set-uid programs of a VE's root.
    let trash = match fs::DirBuilder::new().mode(0o700).create(&trash) {
        Ok(()) => trash,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => trash,
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => parent.to_owned(),
        Err(error) => return Err(failed()(vzsys::SysError::from_io("mkdir", trash.display(), &error))),
    };
    move_into(path, &trash).map_err(failed())?;
    Ok(trash)
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
    let Ok(dir) = fs::File::open(trash) else { return };
    if dir.lock().is_err() {
        return;
    }
    let held = format!("/proc/self/fd/{}", dir.as_raw_fd());
    for entry in fs::read_dir(&held).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Through the directory that we hold: its path may change while we work.
            let _ = fs::remove_dir_all(Path::new(&held).join(entry.file_name()));
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
}
