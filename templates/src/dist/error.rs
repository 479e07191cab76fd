//! What can go wrong in a guest's tree.

use std::fmt;
use std::path::PathBuf;

use vzconf::Exit;
use vzsys::SysError;

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link that could not be followed.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// A guest's tree could not be read or changed. Paths are the guest's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistError {
    /// A file is needed where the guest has something else.
    #[error("{path} in the container is {kind}, not a regular file")]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// A configuration file of absurd size.
    #[error(
        "{path} in the container has {size} bytes, more than the {limit} that a configuration file may have"
    )]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A system call failed.
    #[error("{path} in the container")]
    Call {
        /// The path.
        path: PathBuf,
        /// The call.
        #[source]
        source: SysError,
    },
    /// Not a host name.
    #[error("bad host name {name:?}: letters, digits, '-', '_' and '.' only, 64 at most")]
    BadHostname {
        /// What was given.
        name: String,
    },
    /// Not a search domain.
    #[error("bad search domain {name:?}")]
    BadSearchDomain {
        /// What was given.
        name: String,
    },
    /// Not a name server.
    #[error("bad name server {name:?}: an IP address is needed")]
    BadNameserver {
        /// What was given.
        name: String,
    },
    /// Not a user name.
    #[error("bad user name {name:?}")]
    BadUser {
        /// What was given.
        name: String,
    },
    /// A password with a line break, a NUL or a colon-free hash could not be made of it.
    #[error("the password has a character that no password may have")]
    BadPassword,
    /// The guest has no user data base.
    #[error("the container has no /etc/passwd")]
    NoPasswd,
    /// Another program in the guest holds the password lock.
    #[error("another program in the container holds {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Some of the files could be written, these not.
    #[error("{first} (and {} more)", others.len())]
    Several {
        /// The first.
        #[source]
        first: Box<DistError>,
        /// The rest.
        others: Vec<DistError>,
    },
}

impl DistError {
    /// The exit code of a command that fails with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::BadHostname { .. } => Exit::BadHostname,
            Self::BadNameserver { .. } => Exit::BadDnsSrv,
            Self::BadSearchDomain { .. } => Exit::BadDnsSearch,
            Self::BadUser { .. } | Self::BadPassword | Self::NoPasswd | Self::Locked { .. } => {
                Exit::ChangePass
            }
            Self::Several { first, .. } => first.exit(),
            Self::NotRegular { .. } | Self::TooLarge { .. } | Self::Call { .. } => Exit::ActionScript,
        }
    }
}
