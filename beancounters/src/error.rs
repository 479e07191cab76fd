//! What can go wrong with cgroups, limits and usage.
use std::io;
use std::path::PathBuf;

use vzconf::{Ctid, Exit};

use crate::limits::Param;

/// An error of this crate; [`Error::exit`] tells what a command exits with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No cgroup file system is mounted on this host.
    #[error("no cgroup hierarchy is mounted on this host")]
    NoHierarchy,
    /// A cgroup directory or file could not be worked with.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: `create`, `read`…
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Processes still live in the cgroup of a VE that is to be created or removed.
    #[error("processes of container {ctid} are still there (cgroup {})", path.display())]
    Populated {
        /// The VE.
        ctid: Ctid,
        /// A cgroup with processes.
        path: PathBuf,
    },
    /// The VE did not do in time what was asked.
    #[error("container {ctid} could not be {what} in time")]
    TimedOut {
        /// The VE.
        ctid: Ctid,
        /// `frozen`, `emptied`…
        what: &'static str,
    },
    /// The kernel refused the value of a limit.
    #[error("cannot set {param} ({value} to {})", path.display())]
    Refused {
        /// The parameter.
        param: Param,
        /// The file written to.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Less memory than the VE holds and cannot give back.
    #[error("cannot set {param} to {wanted} bytes: the container holds {held}, and does not get rid of them")]
    InUse {
        /// PHYSPAGES or SWAPPAGES.
        param: Param,
        /// What was wanted, in bytes.
        wanted: String,
        /// What it holds, in bytes.
        held: u64,
    },
    /// A mask that leaves the VE without any CPU or node, or that is not a list.
    #[error("bad {param} {value:?}: this host has {available}")]
    BadMask {
        /// CPUMASK or NODEMASK.
        param: Param,
        /// What was given.
        value: String,
        /// What there is.
        available: String,
    },
    /// Not a `DEVICES` entry.
    #[error("bad device rule {rule:?} (expected b|c:major:minor|all:[r][w][q]|none)")]
    BadDevice {
        /// What was given.
        rule: String,
    },
    /// The sockets of a VE could not be limited by BPF programs.
    #[error("cannot limit the sockets of container {ctid}")]
    SocketGate {
        /// The VE.
        ctid: Ctid,
        /// The call and its errno.
        #[source]
        source: vzsys::SysError,
    },
    /// A limit could not be set inside a VE.
    #[error("cannot set {param} of container {ctid}")]
    Inside {
        /// The parameter.
        param: Param,
        /// The VE.
        ctid: Ctid,
        /// The call and its errno.
        #[source]
        source: vzsys::SysError,
    },
    /// Device access could not be restricted by a BPF program.
    #[error("cannot restrict the devices of container {ctid}")]
    DeviceFilter {
        /// The VE.
        ctid: Ctid,
        /// The call and its errno.
        #[source]
        source: vzsys::SysError,
    },
}

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Error {
        Error::File { action, path: path.into(), source: source.into() }
    }

    /// The exit code of a command that fails with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::NoHierarchy => Exit::BadKernel,
            Error::File { .. } | Error::TimedOut { .. } => Exit::Resource,
            Error::Populated { .. } => Exit::EnvCreate,
            Error::Refused { param, .. } | Error::InUse { param, .. } | Error::Inside { param, .. } => {
                param.exit()
            }
            Error::SocketGate { .. } => Exit::SetUbc,
            Error::BadMask { .. } | Error::BadDevice { .. } => Exit::InvalidValue,
            Error::DeviceFilter { .. } => Exit::SetDevices,
        }
    }
}
