//! What the VE's own processes hold.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// KiB in a page of the table.
const KIB_A_PAGE: u64 = 4;
/// A VE that nests more network namespaces than this is counted in part.
const MOST_NETWORKS: usize = 256;

/// Sums over all processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    /// Private writable address space.
    pub(crate) private_pages: u64,
    /// Open descriptors; one that several share counts for each.
    pub(crate) files: u64,
    /// Queued signals. The kernel counts them for each user.
    pub(crate) signals: u64,
    /// A process in each network namespace, init's first.
    pub(crate) networks: Vec<i32>,
}

impl Processes {
    pub(crate) fn of(pids: &[i32], init: i32) -> Processes {
        let mut sum = Processes { networks: networks(pids, init), ..Processes::default() };
        let mut signals = BTreeMap::new();
        for pid in pids {
            let Some(status) = Status::of(*pid) else { continue };
            sum.private_pages += status.private_kib / KIB_A_PAGE;
            signals.insert(status.uid, status.signals);
            sum.files += files_of(*pid);
        }
        sum.signals = signals.values().sum();
        sum
    }
}

/// A process in each network namespace of these processes, init's first.
pub(crate) fn networks(pids: &[i32], init: i32) -> Vec<i32> {
    let own = network_of(init);
    let others = other_networks(pids).into_iter().filter(|pid| network_of(*pid) != own);
    std::iter::once(init).chain(others).take(MOST_NETWORKS).collect()
}

/// A process in each network namespace of these processes but our own: who is on his way in is in the cgroup already,
/// and in the host's network yet.
pub(crate) fn other_networks(pids: &[i32]) -> Vec<i32> {
    let mut known: BTreeSet<_> = fs::read_link("/proc/self/ns/net").into_iter().collect();
    let new = |pid: &&i32| network_of(**pid).is_some_and(|network| known.insert(network));
    pids.iter().filter(new).copied().take(MOST_NETWORKS).collect()
}

/// The name of a process's network namespace.
fn network_of(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// How many descriptors a process has open.
fn files_of(pid: i32) -> u64 {
    let path = format!("/proc/{pid}/fd");
    let path = Path::new(&path);
    // Since 6.2 the directory's size is their number.
    match fs::metadata(path) {
        Ok(meta) if meta.len() > 0 => meta.len(),
        _ => fs::read_dir(path).map_or(0, |entries| entries.count() as u64),
    }
}

/// Lines of `/proc/PID/status`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    uid: u32,
    private_kib: u64,
    signals: u64,
}

impl Status {
    fn of(pid: i32) -> Option<Status> {
        // The name of the program may be any bytes.
        let bytes = fs::read(format!("/proc/{pid}/status")).ok()?;
        Some(Status::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Status {
        let mut status = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let first = value.split_ascii_whitespace().next().unwrap_or("");
            match key {
                "Uid" => status.uid = first.parse().unwrap_or(0),
                "VmData" | "VmStk" => status.private_kib += first.parse::<u64>().unwrap_or(0),
                "SigQ" => {
                    status.signals = first.split('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_status_and_of_a_kernel_thread() {
        let text =
            "Name:\tVmData: 5\nUid:\t1000\t0\t0\t0\nVmStk:\t     132 kB\nVmData:\t 1000 kB\nSigQ:\t3/15000\n";
        assert_eq!(Status::parse(text), Status { uid: 1000, private_kib: 1132, signals: 3 });
        assert_eq!(Status::parse("Name:\tx\nUid:\t0\t0\t0\t0\nSigQ:\t0/1\n"), Status::default());
    }

    #[test]
    fn our_own_process_is_counted_once() {
        let me = i32::try_from(std::process::id()).unwrap();
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let sum = Processes::of(&[me, i32::MAX], me);
        assert!(sum.files >= held.len() as u64, "{sum:?}");
        assert!(sum.private_pages > 10, "{sum:?}");
        assert_eq!(sum.networks, [me]);
    }
}
