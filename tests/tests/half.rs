//! A `set` of which one part fails: nothing of it holds, neither in the running VE nor in its configuration.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use vztests::{Run, Ve, on_node, run};

/// A file of the VE's cgroups of either generation.
fn knob(ve: &Ve<'_>, names: &[&str]) -> Option<PathBuf> {
    let roots = ["cpu", "cpu,cpuacct", "cpuset", "memory", "pids", "blkio", ""]
        .map(|controller| Path::new("/sys/fs/cgroup").join(controller).join("vz").join(&ve.id));
    roots.iter().flat_map(|root| names.iter().map(|name| root.join(name))).find(|path| path.exists())
}

/// What all of its limits are, and its devices and addresses on the host and inside.
fn portrait(ve: &Ve<'_>) -> String {
    const NAMES: [&[&str]; 8] = [
        &["cpu.shares", "cpu.weight"],
        &["cpu.cfs_quota_us", "cpu.max"],
        &["cpuset.cpus.effective", "cpuset.cpus"],
        &["memory.limit_in_bytes", "memory.max"],
        &["memory.memsw.limit_in_bytes", "memory.swap.max"],
        &["pids.max"],
        &["blkio.throttle.read_bps_device", "io.max"],
        &["blkio.bfq.weight", "io.bfq.weight", "io.weight"],
    ];
    let mut lines = vec![ve.conf()];
    for path in NAMES.iter().filter_map(|names| knob(ve, names)) {
        lines.push(format!("{}: {}", path.display(), fs::read_to_string(&path).unwrap()));
    }
    lines.push(
        run("sh", &["-c", &format!("ip -o link | grep -o 'v[a-z]*{}[^:@]*' | sort; ip route", ve.id)]).out(),
    );
    // A device's number is another one after each try.
    lines.push(
        ve.sh("ip -o address | awk '{print $2, $4}'; cat /sys/class/net/*/address; mount | grep /dev/pts"),
    );
    lines.push(run_fields(ve));
    lines.join("\n")
}

/// The limits in the table.
fn run_fields(ve: &Ve<'_>) -> String {
    let fields = "numproc.l,numtcpsock.l,numothersock.l,numfile.l,numpty.l,shmpages.l,physpages.l,swappages.l,cpuunits,cpulimit";
    ve.node.vzlist(&["-H", "-o", fields, &ve.id]).ok().out()
}

/// With a file that cannot be written.
fn read_only(path: &Path, body: impl FnOnce() -> Run) -> Run {
    let text = path.to_str().unwrap();
    run("mount", &["--bind", text, text]).ok();
    run("mount", &["-o", "remount,ro,bind", text]).ok();
    let done = body();
    run("umount", &[text]).ok();
    done
}

/// Everything at once.
const ALL: [&str; 28] = [
    "--cpuunits",
    "2000",
    "--cpulimit",
    "50",
    "--cpumask",
    "0",
    "--ram",
    "128M",
    "--swap",
    "64M",
    "--numproc",
    "77",
    "--numtcpsock",
    "33",
    "--numothersock",
    "44",
    "--numpty",
    "7",
    "--shmpages",
    "512",
    "--iolimit",
    "10",
    "--ioprio",
    "7",
    "--ipadd",
    "10.5.0.2",
    "--netif_add",
    "eth1",
];

fn everything(ve: &Ve<'_>) -> Run {
    ve.run(
        "set",
        &[&ALL[..], &["--netif_del", "eth0", "--ipdel", "10.5.0.1", "--onboot", "yes", "--save"]].concat(),
    )
}

#[test]
fn whichever_limit_the_kernel_refuses_all_is_as_it_was() {
    on_node(|node| {
        let ve = node.tiny(1);
        let options =
            ["--ram", "96M", "--swap", "32M", "--numproc", "99", "--numtcpsock", "20", "--numpty", "5"];
        let more = ["--ipadd", "10.5.0.1", "--netif_add", "eth0", "--save"];
        ve.ok("set", &[&options[..], &more].concat());
        ve.start();
        let before = portrait(&ve);
        for (names, code) in [
            (&["cpu.shares", "cpu.weight"][..], 2),
            (&["cpu.cfs_quota_us", "cpu.max"], 2),
            (&["cpuset.cpus"], 2),
            (&["memory.limit_in_bytes", "memory.max"], 1),
            (&["memory.memsw.limit_in_bytes", "memory.swap.max"], 1),
            (&["pids.max"], 1),
            (&["blkio.throttle.read_bps_device", "io.max"], 148),
        ] {
            let Some(path) = knob(&ve, names) else {
                println!("none of {names:?} here");
                continue;
            };
            let refused = read_only(&path, || everything(&ve));
            assert_eq!(refused.code, code, "{}: {refused}", path.display());
            let told = refused.says("not saving configuration file").says(path.to_str().unwrap());
            let after = portrait(&ve);
            assert!(after == before, "{}\n{told}\nbefore:\n{before}\nafter:\n{after}", path.display());
        }
        everything(&ve).ok();
        assert_ne!(portrait(&ve), before);
    });
}

#[test]
fn a_device_that_cannot_be_another_is_what_it_was() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--netif_add", "eth0", "--numproc", "99", "--save"]);
        ve.start();
        let before = portrait(&ve);
        let set =
            ["--ifname", "eth0", "--bridge", "nobridge", "--numproc", "50", "--cpuunits", "2000", "--save"];
        ve.run("set", &set).exits(130).says("nobridge");
        assert_eq!(portrait(&ve), before);
        // The name on the host that one device leaves another may take.
        let host = format!("veth{}.0", ve.id);
        ve.ok("set", &["--netif_del", "eth0", "--netif_add", &format!("eth5,,{host}"), "--save"]);
        assert_eq!(ve.sh("ls /sys/class/net | grep eth | tr '\\n' ' '").trim(), "eth5");
    });
}
