//! Golden trees: the files of a host that is not this one, in a temporary directory.
#![allow(clippy::unwrap_used)] // a test fails by panic, in its shared functions too
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beancounters::{
    CpuTime, Cpus, DevicePolicy, Disk, Hierarchies, Layout, Limits, Param, Selection, Usage, VeCgroup,
};
use vzconf::{Ctid, Pair};

const V2: &str = "29 24 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 31 0:32 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        for (file, text) in files {
            let path = tree.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("sys/fs/cgroup").join(file)
    }

    fn open(&self, mountinfo: &str) -> VeCgroup {
        let hierarchies = Hierarchies::parse(mountinfo, self.0.path()).unwrap();
        VeCgroup::open(&hierarchies, Ctid::new(101).unwrap()).unwrap().unwrap()
    }

    /// What is in the files that were empty.
    fn written(&self, dir: &str, files: &[&str]) -> BTreeMap<String, String> {
        let read = |file: &&str| (file.to_string(), fs::read_to_string(self.path(dir).join(file)).unwrap());
        files.iter().map(read).collect()
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn limits() -> Limits {
    Limits {
        physpages: Some(Pair { barrier: 0, limit: 65536 }),
        swappages: Some(Pair { barrier: 0, limit: 65536 }),
        numproc: Some(Pair::both(100)),
        cpuunits: Some(3000),
        cpulimit: Some(25),
        cpumask: Some(Selection::Only("1-3".parse().unwrap())),
        ioprio: Some(0),
        iolimit: Some(1_000_000),
        disk: Some(Disk { major: 8, minor: 0 }),
        ..Limits::default()
    }
}

#[test]
fn limits_on_a_unified_host() {
    let tree = Tree::new(&[
        ("vz/cpuset.cpus.effective", "0-2\n"),
        ("vz/101/memory.max", ""),
        ("vz/101/memory.swap.max", ""),
        ("vz/101/pids.max", ""),
        ("vz/101/cpu.weight", ""),
        ("vz/101/cpu.max", ""),
        ("vz/101/cpuset.cpus", ""),
        ("vz/101/io.max", ""),
        ("vz/101/io.bfq.weight", ""),
    ]);
    let ve = tree.open(V2);
    assert_eq!(ve.hierarchies().layout(), Layout::Unified);
    let applied = limits().apply(&ve).unwrap();
    assert_eq!(applied.unenforced, []);
    use Param::{Cpulimit, Cpumask, Cpuunits, Iolimit, Ioprio, Numproc, Physpages, Swappages};
    assert_eq!(applied.params, [Swappages, Physpages, Numproc, Cpuunits, Cpulimit, Cpumask, Iolimit, Ioprio]);
    let files = [
        "memory.max",
        "memory.swap.max",
        "pids.max",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "io.max",
        "io.bfq.weight",
    ];
    assert_eq!(
        tree.written("vz/101", &files),
        map(&[
            ("memory.max", "268435456"),
            ("memory.swap.max", "268435456"),
            ("pids.max", "100"),
            ("cpu.weight", "300"),
            ("cpu.max", "25000 100000"),
            ("cpuset.cpus", "1-2"),
            ("io.max", "8:0 rbps=1000000 wbps=1000000"),
            ("io.bfq.weight", "64"),
        ])
    );
}

#[test]
fn what_a_kernel_lacks_is_reported() {
    // Booted without swap accounting, and no io controller.
    let tree = Tree::new(&[("vz/101/memory.max", ""), ("vz/101/pids.max", ""), ("vz/101/cpu.weight", "")]);
    let applied = limits().apply(&tree.open(V2)).unwrap();
    assert_eq!(applied.params, [Param::Physpages, Param::Numproc, Param::Cpuunits]);
    let why: Vec<String> = applied.unenforced.iter().map(|u| format!("{}: {}", u.param, u.why)).collect();
    assert_eq!(
        why,
        [
            "SWAPPAGES: this kernel has no memory.swap.max",
            "CPULIMIT: this kernel has no cpu.max",
            "CPUMASK: this kernel has no cpuset.cpus",
            "IOLIMIT: this kernel has no io.max",
            "IOPRIO: this kernel has no io.weight",
        ]
    );
}

#[test]
fn limits_on_a_legacy_host() {
    let tree = Tree::new(&[
        ("memory/vz/101/memory.limit_in_bytes", "9223372036854771712\n"),
        ("cpu,cpuacct/vz/101/cpu.shares", ""),
        ("cpu,cpuacct/vz/101/cpu.cfs_quota_us", ""),
        ("cpu,cpuacct/vz/101/cpu.cfs_period_us", ""),
        ("pids/vz/101/pids.max", ""),
    ]);
    let ve = tree.open(V1);
    let some = limits().only(&[Param::Cpulimit, Param::Cpuunits, Param::Numproc, Param::Cpumask]);
    let applied = some.apply(&ve).unwrap();
    assert_eq!(applied.params, [Param::Numproc, Param::Cpuunits, Param::Cpulimit]);
    assert_eq!(applied.unenforced.len(), 1, "no cpuset: {applied:?}");
    assert_eq!(
        tree.written("cpu,cpuacct/vz/101", &["cpu.shares", "cpu.cfs_quota_us"]),
        map(&[("cpu.shares", "3072"), ("cpu.cfs_quota_us", "25000")])
    );
    // Co-mounted controllers are joined once.
    assert_eq!(ve.v1_task_paths().len(), 6);
    assert!(ve.unified_dir().unwrap().is_none() && ve.exec_dir().unwrap().is_none());
}

#[test]
fn devices_on_a_legacy_host() {
    let tree = Tree::new(&[
        ("cpu,cpuacct/vz/101/tasks", ""),
        ("devices/vz/101/devices.deny", ""),
        ("devices/vz/101/devices.allow", ""),
    ]);
    DevicePolicy::default().apply(&tree.open(V1)).unwrap();
    assert_eq!(tree.written("devices/vz/101", &["devices.deny"]), map(&[("devices.deny", "a")]));
}

#[test]
fn usage_on_both() {
    let v2 = Tree::new(&[
        ("vz/101/pids.current", "17\n"),
        ("vz/101/pids.peak", "40\n"),
        ("vz/101/memory.current", "8192000\n"),
        ("vz/101/memory.peak", "max\n"),
        ("vz/101/memory.swap.current", "4096\n"),
        ("vz/101/cpu.stat", "usage_usec 30\nuser_usec 10\nsystem_usec 20\n"),
    ]);
    let cpu = CpuTime { user: Duration::from_micros(10), system: Duration::from_micros(20) };
    let want = Usage {
        numproc: 17,
        numproc_peak: Some(40),
        physpages: 2000,
        physpages_peak: None,
        swappages: Some(1),
        cpu,
    };
    assert_eq!(Usage::read(&v2.open(V2)), want);

    let v1 = Tree::new(&[
        ("pids/vz/101/pids.current", "17\n"),
        ("memory/vz/101/memory.usage_in_bytes", "8192000\n"),
        ("memory/vz/101/memory.max_usage_in_bytes", "8192000\n"),
        ("memory/vz/101/memory.memsw.usage_in_bytes", "8000000\n"),
        ("cpu,cpuacct/vz/101/cpuacct.usage_user", "1500000000\n"),
        ("cpu,cpuacct/vz/101/cpuacct.usage_sys", "10000000\n"),
    ]);
    let cpu = CpuTime { user: Duration::from_millis(1500), system: Duration::from_millis(10) };
    let want = Usage {
        numproc: 17,
        numproc_peak: None,
        physpages: 2000,
        physpages_peak: Some(2000),
        swappages: Some(0),
        cpu,
    };
    assert_eq!(Usage::read(&v1.open(V1)), want);
}

#[test]
fn a_cap_on_cpu_time_is_in_cpus() {
    for (text, want) in [("150000 100000\n", Some(1.5)), ("max 100000\n", None), ("5 0\n", None)] {
        let v2 = Tree::new(&[("vz/101/cpu.max", text)]);
        assert_eq!(Cpus::cap(&v2.open(V2)), want, "{text}");
    }
    for (quota, want) in [("25000\n", Some(0.25)), ("-1\n", None)] {
        let files = [("cfs_quota_us", quota), ("cfs_period_us", "100000\n")]
            .map(|(file, text)| (format!("cpu,cpuacct/vz/101/cpu.{file}"), text));
        let v1 = Tree::new(&files.each_ref().map(|(file, text)| (file.as_str(), *text)));
        assert_eq!(Cpus::cap(&v1.open(V1)), want, "{quota}");
    }
}

#[test]
fn processes_of_nested_cgroups_and_threaded_ones() {
    let tree = Tree::new(&[
        ("vz/101/cgroup.procs", ""),
        ("vz/101/init.scope/cgroup.procs", "30\n0\n4\n"),
        ("vz/101/system.slice/a b/cgroup.procs", "12\n4\n"),
        ("vz/101/system.slice/removed/other", ""),
    ]);
    assert_eq!(tree.open(V2).processes().unwrap(), [4, 12, 30]);
    let flat = Tree::new(&[("cpu,cpuacct/vz/101/tasks", ""), ("freezer/vz/101/cgroup.procs", "9\n8\n")]);
    assert_eq!(flat.open(V1).processes().unwrap(), [9, 8]);
    assert!(flat.open(V1).is_populated().unwrap());
}

#[test]
fn joining_on_a_unified_host_goes_to_a_leaf_of_the_host() {
    let tree = Tree::new(&[("vz/101/cgroup.controllers", "cpu memory pids\n")]);
    let ve = tree.open(V2);
    let path = |dir: Option<std::os::fd::OwnedFd>| {
        let fd = dir.unwrap();
        let target = fs::read_link(Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())).unwrap();
        target.strip_prefix(tree.path("vz/101")).unwrap().to_owned()
    };
    assert_eq!(path(ve.exec_dir().unwrap()), Path::new(".exec"));
    assert_eq!(path(ve.exec_dir().unwrap()), Path::new(".exec"), "again");
    // The VE has made it before us.
    std::os::unix::fs::chown(tree.path("vz/101/.exec"), Some(100_000), None).unwrap();
    assert_eq!(path(ve.exec_dir().unwrap()), Path::new(".exec-1"));
    assert_eq!(path(ve.unified_dir().unwrap()), Path::new(""));
}
