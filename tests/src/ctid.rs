//! Numbers for the VEs of a test. Cgroups and id ranges are shared by all nodes of a host: no two nodes
//! may use the same.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// How many a node gets.
pub(crate) const BLOCK: u32 = 100;
const FIRST: u32 = 5_000_000;
const BLOCKS: u32 = 40_000;
const COUNTER: &str = "/tmp/vztests-ctid";

/// The first of a block that nobody uses.
pub(crate) fn claim() -> u32 {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(COUNTER).unwrap();
    let _locked = locked(file);
    let mut next: u32 =
        fs::read_to_string(COUNTER).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let in_use = in_use();
    loop {
        let block = next % BLOCKS;
        next += 1;
        let first = FIRST + block * BLOCK;
        if !in_use.iter().any(|ctid| (first..first + BLOCK).contains(ctid)) {
            fs::write(COUNTER, next.to_string()).unwrap();
            return first;
        }
    }
}

pub(crate) fn locked(file: File) -> File {
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

/// CTIDs that have cgroups.
fn in_use() -> Vec<u32> {
    let entries = vz_groups().into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The directory `vz` of each hierarchy.
pub(crate) fn vz_groups() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut dirs: Vec<PathBuf> = table
        .lines()
        .filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| Path::new(point).join("vz"))
        .filter(|dir| dir.is_dir())
        .collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

/// The cgroups of a block's VEs, with all below them, children last.
pub(crate) fn groups_of(first: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for vz in vz_groups() {
        for entry in fs::read_dir(vz).into_iter().flatten().flatten() {
            let ctid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if ctid.is_some_and(|ctid| (first..first + BLOCK).contains(&ctid)) {
                collect(&entry.path(), &mut found);
            }
        }
    }
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), found);
        }
    }
}

/// The same of one group.
pub(crate) fn sweep_group(group: &str) {
    let mut found = Vec::new();
    vz_groups()
        .iter()
        .map(|vz| vz.join(group))
        .filter(|dir| dir.is_dir())
        .for_each(|dir| collect(&dir, &mut found));
    for dir in found.into_iter().rev() {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes the cgroups of a block whose processes are gone. Those that a killed test left frozen can die only when
/// they are let go.
pub(crate) fn sweep(first: u32) {
    for dir in groups_of(first).into_iter().rev() {
        let _ = fs::write(dir.join("freezer.state"), "THAWED")
            .or_else(|_| fs::write(dir.join("cgroup.freeze"), "0"));
        let _ = fs::remove_dir(dir);
    }
}
