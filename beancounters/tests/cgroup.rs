//! A VE's cgroup on the hierarchies of this host, as root.
#![allow(clippy::unwrap_used)] // a test fails by panic, in its shared functions too
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use beancounters::{
    DevicePolicy, Disk, Error, Hierarchies, Layout, Limits, Param, Selection, Usage, VeCgroup,
};
use vzconf::{Ctid, Pair};

/// CTIDs that no other test, run or test program has now.
fn unique() -> Ctid {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = 2_000_000_000 + std::process::id() % 1_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
    Ctid::new(number).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn host() -> Hierarchies {
    Hierarchies::detect().unwrap()
}

/// A shell in the VE's cgroup: it joins by itself, through `tasks` and `cgroup.procs`.
fn shell(ve: &VeCgroup, script: &str) -> Child {
    let mut join = String::new();
    for path in ve.v1_task_paths() {
        join += &format!("echo 0 > '{}' && ", path.display());
    }
    if let Some(dir) = ve.v2_dir() {
        join += &format!("echo 0 > '{}/cgroup.procs' && ", dir.display());
    }
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{join} echo in; {script}")).stdout(Stdio::piped()).stdin(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut said = [0u8; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(&said, b"in\n");
    child
}

fn in_all(ve: &VeCgroup) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = ve.v1_task_paths().iter().map(|p| p.parent().unwrap().to_owned()).collect();
    dirs.extend(ve.v2_dir());
    dirs
}

#[test]
fn created_committed_opened_removed() {
    let (h, ctid) = (host(), unique());
    assert!(VeCgroup::open(&h, ctid).unwrap().is_none());
    let mut ve = VeCgroup::create(&h, ctid, Some((3_000_000, 3_000_001))).unwrap();
    ve.commit();
    let dirs = in_all(&ve);
    drop(ve);
    assert!(dirs.iter().all(|d| d.exists()));
    let mut ve = VeCgroup::open(&h, ctid).unwrap().unwrap();
    for dir in &dirs {
        let systemd = dir.to_str().unwrap().contains("/systemd/");
        let v2 = ve.v2_dir().as_deref() == Some(dir);
        let owner = if systemd || v2 { 3_000_000 } else { 0 };
        assert_eq!(dir.metadata().unwrap().uid(), owner, "{dir:?}");
        assert_eq!(dir.join("cgroup.procs").metadata().unwrap().uid(), owner, "{dir:?}");
    }
    if let Some(dir) = ve.v2_dir() {
        assert_eq!(dir.join("cgroup.freeze").metadata().unwrap().uid(), 0);
        assert_eq!(dir.join("cgroup.subtree_control").metadata().unwrap().gid(), 3_000_001);
    }
    assert!(!ve.is_populated().unwrap());
    ve.remove(soon()).unwrap();
    assert!(dirs.iter().all(|d| !d.exists()));
    ve.remove(soon()).unwrap();
}

#[test]
fn an_aborted_start_leaves_nothing_alive_or_on_disk() {
    let h = host();
    let ve = VeCgroup::create(&h, unique(), None).unwrap();
    let dirs = in_all(&ve);
    let mut child = shell(&ve, "exec sleep 1000");
    drop(ve);
    assert!(dirs.iter().all(|d| !d.exists()));
    assert!(!child.wait().unwrap().success());
}

#[test]
fn remains_of_a_killed_start_are_replaced_and_living_ones_are_not() {
    let (h, ctid) = (host(), unique());
    let mut ve = VeCgroup::create(&h, ctid, None).unwrap();
    ve.commit();
    let limits = Limits { numproc: Some(Pair::both(7)), cpuunits: Some(500), ..Limits::default() };
    limits.apply(&ve).unwrap();
    let child_dir = ve.v2_dir().map(|d| d.join("init.scope/x"));
    child_dir.iter().for_each(|d| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(d).unwrap());
    if h.layout() != Layout::Unified {
        // Killed half-way: one hierarchy is missing.
        std::fs::remove_dir(in_all(&ve).first().unwrap()).unwrap();
    }
    drop(ve);

    let ve = VeCgroup::create(&h, ctid, None).unwrap();
    assert!(child_dir.iter().all(|d| !d.exists()));
    assert!(in_all(&ve).iter().all(|d| d.exists()));
    if let Some(pids) = in_all(&ve).iter().find(|d| d.join("pids.max").exists()) {
        assert_eq!(std::fs::read_to_string(pids.join("pids.max")).unwrap(), "max\n", "old limits are gone");
    }
    let mut child = shell(&ve, "exec sleep 1000");
    assert!(matches!(VeCgroup::create(&h, ctid, None), Err(Error::Populated { .. })));
    assert_eq!(ve.processes().unwrap(), [i32::try_from(child.id()).unwrap()]);
    drop(ve);
    child.wait().unwrap();
}

