//! Suspend and resume: what lives through it, what is refused, and what a kill in the middle leaves.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vztests::{Node, Ve, compile, on_node, skip, until};

const SOON: Duration = Duration::from_secs(30);

/// Whether this host has a CRIU that is new enough.
fn has_criu() -> bool {
    let there = criu::Program::find();
    if let Err(error) = &there {
        skip(&format!("CRIU: {error}"));
    }
    there.is_ok()
}

fn dump_of(ve: &Ve<'_>) -> PathBuf {
    PathBuf::from(format!("/vz/dump/Dump.{}", ve.id))
}

/// Starts something in the background that is nobody's session.
fn background(ve: &Ve<'_>, script: &str) {
    ve.sh(&format!("({script}) </dev/null >/dev/null 2>&1 &"));
}

fn round(ve: &Ve<'_>) {
    ve.ok("suspend", &[]);
    ve.is("exist unmounted down suspended");
    ve.ok("resume", &[]);
    ve.is("exist mounted running");
    assert!(!dump_of(ve).exists());
}

#[test]
fn a_container_goes_on_where_it_was() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.start();
        background(&ve, "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done");
        until("it counts", SOON, || {
            ve.sh("cat /tmp/count 2>/dev/null || echo 0").parse::<u32>().unwrap_or(0) > 3
        });
        let uptime = |ve: &Ve<'_>| ve.sh("cut -d. -f1 /proc/uptime").parse::<u64>().unwrap();
        let (before, time) = (ve.sh("cat /tmp/count").parse::<u32>().unwrap(), uptime(&ve));
        ve.sh("echo mine > /run/kept; ln -s null /dev/own");
        for _ in 0..2 {
            round(&ve);
        }
        until("it counts on", SOON, || {
            ve.sh("cat /tmp/count").parse::<u32>().is_ok_and(|count| count > before)
        });
        assert!(uptime(&ve) >= time);
        assert_eq!(
            ve.sh("cat /run/kept; readlink /dev/own; head -c 9 /proc/meminfo"),
            "mine\nnull\nMemTotal:"
        );
        ve.ok("stop", &[]);
        ve.is("exist unmounted down");
    });
}

#[test]
fn what_is_open_stays_open() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.start();
        // A pipe with something in it, and its reader that waits for a sign.
        background(
            &ve,
            "mkfifo /tmp/go; (echo in the pipe; sleep 1000) | (cat /tmp/go; read line; echo $line > /tmp/pipe)",
        );
        // A deleted file.
        background(
            &ve,
            "exec 3>/tmp/deleted; rm /tmp/deleted; echo kept >&3; cat /tmp/go2 2>/dev/null; while [ ! -e /tmp/go2 ]; do sleep 0.1; done; cat /proc/self/fd/3 > /tmp/ghost",
        );
        // A lock.
        background(&ve, "exec 4>/tmp/lock; flock 4; while :; do sleep 1; done");
        until("it is prepared", SOON, || {
            ve.run("exec2", &["test -p /tmp/go -a -e /tmp/lock -a ! -e /tmp/deleted"]).code == 0
        });
        round(&ve);
        ve.sh("echo > /tmp/go; touch /tmp/go2");
        until("the pipe is read", SOON, || ve.run("exec2", &["grep -q 'in the pipe' /tmp/pipe"]).code == 0);
        assert_ne!(ve.run("exec2", &["flock -n /tmp/lock true"]).code, 0, "the lock is held");
        ve.destroy();
    });
}

/// Each prepares one thing, is saved and restored twice in the middle, and looks at it.
const SURVIVE: &str = include_str!("survive.c");
const SURVIVORS: [&str; 6] = ["timers", "watches", "sockets", "events", "processes", "files"];

#[test]
fn timers_watches_sockets_events_processes_and_files_are_as_they_were() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let Some(program) = compile(&node.scratch(), "survive", SURVIVE) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        ve.start();
        let bytes = fs::read(program).unwrap();
        ve.begin("exec2", &["cat > /root/survive && chmod 755 /root/survive"], &bytes).finish().ok();
        let told = |what: &str, end: &str| ve.root().join(format!("tmp/{what}.{end}")).exists();
        for what in SURVIVORS {
            background(&ve, &format!("exec /root/survive {what}"));
            until(&format!("{what} is prepared"), SOON, || told(what, "ready"));
        }
        for _ in 0..2 {
            round(&ve);
        }
        ve.sh("touch /tmp/go");
        for what in SURVIVORS {
            until(&format!("{what} has looked"), SOON, || told(what, "ok") || told(what, "bad"));
            let reason = fs::read_to_string(ve.root().join(format!("tmp/{what}.bad")));
            assert!(told(what, "ok"), "{what}: {reason:?} of survive.c is not as it was");
        }
        ve.destroy();
    });
}

