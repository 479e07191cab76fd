//! What can be wrong with a backup.

use std::borrow::Cow;
use std::fmt;

use vzconf::Exit;
use vzsys::SysError;

/// What is wrong, without saying with which backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The first bytes are not those of a backup.
    #[error("this is no backup made by vzbackup")]
    NotOurs,
    /// A later version of the format.
    #[error("its format {0} is newer than this program; use the vzrestore of the host that made it")]
    TooNew(u32),
    /// It ends in the middle.
    #[error("it is truncated: it ends after frame {frame}, at byte {at}")]
    Truncated {
        /// The last whole frame.
        frame: u64,
        /// Where the next one should begin.
        at: u64,
    },
    /// Bytes are not what was written.
    #[error("it is damaged in frame {frame}, at byte {at}: {reason}")]
    Damaged {
        /// The number of the frame.
        frame: u64,
        /// Where it begins.
        at: u64,
        /// What does not fit.
        reason: Cow<'static, str>,
    },
    /// It asks for something that no honest backup asks for.
    #[error("refused: '{path}': {reason}")]
    Hostile {
        /// The path in it.
        path: String,
        /// What it asks for.
        reason: Cow<'static, str>,
    },
    /// An earlier backup is needed that is not there.
    #[error(
        "it needs the backup '{file}' (id {id}), which {why}; put it beside this one, or name its directory with --base"
    )]
    NoBase {
        /// Its name when this one was made.
        file: String,
        /// Its id.
        id: String,
        /// What was found instead.
        why: Cow<'static, str>,
    },
    /// A base is damaged.
    #[error("its base '{file}': {fault}")]
    InBase {
        /// The base.
        file: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// Somebody else writes it.
    #[error("another vzbackup is writing it")]
    Busy,
    /// It is there.
    #[error("it exists already; remove it, or name another file")]
    Exists,
    /// The far side of an ssh connection failed.
    #[error("{0}")]
    Remote(String),
    /// Something in the tree cannot be saved.
    #[error("'{path}' cannot be saved: {reason}")]
    Unfit {
        /// The path in the tree.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// What runs in the tree could not be made to stand still.
    #[error("{0}")]
    Restless(String),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

impl Fault {
    /// Whether a disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::System(error) if error.is_full())
    }

    pub(super) fn hostile(path: &[u8], reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Hostile { path: path.escape_ascii().to_string(), reason: reason.into() }
    }

    pub(super) fn of(self, name: impl Into<String>) -> BackupError {
        BackupError { name: name.into(), fault: Box::new(self) }
    }
}

/// A backup could not be made or read: which, and why.
#[derive(Debug)]
pub struct BackupError {
    name: String,
    fault: Box<Fault>,
}

impl BackupError {
    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// vzctl's exit code: 46 for a full disk, 44 for what is there already, 9 for what somebody else writes, 48 for
    /// anything else.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &*self.fault {
            fault if fault.is_full() => Exit::FsNoDiskSpace,
            Fault::Exists => Exit::FsPrvtAreaExist,
            Fault::Busy => Exit::Locked,
            _ => Exit::FsNewVePrvt,
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.fault)
    }
}

impl std::error::Error for BackupError {}
