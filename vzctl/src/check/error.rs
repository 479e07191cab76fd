//! Why a tool gives no answer.

use std::io;

use beancounters::text::ParseError;

/// Why a tool gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command line that is none of this tool's.
    #[error("{complaint}\nTry `{program} --help' for more information.")]
    Usage {
        /// The tool.
        program: &'static str,
        /// What is wrong.
        complaint: String,
        /// What it exits with then.
        exit: u8,
    },
    /// Somebody else than root asks for what only root may see.
    #[error("This program can only be run under root.")]
    NotRoot,
    /// An argument that must be a number and is not.
    #[error("Invalid CT ID: {0}")]
    BadCtid(String),
    /// A VE without a configuration.
    #[error("Container configuration file: {0} not found")]
    NoConfig(String),
    /// A configuration that leaves out what the formulas need.
    #[error("parameter {} not found", .0.join(" not found\nError: parameter "))]
    Missing(Vec<String>),
    /// A file or system call failed.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}")]
    Table {
        /// Which.
        path: String,
        /// Where it goes wrong.
        #[source]
        source: ParseError,
    },
    /// Something the kernel always says was not there.
    #[error("{path} says nothing of {what}")]
    Silent {
        /// The file.
        path: &'static str,
        /// What was looked for.
        what: &'static str,
    },
    /// The accounts of the VEs.
    #[error(transparent)]
    Ve(#[from] ve::Error),
    /// A configuration.
    #[error(transparent)]
    Conf(#[from] vzconf::Error),
}

impl Error {
    /// `what` is what was being done.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    /// What the program exits with.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage { exit, .. } => *exit,
            _ => 1,
        }
    }
}