#[test]
fn two_creators_at_once() {
    let h = host();
    let ids: Vec<Ctid> = (0..8).map(|_| unique()).collect();
    std::thread::scope(|scope| {
        for ctid in &ids {
            let h = &h;
            scope.spawn(move || {
                for _ in 0..5 {
                    let ve = VeCgroup::create(h, *ctid, None).unwrap();
                    assert!(in_all(&ve).iter().all(|d| d.exists()));
                    if let Some(cpuset) = in_all(&ve)
                        .iter()
                        .find(|d| d.join("cpuset.cpus").exists() && d.join("tasks").exists())
                    {
                        assert_ne!(std::fs::read_to_string(cpuset.join("cpuset.mems")).unwrap().trim(), "");
                    }
                }
            });
        }
    });
    // The same VE twice is excluded by its lock; broken locks must still end in a whole cgroup or none.
    let ctid = unique();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drop(VeCgroup::create(&h, ctid, None)));
        }
    });
    let ve = VeCgroup::create(&h, ctid, None).unwrap();
    assert!(in_all(&ve).iter().all(|d| d.exists()));
}

#[test]
fn frozen_processes_stand_still_and_die_when_killed() {
    let ve = VeCgroup::create(&host(), unique(), None).unwrap();
    let mut child = shell(&ve, "while read l; do echo $l; done; exec sleep 1000");
    ve.freeze(soon()).unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "a").unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    assert!(stat.contains(") S ") || stat.contains(") D "), "{stat}");
    ve.thaw().unwrap();
    let mut said = [0u8; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    ve.freeze(soon()).unwrap();
    assert!(ve.is_populated().unwrap());
    assert!(!ve.wait_empty(Instant::now() + Duration::from_millis(20)).unwrap());
    ve.kill_all().unwrap();
    assert!(ve.wait_empty(soon()).unwrap());
    assert!(ve.processes().unwrap().is_empty());
    child.wait().unwrap();
}

#[test]
fn a_fork_bomb_is_killed_and_removed() {
    let mut ve = VeCgroup::create(&host(), unique(), None).unwrap();
    Limits { numproc: Some(Pair::both(60)), ..Limits::default() }.apply(&ve).unwrap();
    let mut child = shell(&ve, "while :; do (sleep 1000 & sleep 1000 &) & done 2>/dev/null");
    let full = Instant::now() + Duration::from_secs(5);
    while Usage::numproc(&ve) < 20 && Instant::now() < full {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Usage::numproc(&ve) >= 20);
    ve.kill_all().unwrap();
    assert!(ve.wait_empty(soon()).unwrap());
    ve.remove(soon()).unwrap();
    child.wait().unwrap();
}

