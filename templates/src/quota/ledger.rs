//! Where limits and usage of one tree are kept: in a project, or in a subvolume.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use vzconf::Exit;
use vzsys::quota::{self as kernel, Grace, Quota as Counted, Whose};

use super::keeper::{Keeper, keeper_of};
use super::{QuotaError, mark, subvolume};

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

    /// Whether what is in the tree is counted, or will be once there is a limit.
    pub(super) fn is_marked(&self) -> bool {
        match self.keeper {
            Keeper::Project => mark::is_marked(self.top.as_fd(), self.project),
            Keeper::Subvolume => true,
        }
    }

    /// Whether it is known what the tree takes: a subvolume is counted from its first limit on.
    pub(super) fn is_counting(&self) -> bool {
        match self.keeper {
            Keeper::Project => self.is_marked(),
            Keeper::Subvolume => subvolume::counted(self.top.as_fd()).is_ok_and(|counted| counted.is_some()),
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
                let counted = subvolume::counted(self.top.as_fd())?;
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
            Keeper::Subvolume => subvolume::limit(top, wanted.space_hard.saturating_mul(1024)),
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
