//! Why a snapshot could not be taken, gone back to, or thrown away.

use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::SysError;

use super::id::Id;
use super::tree::TreeError;
use crate::layout::LayoutError;

pub(super) type Result<T> = std::result::Result<T, SnapshotError>;

/// See the variants. Which exit code it is depends on the verb (156 to 161, 167).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The list does not allow it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file cannot be understood.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is listed, but its files are not there.
    #[error("the files of snapshot {id} are missing in {}", path.display())]
    NoData {
        /// Which one.
        id: Id,
        /// Where they should be.
        path: PathBuf,
    },
    /// There are as many layers as an overlay can have.
    #[error("{} stands on {} layers already; delete snapshots of it that are not needed", path.display(), crate::layout::stack::MOST)]
    TooDeep {
        /// The private area.
        path: PathBuf,
    },
    /// The private area itself.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A call failed.
    #[error("cannot {what}")]
    Call {
        /// What was being done, to what.
        what: String,
        /// The call.
        #[source]
        source: SysError,
    },
}

impl SnapshotError {
    /// Whether a disk, or what is allowed of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Layout(error) => error.exit() == Exit::FsNoDiskSpace,
            Self::Call { source, .. } => source.is_full(),
            Self::Tree(_) | Self::Damaged { .. } | Self::NoData { .. } | Self::TooDeep { .. } => false,
        }
    }
}

/// Gives a failed call its purpose.
pub(super) trait Failed<T> {
    fn failed(self, what: impl Into<String>) -> Result<T>;

    fn failed_at(self, what: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.failed(format!("{what} {}", path.display()))
    }
}

impl<T> Failed<T> for vzsys::Result<T> {
    fn failed(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| SnapshotError::Call { what: what.into(), source })
    }
}

impl<T> Failed<T> for std::io::Result<T> {
    fn failed(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| {
            let what = what.into();
            SnapshotError::Call { source: SysError::from_io("io", &what, &error), what }
        })
    }
}
