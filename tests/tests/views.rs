//! What a VE sees of itself in `/proc` and `/sys`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Seek;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vztests::{Node, Ve, alive, on_node, skip, until};

const SOON: Duration = Duration::from_secs(20);

fn with_views<'n>(node: &'n Node, number: u32, settings: &[&str]) -> Option<Ve<'n>> {
    if !Path::new("/dev/fuse").exists() {
        skip("FUSE");
        return None;
    }
    let ve = node.tiny(number);
    ve.ok("set", &[settings, &["--save"]].concat());
    ve.start();
    Some(ve)
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn field(text: &str, key: &str) -> u64 {
    let line =
        text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in\n{text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_processors_and_time_are_its_own() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M", "--swap", "0", "--cpulimit", "50"]) else {
            return;
        };
        let meminfo = ve.sh("cat /proc/meminfo");
        assert_eq!((field(&meminfo, "MemTotal:"), field(&meminfo, "SwapTotal:")), (64 << 10, 0));
        let free = field(&meminfo, "MemFree:");
        assert!(free < 64 << 10 && free > 20 << 10, "{meminfo}");
        assert_eq!(ve.sh("cat /proc/swaps | wc -l"), "1");
        assert_eq!(ve.sh("grep -c ^processor /proc/cpuinfo"), "1");
        assert_eq!(ve.sh("cat /sys/devices/system/cpu/online"), "0");
        assert_eq!(ve.sh("grep -c '^cpu[0-9]' /proc/stat"), "1");
        let up: f64 = ve.sh("cut -d' ' -f1 /proc/uptime").parse().unwrap();
        assert!(up < 300.0, "{up} s, as long as the host?");
        let clock: f64 = ve
            .sh("cut -d' ' -f1 /proc/uptime; sleep 1; cut -d' ' -f1 /proc/uptime")
            .lines()
            .map(|t| t.parse::<f64>().unwrap())
            .fold(0.0, |a, b| b - a);
        assert!(clock > 0.9 && clock < 20.0, "{clock}");

        // Memory that it takes is seen to be taken, and a new limit at once.
        ve.sh("mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && dd if=/dev/zero of=/tmp/m/f bs=1M count=16 2>/dev/null");
        until("it is in use", SOON, || field(&ve.sh("cat /proc/meminfo"), "MemFree:") + (12 << 10) < free);
        ve.ok("set", &["--ram", "96M", "--cpulimit", "0"]);
        until("the new limit shows", SOON, || field(&ve.sh("cat /proc/meminfo"), "MemTotal:") == 96 << 10);
        let host = std::thread::available_parallelism().unwrap().get();
        until("all processors show", SOON, || ve.sh("grep -c ^processor /proc/cpuinfo") == host.to_string());
    });
}

#[test]
fn files_are_read_in_every_way() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M"]) else { return };
        for file in ["meminfo", "cpuinfo", "stat", "uptime", "loadavg", "swaps", "vmstat"] {
            let path = format!("/proc/{file}");
            // cat of busybox uses sendfile(2), dd read(2), both in one go and in parts.
            let sizes = ve.sh(&format!(
                "cat {path} | wc -c; wc -c < {path}; dd if={path} bs=7 2>/dev/null | wc -c; stat -c %s {path}"
            ));
            let sizes: Vec<usize> = sizes.lines().map(|size| size.parse().unwrap()).collect();
            let about = sizes[0].abs_diff(sizes[1]) <= 8 && sizes[1].abs_diff(sizes[2]) <= 8;
            assert!(about && sizes[0] > 0 && sizes[3] == 0, "{file}: {sizes:?}");
            assert!(ve.sh(&format!("dd if={path} bs=5 2>/dev/null")).bytes().all(|byte| byte != 0), "{file}");
        }
        // Its size is nothing, before and after it is read, and while it is open: programs trust any other number.
        let sizes = "exec 3< /proc/meminfo; size() { stat -L -c %s /proc/self/fd/3; }; size; read line <&3; size; cat <&3 > /dev/null; size";
        assert_eq!(ve.sh(sizes), "0\n0\n0");
        let file = fs::File::open(ve.from_outside("/proc/meminfo")).unwrap();
        for round in 0..3 {
            assert_eq!(file.metadata().unwrap().len(), 0);
            let (mut copy, mut offset) = (tempfile::tempfile().unwrap(), 0);
            while rustix::fs::sendfile(&copy, &file, Some(&mut offset), 1 << 16).unwrap() > 0 {}
            copy.rewind().unwrap();
            let text = std::io::read_to_string(&copy).unwrap();
            assert_eq!((round, field(&text, "MemTotal:")), (round, 64 << 10));
        }
        assert_eq!(ve.sh("cat /proc/diskstats"), "");
        ve.run("exec2", &["echo x > /proc/meminfo"]).exits(1);
        let own = ve.sh("cat /run/vz/proc/user_beancounters");
        assert!(
            own.starts_with("Version: 2.5\n") && own.contains(&format!("{:>10}: kmemsize", ve.id)),
            "{own}"
        );
        assert_eq!(own.lines().filter(|line| line.contains(':')).count(), 2, "nobody else's:\n{own}");
        assert_eq!(ve.sh("stat -c %a /run/vz/proc /run/vz/proc/user_beancounters"), "500\n400");
        assert_eq!(
            ve.sh(&format!(
                "grep -c numproc /run/vz/proc/bc/resources /run/vz/proc/bc/{}/resources | wc -l",
                ve.id
            )),
            "2"
        );
        assert_eq!(ve.sh("find /run/vz/proc -name nosuch; ls /run/vz/proc | wc -l"), "12");
    });
}

