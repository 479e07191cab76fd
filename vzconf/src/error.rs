//! What can go wrong with configuration, names and locks.
use std::io;
use std::path::PathBuf;

use crate::{Ctid, Exit};

/// Why a config file could not be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFailure {
    /// The file system is read-only.
    ReadOnly,
    /// Not allowed.
    Denied,
    /// No space or quota left.
    NoSpace,
    /// Anything else.
    Other,
}

impl SaveFailure {
    fn of(source: &io::Error) -> SaveFailure {
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => SaveFailure::ReadOnly,
            io::ErrorKind::PermissionDenied => SaveFailure::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SaveFailure::NoSpace,
            _ => SaveFailure::Other,
        }
    }
}

/// An error of this crate; [`Error::exit`] tells what a command exits with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a CTID.
    #[error("Bad CT ID {arg}")]
    BadCtid {
        /// What was given.
        arg: String,
    },
    /// The registry leads to a VE whose config names itself differently, or to none.
    #[error("Unable to find container by name {name}")]
    UnknownName {
        /// The name looked up.
        name: String,
    },
    /// The name belongs to another VE.
    #[error("Conflict: name {name} already used by container {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        owner: Ctid,
    },
    /// Not a name a VE can have.
    #[error("bad name {name:?}: only letters, digits, blanks and -+_. are allowed")]
    BadName {
        /// The name.
        name: String,
    },
    /// A name link could not be made or removed.
    #[error("name link {}", path.display())]
    NameLink {
        /// The link.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// vz.conf is not there or not readable.
    #[error("global config {} cannot be read", path.display())]
    NoGlobalConfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The VE has no config file.
    #[error("Container config file does not exist")]
    NoVeConfig {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A config file is there but not readable.
    #[error("config file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A config file could not be written; the old one is untouched.
    #[error("cannot save {}: {}", path.display(), save_hint(*failure))]
    Save {
        /// The file.
        path: PathBuf,
        /// The kind of cause.
        failure: SaveFailure,
        /// The cause.
        source: io::Error,
    },
    /// A value that cannot stand on one line of a config file.
    #[error("value of {key} has a line break or a NUL, which a config file cannot hold")]
    Multiline {
        /// The key.
        key: String,
    },
    /// A bad option value.
    #[error("Bad parameter for --{option}: {value} (expected {allowed})")]
    BadValue {
        /// The option's name without dashes.
        option: String,
        /// What was given.
        value: String,
        /// What would be accepted.
        allowed: String,
    },
    /// No such option.
    #[error("unrecognized option '--{option}'")]
    UnknownOption {
        /// The option's name without dashes.
        option: String,
    },
    /// Options that do not go together, or one that lacks its companion.
    #[error("{text}")]
    Usage {
        /// The whole message.
        text: String,
    },
    /// An option that only makes sense when the config is saved.
    #[error("Option --{option} can not be used without --save")]
    NeedsSave {
        /// The option's name without dashes.
        option: String,
    },
    /// A sample config is not there.
    #[error("Sample config {} not found", path.display())]
    NoSample {
        /// The file.
        path: PathBuf,
        /// What the caller was doing decides the exit code: create 82, applyconfig 109.
        exit: Exit,
    },
    /// Another command works on the VE.
    #[error("Container already locked{}", holder.as_ref().map(|h| format!("\nLocked by: {h}")).unwrap_or_default())]
    Locked {
        /// The VE.
        ctid: Ctid,
        /// Who holds it, if that could be read.
        holder: Option<crate::lock::Holder>,
    },
    /// The lock file could not be made.
    #[error("Unable to lock container: {}{}", path.display(), lock_hint(source))]
    LockFailed {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn save_hint(failure: SaveFailure) -> &'static str {
    match failure {
        SaveFailure::ReadOnly => "the file system is read-only (remount it writable first)",
        SaveFailure::Denied => "permission denied (are you root?)",
        SaveFailure::NoSpace => "no space left on the device",
        SaveFailure::Other => "the old file is unchanged",
    }
}

fn lock_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
        " (read-only file system; use --skiplock to go on without a lock)"
    } else {
        ""
    }
}

impl Error {
    /// A failed save, classified.
    pub(crate) fn save(path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Save { path: path.into(), failure: SaveFailure::of(&source), source }
    }

    /// The exit code of a command that fails with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::BadCtid { .. }
            | Error::UnknownName { .. }
            | Error::BadName { .. }
            | Error::Multiline { .. }
            | Error::BadValue { .. }
            | Error::UnknownOption { .. } => Exit::InvalidValue,
            Error::NeedsSave { option } if option == "name" => Exit::SetName,
            Error::Usage { .. } | Error::NeedsSave { .. } => Exit::InvalidSyntax,
            Error::NameTaken { .. } | Error::NameLink { .. } => Exit::SetName,
            Error::NoGlobalConfig { .. } => Exit::NoConfig,
            Error::NoVeConfig { .. } => Exit::NoVeConfig,
            Error::Save { failure: SaveFailure::NoSpace, .. } => Exit::FsNoDiskSpace,
            Error::LockFailed { source, .. } if SaveFailure::of(source) == SaveFailure::NoSpace => {
                Exit::FsNoDiskSpace
            }
            Error::Read { .. } | Error::LockFailed { .. } => Exit::System,
            Error::Save { .. } => Exit::ConfigSave,
            Error::NoSample { exit, .. } => *exit,
            Error::Locked { .. } => Exit::Locked,
        }
    }
}
