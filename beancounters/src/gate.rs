//! The limits of sockets: a gate of BPF programs at the VE's cgroup v2.
//!
//! The programs count what is made and closed, and so know it at once; the kernel's lists know what is there, but only
//! when asked. So the programs refuse, and now and then the lists put right what the programs cannot have seen: sockets
//! older than the gate.
use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use vzsys::SysError;
use vzsys::bpf::{Kind, SocketGate, Tally};

use crate::error::{Error, Result};
use crate::limit_plan::Unenforced;
use crate::limits::{Limits, Param, finite};
use crate::rows::{Sockets, networks, other_networks};
use crate::ve_cgroup::VeCgroup;

const KINDS: [(Kind, Param); 2] = [(Kind::Tcp, Param::Numtcpsock), (Kind::Other, Param::Numothersock)];

/// Sets the limits of sockets that are given; what cannot be held is returned. A VE that never had a limit gets no gate.
pub(crate) fn apply(limits: &Limits, ve: &VeCgroup) -> Result<Vec<Unenforced>> {
    let wanted = [limits.numtcpsock, limits.numothersock];
    if wanted.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let any = wanted.into_iter().flatten().any(|pair| finite(pair).is_some());
    let gate = match (find(ve), any) {
        (Some(gate), _) => gate,
        (None, false) => return Ok(Vec::new()),
        (None, true) => match put_up(ve)? {
            Ok(gate) => gate,
            Err(why) => {
                let lost = KINDS.iter().zip(wanted).filter(|(_, pair)| pair.and_then(finite).is_some());
                return Ok(lost
                    .map(|((_, param), _)| Unenforced { param: *param, why: why.clone() })
                    .collect());
            }
        },
    };
    for ((kind, _), pair) in KINDS.into_iter().zip(wanted) {
        if let Some(pair) = pair {
            gate.limit(kind, finite(pair));
        }
    }
    Ok(Vec::new())
}

/// The limit of System V memory is its namespace's own root's to set on some kernels: then not while we do.
pub(crate) fn hold_shmall(limits: &Limits, ve: &VeCgroup) -> Result<Option<Unenforced>> {
    let Some(pair) = limits.shmpages else { return Ok(None) };
    let hold = finite(pair).is_some();
    let lost = |why| Ok(hold.then_some(Unenforced { param: Param::Shmpages, why }));
    let Some(cgroup) = open(ve) else { return lost("its root can raise it, without a cgroup v2".to_owned()) };
    match vzsys::bpf::hold_shmall(&cgroup, hold) {
        Ok(()) => Ok(None),
        Err(error) if is_missing(&error) => lost(format!("its root can raise it: {error}")),
        Err(source) => Err(Error::Inside { param: Param::Shmpages, ctid: ve.ctid(), source }),
    }
}

/// Whether a kernel has no such programs.
fn is_missing(error: &SysError) -> bool {
    matches!(error.errno(), Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
}

/// The VE's gate, if it has one.
pub(crate) fn find(ve: &VeCgroup) -> Option<SocketGate> {
    ve.in_v2_dir(|dir| SocketGate::find(dir).ok()?)?
}

fn open(ve: &VeCgroup) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(ve.v2_dir()?, flags, Mode::empty()).ok()
}

/// A new gate that knows what is open already, or why this kernel has none.
fn put_up(ve: &VeCgroup) -> Result<std::result::Result<SocketGate, String>> {
    let Some(cgroup) = open(ve) else { return Ok(Err("the host has no cgroup v2".to_owned())) };
    match SocketGate::put_up(&cgroup) {
        Ok(gate) => {
            // What was made since the gate is there is listed too, and counted already.
            let counted = tallies(&gate).map(|tally| tally.count);
            let seen = Seen::now(&other_networks(&ve.processes()?));
            for (at, (kind, _)) in KINDS.into_iter().enumerate() {
                gate.seed(kind, seen.sockets[at].saturating_sub(counted[at]));
            }
            Ok(Ok(gate))
        }
        Err(error) if is_missing(&error) => Ok(Err(format!("this kernel has no gate for sockets: {error}"))),
        Err(source) => Err(Error::SocketGate { ctid: ve.ctid(), source }),
    }
}

