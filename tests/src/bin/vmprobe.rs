//! What of the kernel is used, and whether the running one has it: as JSON, for docs/kernel-features.md.
//!
//! Asked of the kernel itself: its symbols, its files, or by trying.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use vzsys::idmap::{IdRange, as_ve_root};
use vzsys::mount::{Attr, Detached, Opt, QUIET};

/// How a feature is asked for.
enum Ask {
    /// A system call.
    Call(&'static str),
    /// A function of the kernel.
    Symbol(&'static str),
    /// A file.
    File(&'static str),
    /// By trying, below a directory on the disk that private areas lie on.
    Try(fn(&Path) -> bool),
}

struct Feature {
    name: &'static str,
    since: &'static str,
    used_for: &'static str,
    without: &'static str,
    ask: Ask,
}

const fn feature(
    name: &'static str,
    since: &'static str,
    used_for: &'static str,
    without: &'static str,
    ask: Ask,
) -> Feature {
    Feature { name, since, used_for, without, ask }
}

const REFUSED: &str = "not supported";

const FEATURES: [Feature; 34] = [
    feature(
        "PID namespace's own reboot(2)",
        "3.4",
        "telling reboot from halt",
        REFUSED,
        Ask::Symbol("reboot_pid_ns"),
    ),
    feature(
        "cgroup namespaces",
        "4.6",
        "guests see their own cgroup as the root",
        REFUSED,
        Ask::File("/proc/self/ns/cgroup"),
    ),
    feature(
        "nftables `fib`",
        "4.10",
        "a VE sends only from its own addresses",
        "start fails, saying that nftables is missing",
        Ask::Try(fib),
    ),
    feature(
        "pidfd_send_signal",
        "5.1",
        "processes without races of numbers",
        REFUSED,
        Ask::Call("pidfd_send_signal"),
    ),
    feature("fsopen", "5.2", "mounts that appear whole or not at all", REFUSED, Ask::Call("fsopen")),
    feature("open_tree, move_mount", "5.2", "the same", REFUSED, Ask::Call("open_tree")),
    feature(
        "cgroup v2 freezer",
        "5.2",
        "stopping all of a VE at once",
        "the v1 freezer on hybrid hosts",
        Ask::Try(|_| in_a_cgroup("cgroup.freeze")),
    ),
    feature("pidfd_open, clone3", "5.3", "processes without races of numbers", REFUSED, Ask::Call("clone3")),
    feature(
        "time namespaces",
        "5.6",
        "uptime of the VE; clocks that survive a restore",
        "the VE starts with the host's clocks",
        Ask::File("/proc/self/ns/time"),
    ),
    feature(
        "openat2, RESOLVE_IN_ROOT",
        "5.6",
        "paths in a VE's files",
        "pathrs resolves them step by step",
        Ask::Call("openat2"),
    ),
    feature(
        "CLONE_INTO_CGROUP",
        "5.7",
        "init is in its cgroup from its first instruction",
        REFUSED,
        Ask::Symbol("cgroup_can_fork"),
    ),
    feature(
        "close_range, with CLOEXEC",
        "5.9, 5.11",
        "nothing of the host is inherited",
        REFUSED,
        Ask::Call("close_range"),
    ),
    feature("mount_setattr", "5.12", "idmapped mounts", REFUSED, Ask::Call("mount_setattr")),
    feature("idmapped ext4", "5.12", "files on disk unshifted", REFUSED, Ask::Try(|_| maps_ids("/mnt/ext4"))),
    feature("idmapped xfs", "5.12", "files on disk unshifted", REFUSED, Ask::Try(|_| maps_ids("/mnt/xfs"))),
    feature(
        "idmapped btrfs",
        "5.15",
        "private areas on btrfs",
        "keep `/vz` on ext4 or xfs",
        Ask::Try(|_| maps_ids("/mnt/btrfs")),
    ),
    feature(
        "cgroup.kill",
        "5.14",
        "killing a whole VE in one write",
        "signals in a loop until it is empty",
        Ask::Try(|_| in_a_cgroup("cgroup.kill")),
    ),
    feature(
        "cpu.max.burst",
        "5.14",
        "CPU limits that forgive peaks",
        "not set",
        Ask::Try(|_| in_a_cgroup("cpu.max.burst")),
    ),
    feature(
        "bridge port locked to one MAC",
        "5.18",
        "`mac_filter` for veth on a bridge",
        "left out as a default; an error if asked for in words",
        Ask::Try(locked_port),
    ),
    feature(
        "idmapped layers of overlayfs",
        "5.19",
        "layout `overlay` with user namespaces",
        "layout `simfs`",
        Ask::Try(attached_layers),
    ),
    feature(
        "memory.peak",
        "5.19",
        "highest use of memory",
        "as seen at each look",
        Ask::Try(|_| in_a_cgroup("memory.peak")),
    ),
    feature(
        "pids.peak",
        "6.1",
        "highest number of processes",
        "as seen at each look",
        Ask::Try(|_| in_a_cgroup("pids.peak")),
    ),
    feature(
        "idmapped tmpfs",
        "6.3",
        "private areas on tmpfs (tests only)",
        "not on tmpfs",
        Ask::Try(tmpfs_maps_ids),
    ),
    feature(
        "overlay layers attached nowhere",
        "6.15",
        "an overlay is mounted without a detour",
        "layers are attached in a mount namespace that lasts a moment",
        Ask::Try(detached_layers),
    ),
    feature(
        "IPv6 forwarding per device",
        "6.17",
        "VEs' IPv6 without the switch for all devices",
        "`net.ipv6.conf.all.forwarding=1`",
        Ask::File("/proc/sys/net/ipv6/conf/all/force_forwarding"),
    ),
    feature(
        "pure cgroup v2 with all controllers",
        "4.15",
        "limits",
        "hybrid and v1 hosts have them too",
        Ask::File("/sys/fs/cgroup/cgroup.controllers"),
    ),
    feature(
        "cgroup v2 device rules (BPF)",
        "4.15",
        "a VE's devices",
        REFUSED,
        Ask::Symbol("__cgroup_bpf_run_filter_skb"),
    ),
    feature(
        "numfile limit (BPF-LSM)",
        "5.15",
        "counting and limiting the open files of a VE",
        "counted by descriptors, not limited",
        Ask::Try(|_| vztests::Need::BpfLsm.is_met()),
    ),
    feature(
        "pressure stall information",
        "4.20",
        "load of one VE",
        "not shown",
        Ask::Try(|_| in_a_cgroup("memory.pressure")),
    ),
    feature(
        "project quotas on ext4",
        "4.5",
        "disk limits",
        "stored only",
        Ask::Try(|_| mounted_with("/mnt/ext4", "prjquota")),
    ),
    feature(
        "project quotas on xfs",
        "2.6",
        "disk limits",
        "stored only",
        Ask::Try(|_| mounted_with("/mnt/xfs", "prjquota")),
    ),
    feature(
        "soft-dirty bits",
        "3.11",
        "live migration (planned)",
        "–",
        Ask::Try(|_| vztests::Need::SoftDirty.is_met()),
    ),
    feature(
        "modules",
        "–",
        "`packaging/dkms` (optional)",
        "the classic places in `/proc` are missing",
        Ask::Try(|_| vztests::Need::Modules.is_met()),
    ),
    feature(
        "32-bit programs",
        "–",
        "i386 guests",
        "i386 guests do not start",
        Ask::Symbol("do_fast_syscall_32"),
    ),
];

fn main() {
    // Files of a controller are there only where it is on.
    let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
    let dir = std::env::args().nth(1).expect("usage: vmprobe DIRECTORY");
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let names: std::collections::HashSet<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    for feature in FEATURES {
        let found = match feature.ask {
            Ask::Call(name) => names.contains(format!("__x64_sys_{name}").as_str()),
            Ask::Symbol(name) => names.contains(name),
            Ask::File(path) => Path::new(path).exists(),
            Ask::Try(works) => works(Path::new(&dir)),
        };
        let Feature { name, since, used_for, without, .. } = feature;
        println!(
            "{}",
            json!({"name": name, "since": since, "used_for": used_for, "without": without, "found": found})
        );
    }
}

/// A shell's opinion.
fn sh(script: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

fn fib(_: &Path) -> bool {
    sh("unshare --net nft -f - <<'X'\ntable inet probe { chain c { type filter hook forward priority 0; \
        fib saddr . iif oif missing drop; }; }\nX")
}

fn locked_port(_: &Path) -> bool {
    sh("unshare --net sh -ec 'ip link add bridge0 type bridge; ip link add port0 type veth peer name port1; \
        ip link set dev port0 master bridge0; bridge link set dev port0 locked on; \
        bridge -d link show dev port0 | grep -w \"locked on\"'")
}

/// A file that a cgroup, other than the root, has.
fn in_a_cgroup(file: &str) -> bool {
    fs::read_dir("/sys/fs/cgroup").unwrap().flatten().any(|entry| entry.path().join(file).exists())
}

fn mounted_with(point: &str, option: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(point) && line.contains(option))
}

fn mapped(path: &Path, ids: IdRange) -> vzsys::Result<Detached> {
    let copy = Detached::copy_of(path, false)?;
    copy.idmap(ids.user_namespace()?.as_fd())?;
    Ok(copy)
}

fn maps_ids(path: &str) -> bool {
    mapped(Path::new(path), IdRange::at(0x1000_0000)).is_ok()
}

fn tmpfs_maps_ids(_: &Path) -> bool {
    let ids = IdRange::at(0x1000_0000).user_namespace().unwrap();
    Detached::new("tmpfs", "probe", &[], QUIET).is_ok_and(|tmpfs| tmpfs.idmap(ids.as_fd()).is_ok())
}

fn attached_layers(dir: &Path) -> bool {
    overlay(dir, |layers, make| vzsys::apart::attached(layers, make))
}

fn detached_layers(dir: &Path) -> bool {
    overlay(dir, |_, make| make())
}

type Make<'a> = &'a (dyn Fn() -> vzsys::Result<Detached> + Sync);

fn overlay(dir: &Path, with: impl Fn(&[&Detached], Make<'_>) -> vzsys::Result<Detached>) -> bool {
    for name in ["upper", "work", "lower"] {
        fs::create_dir_all(dir.join("probe").join(name)).unwrap();
    }
    let ids = IdRange::at(0x1000_0000);
    let own = mapped(&dir.join("probe"), ids).unwrap();
    let lower = mapped(&dir.join("probe/lower"), ids).unwrap();
    let options = [
        Opt::value("lowerdir", lower.proc_path()),
        Opt::value("upperdir", format!("{}/upper", own.proc_path())),
        Opt::value("workdir", format!("{}/work", own.proc_path())),
    ];
    let make = || as_ve_root(Some(ids), || Detached::new("overlay", "probe", &options, Attr::empty()));
    let made = with(&[&lower, &own], &make).is_ok();
    let _ = fs::remove_dir_all(dir.join("probe"));
    made
}
