//! How a VE that does not run stands: private area, mount, dump.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::list::row::Status;

/// A stat that asks no server: a dead NFS export must not hold the listing up.
fn look(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::INO | StatxFlags::TYPE).ok()
}

/// Whether there is something at this path, at the end of symlinks too.
pub(super) fn exists(path: &Path) -> bool {
    look(path).is_some()
}

/// Whether a VE's root is mounted: it lies on another device than its parent, or it is the private
/// area itself (a bind mount).
pub(super) fn is_mounted(root: &Path, private: &Path) -> bool {
    let Some(at) = look(root) else { return false };
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let elsewhere = look(&root.join("..")).is_some_and(|parent| device(&parent) != device(&at));
    let same = |private: Statx| device(&private) == device(&at) && private.stx_ino == at.stx_ino;
    elsewhere || look(private).is_some_and(same)
}

/// The status of a VE that does not run. Mounted beats suspended.
pub(super) fn at_rest(root: Option<&Path>, private: &Path, dump: Option<&Path>) -> Status {
    if root.is_some_and(|root| is_mounted(root, private)) {
        Status::Mounted
    } else if dump.is_some_and(exists) {
        Status::Suspended
    } else {
        Status::Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_told_by_mount_then_dump() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, private, dump) = (tmp.path().join("r"), tmp.path().join("p"), tmp.path().join("Dump.1"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&private).unwrap();
        assert_eq!(at_rest(Some(&root), &private, Some(&dump)), Status::Stopped);
        std::fs::write(&dump, "").unwrap();
        assert_eq!(at_rest(Some(&root), &private, Some(&dump)), Status::Suspended);
        // The same directory, as a bind mount shows it; and a mount point of another device.
        assert_eq!(at_rest(Some(&private), &private, Some(&dump)), Status::Mounted);
        assert_eq!(at_rest(Some(Path::new("/proc")), &private, Some(&dump)), Status::Mounted);
        assert_eq!(at_rest(Some(&tmp.path().join("gone")), &private, Some(&dump)), Status::Suspended);
        assert_eq!(at_rest(None, &private, Some(&dump)), Status::Suspended);
    }
}
