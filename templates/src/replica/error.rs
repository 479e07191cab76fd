//! Why a tree cannot be copied.

use rustix::io::Errno;
use vzsys::SysError;

/// A copy failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A system call failed; it names the path.
    #[error(transparent)]
    System(#[from] SysError),
    /// The steps make no sense, or would leave the copy's root.
    #[error("refused: {reason}")]
    Refused {
        /// What is wrong.
        reason: String,
    },
    /// Whoever takes the steps cannot take this one.
    #[error("{0}")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ReplicaError {
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// A failed call on a path.
    pub(super) fn at(call: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Self {
        let path = path.escape_ascii().to_string();
        move |errno| Self::System(SysError::new(call, path, errno))
    }

    /// Whether there is no room for what is copied.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::System(error) if error.is_full())
    }
}
