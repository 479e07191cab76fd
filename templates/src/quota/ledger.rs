//! Where limits and usage of one tree are kept: in a project, or in a subvolume.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use vzconf::Exit;
use vzsys::quota::{self as kernel, Grace, Quota as Counted, Whose};
use vzsys::{Call, btrfs};

use super::keeper::{Keeper, keeper_of};
use super::{QuotaError, mark};

/// The books of one tree.
#[derive(Debug)]
pub(super) struct Ledger {
    top: OwnedFd,
    keeper: Keeper,
    project: u32,
}

impl Ledger {
    /// Those of a project in the file system of a directory, or of the subvolume that the directory is.
    pub(super) fn open(dir: &Path, project: u32) -> Result<Self, QuotaError> {
        let top = mark::open(dir)?;
        let keeper = keeper_of(top.as_fd(), dir)?;
        Ok(Self { top, keeper, project })
    }

    /// Whether what is in the tree is counted.
    pub(super) fn is_marked(&self) -> bool {
        match self.keeper {
            Keeper::Project => mark::is_marked(self.top.as_fd(), self.project),
            Keeper::Subvolume => true,
        }
    }

    /// For how long the kernel lets a soft limit be exceeded, where it knows one.
    pub(super) fn grace(&self) -> Option<Grace> {
        match self.keeper {
            Keeper::Project => kernel::grace(self.top.as_fd(), Whose::Project).ok(),
            Keeper::Subvolume => None,
        }
    }

    /// What is in use, and the limits that hold.
    pub(super) fn get(&self) -> vzsys::Result<Counted> {
        match self.keeper {
            Keeper::Project => kernel::get(self.top.as_fd(), Whose::Project, self.project),
            Keeper::Subvolume => {
                let top = self.top.as_fd();
                let counted = btrfs::counted(top, btrfs::subvolume(top)?)?;
                Ok(counted.map_or_else(Counted::default, |counted| Counted {
                    space: counted.used,
                    space_hard: counted.limit / 1024,
                    ..Counted::default()
                }))
            }
        }
    }

    /// Sets the limits. Of a subvolume there is one, of space.
    pub(super) fn set(&self, wanted: &Counted) -> Result<(), QuotaError> {
        let top = self.top.as_fd();
        let done = match self.keeper {
            Keeper::Project => kernel::set(top, Whose::Project, self.project, wanted),
            Keeper::Subvolume => limit_subvolume(top, wanted.space_hard.saturating_mul(1024)),
        };
        let what = format!("cannot set the limits of {}", self.top_name());
        done.map_err(QuotaError::call(Exit::DqSet, what))
    }

    fn top_name(&self) -> String {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", self.top.as_raw_fd());
        std::fs::read_link(&link).map_or(link, |path| path.display().to_string())
    }
}

/// The kernel is asked through the directory above: in a subvolume that is full there is no room to change its limit.
fn limit_subvolume(top: BorrowedFd<'_>, bytes: u64) -> vzsys::Result<()> {
    let subvolume = btrfs::subvolume(top)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = openat(top, "..", flags, Mode::empty()).call("open", || "..")?;
    if bytes == 0 && btrfs::counted(top, subvolume)?.is_none_or(|counted| counted.limit == 0) {
        return Ok(());
    }
    btrfs::enable_quota(above.as_fd())?;
    btrfs::limit(above.as_fd(), subvolume, bytes)
}
