//! Why a checkpoint or restore did not happen.

use std::path::PathBuf;

use vzsys::SysError;

use crate::program::Version;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure; which exit code it has is the verb's matter: 16 for a checkpoint, 17 for a restore.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no CRIU here that is new enough.
    #[error("CRIU {needed} or newer is needed, {}", found.as_ref().map_or("and there is none here".to_owned(), |v| format!("the one here is {v}")), needed = Version::NEEDED)]
    Missing {
        /// The version that is here.
        found: Option<Version>,
    },
    /// CRIU could not be started, or spoken to.
    #[error("cannot talk to CRIU")]
    Talk(#[from] SysError),
    /// It ended before it had answered.
    #[error("CRIU ended unexpectedly{}", crate::log::because(log.as_deref()))]
    Died {
        /// What its log says.
        log: Option<String>,
    },
    /// It says that it cannot.
    #[error("CRIU: {reason}")]
    Failed {
        /// The first error of its log.
        reason: String,
    },
    /// Its answer makes no sense.
    #[error("CRIU answered {0} out of turn")]
    OutOfTurn(String),
    /// An image directory that is not what it should be. Nothing of it was used.
    #[error("the dump {} cannot be used: {reason}", path.display())]
    Image {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of an image directory could not be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was done to it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => {
                Some("Install it from your distribution, or run packaging/criu of the source tree")
            }
            _ => None,
        }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
