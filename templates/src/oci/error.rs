//! What can be wrong with an image.

use vzconf::Exit;
use vzsys::SysError;

/// An image could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// Not the name of an image.
    #[error(
        "bad image reference '{text}': {reason} (oci:DIR[:TAG], docker-archive:FILE[:REF] or docker://REGISTRY/NAME[:TAG])"
    )]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such image there.
    #[error("{place} has no image {wanted}{offered}")]
    NoImage {
        /// Where it was looked for.
        place: String,
        /// What was looked for.
        wanted: String,
        /// What is there instead, as the end of the sentence.
        offered: String,
    },
    /// A document or archive that is none.
    #[error("{object} is damaged: {reason}")]
    Malformed {
        /// Which.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A blob is not what its digest or size says.
    #[error("{object} is damaged or was tampered with: its {what} is {found}, expected {told}")]
    Mismatch {
        /// Which.
        object: String,
        /// `sha256`, `size`.
        what: &'static str,
        /// What the image says.
        told: String,
        /// What is there.
        found: String,
    },
    /// More than an honest image has.
    #[error("{object}: {what} is above the limit of {limit}")]
    TooLarge {
        /// Which.
        object: String,
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Something that is no image of a Linux system, or needs what we have not.
    #[error("{object} cannot be imported: {reason}")]
    Unsupported {
        /// Which.
        object: String,
        /// Why.
        reason: String,
    },
    /// The registry could not be reached.
    #[error("cannot reach {url}: {reason}\ncheck the network, the name server and the proxy (https_proxy)")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The failure.
        reason: String,
    },
    /// The registry answers, but does not give it.
    #[error("{url}: {reason}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

impl OciError {
    pub(super) fn malformed(object: impl Into<String>, reason: impl ToString) -> Self {
        Self::Malformed { object: object.into(), reason: reason.to_string() }
    }

    pub(super) fn unsupported(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { object: object.into(), reason: reason.into() }
    }

    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Reference { .. } => Exit::InvalidValue,
            Self::NoImage { .. } => Exit::OstemplateNotFound,
            Self::Malformed { .. }
            | Self::Mismatch { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported { .. } => Exit::FsBadTmpl,
            Self::System(error) if error.is_full() => Exit::FsNoDiskSpace,
            Self::Unreachable { .. } | Self::Refused { .. } | Self::System(_) => Exit::System,
        }
    }
}
