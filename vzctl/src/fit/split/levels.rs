//! What each of N VEs gets: three levels of how far the node is promised away, and a last one of the least that works.

use vzconf::Pair;
use vzconf::units::UNLIMITED;

use super::super::limits::Limits;
use super::{Node, RESERVE};

/// A level of commitment. Factors are in tenths.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// What of the memory for the kernel's data is promised.
    kernel: i64,
    /// What of the threads is promised.
    threads: i64,
    /// How many processes there may be for one that there is on the average.
    peak: i64,
    /// Bytes of kernel memory for a process.
    process: i64,
    /// Bytes of each buffer, and for each socket.
    buffer: i64,
    socket: i64,
    signals: u64,
    /// Bytes of the cache of names for a file.
    name: i64,
    /// What may be allocated of what is guaranteed.
    private: i64,
    /// Locked pages for 2 % of kernel memory.
    locked: i64,
    /// With less kernel memory for a VE this level does not fit.
    least: i64,
}

const LEVELS: [Level; 3] = [
    Level {
        kernel: 10,
        threads: 10,
        peak: 8,
        process: 81_920,
        buffer: 262_144,
        socket: 4096,
        signals: 1024,
        name: 5760,
        private: 60,
        locked: 10,
        least: 10 << 20,
    },
    Level {
        kernel: 12,
        threads: 15,
        peak: 5,
        process: 65_536,
        buffer: 131_072,
        socket: 3036,
        signals: 512,
        name: 4608,
        private: 30,
        locked: 3,
        least: 2 << 20,
    },
    Level {
        kernel: 18,
        threads: 20,
        peak: 3,
        process: 53_248,
        buffer: 65_536,
        socket: 2560,
        signals: 256,
        name: 3840,
        private: 15,
        locked: 1,
        least: 0,
    },
];
/// What is promised in tenths where no level fits.
const LAST_KERNEL: i64 = 20;

/// The least of a VE.
const PROCESSES: i64 = 30;
const GUARANTEE: i64 = 1024;
const TCP_BUFFER: i64 = 65_536;
const DATAGRAM_BUFFER: i64 = 32_768;
const SOCKET: i64 = 2560;
/// Bytes of which a level's locked pages are a part.
const LOCKED_OF: i64 = 204_800;
/// Packet filter rules of all VEs.
const RULES: u64 = 2000;

/// What a VE gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// 0 to 3: how far the node is promised away.
    pub(super) commitment: usize,
    /// Beancounters, for a configuration without VSwap.
    pub(super) limits: Limits,
}

/// Divides a node among `count` VEs; `None` when they cannot be fed.
pub(super) fn share(node: &Node, count: u64) -> Option<Share> {
    let (commitment, part) = LEVELS
        .iter()
        .enumerate()
        .find_map(|(number, level)| Some((number, Part::of(node, count, level)?)))
        .or_else(|| Some((LEVELS.len(), Part::least(node, count)?)))?;
    let level = &LEVELS[commitment.min(LEVELS.len() - 1)];
    Some(Share { commitment, limits: part.limits(node, count, level) })
}

/// What the others follow from.
#[derive(Debug, Clone, Copy)]
struct Part {
    kernel: i64,
    /// Processes on the average, and at most.
    average: i64,
    processes: i64,
    guarantee: i64,
    /// RAM and swap in pages.
    total: i64,
    sent: Pair,
    received: Pair,
    other: Pair,
    datagrams: u64,
}

impl Part {
    /// By a level; `None` when it does not fit.
    fn of(node: &Node, count: u64, level: &Level) -> Option<Self> {
        let (low, guarantee) = memory(node, count, level.kernel);
        let kernel = low / 2;
        let average = kernel / level.process;
        if low < level.least || average < PROCESSES / 2 {
            return None;
        }
        let threads = (signed(node.threads) * level.threads / 10 / signed(count)).max(PROCESSES);
        let processes = threads.max(2 * average).min(level.peak * average);
        let buffer = (low - kernel) / 3;
        let sockets = level.socket * processes;
        if buffer < level.buffer + sockets {
            return None;
        }
        let rest = buffer - sockets;
        let tcp = pair(rest, buffer);
        let (other, datagrams) = (pair(rest / 2, rest / 2 + sockets), unsigned(rest / 2));
        let total = total(node, count) / signed(node.page);
        Some(Self {
            kernel,
            average,
            processes,
            guarantee,
            total,
            sent: tcp,
            received: tcp,
            other,
            datagrams,
        })
    }