#[test]
fn the_directory_of_processors_follows_the_limits_and_whoever_serves_it() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--cpus", "1"]) else { return };
        const DIR: &str = "/sys/devices/system/cpu";
        let numbers = || ve.sh(&format!("cd {DIR} && echo cpu[0-9]*; cat online possible present"));
        assert_eq!(numbers(), "cpu0\n0\n0\n0");
        ve.run("exec2", &[&format!("ls {DIR}/cpu1")]).exits(1);
        let host = std::thread::available_parallelism().unwrap().get();
        // From there on it is reached by no name.
        ve.sh(&format!("cd {DIR}/cpu0 && (while [ ! -e /tmp/now ]; do sleep 0.1; done; cat topology/core_id > /tmp/id) > /dev/null 2>&1 &"));
        until("both are there", SOON, || ve.view_servers().len() == 2);
        for pid in ve.view_servers() {
            kill(pid);
            until("it is replaced", SOON, || {
                ve.view_servers().len() == 2 && !ve.view_servers().contains(&pid)
            });
        }
        ve.sh("touch /tmp/now");
        let topology = Path::new(DIR).join("cpu0/topology/core_id");
        let core = fs::read_to_string(&topology).map(|id| id.trim().to_owned());
        if let Ok(core) = core {
            until("who is inside reads on", SOON, || ve.run("exec2", &["cat /tmp/id"]).out().trim() == core);
        }
        // With all processors it says what the host's says.
        ve.ok("set", &["--cpus", "0", "--save"]);
        let names: Vec<String> = (0..host).map(|number| format!("cpu{number}")).collect();
        assert_eq!(numbers().lines().next(), Some(names.join(" ").as_str()));
        let texts =
            format!("cd {DIR} && cat online possible cpu*/topology/* cpu*/cache/index*/size kernel_max");
        let of_host = vztests::run("sh", &["-c", &texts]);
        if of_host.code == 0 {
            assert_eq!(ve.sh(&texts), of_host.out().trim());
        }
        let links = format!("cd {DIR} && readlink cpu0/subsystem && ls cpu0/subsystem/ > /dev/null");
        assert_eq!(ve.sh(&links), vztests::run("sh", &["-c", &links]).ok().out().trim());
        // Nothing there can be written, or is for the VE to see that is not for everybody.
        ve.run("exec2", &[&format!("echo 0 > {DIR}/cpu0/uevent")]).exits(1);
        assert_eq!(ve.sh(&format!("find {DIR} -type f ! -perm 444")), "");
    });
}

#[test]
fn whoever_is_killed_and_whatever_is_frozen_reads_go_on() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M"]) else { return };
        until("both are there", SOON, || ve.view_servers().len() == 2);
        let path = ve.from_outside("/proc/meminfo");
        let (stop, reads, longest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        let text = fs::read_to_string(&path).unwrap();
                        assert_eq!(field(&text, "MemTotal:"), 64 << 10);
                        reads.fetch_add(1, Ordering::Relaxed);
                        longest.fetch_max(
                            u64::try_from(begin.elapsed().as_millis()).unwrap(),
                            Ordering::Relaxed,
                        );
                    }
                });
            }
            let more_reads = || {
                let before = reads.load(Ordering::Relaxed);
                until("it is read on", SOON, || reads.load(Ordering::Relaxed) > before + 200);
            };
            more_reads();
            let monitor = ve.monitor().unwrap();
            kill(monitor);
            until("the monitor is gone", SOON, || !alive(monitor));
            more_reads();
            for _ in 0..3 {
                for pid in ve.view_servers() {
                    kill(pid);
                    until("it is replaced", SOON, || {
                        let now = ve.view_servers();
                        now.len() == 2 && !now.contains(&pid)
                    });
                    more_reads();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let longest = longest.load(Ordering::Relaxed);
        println!("{} reads, the longest took {longest} ms", reads.load(Ordering::Relaxed));
        assert!(longest < 5000, "a reader waited {longest} ms");
        // A VE whose every process stands still.
        ve.ok("set", &["--numproc", "300"]);
        let cgroup = beancounters::VeCgroup::open(
            &beancounters::Hierarchies::detect().unwrap(),
            ve.id.parse().unwrap(),
        );
        let cgroup = cgroup.unwrap().unwrap();
        cgroup.freeze(Instant::now() + SOON).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        cgroup.thaw().unwrap();
        assert_eq!(field(&text, "MemTotal:"), 64 << 10);
        ve.ok("stop", &["--fast"]);
        until("nobody serves a VE that has ended", SOON, || ve.view_servers().is_empty());
    });
}

