//! What can go wrong with templates.

use std::path::PathBuf;

use vzconf::Exit;
use vzsys::SysError;

use crate::archive::ArchiveError;

/// A template could not be found, read, made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// There is no such template.
    #[error("Cached OS template {dir}/{name}.tar[.gz|.bz2|.xz|.zst] not found")]
    NotFound {
        /// The cache.
        dir: PathBuf,
        /// The template's name.
        name: String,
    },
    /// Not a name a template can have.
    #[error(
        "bad template name '{name}': letters, digits and +-._ are allowed, a letter or digit comes first"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// There is one of that name.
    #[error("template {name} exists already; remove it with: vztmpl rm {name}")]
    Exists {
        /// The name.
        name: String,
    },
    /// Containers lie on top of it.
    #[error("template {name} is in use by container(s) {users}")]
    InUse {
        /// The name.
        name: String,
        /// CTIDs, separated by blanks.
        users: String,
    },
    /// The tarball is not the one its metadata was written for.
    #[error("template {name} is damaged: {reason}")]
    Damaged {
        /// The name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// Neither init nor shell: no container could start from it.
    #[error("{what} has no {missing}: it is no root file system a container could start from")]
    NotARoot {
        /// The archive or directory.
        what: PathBuf,
        /// What was looked for.
        missing: &'static str,
    },
    /// Its archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

impl CacheError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotFound { .. } => Exit::OstemplateNotFound,
            Self::BadName { .. } => Exit::InvalidValue,
            Self::NotARoot { .. } => Exit::FsBadTmpl,
            Self::Archive(error) => error.exit(),
            Self::System(error) if error.is_full() => Exit::FsNoDiskSpace,
            Self::Exists { .. } | Self::InUse { .. } | Self::Damaged { .. } | Self::System(_) => Exit::System,
        }
    }
}
