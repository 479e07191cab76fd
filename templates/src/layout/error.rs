//! What can go wrong with private areas.

use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::SysError;

use super::Layout;
use crate::cache::CacheError;
use crate::image::ImageError;

/// A private area could not be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Nothing is there.
    #[error("private area {path} does not exist")]
    Missing {
        /// The private area.
        path: PathBuf,
    },
    /// The file system cannot map ids.
    #[error(
        "the file system of {path} cannot be mounted with mapped ids (kernel 5.12 and ext4, xfs or btrfs can)"
    )]
    NoIdmap {
        /// The private area.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// `layout.json` is damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system keeps no limits, and the layout has no other way to.
    #[error("the disk limits cannot be kept in {path} with layout {layout}: {why}")]
    Unkept {
        /// Where the area would be.
        path: PathBuf,
        /// The layout that was asked for.
        layout: Layout,
        /// Why not.
        why: String,
    },
    /// It looks like an image, which the VE itself may have put there.
    #[error(
        "{path} looks like the image of a container, but its configuration does not say that it is one; if it is, add to it: VE_LAYOUT=ploop"
    )]
    Unsure {
        /// The directory of the image.
        path: PathBuf,
    },
    /// A whole file system needs a size.
    #[error("diskspace not set (required for ploop)")]
    NoSize,
    /// Its image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The template below it, or its archive.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A subvolume was asked for where there are none.
    #[error("layout btrfs: {} is not on btrfs", path.display())]
    NoBtrfs {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{what}")]
    Call {
        /// What was being done.
        what: String,
        /// The call.
        #[source]
        source: SysError,
        /// What vzctl's exit code says.
        exit: Exit,
    },
}

impl LayoutError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } => Exit::FsNoPrvt,
            Self::NoBtrfs { .. } => Exit::FsNewVePrvt,
            Self::NoIdmap { .. } | Self::Damaged { .. } | Self::Unsure { .. } => Exit::FsCantMount,
            Self::Unkept { .. } => Exit::DqOn,
            Self::NoSize => Exit::DiskspaceNotSet,
            Self::Image(error) => error.exit(),
            Self::Cache(error) => error.exit(),
            Self::Call { source, .. } if source.is_full() => Exit::FsNoDiskSpace,
            Self::Call { exit, .. } => *exit,
        }
    }

    pub(crate) fn call(what: impl Into<String>, exit: Exit) -> impl FnOnce(SysError) -> Self {
        let what = what.into();
        move |source| Self::Call { what, source, exit }
    }

    pub(crate) fn mount(root: &Path) -> impl FnOnce(SysError) -> Self {
        Self::call(format!("cannot mount {}", root.display()), Exit::FsCantMount)
    }
}
