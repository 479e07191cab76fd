//! What can go wrong with private areas.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use vzconf::Exit;
use vzsys::SysError;

use crate::cache::CacheError;

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
    /// The template below it, or its archive.
    #[error(transparent)]
    Cache(#[from] CacheError),
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
            Self::NoIdmap { .. } | Self::Damaged { .. } => Exit::FsCantMount,
            Self::Cache(error) => error.exit(),
            Self::Call { source, .. } if source.errno() == Errno::NOSPC => Exit::FsNoDiskSpace,
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
