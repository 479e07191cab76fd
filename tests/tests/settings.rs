//! `vzctl set`: what it stores, what it applies, and what it leaves alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use vzconf::params::{PARAMS, Verb};
use vztests::{Ve, on_node, until};

/// A value that each option of `set` takes. What is not stored under a key of its own is elsewhere.
#[allow(clippy::too_many_lines)] // a table: one line for each option
fn samples() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("onboot", "yes"),
        ("bootorder", "7"),
        ("root", "/vz/root/$VEID"),
        ("private", "/vz/private/$VEID"),
        ("ostemplate", "tiny"),
        ("name", "sample"),
        ("description", "some words"),
        ("disabled", "no"),
        ("stop-timeout", "33"),
        ("mount_opts", "noatime"),
        ("applyconfig", "basic"),
        ("applyconfig_map", "name"),
        ("ipadd", "10.5.0.1"),
        ("ipdel", "all"),
        ("hostname", "h.test"),
        ("nameserver", "192.0.2.1"),
        ("searchdomain", "a.test"),
        ("netif_add", "eth3"),
        ("netif_del", "eth3"),
        ("netdev_add", "eth9"),
        ("netdev_del", "eth9"),
        ("ram", "128M"),
        ("swap", "64M"),
        ("vm_overcommit", "1.5"),
        ("kmemsize", "16M:17M"),
        ("lockedpages", "256:512"),
        ("privvmpages", "65536:69632"),
        ("shmpages", "21504"),
        ("numproc", "240:250"),
        ("physpages", "0:64M"),
        ("vmguarpages", "33792"),
        ("oomguarpages", "26112"),
        ("numtcpsock", "360"),
        ("numflock", "188:206"),
        ("numpty", "16"),
        ("numsiginfo", "256"),
        ("tcpsndbuf", "1720320:2703360"),
        ("tcprcvbuf", "1720320:2703360"),
        ("othersockbuf", "1126080:2097152"),
        ("dgramrcvbuf", "262144"),
        ("numothersock", "360"),
        ("dcachesize", "3409920:3624960"),
        ("numfile", "9312"),
        ("avnumproc", "180"),
        ("numiptent", "128"),
        ("swappages", "0:64M"),
        ("cpuunits", "2000"),
        ("cpuweight", "500"),
        ("cpulimit", "50"),
        ("cpuburst", "20"),
        ("cpus", "1"),
        ("cpumask", "0"),
        ("nodemask", "all"),
        ("diskspace", "2G:3G"),
        ("diskinodes", "1000:1100"),
        ("diskquota", "yes"),
        ("quotatime", "60"),
        ("quotaugidlimit", "0"),
        ("ioprio", "5"),
        ("iolimit", "10"),
        ("iopslimit", "100"),
        ("devnodes", "null:rw"),
        ("devices", "c:1:3:rw"),
        ("pci_add", "0000:00:1f.2"),
        ("pci_del", "0000:00:1f.2"),
        ("capability", "net_admin:on"),
        ("features", "nfs:on"),
        ("netfilter", "full"),
        ("iptables", "ipt_REJECT"),
        ("meminfo", "none"),
        ("userpasswd", "root:secret"),
        ("setmode", "ignore"),
        ("ifname", "eth3"),
        ("mac", "00:18:51:00:00:01"),
        ("host_ifname", "veth.s"),
        ("host_mac", "00:18:51:00:00:02"),
        ("bridge", "br0"),
        ("mac_filter", "off"),
    ])
}

/// What an option needs beside it.
fn company(option: &str) -> &'static [&'static str] {
    match option {
        "nodemask" => &["--cpumask", "all"],
        "mac" | "host_ifname" | "host_mac" | "bridge" | "mac_filter" => &["--ifname", "eth5"],
        _ => &[],
    }
}

#[test]
fn every_option_takes_its_value_on_a_stopped_ve() {
    on_node(|node| {
        let samples = samples();
        let ve = node.tiny(1);
        ve.ok("set", &["--netif_add", "eth5", "--save"]);
        // Alone they mean nothing or something else; they are tested where they belong.
        let elsewhere =
            ["save", "force", "reset_ub", "skip_arpdetect", "offline-resize", "ifname", "setmode"];
        for param in PARAMS.iter().filter(|param| param.is_for(Verb::Set)) {
            if elsewhere.contains(&param.option) {
                continue;
            }
            let value =
                samples.get(param.option).unwrap_or_else(|| panic!("no sample for --{}", param.option));
            let option = format!("--{}", param.option);
            let words: Vec<&str> =
                company(param.option).iter().copied().chain([option.as_str(), value, "--save"]).collect();
            ve.ok("set", &words);
            for alias in param.aliases {
                ve.ok("set", &[&format!("--{alias}"), value, "--save"]);
            }
            if let (Some(key), false) = (param.key, value.is_empty()) {
                assert!(ve.conf_value(key).is_some(), "--{} stores no {key}:\n{}", param.option, ve.conf());
            }
        }
        // All of it together is a configuration that every program reads.
        ve.ok("status", &[]);
        node.vzlist(&["-a", "-H", "-o", "ctid"]).ok();
    });
}

