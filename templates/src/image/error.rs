//! What can go wrong with images.

use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::SysError;

/// An image could not be made, mounted, resized or compacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is none.
    #[error("image {path} not found")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("{path} is no image of an ext4 file system: {reason}")]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// `e2fsck -p` gave up.
    #[error(
        "the file system in {path} is damaged more than e2fsck mends by itself ({said}); keep a copy of the file, then mend it \
         with: e2fsck -f {path}"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The last words of e2fsck.
        said: String,
    },
    /// Someone else works on the file.
    #[error("{path} is being worked on by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot have that size.
    #[error("{path} cannot have a size of {wanted} KiB: {reason}")]
    Size {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: u64,
        /// Why not.
        reason: String,
    },
    /// It must not be mounted for this.
    #[error("{path} is mounted, and {reason}")]
    Mounted {
        /// The file.
        path: PathBuf,
        /// What needs it unmounted.
        reason: &'static str,
    },
    /// Its files could not be copied.
    #[error("the files of {path} cannot be copied: {reason}")]
    Copy {
        /// The image.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Limits of its users and groups are asked for and kept in it, and this kernel would hold nobody to them.
    #[error("{path} keeps limits of users and groups, and this kernel has none (CONFIG_QFMT_V2)")]
    NoUserQuota {
        /// The file.
        path: PathBuf,
    },
    /// A program failed.
    #[error("{program} of {path} failed: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// Its last words.
        said: String,
        /// What vzctl's exit code says.
        exit: Exit,
    },
    /// A system call failed.
    #[error("{path}")]
    Call {
        /// The file.
        path: PathBuf,
        /// The call.
        #[source]
        source: SysError,
        /// What vzctl's exit code says.
        exit: Exit,
    },
}

impl ImageError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } => Exit::PloopImageNotFound,
            Self::NotAnImage { .. } | Self::Damaged { .. } | Self::InUse { .. } => Exit::MountImage,
            Self::Size { .. } | Self::Mounted { .. } | Self::Copy { .. } => Exit::ResizeImage,
            Self::Call { source, .. } if source.is_full() => Exit::FsNoDiskSpace,
            Self::NoUserQuota { .. } => Exit::DqOn,
            Self::Program { exit, .. } | Self::Call { exit, .. } => *exit,
        }
    }

    pub(super) fn call(path: &Path, exit: Exit) -> impl FnOnce(SysError) -> Self {
        let path = path.to_owned();
        move |source| Self::Call { path, source, exit }
    }
}
