//! Who counts what a subvolume's VE has.
//!
//! Kernels before 6.7, and later ones when told so, count for a subvolume all that it has, and so the account is the
//! subvolume's own. Simple quotas count what was written in it: a subvolume that takes the place of another one
//! (`vzctl snapshot-switch`) would begin with nothing, and the VE could fill the disk anew after each switch. There the
//! account is a group with all subvolumes that were the VE's. Its number is that of the first one, and an attribute of each
//! tells it, which snapshots have from what they were taken of.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr, openat};
use rustix::io::Errno;
use vzsys::btrfs::{self, Account, Counted};
use vzsys::{Call, SysError};

/// Attributes of this kind are set in the host's user namespace only.
const GROUP: &str = "trusted.vz.qgroup";

/// What is counted, and the limit that holds; `None` while nothing is counted.
pub(super) fn counted(top: BorrowedFd<'_>) -> vzsys::Result<Option<Counted>> {
    if let Some(group) = group(top)
        && let Some(counted) = btrfs::counted(top, Account::Group(group))?
    {
        return Ok(Some(counted));
    }
    btrfs::counted(top, Account::Subvolume(btrfs::subvolume(top)?))
}

/// Limits it to so many bytes; 0 lifts the limit. The kernel is asked through the directory above: in a subvolume that is
/// full there is no room to change its limit.
pub(super) fn limit(top: BorrowedFd<'_>, bytes: u64) -> vzsys::Result<()> {
    if bytes == 0 && counted(top)?.is_none_or(|counted| counted.limit == 0) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = openat(top, "..", flags, Mode::empty()).call("open", || "..")?;
    let above = above.as_fd();
    btrfs::enable_quota(above)?;
    let number = btrfs::subvolume(top)?;
    if !btrfs::counts_writers(above)? {
        return btrfs::limit(above, Account::Subvolume(number), bytes);
    }
    let group = match group(top) {
        Some(group) => group,
        None => {
            fsetxattr(top, GROUP, number.to_string().as_bytes(), XattrFlags::empty())
                .map_err(|errno| SysError::new("fsetxattr", GROUP, errno))?;
            number
        }
    };
    btrfs::put_into_group(above, number, group)?;
    btrfs::limit(above, Account::Group(group), bytes)
}

/// The subvolume is another VE's now: it has an account of its own.
pub(crate) fn separate(top: BorrowedFd<'_>) -> vzsys::Result<()> {
    match fremovexattr(top, GROUP) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) => Err(SysError::new("fremovexattr", GROUP, errno)),
    }
}

fn group(top: BorrowedFd<'_>) -> Option<u64> {
    let mut value = [0; 24];
    let length = fgetxattr(top, GROUP, &mut value).ok()?;
    std::str::from_utf8(value.get(..length)?).ok()?.parse().ok()
}
