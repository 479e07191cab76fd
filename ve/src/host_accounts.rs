//! The beancounter of the host itself: what it uses beside its VEs.

use std::path::Path;

use beancounters::{Beancounter, Reading, Record, Resource};
use vzconf::Paths;

/// A page of the table.
const PAGE_KIB: u64 = 4;

/// Counts the host: its totals without what the VEs hold. Its highest values are remembered in `/run/vz`.
pub(crate) fn count(paths: &Paths, ves: &[Beancounter]) -> Beancounter {
    let reading = read(ves);
    let new = || Record::new(&limits());
    let (record, _) = Record::update(paths.run_root(), new, false, |record| record.absorb(&reading));
    record.beancounter(0)
}

/// None; the guarantee against the OOM killer is what the kernel gave beancounter 0: three quarters of RAM.
fn limits() -> Beancounter {
    let mut limits = Beancounter::new(0);
    let ram = meminfo(&text("/proc/meminfo"), "MemTotal").unwrap_or(0) / PAGE_KIB;
    limits[Resource::Oomguarpages].barrier = ram / 4 * 3;
    limits
}

fn read(ves: &[Beancounter]) -> Reading {
    let mut reading = Reading::default();
    let mut hold = |resource: Resource, total: Option<u64>| {
        let inside: u64 = ves.iter().map(|ve| ve[resource].held).sum();
        if let Some(total) = total {
            reading.hold(resource, total.saturating_sub(inside));
        }
    };
    let memory = text("/proc/meminfo");
    let kib = |key| meminfo(&memory, key);
    let pages = |kib: u64| kib / PAGE_KIB;
    let used = |total, free| Some(pages(kib(total)?.saturating_sub(kib(free)?)));
    let (ram, swap) = (used("MemTotal", "MemFree"), used("SwapTotal", "SwapFree"));
    hold(Resource::Physpages, ram);
    hold(Resource::Swappages, swap);
    hold(Resource::Privvmpages, kib("Committed_AS").map(pages));
    hold(Resource::Shmpages, kib("Shmem").map(pages));
    hold(Resource::Lockedpages, kib("Unevictable").map(pages));
    let kernel = ["Slab", "KernelStack", "PageTables", "Percpu"].into_iter().filter_map(kib).sum::<u64>();
    hold(Resource::Kmemsize, Some(kernel * 1024));
    hold(Resource::Dcachesize, kib("SReclaimable").map(|kib| kib * 1024));
    hold(
        Resource::Numproc,
        text("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|word| word.parse().ok()),
    );
    hold(
        Resource::Numfile,
        text("/proc/sys/fs/file-nr").split_whitespace().next().and_then(|n| n.parse().ok()),
    );
    hold(Resource::Numpty, text("/proc/sys/kernel/pty/nr").trim().parse().ok());
    let locks = text("/proc/locks");
    hold(Resource::Numflock, Some(locks.lines().filter(|line| !line.contains("-> ")).count() as u64));
    // What the host gives back when it is asked is nothing to be killed for.
    let fixed = used("MemTotal", "MemAvailable").unwrap_or(u64::MAX);
    let [ram, swap] =
        [Resource::Physpages, Resource::Swappages].map(|resource| reading.count(resource).held.unwrap_or(0));
    reading.hold(Resource::Oomguarpages, ram.min(fixed) + swap);
    // These are of the host's own network already.
    let (tcp, other) = sockets(&text("/proc/self/net/protocols"));
    reading.hold(Resource::Numtcpsock, tcp);
    reading.hold(Resource::Numothersock, other);
    reading
}

/// TCP sockets, and all others, of `/proc/net/protocols`.
fn sockets(protocols: &str) -> (u64, u64) {
    let mut counts = (0, 0);
    for line in protocols.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(number)) = (words.next(), words.nth(1).and_then(|n| n.parse::<i64>().ok()))
        else {
            continue;
        };
        let number = u64::try_from(number).unwrap_or(0);
        if matches!(name, "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6") {
            counts.0 += number;
        } else {
            counts.1 += number;
        }
    }
    counts
}

fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_share_is_what_the_ves_leave() {
        let alone = read(&[]);
        let mut ve = Beancounter::new(101);
        ve[Resource::Physpages].held = 100;
        let shared = read(&[ve]);
        let pages = |reading: &Reading| reading.count(Resource::Physpages).held.unwrap();
        assert!(pages(&alone) > 1000 && pages(&shared) > 1000);
        let held = |resource| alone.count(resource).held.unwrap();
        assert!(held(Resource::Oomguarpages) > 1000);
        let all = held(Resource::Physpages) + held(Resource::Swappages);
        assert!(held(Resource::Oomguarpages) <= all);
        // A machine that was started a moment ago has no cache; what the kernel keeps for itself is not available either.
        let memory = text("/proc/meminfo");
        let [free, available] = ["MemFree", "MemAvailable"].map(|key| meminfo(&memory, key).unwrap());
        if available > free + (64 << 10) {
            assert!(held(Resource::Oomguarpages) < all, "without its cache");
        }
        for resource in [Resource::Numproc, Resource::Numfile, Resource::Kmemsize, Resource::Numothersock] {
            assert!(alone.count(resource).held.is_some_and(|held| held > 0), "{resource}");
        }
    }

    #[test]
    fn sockets_of_both_families_are_counted() {
        let text = "protocol  size sockets  memory press maxhdr  slab module     cl co di ac\n\
            UNIX      1024    190      -1   NI       0   yes  kernel      n  n\n\
            TCPv6     2480      3       2   no     320   yes  kernel      y  y\n\
            TCP       2320      4       2   no     320   yes  kernel      y  y\n\
            NETLINK   1088     -1      -1   NI       0   no   kernel      n  n\n";
        assert_eq!(sockets(text), (7, 190));
    }

    #[test]
    fn three_quarters_of_ram_are_guaranteed() {
        let limits = limits();
        let barrier = limits[Resource::Oomguarpages].barrier;
        assert!(barrier > 0 && limits[Resource::Oomguarpages].limit > barrier);
    }
}
