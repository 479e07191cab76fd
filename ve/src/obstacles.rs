//! What keeps a running VE from being saved: looked for before anything is stopped, and told in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use beancounters::{Hierarchies, VeCgroup};
use serde::Serialize;
use vzconf::Exit;

use crate::checkpoint::GHOST_LIMIT;
use crate::error::{Error, Result};
use crate::externals::{Externals, Line};
use crate::node::Ve;
use crate::state::State;

/// One thing that cannot be saved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Obstacle {
    /// The process's number on the host; none for the VE as a whole.
    pub pid: Option<i32>,
    /// Its name.
    pub process: Option<String>,
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
    /// A word for programs.
    pub kind: &'static str,
    /// What it is, for people.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(pid), Some(process)) = (self.pid, &self.process) {
            write!(f, "{process} (process {pid}")?;
            if let Some(unit) = &self.unit {
                write!(f, " of {unit}")?;
            }
            write!(f, ") ")?;
        }
        write!(f, "{}; {}", self.what, self.advice)
    }
}

/// Namespaces that only the VE itself may have, with what asks for another.
const NAMESPACES: [(&str, &str); 6] = [
    ("user", "PrivateUsers="),
    ("pid", "PrivatePIDs="),
    ("uts", "ProtectHostname="),
    ("ipc", "PrivateIPC="),
    ("cgroup", "ProtectControlGroups=private"),
    ("time", "unshare --time"),
];

/// File systems that CRIU can neither save nor leave to the kernel.
const UNSAVED: [&str; 9] =
    ["fuse", "fuseblk", "nfs", "nfs4", "cifs", "ramfs", "configfs", "debugfs", "tracefs"];