#[test]
fn hostile_subtrees_are_removed() {
    let mut ve = VeCgroup::create(&host(), unique(), None).unwrap();
    for dir in in_all(&ve)
        .iter()
        .filter(|d| ve.v2_dir().as_ref() == Some(d) || d.to_str().unwrap().contains("systemd"))
    {
        for i in 0..20 {
            let name = format!("a b\\x2d{i}/\u{1}\u{7f}/.exec");
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
    }
    let start = Instant::now();
    ve.remove(soon()).unwrap();
    assert!(in_all(&ve).iter().all(|d| !d.exists()));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn limits_hold_and_are_read_back() {
    let h = host();
    let ve = VeCgroup::create(&h, unique(), None).unwrap();
    let limits = Limits {
        physpages: Some(Pair { barrier: 0, limit: 16384 }),
        swappages: Some(Pair { barrier: 0, limit: 8192 }),
        numproc: Some(Pair::both(50)),
        cpuunits: Some(2000),
        cpulimit: Some(150),
        cpus: Some(1),
        cpumask: Some(Selection::Only("0".parse().unwrap())),
        nodemask: Some(Selection::All),
        ioprio: Some(7),
        iolimit: Some(1 << 20),
        iopslimit: Some(100),
        disk: Disk::of(std::path::Path::new("/")),
        ..Limits::default()
    };
    let applied = limits.apply(&ve).unwrap();
    for param in [Param::Physpages, Param::Numproc, Param::Cpuunits, Param::Cpulimit, Param::Cpumask] {
        let unenforced = applied.unenforced.iter().any(|u| u.param == param);
        assert!(applied.params.contains(&param) != unenforced, "{param}: {applied:?}");
    }
    // Shrinking, growing and lifting all pass.
    for (ram, swap) in [(8192, 4096), (32768, 65536), (1 << 40, 0), (4096, u64::MAX >> 1)] {
        let change = Limits {
            physpages: Some(Pair::both(ram)),
            swappages: Some(Pair::both(swap)),
            ..Limits::default()
        };
        change.apply(&ve).unwrap();
    }
    if h.layout() != Layout::Unified {
        let find = |file: &str| {
            in_all(&ve)
                .iter()
                .map(|d| d.join(file))
                .find(|f| f.exists())
                .map(|f| std::fs::read_to_string(f).unwrap())
        };
        for (file, want) in [
            ("memory.limit_in_bytes", "16777216"),
            ("pids.max", "50"),
            ("cpu.shares", "2048"),
            ("cpu.cfs_quota_us", "100000"),
            ("cpuset.cpus", "0"),
        ] {
            if let Some(now) = find(file) {
                assert_eq!(now.trim(), want, "{file}");
            }
        }
    }
    let mut child = shell(&ve, "sleep 1000 & wait");
    let seen = Instant::now() + Duration::from_secs(5);
    while Usage::numproc(&ve) < 2 && Instant::now() < seen {
        std::thread::sleep(Duration::from_millis(1));
    }
    let usage = Usage::read(&ve);
    assert_eq!(usage.numproc, 2);
    assert!(usage.physpages > 0 && usage.cpu.user + usage.cpu.system > Duration::ZERO, "{usage:?}");
    drop(ve);
    child.wait().unwrap();
}

#[test]
fn devices_are_refused_and_given() {
    let ve = VeCgroup::create(&host(), unique(), None).unwrap();
    // /dev/kmsg is 1:11, which no VE has.
    let script = "read l; : < /dev/null && echo 1; (: < /dev/kmsg) 2>/dev/null && echo open || echo refused";
    let ask = |policy: &DevicePolicy| {
        policy.apply(&ve).unwrap();
        let mut child = shell(&ve, script);
        writeln!(child.stdin.take().unwrap()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(ask(&DevicePolicy::default()), "1\nrefused\n");
    assert_eq!(ask(&DevicePolicy::default().with_rule(&"c:1:11:r".parse().unwrap())), "1\nopen\n");
    assert_eq!(ask(&DevicePolicy::default().with_fuse().with_tun()), "1\nrefused\n");
}

#[test]
fn joining_processes_go_to_a_place_that_stays_usable() {
    let h = host();
    let ve = VeCgroup::create(&h, unique(), Some((3_000_000, 3_000_000))).unwrap();
    let plan = ve.exec_plan().unwrap();
    assert_eq!(plan.v1_tasks.len(), ve.v1_task_paths().len());
    let path = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    if let (Some(dir), Some(fd)) = (ve.v2_dir(), plan.unified) {
        let controllers = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap();
        let want = if controllers.trim().is_empty() { dir.clone() } else { dir.join(".exec") };
        assert_eq!(path(&fd), want);
        assert_eq!(path(&ve.init_plan().unwrap().unified.unwrap()), dir);
    }
}

#[test]
fn a_systemd_guest_does_not_lock_exec_out() {
    let ve = VeCgroup::create(&host(), unique(), None).unwrap();
    let Some(dir) = ve.v2_dir() else { return };
    let enter = |dir: &std::path::Path| {
        let script = format!("echo 0 > '{}/cgroup.procs'", dir.display());
        Command::new("/bin/sh").arg("-c").arg(script).stderr(Stdio::null()).status().unwrap().success()
    };
    // As systemd does: its own leaf, then the controllers that there are, for its units.
    std::fs::create_dir(dir.join("init.scope")).unwrap();
    let controllers = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap();
    let all: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
    std::fs::write(dir.join("cgroup.subtree_control"), all.join(" ")).unwrap();
    assert_eq!(enter(&dir), all.is_empty(), "an inner node takes no process");
    let exec = ve.exec_dir().unwrap().unwrap();
    assert!(enter(&std::fs::read_link(format!("/proc/self/fd/{}", exec.as_raw_fd())).unwrap()));
}

#[test]
fn the_owner_may_make_cgroups_and_not_touch_its_limits() {
    let owner = 3_000_000 + std::process::id();
    let ve = VeCgroup::create(&host(), unique(), Some((owner, owner))).unwrap();
    let may = |script: String| {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).uid(owner).gid(owner).stderr(Stdio::null());
        shell.status().unwrap().success()
    };
    for dir in in_all(&ve) {
        let delegated = ve.v2_dir().as_ref() == Some(&dir) || dir.to_str().unwrap().contains("/systemd/");
        assert_eq!(may(format!("mkdir '{}/sub'", dir.display())), delegated, "{dir:?}");
        for file in
            ["cgroup.freeze", "cgroup.max.depth", "memory.max", "pids.max", "cpu.shares", "devices.allow"]
        {
            let file = dir.join(file);
            assert!(!file.exists() || !may(format!("echo 1 > '{}'", file.display())), "{file:?}");
        }
        assert!(!may(format!("rmdir '{}'", dir.display())));
    }
}

#[test]
fn a_ve_is_limited_in_making_cgroups() {
    let ve = VeCgroup::create(&host(), unique(), None).unwrap();
    if let Some(dir) = ve.v2_dir() {
        assert_eq!(std::fs::read_to_string(dir.join("cgroup.max.descendants")).unwrap(), "4096\n");
        let mut deep = dir;
        let made = (0..100).take_while(|_| {
            deep.push("d");
            std::fs::create_dir(&deep).is_ok()
        });
        assert_eq!(made.count(), 64);
    }
}
