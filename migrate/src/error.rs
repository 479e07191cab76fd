//! Why a move failed.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::wire::WireError;

/// The result of a step of a move.
pub type Result<T> = std::result::Result<T, Error>;

/// A move failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something of this host.
    #[error("{text}")]
    Here {
        /// What, with all causes.
        text: String,
        /// Advice.
        hint: Option<String>,
        /// The exit code.
        exit: Exit,
    },
    /// The other host said so.
    #[error("{}: {}", peer, failure.text)]
    There {
        /// Its name.
        peer: String,
        /// What it said.
        failure: Failure,
    },
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The user does not want it any more.
    #[error("interrupted")]
    Interrupted,
    /// The connection is lost, and nobody can tell whose the VE is.
    #[error("{text}")]
    InDoubt {
        /// What is known.
        text: String,
        /// What to do.
        hint: String,
    },
}

/// A failure as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, with all causes.
    pub text: String,
}

impl Error {
    /// Of this host, with an exit code.
    pub fn here(exit: Exit, text: impl Into<String>) -> Self {
        Self::Here { text: text.into(), hint: None, exit }
    }

    /// The same with advice.
    pub fn advised(exit: Exit, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Here { text: text.into(), hint: Some(hint.into()), exit }
    }

    /// A verb of this host failed.
    pub fn verb(exit: Exit, error: &ve::Error) -> Self {
        let exit = if error.exit() == vzconf::Exit::Locked { Exit::Locked } else { exit };
        Self::Here { text: ve::describe(error), hint: error.hint().map(str::to_owned), exit }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Here { exit, .. } => *exit,
            Self::There { failure, .. } => failure.exit,
            Self::Wire(_) => Exit::Connect,
            Self::Interrupted => Exit::Usage,
            Self::InDoubt { .. } => Exit::Start,
        }
    }

    /// Advice for a person.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Here { hint, .. } => hint.as_deref(),
            Self::InDoubt { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// In the form that travels.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure { exit: self.exit(), text: ve::describe(self) }
    }
}