#[test]
fn without_those_who_serve_reads_fail_until_the_next_verb() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M"]) else { return };
        let path = ve.from_outside("/proc/meminfo");
        until("all are killed at once", SOON, || {
            ve.view_servers().into_iter().for_each(kill);
            ve.view_servers().is_empty()
        });
        let begin = Instant::now();
        assert!(fs::read_to_string(&path).is_err());
        assert!(begin.elapsed() < Duration::from_secs(2));
        assert_eq!(ve.sh("echo alive"), "alive");
        until("that verb has mended it", SOON, || {
            ve.view_servers().len() == 2 && fs::read_to_string(&path).is_ok()
        });
        for file in ["meminfo", "cpuinfo", "stat", "uptime", "loadavg", "swaps", "vmstat", "diskstats"] {
            assert_eq!(
                ve.sh(&format!("cat /proc/{file} >/dev/null; grep -c ' /proc/{file} ' /proc/mounts")),
                "1"
            );
        }
        assert_eq!(field(&ve.sh("cat /proc/meminfo"), "MemTotal:"), 64 << 10);
        assert!(ve.sh("cat /run/vz/proc/user_beancounters").contains("kmemsize"));
        ve.ok("stop", &["--fast"]);
        until("nobody serves a VE that has ended", SOON, || ve.view_servers().is_empty());
    });
}

/// The processes that serve the host's tables.
#[test]
fn who_is_killed_while_the_files_are_put_back_holds_nobody_up() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M"]) else { return };
        until("both are there", SOON, || ve.view_servers().len() == 2);
        for round in 0..20 {
            // One that lost the other makes a new one at once.
            until("all are dead", SOON, || {
                ve.view_servers().iter().for_each(|pid| kill(*pid));
                ve.view_servers().is_empty()
            });
            // A verb has somebody serve them, who has another one put them back, and is killed while that one is at it.
            let verb = ve.begin("exec2", &["true"], &[]);
            let deadline = Instant::now() + SOON;
            while ve.view_servers().len() < 2 {
                assert!(Instant::now() < deadline, "nobody puts them back");
            }
            kill(*ve.view_servers().first().unwrap());
            println!("{}", verb.finish());
            let read = || {
                ve.ok("exec2", &["true"]);
                ve.run("exec2", &["cat /proc/meminfo"])
            };
            let own = |text: &str| text.contains("MemTotal:          65536 kB");
            let again = vztests::holds(SOON, || own(&read().out()));
            assert!(again, "round {round}: {}\n{}", read(), ve.sh("cat /proc/mounts"));
            until("both are there again", SOON, || ve.view_servers().len() == 2);
        }
    });
}

fn host_servers() -> BTreeSet<i32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == "vzviews 0")
    };
    pids.filter(ours).collect()
}

/// Where the host's tables are.
const TOP: &str = "/run/vz/proc";

fn host_table(file: &str) -> String {
    fs::read_to_string(Path::new(TOP).join(file)).unwrap_or_default()
}

