//! Moves between two hosts: what arrives, what is refused, and who has the container when something dies.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vztests::{Node, Pair, Ve, fault_points, on_two_nodes, running, settled, until};

const SOON: Duration = Duration::from_secs(60);

/// A VE with things in it that are lost easily.
fn furnished<'n>(node: &'n Node, layout: &str) -> Ve<'n> {
    node.need_tiny();
    let ve = node.ve(1);
    // A plain directory keeps no limits here; an image needs one.
    let disk = if layout == "simfs" { ["--config", "free"] } else { ["--diskspace", "256M"] };
    ve.ok("create", &[&["--ostemplate", "tiny", "--layout", layout, "--name", "mover"][..], &disk].concat());
    ve.ok("set", &["--ipadd", "10.5.0.1", "--hostname", "mover.test", "--save"]);
    ve.start();
    for line in [
        "echo kept > /root/file; ln /root/file /root/hard; ln -s /root/file /root/soft",
        "mkfifo /root/fifo; mknod /root/null c 1 3 || true",
        "chown 1000:1000 /root/file; chmod 4711 /root/file",
        "dd if=/dev/zero of=/root/sparse bs=1 count=1 seek=20000000 2>/dev/null",
        "dd if=/dev/urandom of=/root/large bs=1M count=9 2>/dev/null",
        "rm -rf /etc/motd",
    ] {
        ve.sh(line);
    }
    ve
}

/// What a VE says of itself, the same wherever it is.
fn portrait(ve: &Ve<'_>) -> String {
    ve.sh("cd /root; ls -ln file hard soft fifo sparse large | awk '{$6=$7=$8=\"\"; print}'; md5sum file large sparse; \
           [ $(du -k sparse | cut -f1) -lt 100 ] && echo has holes; cat file; hostname; ls /etc/motd 2>&1; true")
}

fn there_and_back(layout: &'static str) -> impl FnOnce(&Pair<'_>) {
    move |pair| {
        let here = furnished(pair.a, layout);
        let there = pair.b.ve(1);
        let script = pair.a.script(&format!("{}.mount", here.id), "#!/bin/sh\nexit 0\n");
        let before = portrait(&here);
        pair.migrate(pair.a, &["-t"], "mover")
            .ok()
            .says(&format!("Starting migration of CT {} to 10.98.0.2", here.id))
            .says("Preparing remote node")
            .says("Syncing private")
            .says("Stopping container")
            .says("Starting container")
            .says("Cleaning up")
            .says("   Phase      Time [s]");
        here.is("deleted unmounted down");
        there.is("exist mounted running");
        there.wait_up();
        assert_eq!(portrait(&there), before);
        assert_eq!(there.conf_value("NAME").as_deref(), Some("mover"));
        assert_eq!(there.conf_value("VE_LAYOUT").as_deref(), Some(layout));
        assert!(
            pair.b.path(&format!("/etc/vz/conf/{}.mount", here.id)).exists(),
            "its action script went with it"
        );
        assert!(
            pair.b.path("/etc/vz/names/mover").is_symlink()
                && !pair.a.path("/etc/vz/names/mover").is_symlink()
        );
        assert_eq!(there.sh("ip -4 -o address show dev venet0 | grep -c 10.5.0.1"), "1");
        drop(script);
        there.sh("echo changed there >> /root/file");
        let after = portrait(&there);
        pair.migrate(&pair.b, &[], &there.id).ok();
        here.is("exist mounted running");
        here.wait_up();
        assert_eq!(portrait(&here), after);
        there.is("deleted unmounted down");
    }
}

#[test]
fn a_running_overlay_goes_there_and_back_with_its_template() {
    on_two_nodes(|pair| there_and_back("overlay")(pair));
}

#[test]
fn a_running_plain_directory_goes_there_and_back() {
    on_two_nodes(|pair| there_and_back("simfs")(pair));
}

#[test]
fn a_running_image_goes_there_and_back() {
    on_two_nodes(|pair| there_and_back("ploop")(pair));
}

#[test]
fn one_that_is_stopped_or_mounted_arrives_as_it_was() {
    on_two_nodes(|pair| {
        let (here, there) = (pair.a.tiny(1), pair.b.ve(1));
        pair.migrate(pair.a, &["-q"], &here.id).ok().never_says("Starting");
        there.is("exist unmounted down");
        there.ok("mount", &[]);
        pair.migrate(&pair.b, &[], &here.id).ok();
        here.is("exist mounted down");
        here.ok("umount", &[]);
    });
}

#[test]
fn what_is_kept_here_is_renamed_and_does_not_start_by_accident() {
    on_two_nodes(|pair| {
        let (here, there) = (pair.a.tiny(1), pair.b.ve(1));
        pair.migrate(pair.a, &["-r", "no"], &here.id).ok();
        there.is("exist unmounted down");
        here.is("deleted unmounted down");
        assert!(here.private().is_dir());
        let kept = pair.a.path(&format!("/etc/vz/conf/{}.conf.migrated", here.id));
        assert!(kept.exists());
        pair.migrate(&pair.b, &[], &here.id).exits(9).says("private area");
        fs::rename(&kept, here.conf_path()).unwrap();
        here.run("start", &[]).exits(105).says("moved to 10.98.0.2");
        here.ok("start", &["--force"]);
        here.destroy();
        pair.migrate(&pair.b, &[], &here.id).ok();
        here.start();
    });
}

