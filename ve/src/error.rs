//! Why a verb could not do what it was asked.

use std::path::PathBuf;

use templates::layout::LayoutError;
use templates::quota::QuotaError;
use vzconf::{Ctid, Exit};
use vzsys::SysError;
use vzsys::launch::LaunchError;

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// A verb's failure; [`Error::exit`] is what vzctl exits with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state of the VE or of the node forbids it. `message` is a sentence that scripts know.
    #[error("{message}")]
    Refused {
        /// The fixed sentence.
        message: String,
        /// What to do about it, for people.
        hint: Option<String>,
        /// The exit code.
        exit: Exit,
    },
    /// Configuration, names, locks.
    #[error(transparent)]
    Conf(#[from] vzconf::Error),
    /// The private area or its mount.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Snapshots.
    #[error("{source}")]
    Snapshot {
        /// What went wrong.
        source: templates::snapshot::SnapshotError,
        /// The exit code of the verb.
        exit: Exit,
    },
    /// Its disk limits.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The network.
    #[error(transparent)]
    Net(#[from] netns::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] beancounters::Error),
    /// The template cache or an archive.
    #[error(transparent)]
    Cache(#[from] templates::cache::CacheError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] templates::backup::BackupError),
    /// The guest's own files.
    #[error("cannot set up the files of container {ctid}")]
    Guest {
        /// Whose.
        ctid: Ctid,
        /// Why.
        #[source]
        source: templates::dist::DistError,
    },
    /// Init could not be launched.
    #[error("cannot start container {ctid}")]
    Launch {
        /// Whose.
        ctid: Ctid,
        /// The stage and why.
        #[source]
        source: LaunchError,
    },
    /// CRIU, or its images.
    #[error("{source}")]
    Criu {
        /// Why.
        #[source]
        source: criu::Error,
        /// 16 for a checkpoint, 17 for a restore.
        exit: Exit,
    },
    /// An action script failed.
    #[error("action script {} {how}", path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// `returned 3`, `was killed by signal 9`, …
        how: String,
    },
    /// A system call failed.
    #[error("{what}")]
    Call {
        /// What was being done, to what.
        what: String,
        /// The call.
        #[source]
        source: SysError,
        /// The exit code.
        exit: Exit,
    },
    /// The cause, and what could not be undone after it.
    #[error("{}; not cleaned up: {}", describe(cause.as_ref()), cleanup.join("; "))]
    CleanupFailed {
        /// The cause; told with all of its own, so that they stand before what is left behind.
        cause: Box<Error>,
        /// What is left behind.
        cleanup: Vec<String>,
    },
}

/// What helps where there was no room for a snapshot or a clone.
const FULL: &str =
    "Make room on that disk (vzctl snapshot-delete, vzctl compact), or raise --diskspace, and do it again";

impl Error {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            // A new area that has no room is told as by `create`; the verbs for snapshots have codes of their own.
            Self::Snapshot { source, exit: Exit::FsNewVePrvt } if source.is_full() => Exit::FsNoDiskSpace,
            Self::Refused { exit, .. } | Self::Snapshot { exit, .. } => *exit,
            Self::Conf(error) => error.exit(),
            Self::Layout(error) => error.exit(),
            Self::Quota(error) => error.exit(),
            Self::Net(error) => error.exit(),
            Self::Cgroup(error) => error.exit(),
            Self::Cache(error) => error.exit(),
            Self::Backup(error) => error.exit(),
            Self::Guest { source, .. } => source.exit(),
            Self::Launch { .. } => Exit::EnvCreate,
            Self::Criu { exit, .. } => *exit,
            Self::Script { .. } => Exit::ActionScript,
            Self::Call { source, .. } if source.is_full() => Exit::FsNoDiskSpace,
            Self::Call { exit, .. } => *exit,
            Self::CleanupFailed { cause, .. } => cause.exit(),
        }
    }

    /// Advice for a person, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Snapshot { source, .. } if source.is_full() => Some(FULL),
            Self::Criu { source, .. } => source.hint(),
            Self::CleanupFailed { cause, .. } => cause.hint(),
            _ => None,
        }
    }

    /// A refusal by its fixed sentence.
    pub(crate) fn refused(exit: Exit, message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: None, exit }
    }

    /// The same with advice.
    pub(crate) fn advised(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()), exit }
    }

    /// The cause with what could not be undone; unchanged when all was.
    pub(crate) fn with_cleanup(self, cleanup: Vec<String>) -> Self {
        if cleanup.is_empty() { self } else { Self::CleanupFailed { cause: Box::new(self), cleanup } }
    }
}

/// An error and its causes in one line; a cause that is told already is not told again.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}

/// Gives a failed system call its purpose and exit code.
pub(crate) trait Doing<T> {
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, SysError> {
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Call { what: what(), source, exit })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let what = what();
            let source = SysError::from_io("io", &what, &error);
            Error::Call { what, source, exit }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Error {
        let source = SysError::new("umount", "/vz/root/101", rustix::io::Errno::BUSY);
        Error::Call { what: "cannot unmount /vz/root/101".to_owned(), source, exit: Exit::FsCantUmount }
    }

    #[test]
    fn an_error_tells_its_causes_once() {
        let text = describe(&busy());
        assert!(text.starts_with("cannot unmount /vz/root/101: "), "{text}");
        assert_eq!(text.matches("busy").count(), 1, "{text}");
        // A transparent error is its own cause.
        let conf = Error::from(vzconf::Error::BadCtid { arg: "x".to_owned() });
        assert_eq!(describe(&conf), "Bad CT ID x");
    }

    #[test]
    fn what_is_left_behind_comes_after_the_whole_cause() {
        let error = busy().with_cleanup(vec!["cannot remove a".to_owned(), "cannot remove b".to_owned()]);
        let want = format!("{}; not cleaned up: cannot remove a; cannot remove b", describe(&busy()));
        assert_eq!(describe(&error), want);
        assert_eq!(error.exit(), Exit::FsCantUmount);
    }
}
