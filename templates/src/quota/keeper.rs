//! What a file system can do for a VE's limits.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use vzconf::Exit;
use vzsys::Call;
use vzsys::btrfs;
use vzsys::quota::{State, Whose, state};

use super::QuotaError;
use super::mark;

/// Who keeps the limits of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Project quota of ext4 or xfs: space and inodes of a tree, shown by `df` in it.
    Project,
    /// The quota of a subvolume of btrfs: space alone, and no time of its own.
    Subvolume,
}

const EXT4: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683E;

/// Who would keep the limits of a directory below `dir`, which exists.
///
/// # Errors
/// [`QuotaError::Unable`] with the reason in words.
pub fn keeper(dir: &Path) -> Result<Keeper, QuotaError> {
    keeper_of(mark::open(dir)?.as_fd(), dir)
}

/// The same of an open directory; `dir` is what errors call it.
pub(super) fn keeper_of(opened: BorrowedFd<'_>, dir: &Path) -> Result<Keeper, QuotaError> {
    if btrfs::is_subvolume(opened) {
        return Ok(Keeper::Subvolume);
    }
    let asked = QuotaError::call(Exit::DqInit, format!("cannot ask the file system of {}", dir.display()));
    match state(opened, Whose::Project).map_err(asked)? {
        State::Enforced => Ok(Keeper::Project),
        found => Err(QuotaError::unable(dir, why_not(dir, found)?)),
    }
}

fn why_not(dir: &Path, found: State) -> Result<String, QuotaError> {
    let failed = QuotaError::call(Exit::DqInit, format!("cannot look at {}", dir.display()));
    let kind = rustix::fs::statfs(dir).call("statfs", || dir.display().to_string()).map_err(failed)?.f_type;
    Ok(match (u64::try_from(kind).unwrap_or_default(), found) {
        (EXT4, State::Accounted) => "its ext4 counts projects, but is mounted without prjquota".to_owned(),
        (EXT4, _) => "its ext4 has no project quota; while it is not mounted: tune2fs -O project -Q prjquota DEVICE, then \
                      mount it with the option prjquota"
            .to_owned(),
        (XFS, _) => "its xfs is mounted without prjquota, which takes a new mount and not a remount".to_owned(),
        (BTRFS, _) => "btrfs limits subvolumes, and it is none (the layout btrfs makes one)".to_owned(),
        (other, _) => format!("its file system (type {other:#x}) has no project quota"),
    })
}