#[test]
fn checks_refuse_with_their_codes_and_change_nothing() {
    on_two_nodes(|pair| {
        let (here, other) = (pair.a.tiny(1), pair.a.ve(2));
        let id = here.id.as_str();
        pair.migrate(pair.a, &["--check-only"], id).ok().says("Checking migration of CT");
        pair.migrate(pair.a, &["--dry-run"], id).ok();
        here.is("exist unmounted down");
        pair.b.ve(1).is("deleted unmounted down");
        pair.migrate(pair.a, &[], &other.id).exits(10);
        pair.migrate(pair.a, &["--online"], id).exits(2);
        // The number, the name and the address are taken there.
        pair.migrate(pair.a, &[], id).ok();
        here.ok("create", &["--ostemplate", "tiny"]);
        pair.migrate(pair.a, &[], id).exits(9).says("exists");
        here.destroy();
        other.ok("create", &["--ostemplate", "tiny", "--name", "same"]);
        other.ok("set", &["--ipadd", "10.5.0.9", "--save"]);
        pair.b.ve(1).ok("set", &["--name", "same", "--ipadd", "10.5.0.9", "--save"]);
        pair.b.ve(1).start();
        pair.migrate(pair.a, &[], &other.id).exits(15).says("name");
        other.ok("set", &["--name", "another", "--save"]);
        pair.migrate(pair.a, &["--check-only"], &other.id).exits(12).says("10.5.0.9");
        pair.migrate(pair.a, &["--check-only", "-f"], &other.id).ok().says("WARNING");
        other.is("exist unmounted down");
    });
}

#[test]
fn a_locked_one_waits_for_nobody() {
    on_two_nodes(|pair| {
        let (here, there) = (pair.a.tiny(1), pair.b.ve(1));
        let lock = |node: &Node, pid: i32| {
            fs::write(node.path(&format!("/vz/lock/{}.lck", here.id)), format!("{pid}\n\n0\n")).unwrap();
        };
        let unlock = |node: &Node| fs::remove_file(node.path(&format!("/vz/lock/{}.lck", here.id))).unwrap();
        lock(pair.a, i32::try_from(std::process::id()).unwrap());
        pair.migrate(pair.a, &[], &here.id).exits(20);
        unlock(pair.a);
        lock(&pair.b, 1);
        pair.migrate(pair.a, &[], &here.id).exits(20).says("locked");
        unlock(&pair.b);
        there.is("deleted unmounted down");
        here.is("exist unmounted down");
    });
}

#[test]
fn what_ssh_says_is_explained() {
    on_two_nodes(|pair| {
        let here = pair.a.tiny(1);
        let program = pair.a.program("vzmigrate");
        let [ssh, address] = pair.way(pair.a);
        let to = |options: &[&str], host: &str| {
            vztests::run(&program, &[options, &[host, here.id.as_str()]].concat())
        };
        to(&[&ssh], "10.98.0.77").exits(4);
        to(&[&format!("{ssh} -p 2")], &address).exits(4).says("no ssh server answers");
        to(&[&format!("{ssh} -o PubkeyAuthentication=no")], &address)
            .exits(4)
            .says("Can't connect to destination address using public key");
        to(&[&format!("{ssh} -o UserKnownHostsFile=/dev/null")], &address).exits(4).says("host key");
        to(&[&ssh], "-oProxyCommand=true").exits(1);
        to(&[], "").exits(1);
        vztests::run(&program, &[]).ok().says("Usage: vzmigrate");
        here.is("exist unmounted down");
    });
}

#[test]
fn a_start_that_fails_there_brings_it_back() {
    on_two_nodes(|pair| {
        let here = pair.a.tiny(1);
        let there = pair.b.ve(1);
        here.start();
        here.sh("echo mine > /root/file");
        let script = pair.b.script("vps.premount", "#!/bin/sh\nexit 3\n");
        pair.migrate(pair.a, &[], &here.id).exits(7).says("vps.premount");
        drop(script);
        here.is("exist mounted running");
        here.wait_up();
        assert_eq!(here.sh("cat /root/file"), "mine");
        there.is("deleted unmounted down");
        pair.migrate(pair.a, &[], &here.id).ok();
        there.is("exist mounted running");
    });
}

#[test]
fn json_tells_everything_in_one_object() {
    on_two_nodes(|pair| {
        let here = pair.a.tiny(1);
        here.start();
        let run = pair.migrate(pair.a, &["--json"], &here.id).ok();
        let object: serde_json::Value = serde_json::from_str(&run.out()).unwrap();
        assert_eq!(object["ok"], true);
        assert!(object["phases_ms"]["stop"].is_u64() && object["down_ms"].is_u64());
        assert_eq!(object["passes_bytes"].as_array().unwrap().len(), 3, "template, first pass, second pass");
    });
}

