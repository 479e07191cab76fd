//! Hosts with cgroup v2 alone: limits are the kernel's, and what they did is counted.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use vztests::{Need, Ve, lacks, on_machine, on_node, run, until};

fn file(ve: &Ve<'_>, name: &str) -> String {
    let path = format!("/sys/fs/cgroup/vz/{}/{name}", ve.id);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

fn event(ve: &Ve<'_>, of: &str, name: &str) -> u64 {
    let text = file(ve, &format!("{of}.events"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().unwrap()
}

#[test]
fn limits_of_a_ve_are_files_of_its_cgroup() {
    if lacks(&[Need::V2]) {
        return;
    }
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "64M", "--swap", "0", "--numproc", "50", "--cpulimit", "50", "--save"]);
        ve.start();
        assert_eq!(file(&ve, "memory.max"), (64 << 20).to_string());
        assert_eq!(file(&ve, "memory.swap.max"), "0");
        assert_eq!(file(&ve, "pids.max"), "50");
        assert_eq!(file(&ve, "cpu.max"), "50000 100000");
        ve.ok("set", &["--ram", "128M", "--cpulimit", "0", "--cpumask", "0", "--save"]);
        assert_eq!(file(&ve, "memory.max"), (128 << 20).to_string());
        assert!(file(&ve, "cpu.max").starts_with("max"));
        assert_eq!(file(&ve, "cpuset.cpus"), "0");
        // Its root sees its own tree and cannot lift what is above it.
        assert_eq!(ve.sh("cat /proc/self/cgroup | cut -d: -f1,2"), "0:");
        assert!(ve.sh("ls /sys/fs/cgroup").contains("cgroup.procs"));
    });
}

#[test]
fn what_a_limit_refused_is_counted_by_the_kernel() {
    if lacks(&[Need::V2]) {
        return;
    }
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "48M", "--swap", "0", "--numproc", "30", "--save"]);
        ve.start();
        let forks = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i + 1)); done; echo all of them";
        ve.run("exec2", &[forks]).never_says("all of them");
        assert!(event(&ve, "pids", "max ") > 0);
        ve.ok("set", &["--numproc", "200", "--save"]);
        // More than the VE may have: the greedy process is killed, and the VE lives.
        ve.sh("mkdir -p /tmp/m && mount -t tmpfs none /tmp/m");
        assert_ne!(ve.run("exec2", &["dd if=/dev/zero of=/tmp/m/greedy bs=1M count=96"]).code, 0);
        until("the kernel has counted a kill", Duration::from_secs(20), || {
            event(&ve, "memory", "oom_kill ") > 0
        });
        assert_eq!(ve.sh("echo alive"), "alive");
    });
}

#[test]
fn the_systemd_of_the_host_leaves_ves_alone() {
    if lacks(&[Need::V2]) {
        return;
    }
    on_machine(|node| {
        let ve = node.tiny(1);
        ve.ok(
            "set",
            &["--ram", "64M", "--numproc", "50", "--cpulimit", "50", "--cpuunits", "2000", "--save"],
        );
        // As a service starts VEs: what is left of it when it ends is killed.
        let vzctl = node.program("vzctl");
        let start =
            ["--wait", "--collect", "-p", "KillMode=control-group", vzctl.to_str().unwrap(), "start", &ve.id];
        run("systemd-run", &start).ok();
        let init = ve.init().expect("the VE outlives the service that started it");
        let limits = || {
            let names = ["memory.max", "pids.max", "cpu.max", "cpu.weight", "cgroup.controllers"];
            names.map(|name| file(&ve, name)).join("\n")
        };
        let before = limits();
        for line in [
            "systemctl daemon-reload",
            "systemd-run --wait --collect -p CPUWeight=50 -p IOWeight=50 -p MemoryMax=100M -p AllowedCPUs=0 -p TasksMax=20 true",
            "systemctl set-property --runtime system.slice CPUWeight=200 IOWeight=200",
            "systemctl set-property --runtime system.slice CPUWeight= IOWeight=",
            "systemctl daemon-reexec",
            "systemctl daemon-reload",
        ] {
            run("sh", &["-c", line]).ok();
            assert_eq!(limits(), before, "after {line}");
            let inside = file(&ve, "cgroup.procs");
            assert!(
                inside.lines().any(|pid| pid == init.to_string()),
                "after {line}: {init} is not in {inside}"
            );
        }
        assert_eq!(ve.init(), Some(init));
        assert_eq!(ve.sh("echo alive"), "alive");
        ve.ok("set", &["--cpulimit", "25"]);
        assert_eq!(file(&ve, "cpu.max"), "25000 100000");
        ve.ok("stop", &["--fast"]);
    });
}