/// Compares what the gate has counted with what the kernel lists, and puts it right. For the VE's monitor, every few
/// seconds; a VE without a gate costs one look.
pub fn resync(init: i32, ve: &VeCgroup) {
    let Some(gate) = find(ve) else { return };
    let networks = networks(&ve.processes().unwrap_or_default(), init);
    // Only what stays the same while it is looked at twice is no socket on its way.
    let before = tallies(&gate);
    let mut seen = Seen::now(&networks);
    let counted = before.map(|tally| tally.count);
    let fits = |seen: Seen| differences(counted, seen, &networks) == ([0; 2], [0; 2]);
    if fits(seen) {
        return;
    }
    let again = Seen::now(&networks);
    if tallies(&gate) != before || again.sockets != seen.sockets {
        return;
    }
    // The sockets that we list with are freed some time after they are closed.
    seen.most = seen.most.zip(again.most).map(|(a, b)| a.max(b));
    let (missing, excess) = differences(counted, seen, &networks);
    for (at, (kind, _)) in KINDS.into_iter().enumerate() {
        gate.seed(kind, missing[at]);
        gate.forget(kind, excess[at]);
    }
}

/// What is there and not counted, and what is counted and not there, of each kind.
fn differences(counted: [u64; 2], seen: Seen, networks: &[i32]) -> ([u64; 2], [u64; 2]) {
    let missing = [0, 1].map(|at| seen.sockets[at].saturating_sub(counted[at]));
    // With more than one namespace there may be another that no process is in any more, and sockets in it.
    let excess = if networks.len() == 1 { excess(counted, seen) } else { [0; 2] };
    (missing, excess)
}

fn tallies(gate: &SocketGate) -> [Tally; 2] {
    KINDS.map(|(kind, _)| gate.tally(kind))
}

/// What the kernel says is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// Listed: TCP, and others of IPv4 and IPv6. There may be more that were never bound.
    sockets: [u64; 2],
    /// No more than this are there, of both kinds.
    most: Option<u64>,
}

impl Seen {
    fn now(networks: &[i32]) -> Seen {
        let mut seen = Seen { sockets: [0; 2], most: Some(0) };
        for pid in networks {
            let listed = Sockets::of(*pid).unwrap_or_default();
            seen.sockets[0] += listed.tcp;
            seen.sockets[1] += listed.datagram;
            seen.most = seen.most.zip(most_in(*pid)).map(|(sum, most)| sum + most);
        }
        seen
    }
}

/// All sockets of a network namespace, less those that are neither IPv4 nor IPv6.
fn most_in(pid: i32) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).ok();
    let used =
        read("sockstat")?.lines().find_map(|line| line.strip_prefix("sockets: used ")?.trim().parse().ok());
    let others = crate::rows::counted_as(&read("protocols")?, &["UNIX", "UNIX-STREAM", "NETLINK", "PACKET"]);
    used.map(|used: u64| used.saturating_sub(others))
}

/// What is counted and cannot be there, of each kind; never what is listed.
fn excess(counted: [u64; 2], seen: Seen) -> [u64; 2] {
    let Some(most) = seen.most else { return [0; 2] };
    let mut over = counted.iter().sum::<u64>().saturating_sub(most);
    let mut excess = [0; 2];
    for at in 0..2 {
        excess[at] = over.min(counted[at].saturating_sub(seen.sockets[at]));
        over -= excess[at];
    }
    excess
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_there_is_too_much() {
        let seen = |tcp, other, most| Seen { sockets: [tcp, other], most };
        for (counted, seen, want) in [
            ([5, 5], seen(5, 5, Some(10)), [0, 0]),
            ([9, 1], seen(2, 1, Some(10)), [0, 0]),
            ([9, 3], seen(2, 1, Some(10)), [2, 0]),
            ([3, 9], seen(2, 1, Some(3)), [1, 8]),
            ([9, 9], seen(2, 1, None), [0, 0]),
            ([4, 0], seen(4, 0, Some(0)), [0, 0]),
        ] {
            assert_eq!(excess(counted, seen), want, "{counted:?} {seen:?}");
        }
    }
}