#[test]
fn lines_that_nobody_knows_survive() {
    on_node(|node| {
        let ve = node.tiny(1);
        let own = "# a comment: keep\n#UUID: 1234\nMY_PANEL=\"a b  c\"\n\n  # indented\nOTHER=unquoted value";
        ve.add_conf(own);
        ve.ok("set", &["--onboot", "yes", "--hostname", "h.test", "--save"]);
        ve.ok("set", &["--onboot", "no", "--ipadd", "10.5.0.1", "--save"]);
        assert!(ve.conf().contains(own), "{}", ve.conf());
        assert_eq!(ve.conf_value("ONBOOT").as_deref(), Some("no"));
        assert_eq!(ve.conf().matches("ONBOOT").count(), 1);
        let before = ve.conf();
        ve.ok("set", &["--onboot", "no", "--save"]).says("No changes in CT configuration, not saving");
        assert_eq!(ve.conf(), before);
    });
}

#[test]
fn what_is_not_saved_is_said() {
    on_node(|node| {
        let ve = node.tiny(1);
        let before = ve.conf();
        ve.run("set", &["--cpuunits", "2000"]).exits(31);
        ve.start();
        ve.ok("set", &["--cpuunits", "2000"]).says(
            "WARNING: Settings were not saved to config and will be lost after CT restart (use --save flag)",
        );
        assert_eq!(ve.conf(), before);
        ve.ok("set", &["--cpuunits", "3000", "--save"])
            .says("Setting CPU units: 3000\n")
            .says(&format!("CT configuration saved to /etc/vz/conf/{}.conf\n", ve.id));
        assert_eq!(ve.conf_value("CPUUNITS").as_deref(), Some("3000"));
    });
}

#[test]
fn bad_values_change_nothing() {
    on_node(|node| {
        let ve = node.tiny(1);
        let before = ve.conf();
        for (option, value) in [
            ("--onboot", "maybe"),
            ("--cpuunits", "7"),
            ("--cpuunits", "500001"),
            ("--ipadd", "10.0.0.256"),
            ("--numproc", "10K"),
            ("--ram", "much"),
            ("--capability", "fly:on"),
            ("--ioprio", "8"),
            ("--netif_add", "a-name-that-is-too-long"),
            ("--name", "a/b"),
            ("--features", "none:on"),
            ("--devices", "b:7:0:rw"),
            ("--bootorder", "-1"),
        ] {
            ve.run("set", &[option, value, "--onboot", "yes", "--save"]).exits(21);
        }
        ve.run("set", &["--no-such-option", "1", "--save"]).exits(21);
        ve.run("set", &["--name", "x"]).exits(131);
        ve.run("set", &["--stop-timeout", "5"]).exits(20);
        ve.run("set", &["--mac", "00:18:51:00:00:01", "--save"]).exits(20);
        ve.run("set", &["--force"]).exits(20);
        assert_eq!(ve.conf(), before);
    });
}

#[test]
fn what_cannot_be_applied_is_not_saved() {
    on_node(|node| {
        let ve = node.tiny(1);
        let other = node.tiny(2);
        other.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
        other.start();
        ve.start();
        let before = ve.conf();
        let shares = cpu_share(&ve);
        ve.run("set", &["--cpuunits", "4000", "--ipadd", "10.5.0.1", "--onboot", "yes", "--save"])
            .exits(78)
            .says("Error: failed to apply some parameters, not saving configuration file!");
        assert_eq!(ve.conf(), before);
        assert_eq!(cpu_share(&ve), shares, "what was applied before the failure is undone");
    });
}

/// The CPU weight that the kernel has for the VE.
fn cpu_share(ve: &Ve<'_>) -> String {
    let files = [
        format!("/sys/fs/cgroup/cpu/vz/{}/cpu.shares", ve.id),
        format!("/sys/fs/cgroup/cpu,cpuacct/vz/{}/cpu.shares", ve.id),
        format!("/sys/fs/cgroup/vz/{}/cpu.weight", ve.id),
    ];
    files.iter().find_map(|file| fs::read_to_string(file).ok()).expect("a CPU controller").trim().to_owned()
}