    /// The fewest processes, and the smallest buffers.
    fn least(node: &Node, count: u64) -> Option<Self> {
        let level = &LEVELS[LEVELS.len() - 1];
        let (low, guarantee) = memory(node, count, LAST_KERNEL);
        let mut processes = signed(node.threads) * level.threads / 10 / signed(count);
        loop {
            processes = (processes / 2).max(PROCESSES);
            let average = processes / 2;
            let sockets = SOCKET * processes;
            let kernel = low - 2 * (DATAGRAM_BUFFER + TCP_BUFFER + sockets);
            let rest = kernel - average * level.process;
            if rest < 0 && processes == PROCESSES {
                return None;
            }
            if rest >= 0 {
                // Buffers of what is received come last, out of what the processes leave.
                let received = rest.min(sockets);
                return Some(Self {
                    kernel: kernel - received,
                    average,
                    processes,
                    guarantee,
                    total: total(node, count) / signed(node.page),
                    sent: pair(TCP_BUFFER, TCP_BUFFER + sockets),
                    received: pair(TCP_BUFFER, TCP_BUFFER + received),
                    other: pair(DATAGRAM_BUFFER, DATAGRAM_BUFFER + sockets),
                    datagrams: unsigned(DATAGRAM_BUFFER),
                });
            }
        }
    }

    fn limits(&self, node: &Node, count: u64, level: &Level) -> Limits {
        let files = 32 * self.average;
        let names = files * level.name / 10;
        let locks = (files / 10).min(1000);
        let (private, guarantee) = self.private(node, count, level);
        let processes = Pair::both(unsigned(self.processes));
        let open = |barrier: i64| Pair { barrier: unsigned(barrier), limit: UNLIMITED };
        let mut limits = Limits::default();
        for (name, pair) in [
            ("numproc", processes),
            ("avnumproc", Pair::both(unsigned(self.average))),
            ("numtcpsock", processes),
            ("numothersock", processes),
            ("vmguarpages", open(guarantee)),
            ("kmemsize", pair(self.kernel, tenth_more(self.kernel))),
            ("tcpsndbuf", self.sent),
            ("tcprcvbuf", self.received),
            ("othersockbuf", self.other),
            ("dgramrcvbuf", Pair::both(self.datagrams)),
            ("oomguarpages", open(guarantee)),
            ("privvmpages", pair(private, tenth_more(private))),
            ("lockedpages", Pair::both(unsigned((self.kernel * level.locked / LOCKED_OF).max(4)))),
            ("shmpages", Pair::both(unsigned(private / 10))),
            ("physpages", open(0)),
            ("numfile", Pair::both(unsigned(files))),
            ("numflock", pair(locks, tenth_more(locks))),
            ("numpty", Pair::both(unsigned((self.processes / 10).clamp(4, 512)))),
            ("numsiginfo", Pair::both(level.signals)),
            ("dcachesize", pair(names * 100 / 103, names)),
            ("numiptent", Pair::both((RULES / count).clamp(4, 200))),
        ] {
            limits.set(name, pair);
        }
        limits
    }

    /// Pages that may be allocated, and those that are guaranteed.
    fn private(&self, node: &Node, count: u64, level: &Level) -> (i64, i64) {
        let most = signed(node.ram / 10 * 6 / node.page);
        let wanted = self.guarantee * level.private / 10;
        let private = if wanted > self.total { self.guarantee } else { wanted };
        if count > 1 && private > most { (most, self.guarantee.min(most)) } else { (private, self.guarantee) }
    }
}

/// RAM and swap of one VE.
fn total(node: &Node, count: u64) -> i64 {
    signed((node.ram.saturating_add(node.swap).saturating_sub(RESERVE)) / count)
}

/// Bytes of kernel memory of one VE, and the pages that it can be sure of.
fn memory(node: &Node, count: u64, tenths: i64) -> (i64, i64) {
    let (total, page) = (total(node, count), signed(node.page));
    // Four tenths of low memory are for the kernel's data.
    let low = signed(node.low).saturating_mul(4 * tenths) / 100 / signed(count);
    let guarantee = (total - low) / page;
    if guarantee < GUARANTEE { (total - GUARANTEE * page, GUARANTEE) } else { (low, guarantee) }
}

fn tenth_more(value: i64) -> i64 {
    value + value / 10
}

fn pair(barrier: i64, limit: i64) -> Pair {
    Pair { barrier: unsigned(barrier), limit: unsigned(limit) }
}

/// Sizes of a node are far below 2^63.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