/// Looks for everything that is known to be in the way. Nothing is stopped: what changes meanwhile is found by CRIU.
#[must_use]
pub fn find(ve: &Ve<'_>, state: &State) -> Vec<Obstacle> {
    let mut found = Vec::new();
    of_ve(ve, state, &mut found);
    let cgroup = Hierarchies::detect().ok().and_then(|h| VeCgroup::open(&h, ve.ctid).ok()?);
    let pids = cgroup.and_then(|cgroup| cgroup.processes().ok()).unwrap_or_default();
    let view = View::of(state, &pids);
    for pid in pids {
        of_process(pid, &view, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// What all processes are compared with.
struct View {
    /// The VE's own namespaces.
    own: BTreeMap<&'static str, String>,
    members: BTreeSet<i32>,
    init: i32,
    /// Unix sockets by inode, with whether they are of the VE.
    mounts: BTreeSet<String>,
}

impl View {
    fn of(state: &State, pids: &[i32]) -> View {
        let init = state.init.pid;
        let own = NAMESPACES.iter().filter_map(|(kind, _)| Some((*kind, namespace(init, kind)?))).collect();
        let tables: BTreeSet<String> = pids.iter().filter_map(|pid| namespace(*pid, "mnt")).collect();
        let mut mounts = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for pid in pids {
            if namespace(*pid, "mnt").is_some_and(|ns| tables.contains(&ns) && seen.insert(ns)) {
                mounts.extend(mount_ids(*pid));
            }
        }
        View { own, members: pids.iter().copied().collect(), init, mounts }
    }
}

fn namespace(pid: i32, kind: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.to_string_lossy().into_owned())
}

fn mount_ids(pid: i32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn of_ve(ve: &Ve<'_>, state: &State, found: &mut Vec<Obstacle>) {
    let mut add = |kind, what: String, advice: String| {
        found.push(Obstacle { pid: None, process: None, unit: None, kind, what, advice });
    };
    if let Err(error) = criu::Program::find() {
        add("criu", error.to_string(), error.hint().unwrap_or_default().to_owned());
    }
    if state.confinement.trapped.any() {
        add(
            "supervisor",
            "its system calls are answered by the host (features procbc, sysinfo)".to_owned(),
            format!(
                "vzctl set {} --features procbc:off --features sysinfo:off --save, and restart it",
                ve.ctid
            ),
        );
    }
    let externals = Externals::of(state.init.pid);
    for line in Line::of(state.init.pid) {
        let ours = externals.mounts.iter().any(|kept| kept.place == line.place);
        let unsaved = UNSAVED.iter().any(|kind| line.kind == *kind || line.kind.starts_with("fuse."));
        if unsaved && !ours {
            let what =
                format!("{} is a mount of kind {}, which cannot be saved", line.place.display(), line.kind);
            add("mount", what, format!("unmount it: vzctl exec {} umount {}", ve.ctid, line.place.display()));
        }
    }
    if externals.mounts.iter().filter(|kept| kept.place == Path::new("/dev")).count() != 1 {
        let what = "its /dev is not the one that it was started with".to_owned();
        add("dev", what, "unmount what lies over it, or restart the container".to_owned());
    }
    let protocols = fs::read_to_string(format!("/proc/{}/net/protocols", state.init.pid)).unwrap_or_default();
    if sockets_of(&protocols, "MPTCP") > 0 {
        let what = "it has Multipath TCP sockets, which cannot be saved".to_owned();
        add(
            "mptcp",
            what,
            format!("vzctl exec {} sysctl net.mptcp.enabled=0, and restart what has them", ve.ctid),
        );
    }
}

/// How many sockets of a protocol there are, from the table of its network namespace.
fn sockets_of(protocols: &str, name: &str) -> u64 {
    let line = protocols.lines().find(|line| line.split_ascii_whitespace().next() == Some(name));
    line.and_then(|line| line.split_ascii_whitespace().nth(2)?.parse().ok()).unwrap_or(0)
}

fn of_process(pid: i32, view: &View, found: &mut Vec<Obstacle>) {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    if name.is_empty() {
        return;
    }
    let unit = unit_of(pid);
    let mut add = |kind, what: String, advice: String| {
        found.push(Obstacle {
            pid: Some(pid),
            process: Some(plain(&name)),
            unit: unit.clone(),
            kind,
            what,
            advice,
        });
    };
    for (kind, option) in NAMESPACES {
        let other = namespace(pid, kind).zip(view.own.get(kind)).is_some_and(|(its, own)| its != *own);
        if other {
            add(
                "namespace",
                format!("has a {kind} namespace of its own ({option})"),
                "stop it, or restart the container with --features nesting:off".to_owned(),
            );
        }
    }
    if pid != view.init && parent(pid).is_some_and(|parent| !view.members.contains(&parent) && parent != 0) {
        add(
            "session",
            "was started from outside, by vzctl exec or enter".to_owned(),
            "end that session".to_owned(),
        );
    }
    of_files(pid, view, &mut add);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if maps.contains("[io_uring]") || maps.contains("anon_inode:[io_uring]") {
        add("io_uring", "uses io_uring, which cannot be saved".to_owned(), "stop it".to_owned());
    }
}

fn of_files(pid: i32, view: &View, add: &mut impl FnMut(&'static str, String, String)) {
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let fd = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        match target.as_str() {
            "anon_inode:[io_uring]" => {
                add("io_uring", "uses io_uring, which cannot be saved".to_owned(), "stop it".to_owned());
            }
            "anon_inode:bpf-prog"
            | "anon_inode:bpf-map"
            | "anon_inode:[perf_event]"
            | "anon_inode:[userfaultfd]" => {
                let what =
                    format!("has {} open, which cannot be saved", target.trim_start_matches("anon_inode:"));
                add("file", what, "stop it".to_owned());
            }
            path if path.starts_with('/') => of_path(pid, &fd, path, view, add),
            _ => {}
        }
    }
}

fn of_path(pid: i32, fd: &str, path: &str, view: &View, add: &mut impl FnMut(&'static str, String, String)) {
    let Ok(meta) = fs::metadata(format!("/proc/{pid}/fd/{fd}")) else { return };
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if meta.is_file() && meta.nlink() == 0 && meta.blocks() * 512 > u64::from(GHOST_LIMIT) {
        let what = format!(
            "has the deleted file {} open, of {} MiB; more than {} MiB are not saved",
            plain(path.trim_end_matches(" (deleted)")),
            meta.blocks() >> 11,
            GHOST_LIMIT >> 20
        );
        add("ghost", what, "have it open its files again, or restart it".to_owned());
    }
    // Terminals and devices are opened anew by their names.
    if meta.file_type().is_char_device() || path.starts_with("/memfd:") || path.starts_with("/dev/zero") {
        return;
    }
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
    if path.ends_with(".pressure") && is_written(&info) {
        let what = format!("is told of pressure by {}, which cannot be saved", plain(path));
        add(
            "pressure",
            what,
            "restart it with MEMORY_PRESSURE_WATCH=/dev/null in its environment".to_owned(),
        );
    }
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    // Files of memory and the like lie on mounts of the kernel's own, which no table has.
    let listed = mount.is_some_and(|mount| view.mounts.contains(mount));
    let on_disk = meta.is_file() || meta.is_dir();
    if on_disk && !listed && !path.contains("(deleted)") && mount.is_some() {
        add(
            "outside",
            format!("has {} open, which is not in the container (descriptor {fd})", plain(path)),
            "stop it: it was given that file from outside, or its mount has gone".to_owned(),
        );
    }
}

/// By the access mode in its flags, which are octal.
fn is_written(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// By the cgroup that it is in.
fn unit_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("0::"))?;
    let mut parts = line.rsplit('/');
    let unit = parts
        .find(|part| [".service", ".scope", ".socket", ".mount"].iter().any(|suffix| part.ends_with(suffix)));
    unit.map(plain)
}

/// Names of a VE's, without what would control a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The first of them as an error.
pub(crate) fn refuse(ve: &Ve<'_>, state: &State) -> Result<()> {
    let found = find(ve, state);
    let Some(first) = found.first() else { return Ok(()) };
    let message = match found.len() {
        1 => format!("the container cannot be saved: {first}"),
        n => format!("the container cannot be saved for {n} reasons; the first: {first}"),
    };
    Err(Error::advised(Exit::Chkpnt, message, format!("All of them: vzctl checkpoint-check {}", ve.ctid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_names_process_unit_and_remedy() {
        let obstacle = Obstacle {
            pid: Some(7),
            process: Some("dockerd".to_owned()),
            unit: Some("docker.service".to_owned()),
            kind: "namespace",
            what: "has a pid namespace of its own".to_owned(),
            advice: "stop it".to_owned(),
        };
        assert_eq!(
            obstacle.to_string(),
            "dockerd (process 7 of docker.service) has a pid namespace of its own; stop it"
        );
        let whole = Obstacle { pid: None, process: None, unit: None, ..obstacle };
        assert_eq!(whole.to_string(), "has a pid namespace of its own; stop it");
    }

    #[test]
    fn this_process_has_a_parent_and_its_namespaces() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(parent(me).is_some());
        assert!(NAMESPACES.iter().filter(|(kind, _)| namespace(me, kind).is_some()).count() >= 5);
        assert_eq!(plain("a\u{1b}[1mb\n"), "a[1mb");
        let table = "protocol  size sockets  memory\nMPTCPv6   1 5 -1\nMPTCP     1912      2      -1   NI\n";
        assert_eq!((sockets_of(table, "MPTCP"), sockets_of(table, "TCP")), (2, 0));
        assert!(is_written("pos:\t0\nflags:\t0104002\n") && !is_written("pos:\t0\nflags:\t0100000\n"));
    }
}
