//! Moves of containers that go on: what arrives with them, and who has the container when something dies.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vztests::{Pair, Ve, alive, fault_points, on_two_nodes, settled, skip, until, watched};

const SOON: Duration = Duration::from_secs(60);

/// Whether this host has a CRIU that is new enough.
fn has_criu() -> bool {
    let there = criu::Program::find();
    if let Err(error) = &there {
        skip(&format!("CRIU: {error}"));
    }
    there.is_ok()
}

/// Something in it that counts, and is nobody's session.
fn counter(ve: &Ve<'_>) {
    let line = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done";
    ve.sh(&format!("({line}) </dev/null >/dev/null 2>&1 &"));
    until("it counts", SOON, || count(ve) > 3);
}

/// How far it has counted.
fn count(ve: &Ve<'_>) -> u32 {
    ve.run("exec2", &["cat /tmp/count"]).out().trim().parse().unwrap_or(0)
}

/// A VE that counts.
fn counting(pair: &Pair<'_>) {
    let here = pair.a.tiny(1);
    here.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
    here.start();
    here.sh("echo mine > /root/file");
    counter(&here);
}

#[test]
fn a_running_one_goes_on_there_and_back() {
    on_two_nodes(|pair| {
        if !has_criu() {
            return;
        }
        let (here, there) = (pair.a.ve(1), pair.b.ve(1));
        counting(pair);
        here.ok("set", &["--name", "mover", "--save"]);
        here.sh("echo kept > /run/memory; chown 1000:1000 /root/file");
        let portrait =
            |ve: &Ve<'_>| ve.sh("cat /root/file /run/memory; stat -c '%u %g %a' /root/file; hostname");
        let (before, counted) = (portrait(&here), count(&here));
        let uptime = |ve: &Ve<'_>| ve.sh("cut -d. -f1 /proc/uptime").parse::<u64>().unwrap();
        let up = uptime(&here);
        watched(pair, || pair.migrate(pair.a, &["-t", "--online"], "mover"))
            .ok()
            .says(&format!("Starting live migration of CT {} to 10.98.0.2", here.id))
            .says("Live migrating container...")
            .never_says("Stopping container")
            .says("   down");
        here.is("deleted unmounted down");
        there.is("exist mounted running");
        assert_eq!(portrait(&there), before);
        assert!(uptime(&there) >= up, "its clocks go on");
        until("it counts on", SOON, || count(&there) > counted);
        there.sh("echo changed there >> /root/file");
        let (after, counted) = (portrait(&there), count(&there));
        let run = pair.migrate(&pair.b, &["--live", "--json"], &there.id).ok();
        let object: serde_json::Value = serde_json::from_str(&run.out()).unwrap();
        assert!(object["frozen_ms"].as_u64().is_some() && object["memory_bytes"].as_u64().unwrap() > 0);
        there.is("deleted unmounted down");
        here.is("exist mounted running");
        assert_eq!(portrait(&here), after);
        until("it counts on", SOON, || count(&here) > counted);
    });
}
#[test]
fn checks_come_first_and_a_restore_that_fails_changes_nothing() {
    on_two_nodes(|pair| {
        if !has_criu() {
            return;
        }
        let (here, there) = (pair.a.ve(1), pair.b.ve(1));
        counting(pair);
        pair.migrate(pair.a, &["--online", "--check-only"], &here.id).ok();
        // A session from outside cannot go.
        let session = here.begin("exec", &["sleep 1000"], b"");
        until("the session is there", SOON, || here.run("checkpoint-check", &[]).code != 0);
        for options in [&["--online"][..], &["--online", "--check-only"]] {
            pair.migrate(pair.a, options, &here.id).exits(8).says("vzctl exec").says("Without --online");
        }
        here.sh("killall sleep");
        let _ = session.finish();
        until("the session is over", SOON, || here.run("checkpoint-check", &[]).code == 0);
        let counted = count(&here);
        let script = pair.b.script("vps.premount", "#!/bin/sh\nexit 3\n");
        pair.migrate(pair.a, &["--online"], &here.id).exits(7).says("vps.premount");
        drop(script);
        here.is("exist mounted running");
        there.is("deleted unmounted down");
        until("it counts on", SOON, || count(&here) > counted);
        assert!(!pair.a.path(&format!("/var/lib/vzctl/migrate/{}.json", here.id)).exists());
        watched(pair, || pair.migrate(pair.a, &["--online", "-q"], &here.id)).ok();
        there.is("exist mounted running");
    });
}

