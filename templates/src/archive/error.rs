//! What can be wrong with an archive.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::SysError;

/// What is wrong, without saying where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The archive ends too early.
    #[error("the archive is truncated")]
    Truncated,
    /// The bytes are no tar archive, or damaged.
    #[error("the archive is corrupt: {reason}")]
    Corrupt {
        /// What was found.
        reason: Cow<'static, str>,
    },
    /// The archive asks for something that no honest one asks for.
    #[error("refused: {reason}")]
    Hostile {
        /// What it asks for.
        reason: Cow<'static, str>,
    },
    /// A limit of [`super::Limits`] is exceeded.
    #[error("{what} above the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Nothing we know how to read.
    #[error("not supported: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The file system is, or would become, full. Numbers in KiB.
    #[error("Insufficient disk space in {dir}; available: {available}, needed: {needed}")]
    NoSpace {
        /// Where.
        dir: PathBuf,
        /// Free space.
        available: u64,
        /// Space needed; an estimate unless the template's metadata tells.
        needed: u64,
    },
    /// The destination is there already.
    #[error("{path} exists already")]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

impl Fault {
    pub(super) fn corrupt(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { reason: reason.into() }
    }

    pub(super) fn hostile(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Hostile { reason: reason.into() }
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::System(error) if error.is_full())
    }

    pub(super) fn at(self, archive: &Path, member: Option<&[u8]>) -> ArchiveError {
        let member = member.map(|name| String::from_utf8_lossy(name).escape_debug().to_string());
        ArchiveError { archive: archive.to_owned(), member, fault: Box::new(self) }
    }
}

/// An archive could not be read, unpacked or written: which archive, which member, and why.
#[derive(Debug)]
pub struct ArchiveError {
    archive: PathBuf,
    member: Option<String>,
    fault: Box<Fault>,
}

impl ArchiveError {
    /// The archive.
    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// The member that was being read or written, with odd characters escaped.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &*self.fault {
            Fault::NoSpace { .. } => Exit::FsNoDiskSpace,
            fault if fault.is_full() => Exit::FsNoDiskSpace,
            Fault::Exists { .. } => Exit::FsPrvtAreaExist,
            _ => Exit::FsNewVePrvt,
        }
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The sentence about space is an interface: it stands alone.
        if matches!(*self.fault, Fault::NoSpace { .. } | Fault::Exists { .. }) {
            return self.fault.fmt(f);
        }
        write!(f, "{}: ", self.archive.display())?;
        if let Some(member) = &self.member {
            write!(f, "member '{member}': ")?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for ArchiveError {}
