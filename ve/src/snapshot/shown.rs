//! `vzctl snapshot-mount` and `snapshot-umount`. Where a snapshot is mounted is told by a link,
//! `/run/vz/snapshots/CTID.ID`, gone with a reboot as the mount is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use templates::snapshot::{Id, Snapshots};
use vzconf::Exit;
use vzsys::mount::{MountGuard, is_mount_point};

use super::{Place, failed, known};
use crate::error::{Doing, Error, Result};
use crate::node::Ve;

fn link(ve: &Ve<'_>, id: Id) -> PathBuf {
    ve.node.paths.run_root().join("snapshots").join(format!("{}.{}", ve.ctid, id.bare()))
}

/// Where a snapshot is mounted, if it is.
pub(super) fn target(ve: &Ve<'_>, id: Id) -> Option<PathBuf> {
    fs::read_link(link(ve, id)).ok().filter(|target| is_mount_point(target))
}

/// Mounts a snapshot at a directory of the host, to be read only, with the ids of the disk.
///
/// # Errors
/// 160.
pub fn mount(ve: &Ve<'_>, id: Id, at: &Path) -> Result<()> {
    const EXIT: Exit = Exit::MountSnapshot;
    let place = Place::of(ve)?;
    let all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    known(&all, id, EXIT)?;
    if let Some(target) = target(ve, id) {
        let message = format!("Snapshot {id} is already mounted at {}", target.display());
        return Err(Error::refused(EXIT, message));
    }
    let what = || format!("cannot mount snapshot {id} at {}", at.display());
    let at = fs::canonicalize(at).doing(EXIT, what)?;
    let mount = all.mount(id).map_err(failed(EXIT))?;
    mount.attach(&at).doing(EXIT, what)?;
    let guard = MountGuard::new(&at);
    let link = link(ve, id);
    if let Some(dir) = link.parent() {
        fs::create_dir_all(dir).doing(EXIT, what)?;
    }
    let _ = fs::remove_file(&link);
    symlink(&at, &link).doing(EXIT, what)?;
    guard.keep();
    ve.say(0, &format!("Snapshot {id} has been successfully mounted at {}", at.display()));
    Ok(())
}

/// Unmounts a snapshot.
///
/// # Errors
/// 161: it is not mounted, or somebody uses it.
pub fn umount(ve: &Ve<'_>, id: Id) -> Result<()> {
    const EXIT: Exit = Exit::UmountSnapshot;
    let Some(target) = target(ve, id) else {
        return Err(Error::refused(EXIT, format!("Snapshot {id} is not mounted")));
    };
    vzsys::mount::umount(&target).doing(EXIT, || format!("cannot unmount {}", target.display()))?;
    forget(&link(ve, id));
    ve.say(0, &format!("Snapshot {id} has been successfully unmounted"));
    Ok(())
}

/// Unmounts all of them: the VE is destroyed.
///
/// # Errors
/// 41, naming one that somebody uses.
pub(crate) fn umount_all(ve: &Ve<'_>) -> Result<()> {
    let prefix = format!("{}.", ve.ctid);
    let dir = ve.node.paths.run_root().join("snapshots");
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if is_mount_point(&target) {
            let what = || format!("a snapshot is in use at {}", target.display());
            vzsys::mount::umount(&target).doing(Exit::FsMounted, what)?;
        }
        forget(&entry.path());
    }
    Ok(())
}

/// The last link takes its directory with it.
fn forget(link: &Path) {
    let _ = fs::remove_file(link);
    let _ = link.parent().map(fs::remove_dir);
}
