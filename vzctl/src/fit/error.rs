//! Why a tool does not do its work. Sentences with a capital letter are OpenVZ's.

use std::io;

/// Why a tool does not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command line that is none of this tool's.
    #[error("{complaint}\nTry `{program} --help' for more information.")]
    Usage {
        /// The tool.
        program: &'static str,
        /// What is wrong.
        complaint: String,
    },
    /// There is no such configuration.
    #[error("Container configuration file {0} not found")]
    NoFile(String),
    /// A configuration that is a directory, a device or the like.
    #[error("{0} is not a file")]
    NotAFile(String),
    /// A configuration that somebody changed while it was worked on.
    #[error("{0} was changed by somebody else meanwhile; nothing is written, run this again")]
    Changed(String),
    /// A file that is not to be overwritten.
    #[error("File {0} already exist")]
    Exists(String),
    /// The output file is a directory.
    #[error("output file {0} is directory")]
    Directory(String),
    /// A number that is none.
    #[error("Invalid value.")]
    NoNumber,
    /// No container at all.
    #[error("Incorrect value for number of containers.")]
    NoContainers,
    /// The node is too small for anything.
    #[error("At least {mib} Mb of RAM should be installed on Hardware Node")]
    TinyNode {
        /// What it needs for itself.
        mib: u64,
    },
    /// The node is too small for so many.
    #[error("{}The maximum allowed value is {allowed}", .reasons.concat())]
    TooMany {
        /// What there is too little of, a line each.
        reasons: Vec<String>,
        /// How many would do.
        allowed: u64,
    },
    /// Not even the least that a container needs is there.
    #[error("Fatal resource shortage, try to decrease the number of containers")]
    Shortage,
    /// A configuration with these coefficients would not be valid.
    #[error("the scaled configuration is not valid; nothing is written")]
    Unfit,
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// A file or system call failed.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The node does not say what it has.
    #[error(transparent)]
    Node(#[from] crate::check::Error),
    /// A configuration.
    #[error(transparent)]
    Conf(#[from] vzconf::Error),
    /// The running container.
    #[error(transparent)]
    Ve(#[from] ve::Error),
}