fn table_shows(ve: &Ve<'_>) -> bool {
    host_table("user_beancounters").contains(&format!("{:>10}: kmemsize", ve.id))
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new(TOP).join(dir)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_host_has_the_tables_of_all() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--numproc", "123", "--ipadd", "10.123.0.1"]) else { return };
        let other = node.tiny(2);
        other.start();
        until("it is served", SOON, || table_shows(&ve) && table_shows(&other));
        let table = host_table("user_beancounters");
        assert!(table.contains("         0: kmemsize"), "the host is the last:\n{table}");
        let own = host_table(&format!("bc/{}/resources", ve.id));
        let numproc = own.lines().find(|line| line.contains("numproc")).unwrap();
        assert_eq!(numproc.split_whitespace().nth(4), Some("123"));
        assert!(names("bc").is_superset(&["resources".to_owned(), ve.id.clone(), other.id.clone()].into()));
        let of_ve = format!("bc/{}", ve.id);
        assert_eq!(names(&of_ve), ["ioacct", "ioprio", "resources"].map(str::to_owned).into());
        assert!(host_table(&format!("{of_ve}/ioacct")).starts_with("\tread  "));
        assert!(host_table(&format!("{of_ve}/ioprio")).starts_with("prio: "));
        let files = ["veinfo", "version", "vestat", "vswap", "vzquota"].map(str::to_owned);
        assert_eq!(names("vz"), files.into());
        let veinfo = host_table("vz/veinfo");
        let of_ve = veinfo.lines().find(|line| line.split_whitespace().next() == Some(&ve.id));
        assert!(of_ve.is_some_and(|line| line.ends_with("10.123.0.1")), "{veinfo}");
        let vestat = host_table("vz/vestat");
        assert!(vestat.starts_with("Version: 2.2") && vestat.contains(&other.id), "{vestat}");
        let modes = vztests::run("stat", &["-c", "%a", TOP, "/run/vz/proc/bc/resources"]).ok().out();
        assert_eq!(modes, "500\n400\n");
        other.ok("stop", &["--fast"]);
        until("a VE that has ended is not shown", SOON, || {
            !table_shows(&other) && !Path::new(TOP).join("bc").join(&other.id).exists()
        });
    });
}

#[test]
fn what_is_kept_open_between_two_tables_shows_no_earlier_life() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--numproc", "100"]) else { return };
        until("it is served", SOON, || table_shows(&ve));
        let numproc = || {
            let table = host_table("bc/resources");
            let own = table.lines().skip_while(|line| !line.contains(&format!(" {}:", ve.id)));
            let row = own.into_iter().find(|line| line.contains("numproc"))?;
            let numbers: Vec<u64> = row.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            <[u64; 5]>::try_from(numbers).ok()
        };
        let [idle, ..] = numproc().unwrap();
        let busy = ve.begin("exec2", &["sleep 100 & sleep 100 & sleep 100 & wait"], b"");
        until("what runs now is counted now", SOON, || numproc().is_some_and(|[held, ..]| held >= idle + 3));
        ve.ok("set", &["--numproc", "90"]);
        until("the new limit is shown", SOON, || numproc().is_some_and(|[.., limit, _]| limit == 90));
        ve.ok("restart", &["--fast"]);
        assert!(busy.finish().code != 0);
        until("the next life begins with nothing", SOON, || {
            numproc().is_some_and(|[held, most, _, limit, _]| held <= most && most < idle + 3 && limit == 100)
        });
        ve.ok("stop", &["--fast"]);
        until("then it is gone", SOON, || numproc().is_none());
    });
}

#[test]
fn the_tables_of_the_host_outlive_those_who_serve_them() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &[]) else { return };
        until("both are there", SOON, || host_servers().len() == 2);
        for pid in host_servers() {
            kill(pid);
            until("it is replaced", SOON, || host_servers().len() == 2 && !host_servers().contains(&pid));
            assert!(table_shows(&ve));
        }
        until("all are killed at once", SOON, || {
            host_servers().into_iter().for_each(kill);
            host_servers().is_empty()
        });
        assert!(fs::read_to_string(Path::new(TOP).join("user_beancounters")).is_err());
        let other = node.tiny(2);
        other.start();
        until("the next start mends it", SOON, || table_shows(&ve) && table_shows(&other));
        vztests::run("umount", &[TOP]).ok();
        until("nobody serves what is mounted nowhere", SOON, || host_servers().is_empty());
        other.ok("restart", &["--fast"]);
        until("it comes back", SOON, || table_shows(&other));
    });
}

#[test]
fn nobody_serves_a_ve_that_has_unmounted_its_views() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &[]) else { return };
        until("both are there", SOON, || ve.view_servers().len() == 2);
        ve.sh("for point in $(grep -w fuse /proc/mounts | cut -d' ' -f2); do umount -l $point; done");
        until("they are gone", SOON, || ve.view_servers().is_empty());
        assert_eq!(ve.sh("grep -c MemTotal /proc/meminfo"), "1", "the kernel's own is below");
        ve.sh("true");
        assert!(ve.view_servers().is_empty(), "and stay so: that is what the VE wants");
        ve.ok("restart", &["--fast"]);
        until("they come back", SOON, || ve.view_servers().len() == 2);
    });
}

#[test]
fn load_is_that_of_its_own_processes() {
    on_node(|node| {
        let Some(ve) = with_views(node, 1, &["--ram", "64M"]) else { return };
        let session = ve.begin("exec", &["while :; do :; done"], b"");
        let load = || ve.sh("cut -d' ' -f1 /proc/loadavg").parse::<f64>().unwrap();
        until("the load rises", Duration::from_secs(60), || load() > 0.1);
        ve.ok("stop", &["--fast"]);
        let _ = session.finish();
    });
}