#[test]
fn a_suspended_one_goes_on_there_when_it_is_resumed() {
    on_two_nodes(|pair| {
        if !has_criu() {
            return;
        }
        let (here, there) = (pair.a.ve(1), pair.b.ve(1));
        counting(pair);
        here.sh("echo kept > /run/memory");
        let counted = count(&here);
        here.ok("suspend", &[]);
        pair.migrate(pair.a, &["--online"], &here.id).exits(2);
        pair.migrate(pair.a, &[], &here.id).ok();
        here.is("deleted unmounted down");
        there.is("exist unmounted down suspended");
        assert!(!pair.a.path(&format!("/vz/dump/Dump.{}", here.id)).exists());
        there.ok("resume", &[]);
        assert_eq!(there.sh("cat /run/memory"), "kept");
        until("it counts on", SOON, || count(&there) > counted);
        // And back, restored by a start.
        there.ok("suspend", &[]);
        pair.migrate(&pair.b, &[], &there.id).ok();
        here.ok("start", &[]);
        assert_eq!(here.sh("cat /run/memory"), "kept");
    });
}

mod heavy {
    use super::*;

    /// Kills the source, or the destination, at each of these points.
    fn killed(points: &[&str], source: bool) -> impl FnOnce(&Pair<'_>) {
        let points: Vec<String> = points.iter().flat_map(|verb| fault_points(verb)).collect();
        move |pair: &Pair<'_>| {
            if !has_criu() {
                return;
            }
            counting(pair);
            let here = pair.a.ve(1);
            for point in points {
                let run = watched(pair, || {
                    let mut command = pair.command(pair.a, &["--online"], &here.id);
                    if source {
                        command.env("VZ_FAULT", &point);
                    } else {
                        pair.fault(&pair.b, &point);
                    }
                    vztests::Background::spawn(command, &[]).finish()
                });
                println!("{point}: {run}");
                settled(pair, &point);
            }
        }
    }

    #[test]
    fn the_source_killed_anywhere_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| killed(&["source"], true)(pair));
    }

    #[test]
    fn the_source_killed_while_it_saves_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| killed(&["chkpnt"], true)(pair));
    }

    #[test]
    fn the_destination_killed_anywhere_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| killed(&["target", "arrive"], false)(pair));
    }

    #[test]
    fn the_destination_killed_while_it_restores_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| killed(&["restore"], false)(pair));
    }

    /// Cuts the network at each of these points of the source, or the destination, and mends it when the connection is
    /// given up.
    fn cut(points: &[&'static str], source: bool) -> impl FnOnce(&Pair<'_>) {
        let points = points.to_vec();
        for point in &points {
            let (verb, _) = point.split_once('.').unwrap();
            assert!(fault_points(verb).iter().any(|known| known == point), "there is no {point}");
        }
        move |pair: &Pair<'_>| {
            if !has_criu() {
                return;
            }
            counting(pair);
            for point in points {
                let (run, stayed) = watched(pair, || cut_at(pair, point, source));
                println!("{point}: it {}\n{run}", if stayed { "stayed" } else { "was given away" });
                if stayed {
                    run.exits(4).says("nothing has come from root@10.98.0.2 for 2 s");
                }
                settled(pair, point);
                if !stayed {
                    // It was stopped on its way back.
                    let here = pair.a.ve(1);
                    here.sh("rm -f /tmp/count");
                    counter(&here);
                }
            }
        }
    }

    /// Also whether it stayed here, and went on although the network was still cut.
    fn cut_at(pair: &Pair<'_>, point: &str, source: bool) -> (vztests::Run, bool) {
        let here = pair.a.ve(1);
        let mut command = pair.command(pair.a, &["--online", "--patience=2"], &here.id);
        let stop = format!("{point}:stop");
        if source {
            command.env("VZ_FAULT", &stop);
        } else {
            pair.fault(&pair.b, &stop);
        }
        let mut run = vztests::Background::spawn(command, &[]);
        until("it stops there, or passes by", SOON, || !pair.stopped().is_empty() || !run.running());
        let (stopped, connections) = (pair.stopped(), pair.clients());
        if stopped.is_empty() {
            return (run.finish(), false);
        }
        pair.cut();
        let counted = counted(&here);
        for pid in stopped {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT);
        }
        let record = pair.a.path(&format!("/var/lib/vzctl/migrate/{}.json", here.id));
        let given = || {
            let record = fs::read_to_string(&record).unwrap_or_default();
            record.contains("Committed") || record.contains("Done") || !here.conf_path().exists()
        };
        let goes_on = || self::counted(&here).is_some_and(|now| counted.is_none_or(|then| now > then + 2));
        until("the connection is given up", SOON, || !connections.iter().any(|pid| alive(*pid)));
        until("it goes on here, or is given away", SOON, || given() || goes_on());
        let stayed = !given();
        pair.heal();
        (run.finish(), stayed)
    }

    /// How far it has counted, without a session in it.
    fn counted(ve: &Ve<'_>) -> Option<u32> {
        let file = ve.node.path(&format!("/proc/{}/root/tmp/count", ve.init()?));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    #[test]
    fn a_network_that_is_cut_before_it_is_given_away_lets_it_go_on_here() {
        let points = [
            "source.base",
            "source.copy",
            "chkpnt.dumped",
            "source.still",
            "source.memory",
            "source.offered",
        ];
        on_two_nodes(move |pair| cut(&points, true)(pair));
    }

    #[test]
    fn a_network_that_is_cut_when_it_is_given_away_loses_nothing_and_doubles_nothing() {
        let points = ["source.commit", "source.committed", "source.answered", "source.done"];
        on_two_nodes(move |pair| cut(&points, true)(pair));
    }

    #[test]
    fn a_network_that_is_cut_before_it_is_whole_there_lets_it_go_on_here() {
        let points = ["target.pass", "target.resume", "restore.cloned", "arrive.restored", "arrive.prepared"];
        on_two_nodes(move |pair| cut(&points, false)(pair));
    }

    #[test]
    fn a_network_that_is_cut_when_it_begins_there_loses_nothing_and_doubles_nothing() {
        let points = ["target.heard", "arrive.owned", "restore.released", "target.running"];
        on_two_nodes(move |pair| cut(&points, false)(pair));
    }

    #[test]
    fn any_other_process_killed_loses_nothing_and_doubles_nothing() {
        on_two_nodes(|pair| {
            if !has_criu() {
                return;
            }
            counting(pair);
            let here = pair.a.ve(1);
            let monitor = format!("vzmon {}", here.id);
            // Once the first is there, the second is killed.
            for (when, whom) in [
                ("criu: dump", "criu: dump"),
                ("criu: restore", "criu: restore"),
                ("criu: dump", "/ssh -F"),
                ("criu: restore", "/ssh -F"),
                ("criu: restore", monitor.as_str()),
            ] {
                let run = watched(pair, || {
                    let run = pair.start(pair.a, &["--online"], &here.id);
                    until("it is there", SOON, || !pair.processes(when).is_empty());
                    for pid in pair.processes(whom) {
                        if whom != monitor || is_of_second(pid) {
                            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                        }
                    }
                    run.finish()
                });
                println!("{whom}, {when}: {run}");
                settled(pair, &format!("{whom}, {when}"));
            }
        });
    }

    /// The second host is a PID namespace deeper.
    fn is_of_second(pid: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        pids.is_some_and(|pids| pids.split_whitespace().count() > 1)
    }
}