#[test]
fn a_connection_to_the_host_lives_through_it() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--ipadd", "10.77.0.1", "--save"]);
        ve.start();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        ve.sh("ip route | grep -q default");
        node_address();
        background(&ve, &format!("nc 10.78.0.1 {port} -e /bin/cat"));
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        echo(&mut stream, b"before");
        round(&ve);
        echo(&mut stream, b"after");
        drop(stream);
        ve.destroy();
        vztests::run("ip", &["addr", "del", "10.78.0.1/32", "dev", "lo"]).ok();
    });
}

/// An address of the node's own that a container can reach.
fn node_address() {
    let done = vztests::run("ip", &["addr", "add", "10.78.0.1/32", "dev", "lo"]);
    assert_eq!(done.code, 0, "{done}");
}

fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("the connection takes it");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("the echo comes back");
    assert_eq!(back, text);
}

#[test]
fn a_dump_that_is_not_as_it_was_is_refused() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let (ve, other) = (node.tiny(1), node.tiny(2));
        ve.start();
        ve.ok("suspend", &["--dumpfile", "/vz/dump/one"]);
        let one = Path::new("/vz/dump/one");
        let refused = |ve: &Ve<'_>, dump: &str, why: &str| {
            let run = ve.run("resume", &["--dumpfile", dump]);
            assert_eq!(run.code, 17, "{run}");
            assert!(run.text().contains(why), "{run}");
            ve.is("exist unmounted down");
        };
        refused(&other, "/vz/dump/one", "it is of container");
        let pages = fs::read_dir(one).unwrap().flatten().map(|e| e.path());
        let pages = pages.into_iter().find(|path| path.to_string_lossy().contains("pages-")).unwrap();
        let bytes = fs::read(&pages).unwrap();
        fs::write(&pages, &bytes[..bytes.len() - 1]).unwrap();
        refused(&ve, "/vz/dump/one", "was changed or cut off");
        fs::write(&pages, &bytes).unwrap();
        refused(&ve, "/vz/dump/none", "There is no dump");
        // Another life: the disk is not as it was.
        vztests::run("cp", &["-a", "/vz/dump/one", "/vz/dump/two"]).ok();
        ve.ok("resume", &["--dumpfile", "/vz/dump/one"]);
        assert!(!one.exists());
        ve.ok("stop", &["--fast"]);
        refused(&ve, "/vz/dump/two", "has run since");
        fs::remove_dir_all("/vz/dump/two").unwrap();
    });
}

#[test]
fn a_start_restores_and_the_parts_go_one_by_one() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        assert_eq!(ve.run("suspend", &[]).code, 31);
        ve.start();
        ve.sh("echo alive > /run/mark");
        assert_eq!(ve.run("resume", &[]).code, 32);
        assert_eq!(ve.run("suspend", &["--kill"]).code, 16, "it is not frozen");
        ve.ok("suspend", &[]);
        let run = ve.ok("start", &[]);
        assert!(run.text().contains("exists, trying to restore from it"), "{run}");
        assert_eq!(ve.sh("cat /run/mark"), "alive");
        ve.ok("suspend", &["--suspend"]);
        ve.ok("suspend", &["--dump", "--dumpfile", "/vz/dump/steps"]);
        ve.ok("suspend", &["--kill"]);
        ve.is("exist unmounted down");
        ve.ok("resume", &["--undump", "--dumpfile", "/vz/dump/steps"]);
        ve.ok("resume", &["--resume"]);
        assert_eq!(ve.sh("cat /run/mark"), "alive");
        fs::remove_dir_all("/vz/dump/steps").unwrap();
        ve.destroy();
    });
}

/// Killed there, a suspend has decided nothing: the container runs on.
const RUNS_ON: [&str; 6] =
    ["chkpnt.begun", "chkpnt.gated", "chkpnt.frozen", "chkpnt.dumped", "chkpnt.published", "chkpnt.decided"];

#[test]
fn a_kill_in_the_middle_of_a_suspend_loses_nothing() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        for point in RUNS_ON {
            ve.start();
            ve.sh("echo alive > /run/mark");
            ve.fault(point, "suspend", &[]);
            // The next verb mends.
            ve.ok("set", &["--description", point, "--save"]);
            ve.is("exist mounted running");
            assert_eq!(ve.sh("cat /run/mark"), "alive", "{point}");
            assert!(!dump_of(&ve).exists(), "{point}");
            round(&ve);
            ve.ok("stop", &["--fast"]);
            let _ = fs::remove_dir_all(format!("{}.fail", dump_of(&ve).display()));
        }
        for point in ["chkpnt.killed", "chkpnt.gone"] {
            ve.start();
            ve.sh("echo alive > /run/mark");
            ve.fault(point, "suspend", &[]);
            ve.ok("set", &["--description", point, "--save"]);
            ve.ok("resume", &[]);
            assert_eq!(ve.sh("cat /run/mark"), "alive", "{point}");
            ve.ok("stop", &["--fast"]);
        }
    });
}