#[test]
fn limits_are_applied_to_a_running_ve_and_at_start() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let before = cpu_share(&ve);
        ve.ok("set", &["--cpuunits", "4000", "--save"]);
        let after = cpu_share(&ve);
        assert_ne!(before, after);
        ve.ok("set", &["--numproc", "20:20", "--save"]).says("UB limits were set successfully");
        // The shell gives up when it cannot fork.
        let forks = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i + 1)); done; echo all of them";
        ve.run("exec2", &[forks]).says("fork").never_says("all of them");
        ve.ok("set", &["--numproc", "100:100", "--save"]);
        ve.run("exec2", &[forks]).says("all of them").never_says("fork");
        ve.ok("restart", &["--fast"]);
        ve.wait_up();
        assert_eq!(cpu_share(&ve), after);
    });
}

#[test]
fn what_was_not_saved_gives_way_to_the_value_that_was() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--cpuunits", "2000", "--ram", "64M", "--save"]);
        ve.start();
        let total = || ve.sh("grep MemTotal /proc/meminfo").split_whitespace().nth(1).unwrap().to_owned();
        let saved = (cpu_share(&ve), total());
        ve.ok("set", &["--cpuunits", "500", "--ram", "96M"]);
        assert!(cpu_share(&ve) != saved.0 && total() != saved.1);
        ve.ok("set", &["--cpuunits", "2000", "--ram", "64M"]);
        assert_eq!((cpu_share(&ve), total()), saved);
    });
}

#[test]
fn names_are_links_and_belong_to_one_ve() {
    on_node(|node| {
        let (one, two) = (node.tiny(1), node.tiny(2));
        one.ok("set", &["--name", "web", "--save"]).says("Name web assigned");
        let link = fs::read_link("/etc/vz/names/web").unwrap();
        assert!(link.ends_with(format!("{}.conf", one.id)), "{link:?}");
        two.run("set", &["--name", "web", "--save"])
            .exits(131)
            .says(&format!("Conflict: name web already used by container {}", one.id));
        node.vzctl(&["set", "web", "--name", "www", "--save"]).ok();
        assert!(fs::symlink_metadata("/etc/vz/names/web").is_err());
        node.vzctl(&["start", "www"]).ok();
        one.is("exist mounted running");
        one.ok("set", &["--name", "", "--save"]);
        assert!(fs::symlink_metadata("/etc/vz/names/www").is_err());
    });
}

#[test]
fn what_needs_a_restart_says_so_or_restarts() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let init = ve.init().unwrap();
        ve.ok("set", &["--capability", "sys_time:off", "--save"])
            .says("WARNING: Some of the parameters could not be applied to a running container.")
            .says("Please consider using --setmode option");
        assert_eq!(ve.init(), Some(init));
        let conf = ve.conf();
        ve.run("set", &["--features", "nfs:on", "--setmode", "ignore", "--save"]).exits(32);
        assert_eq!(ve.conf(), conf);
        ve.run("set", &["--features", "nfs:on", "--setmode", "restart"]).exits(20);
        ve.ok("set", &["--features", "nfs:on", "--setmode", "restart", "--save"]);
        assert_ne!(ve.init(), Some(init));
        ve.is("exist mounted running");
        ve.run("set", &["--private", "/vz/private/other", "--save"]).exits(32).says("VE_PRIVATE");
    });
}

#[test]
fn samples_are_applied() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--hostname", "mine.test", "--save"]);
        ve.ok("set", &["--applyconfig", "vswap-1g", "--save"]);
        assert_eq!(ve.conf_value("ORIGIN_SAMPLE").as_deref(), Some("vswap-1g"));
        assert_eq!(ve.conf_value("HOSTNAME").as_deref(), Some("mine.test"));
        assert!(
            ve.conf_value("PHYSPAGES").unwrap().contains("1G")
                || ve.conf_value("PHYSPAGES").unwrap().contains("262144")
        );
        ve.run("set", &["--applyconfig", "none", "--save"]).exits(109);
        ve.start();
        ve.ok("set", &["--reset_ub"]);
        ve.run("set", &["--reset_ub", "--onboot", "yes"]).exits(20);
    });
}

#[test]
fn a_password_is_set_and_stored_nowhere() {
    on_node(|node| {
        let ve = node.tiny(1);
        for state in ["stopped", "running"] {
            let password = format!("secret-{state}");
            ve.ok("set", &["--userpasswd", &format!("root:{password}")]);
            if state == "stopped" {
                ve.is("exist unmounted down");
                ve.start();
            }
            let shadow = ve.sh("cat /etc/shadow /etc/passwd");
            let line = shadow.lines().find(|line| line.starts_with("root:")).unwrap();
            assert!(line.starts_with("root:$"), "a hash in {line}");
            assert!(!shadow.contains(&password));
        }
        assert!(!ve.conf().contains("secret"));
        assert!(!node.log().contains("secret"), "{}", node.log());
    });
}

