//! Which rows of the table are limits on this host, and which are only numbers.
use rustix::fs::{Mode, OFlags};
use vzsys::bpf::{FileGate, SocketGate};

use crate::hierarchy::{Controller, Hierarchies};
use crate::resource::Resource;

/// What the limit of a row is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The kernel refuses what is above it.
    Enforced,
    /// What is in use is counted, and not refused.
    Accounted,
    /// It is kept with the configuration, and nothing else.
    Stored,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Enforced => "enforced",
            Self::Accounted => "accounted",
            Self::Stored => "stored",
        })
    }
}

/// The standing of a row on this host, and what is to be known about it in a few words; these may be empty.
#[must_use]
pub fn standing(resource: Resource, host: &Hierarchies) -> (Standing, &'static str) {
    use Standing::{Accounted, Enforced, Stored};
    let has = |controller: Controller| host.offers(controller);
    match resource {
        Resource::Physpages if has(Controller::Memory) => (Enforced, ""),
        Resource::Swappages if has(Controller::Memory) => (Enforced, "where the kernel counts swap"),
        Resource::Physpages | Resource::Swappages => (Stored, "the host has no memory controller"),
        Resource::Numproc if has(Controller::Pids) => (Enforced, ""),
        Resource::Numproc => (Accounted, "the host has no pids controller"),
        Resource::Kmemsize => (Accounted, "a part of physpages"),
        Resource::Lockedpages => (Accounted, "each process may lock as much; the sum is not limited"),
        Resource::Privvmpages => (Accounted, "what is really used is limited by physpages and swappages"),
        Resource::Shmpages => (Enforced, "System V memory; other shared memory is a part of physpages"),
        Resource::Vmguarpages => (Stored, "the kernel gives no such guarantee"),
        Resource::Oomguarpages => (Accounted, "the kernel gives no such guarantee"),
        Resource::Numtcpsock if has_gate(host) => {
            (Enforced, "a connection that comes in is counted, not refused")
        }
        Resource::Numothersock if has_gate(host) => {
            (Enforced, "IPv4 and IPv6; other sockets are counted, without a limit unbound TCP too")
        }
        Resource::Numtcpsock | Resource::Numothersock => {
            (Accounted, "no BPF programs for sockets of a cgroup v2")
        }
        Resource::Numpty => (Enforced, "of the container's own /dev/pts"),
        Resource::Numsiginfo => (Enforced, "from the next start of the container"),
        Resource::Tcpsndbuf | Resource::Tcprcvbuf | Resource::Othersockbuf | Resource::Dgramrcvbuf => {
            (Accounted, "a part of physpages")
        }
        Resource::Dcachesize if host.v1_with(Controller::Memory).is_some() => {
            (Stored, "cgroup v1 does not count it")
        }
        Resource::Dcachesize => (Accounted, "a part of physpages"),
        Resource::Numfile if FileGate::supported() => (Enforced, ""),
        Resource::Numfile => (Accounted, "no BPF programs for security modules"),
        Resource::Numflock | Resource::Numiptent => {
            (Accounted, "the kernel has no such limit for a container")
        }
    }
}

/// Whether sockets can be refused: asked of the kernel.
fn has_gate(host: &Hierarchies) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = host.v2().and_then(|root| rustix::fs::open(root, flags, Mode::empty()).ok());
    root.is_some_and(SocketGate::supported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_one_and_says_why_it_is_less() {
        let host = Hierarchies::detect().unwrap();
        for resource in Resource::ALL {
            let (standing, why) = standing(resource, &host);
            assert!(standing == Standing::Enforced || !why.is_empty(), "{resource}");
        }
        assert_eq!(standing(Resource::Vmguarpages, &host).0, Standing::Stored);
        assert_eq!(standing(Resource::Numflock, &host).0, Standing::Accounted);
        assert_eq!(standing(Resource::Numpty, &host).0, Standing::Enforced);
        assert_eq!(format!("{:9}|", Standing::Stored), "stored   |");
    }

    #[test]
    fn without_controllers_nothing_of_theirs_is_enforced() {
        let line = "41 31 0:38 / /nowhere/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let host = Hierarchies::parse(line, std::path::Path::new("/nowhere")).unwrap();
        for resource in [Resource::Physpages, Resource::Numproc, Resource::Numtcpsock] {
            assert_ne!(standing(resource, &host).0, Standing::Enforced, "{resource}");
        }
    }
}
