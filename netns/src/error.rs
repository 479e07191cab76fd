//! What can go wrong with a VE's network.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use vzconf::{Ctid, Exit};
use vzsys::SysError;

/// What a failed request was about; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// An address or a route.
    Address,
    /// The venet device.
    Venet,
    /// A veth device of the VE.
    Veth,
}

/// Who holds an address that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// Another VE.
    Ve(Ctid),
    /// The host itself, or a device of that name which is none of ours.
    Device(String),
    /// A machine of the network, by its hardware address and the device it answered on.
    Neighbour {
        /// Its hardware address.
        mac: vzconf::Mac,
        /// Our device.
        device: String,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ve(ctid) => write!(f, "container {ctid}"),
            Self::Device(name) => write!(f, "the host, device {name}"),
            Self::Neighbour { mac, device } => write!(f, "the machine {mac} on {device}"),
        }
    }
}

/// A failed change of the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a request.
    #[error("{what}")]
    Refused {
        /// The request, as `ip` would be asked for it.
        what: String,
        /// What it was about.
        subject: Subject,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No netlink socket, or it broke.
    #[error("netlink socket of {namespace}")]
    Socket {
        /// Whose namespace.
        namespace: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The VE's network namespace cannot be entered.
    #[error("cannot enter the network namespace of the container")]
    Namespace {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The address belongs to somebody else.
    #[error("address {address} is in use by {owner}")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: Owner,
    },
    /// The VE has no device of that name: it is not running, or never had it.
    #[error("container {ctid} has no network device {device}")]
    NoDevice {
        /// The VE.
        ctid: Ctid,
        /// The device's name on the host.
        device: String,
    },
    /// The bridge that a veth device is to join is not there.
    #[error("bridge {bridge} for {device} not found; create it with: ip link add {bridge} type bridge")]
    NoBridge {
        /// The bridge.
        bridge: String,
        /// The device that wanted to join it.
        device: String,
    },
    /// This kernel cannot filter MAC addresses at a bridge port.
    #[error("mac_filter of {device} needs Linux 5.18 or later; switch it off with --mac_filter off")]
    NoMacFilter {
        /// The device.
        device: String,
    },
    /// A kernel setting could not be written.
    #[error("cannot write {path}")]
    Sysctl {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The packet filter could not be set up.
    #[error("cannot set up the nftables table inet vz: {reason}")]
    Filter {
        /// What `nft` or the kernel said.
        reason: String,
    },
    /// A packet socket failed.
    #[error("cannot announce or probe addresses")]
    Packet {
        /// The cause.
        #[source]
        source: SysError,
    },
    /// Packets to a VE cannot be kept.
    #[error("cannot keep what comes for container {ctid}")]
    Hold {
        /// The VE.
        ctid: Ctid,
        /// The cause.
        #[source]
        source: SysError,
    },
    /// The file that records a VE's addresses.
    #[error("cannot write {path}")]
    Record {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something failed, and so did undoing what had been done.
    #[error("{cause}; not cleaned up: {}", list(.cleanup))]
    Cleanup {
        /// What failed first.
        #[source]
        cause: Box<Error>,
        /// What could not be undone.
        cleanup: Vec<Error>,
    },
}

fn list(errors: &[Error]) -> String {
    errors.iter().map(chain).collect::<Vec<_>>().join(", ")
}

/// An error with its causes, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Error {
    /// The exit code of a command that ends with this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { subject: Subject::Address | Subject::Venet, .. } => Exit::CantAddIp,
            Self::Refused { subject: Subject::Veth, .. }
            | Self::NoBridge { .. }
            | Self::NoMacFilter { .. } => Exit::Veth,
            Self::Socket { .. }
            | Self::Namespace { .. }
            | Self::Sysctl { .. }
            | Self::Packet { .. }
            | Self::Hold { .. } => Exit::System,
            Self::InUse { .. } => Exit::IpInUse,
            Self::NoDevice { .. } => Exit::VeNotRunning,
            Self::Filter { .. } => Exit::SetIptables,
            Self::Record { .. } => Exit::CantAddIp,
            Self::Cleanup { cause, .. } => cause.exit(),
        }
    }

    /// The same error, with what could not be undone after it.
    pub(crate) fn after(self, cleanup: Vec<Error>) -> Self {
        if cleanup.is_empty() { self } else { Self::Cleanup { cause: Box::new(self), cleanup } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_clean_up_is_told_with_its_cause() {
        let refused = |what: &str, errno| Error::Refused {
            what: what.into(),
            subject: Subject::Address,
            source: io::Error::from_raw_os_error(errno),
        };
        let error = refused("ip route add", 1).after(vec![refused("ip link del", 16)]);
        assert_eq!(
            error.to_string(),
            "ip route add; not cleaned up: ip link del: Device or resource busy (os error 16)"
        );
        assert_eq!(error.exit(), Exit::CantAddIp);
        assert!(matches!(refused("x", 1).after(Vec::new()), Error::Refused { .. }));
    }
}
