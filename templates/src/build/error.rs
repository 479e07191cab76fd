//! What can go wrong while a template is made.

use std::path::PathBuf;

use vzconf::Exit;
use vzsys::SysError;

use crate::archive::{ArchiveError, Fault};
use crate::cache::CacheError;
use crate::foreign::DiskError;
use crate::oci::OciError;

/// A template could not be made. Nothing of it is in the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The cache, or the archive in it.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A program of the host is missing.
    #[error("{program} is not installed; install it with: apt install {package}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// busybox is there, but needs libraries that the template will not have.
    #[error(
        "{path} is not static, so it cannot be a template by itself; install a static one with: apt install busybox-static"
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
    },
    /// Nobody knows how to build that.
    #[error("don't know how to build {name}: give --suite, or a known name ({known})")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// Some that would do.
        known: &'static str,
    },
    /// No archive of packages is configured for the suite.
    #[error("no package archive known for suite {suite}: give one with --mirror URL")]
    NoMirror {
        /// The suite.
        suite: String,
    },
    /// The archive could not be reached.
    #[error(
        "cannot fetch packages from {mirrors}: {reason}\ncheck the network, the name server, the proxy (http_proxy, Acquire::http::Proxy) and the sources in /etc/apt, or give another archive with --mirror URL"
    )]
    Unreachable {
        /// The archives.
        mirrors: String,
        /// apt's words.
        reason: String,
    },
    /// The archive answers, but its files do not belong together.
    #[error(
        "the package archive {mirrors} does not hold together just now: {reason}\ntry again later, or give another archive with --mirror URL"
    )]
    Inconsistent {
        /// The archives.
        mirrors: String,
        /// apt's words.
        reason: String,
    },
    /// The builder failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its last words.
        reason: String,
    },
    /// A bad combination of options.
    #[error("{reason}")]
    BadOption {
        /// What is wrong.
        reason: String,
    },
    /// An image.
    #[error(transparent)]
    Image(#[from] OciError),
    /// A container's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

impl From<ArchiveError> for BuildError {
    fn from(error: ArchiveError) -> Self {
        Self::Cache(error.into())
    }
}

impl BuildError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Cache(error) => match error {
                CacheError::Archive(archive)
                    if matches!(archive.fault(), Fault::Corrupt { .. } | Fault::Truncated) =>
                {
                    Exit::FsBadTmpl
                }
                other => other.exit(),
            },
            Self::Image(error) => error.exit(),
            Self::Disk(_) => Exit::FsBadTmpl,
            Self::UnknownName { .. } | Self::BadOption { .. } => Exit::InvalidValue,
            Self::System(error) if error.is_full() => Exit::FsNoDiskSpace,
            Self::NoProgram { .. }
            | Self::NotStatic { .. }
            | Self::NoMirror { .. }
            | Self::Unreachable { .. }
            | Self::Inconsistent { .. }
            | Self::Failed { .. }
            | Self::System(_) => Exit::System,
        }
    }
}