/// A number of the VE's cgroup, or of the parent of all (`id` is empty), by its name in either generation.
fn number(controller: &str, id: &str, v1: &str, v2: &str) -> Option<String> {
    let files = [format!("/sys/fs/cgroup/{controller}/vz/{id}/{v1}"), format!("/sys/fs/cgroup/vz/{id}/{v2}")];
    files.iter().find_map(|file| fs::read_to_string(file).ok()).map(|text| text.trim().to_owned())
}

#[test]
fn the_node_itself_has_cpu_units() {
    on_node(|node| {
        node.tiny(1).start();
        let parent = || number("cpu", "", "cpu.shares", "cpu.weight").expect("a CPU controller");
        let set = |units: &str| node.vzctl(&["set", "0", "--cpuunits", units]).ok();
        set("2000").says("Setting CPU units: 2000").never_says("not applied");
        // Other tests start VEs meanwhile, which set it to what their nodes say.
        until("half the weight", Duration::from_secs(20), || {
            set("2000");
            ["50", "512"].contains(&parent().as_str())
        });
        set("1000");
        node.vzctl(&["set", "0", "--cpuunits", "7"]).exits(21).says("8").says("500000");
    });
}

#[test]
fn less_ram_than_is_in_use_is_refused_and_nothing_changes() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "96M", "--swap", "0", "--save"]);
        ve.start();
        ve.sh(
            "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && dd if=/dev/zero of=/tmp/m/held bs=1M count=48",
        );
        let limits = || {
            (
                number("memory", &ve.id, "memory.limit_in_bytes", "memory.max"),
                number("memory", &ve.id, "memory.memsw.limit_in_bytes", "memory.swap.max"),
                number("pids", &ve.id, "pids.max", "pids.max"),
            )
        };
        let (before, conf) = (limits(), ve.conf());
        let shrink = ["--ram", "8M", "--swap", "512M", "--numproc", "77", "--save"];
        // Where the host has swap, what was held may go there.
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().count() < 2 {
            ve.run("set", &shrink).exits(1).says("PHYSPAGES");
            assert_eq!(limits(), before);
            assert_eq!(ve.conf(), conf);
        }
        assert_eq!(ve.sh("wc -c < /tmp/m/held"), (48 << 20).to_string());
        ve.sh("rm /tmp/m/held");
        ve.ok("set", &["--ram", "32M", "--save"]);
        assert_eq!(limits().0, Some((32 << 20).to_string()));
    });
}

#[test]
fn a_burst_goes_with_its_cap() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let burst = || number("cpu", &ve.id, "cpu.cfs_burst_us", "cpu.max.burst");
        let Some(none) = burst() else {
            vztests::skip("a kernel with bursts of CPU time (5.14)");
            return;
        };
        assert_eq!(none, "0");
        ve.ok("set", &["--cpulimit", "50", "--cpuburst", "40", "--save"]);
        assert_eq!(burst().unwrap(), "40000");
        ve.ok("set", &["--cpulimit", "20", "--save"]);
        assert_eq!(burst().unwrap(), "20000");
        ve.ok("set", &["--cpulimit", "0", "--save"]);
        assert_eq!(burst().unwrap(), "0");
    });
}

#[test]
fn disk_limits_are_stored_as_clients_read_them() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--diskspace", "1G", "--diskinodes", "7", "--numproc", "400:400", "--save"]);
        assert_eq!(ve.conf_value("DISKSPACE").as_deref(), Some("1048576:1048576"));
        assert_eq!(ve.conf_value("DISKINODES").as_deref(), Some("7:7"));
        assert_eq!(ve.conf_value("NUMPROC").as_deref(), Some("400"));
        ve.run("set", &["--diskspace", "1G:unlimited", "--save"]).exits(21);
    });
}

#[test]
fn unknown_packet_filter_modules_are_left_out_with_a_warning() {
    on_node(|node| {
        let ve = node.tiny(1);
        let set = ve.ok("set", &["--iptables", "ipt_REJECT,no_such", "--save"]);
        assert!(set.stderr.contains("Unknown iptables module: no_such, skipped"), "{set}");
        assert_eq!(ve.conf_value("IPTABLES").as_deref(), Some("ipt_REJECT"));
    });
}
