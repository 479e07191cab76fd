//! Why a limit of disk space is not kept.

use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::SysError;

/// A limit could not be kept, changed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The file system keeps no limits.
    #[error("{} cannot be given a disk limit: {why}", path.display())]
    Unable {
        /// The tree.
        path: PathBuf,
        /// The reason, and what to do about it.
        why: String,
    },
    /// A tree is nested deeper than can be walked.
    #[error("{}: directories are nested more than {limit} deep", path.display())]
    TooDeep {
        /// The tree.
        path: PathBuf,
        /// The deepest that is walked.
        limit: usize,
    },
    /// A system call failed.
    #[error("{what}")]
    Call {
        /// What was being done, to what.
        what: String,
        /// The call.
        #[source]
        source: SysError,
        /// The exit code.
        exit: Exit,
    },
}

impl QuotaError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unable { .. } | Self::TooDeep { .. } => Exit::DqInit,
            Self::Call { source, .. } if source.is_full() => Exit::FsNoDiskSpace,
            Self::Call { exit, .. } => *exit,
        }
    }

    pub(super) fn unable(path: &Path, why: impl Into<String>) -> Self {
        Self::Unable { path: path.to_owned(), why: why.into() }
    }

    pub(super) fn call(exit: Exit, what: impl Into<String>) -> impl FnOnce(SysError) -> Self {
        let what = what.into();
        move |source| Self::Call { what, source, exit }
    }
}