#[test]
fn who_is_left_frozen_goes_on_by_itself() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.start();
        background(&ve, "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done");
        let count = || fs::read_to_string(ve.root().join("tmp/count")).ok()?.trim().parse::<u32>().ok();
        until("it counts", SOON, || count().is_some());
        for point in RUNS_ON {
            ve.fault(point, "suspend", &[]);
            // No verb is called.
            until(&format!("its mark is gone after {point}"), SOON, || {
                !Path::new(&format!("/run/vz/{}/checkpoint.json", ve.id)).exists()
            });
            let before = count();
            until(&format!("it counts on after {point}"), SOON, || count() > before);
            assert!(!dump_of(&ve).exists(), "{point}");
            let _ = fs::remove_dir_all(format!("{}.fail", dump_of(&ve).display()));
        }
        ve.fault("chkpnt.killed", "suspend", &[]);
        ve.becomes("exist unmounted down suspended");
        ve.ok("resume", &[]);
        ve.ok("stop", &["--fast"]);
    });
}

#[test]
fn a_kill_in_the_middle_of_a_resume_loses_nothing() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.start();
        ve.sh("echo alive > /run/mark");
        ve.ok("suspend", &[]);
        for point in [
            "restore.mounted",
            "restore.cgroups",
            "restore.cloned",
            "restore.network",
            "restore.restored",
            "restore.saved",
            "restore.counted",
        ] {
            ve.fault(point, "resume", &[]);
            until(&format!("it is down after {point}"), SOON, || ve.status().contains(" down"));
            assert!(dump_of(&ve).exists(), "{point}");
        }
        ve.ok("resume", &[]);
        assert_eq!(ve.sh("cat /run/mark"), "alive");
        ve.ok("suspend", &[]);
        ve.fault("restore.released", "resume", &[]);
        ve.becomes("exist mounted running");
        assert_eq!(ve.sh("cat /run/mark"), "alive");
        ve.ok("stop", &["--fast"]);
    });
}

/// A stock guest with systemd, on every kind of disk, as soon as it is up.
fn goes_on_as_a_whole(node: &Node, template: &str) {
    if !has_criu() || !node.has_template(template) {
        return;
    }
    let disks = [("overlay", None), ("overlay", Some("2G")), ("simfs", None), ("ploop", Some("2G"))];
    for (layout, size) in disks {
        let ve = node.ve(3);
        let mut how = vec!["--ostemplate", template, "--layout", layout, "--config", "free"];
        how.extend(size.into_iter().flat_map(|size| ["--diskspace", size]));
        ve.ok("create", &how);
        ve.ok("start", &["--wait"]);
        ve.sh("echo mine > /run/kept");
        for _ in 0..2 {
            round(&ve);
        }
        assert_eq!(ve.sh("cat /run/kept"), "mine");
        assert_eq!(ve.run("exec2", &["systemctl is-system-running"]).out().trim(), "running");
        // Its first process still starts, watches and is told of what ends.
        ve.sh("systemctl restart systemd-logind && systemd-run --wait --quiet true");
        round(&ve);
        ve.destroy();
    }
}

mod boot {
    use super::*;

    #[test]
    fn debian_12_goes_on() {
        on_node(|node| goes_on_as_a_whole(node, "debian-12"));
    }

    #[test]
    fn debian_13_goes_on() {
        on_node(|node| goes_on_as_a_whole(node, "debian-13"));
    }
}

#[test]
fn what_is_in_the_way_is_told_beforehand() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        ve.start();
        let run = ve.run("checkpoint-check", &[]);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.out().contains("can be saved and moved"), "{run}");
        let session = ve.begin("exec3", &["sleep", "1000"], &[]);
        until("it is in the way", SOON, || ve.run("checkpoint-check", &[]).code == 16);
        let text = ve.run("checkpoint-check", &["--json"]).out();
        assert!(text.contains("\"possible\":false") && text.contains("\"kind\":\"session\""), "{text}");
        let run = ve.run("suspend", &[]);
        assert_eq!(run.code, 16, "{run}");
        assert!(run.text().contains("was started from outside"), "{run}");
        ve.sh("pkill -f 'sleep 1000' || killall sleep");
        assert_ne!(session.finish().code, 0, "it was killed");
        ve.destroy();
    });
}