fn mover(pair: &Pair<'_>) {
    let here = pair.a.tiny(1);
    here.start();
    here.sh("echo mine > /root/file");
}

mod heavy {
    use super::*;

    #[test]
    fn the_source_killed_anywhere_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| {
            mover(pair);
            for point in fault_points("source") {
                let mut command = pair.command(pair.a, &[], &pair.a.ve(1).id);
                command.env("VZ_FAULT", &point);
                let run = vztests::Background::spawn(command, &[]).finish();
                println!("{point}: {}", run.code);
                settled(pair, &point);
            }
        });
    }

    #[test]
    fn the_destination_killed_anywhere_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| {
            mover(pair);
            for point in [fault_points("target"), fault_points("arrive")].concat() {
                pair.fault(&pair.b, &point);
                let run = pair.migrate(pair.a, &[], &pair.a.ve(1).id);
                println!("{point}: {run}");
                settled(pair, &point);
            }
        });
    }

    #[test]
    fn ctrl_c_and_a_lost_connection_leave_the_source_as_it_was_and_the_destination_clean() {
        on_two_nodes(|pair| {
            mover(pair);
            let here = pair.a.ve(1);
            // Large enough that the first pass takes a while.
            here.sh("dd if=/dev/urandom of=/root/ballast bs=1M count=200 2>/dev/null");
            let staging = pair.b.path(&format!("/vz/private/{}.arriving", here.id));
            let copying = || {
                let run = pair.start(pair.a, &["--compress=no"], &here.id);
                let begun = || fs::read_dir(&staging).is_ok_and(|mut entries| entries.next().is_some());
                until("it copies", SOON, begun);
                run
            };
            let clean = |what: &str| {
                here.is("exist mounted running");
                assert_eq!(here.sh("cat /root/file"), "mine", "{what}");
                until("the destination is clean", SOON, || !staging.exists() && pair.servers().is_empty());
                pair.b.ve(1).is("deleted unmounted down");
                assert!(!pair.a.path(&format!("/var/lib/vzctl/migrate/{}.json", here.id)).exists(), "{what}");
            };
            let run = copying();
            run.signal(Signal::INT);
            run.finish().exits(1).says("interrupted");
            clean("Ctrl-C");
            let run = copying();
            for pid in pair.clients() {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            run.finish().exits(4).says("was lost");
            clean("ssh killed");
            let run = copying();
            for pid in pair.servers() {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            run.finish().exits(4);
            settled(pair, "the server killed");
            pair.migrate(pair.a, &[], &here.id).ok();
            assert_eq!(pair.b.ve(1).status(), "exist mounted running");
        });
    }
}

#[test]
fn a_prepared_copy_waits_for_the_word_of_its_source_or_of_the_admin() {
    on_two_nodes(|pair| {
        mover(pair);
        let (here, there) = (pair.a.ve(1), pair.b.ve(1));
        let mut command = pair.command(pair.a, &[], &here.id);
        command.env("VZ_FAULT", "source.committed");
        vztests::Background::spawn(command, &[]).finish().exits(-9);
        until("nobody serves", SOON, || pair.servers().is_empty());
        // Given away, and not taken: nobody runs it, and no verb starts it on either side.
        assert_eq!(running(pair), 0);
        here.run("start", &[]).exits(9).says("vzmigrate --resolve");
        there.run("create", &["--ostemplate", "tiny"]).exits(9).says("vzmigrate --resolve");
        assert_eq!(running(pair), 0);
        // The destination asks the source.
        pair.resolve(&pair.b, &here.id, &[]).ok();
        assert_eq!(running(pair), 1);
        there.is("exist mounted running");
        here.run("start", &[]).exits(9);
        pair.resolve(pair.a, &here.id, &[]).ok();
        here.is("deleted unmounted down");
        settled(pair, "resolved by both");
    });
}

#[test]
fn the_admin_decides_when_one_host_is_dead() {
    on_two_nodes(|pair| {
        mover(pair);
        let (here, there) = (pair.a.ve(1), pair.b.ve(1));
        let crash = || {
            let mut command = pair.command(pair.a, &[], &here.id);
            command.env("VZ_FAULT", "source.committed");
            vztests::Background::spawn(command, &[]).finish().exits(-9);
            until("nobody serves", SOON, || pair.servers().is_empty());
        };
        crash();
        pair.resolve(pair.a, &here.id, &["--dst-is-dead"]).ok();
        here.is("exist mounted running");
        // It comes back, and hears that the move was given up.
        pair.resolve(&pair.b, &here.id, &[]).ok();
        there.is("deleted unmounted down");
        settled(pair, "destination dead");
        crash();
        pair.resolve(&pair.b, &here.id, &["--src-is-dead"]).ok();
        there.is("exist mounted running");
        pair.resolve(pair.a, &here.id, &[]).ok();
        settled(pair, "source dead");
    });
}
