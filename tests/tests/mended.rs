//! Verbs that take hold of another container than they make, or of one that leaves: what a killed verb left of it is mended
//! first.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use vztests::{Need, Node, Pair, Run, Ve, fault_points, lacks, on_node, on_two_nodes, run};

const CREATE: [&str; 6] = ["--ostemplate", "tiny", "--layout", "overlay", "--name", "begun"];

fn archive(node: &Node) -> String {
    node.scratch().join("one.vzb").to_string_lossy().into_owned()
}

/// Makes a second one of a container, by a clone or by a backup.
fn copied(node: &Node, from: &Ve<'_>, to: &Ve<'_>, way: &str) -> Run {
    if way == "clone" {
        return to.run("create", &["--from", &from.id]);
    }
    let file = archive(node);
    let _ = fs::remove_file(&file);
    let saved = run(node.program("vzbackup"), &[&from.id, "--to", &file]);
    if saved.code != 0 {
        return saved;
    }
    run(node.program("vzrestore"), &[&file, "--as", &to.id])
}

#[test]
fn what_a_killed_create_left_is_no_container_to_be_copied() {
    on_node(|node| {
        node.need_tiny();
        for (number, point) in (0..).zip(fault_points("create")) {
            for (next, way) in (1..).zip(["clone", "backup"]) {
                let (ve, copy) = (node.ve(10 * number + next), node.ve(10 * number + next + 5));
                println!("create killed at {point}, then {way}");
                ve.fault(&point, "create", &CREATE).exits(-9);
                let run = copied(node, &ve, &copy, way);
                if point == "creating.committed" {
                    assert_eq!(run.code, 0, "{run}");
                    copy.destroy();
                    ve.destroy();
                    continue;
                }
                run.exits(14).says("does not exist");
                assert!(!ve.private().exists() && !ve.conf_path().exists(), "{point}");
                assert!(!Path::new("/etc/vz/names/begun").is_symlink(), "{point}");
                copy.is("deleted unmounted down");
            }
        }
    });
}

/// A container with something in it, whose convert was killed; the layout it had comes first.
fn half_converted<'n>(node: &'n Node, number: u32, point: &str) -> Ve<'n> {
    let ve = node.ve(number);
    ve.ok("create", &["--ostemplate", "tiny", "--layout", "overlay", "--diskspace", "100M"]);
    ve.ok("mount", &[]);
    fs::write(ve.root().join("root/kept"), "kept\n").unwrap();
    ve.ok("umount", &[]);
    ve.fault(point, "convert", &["--layout", "ploop"]).exits(-9);
    ve
}

/// Whether a killed convert had passed its point of no return.
fn committed(point: &str) -> bool {
    ["convert.exchanged", "convert.saved"].contains(&point)
}

#[test]
fn what_a_killed_convert_left_is_mended_before_it_is_copied() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        node.need_tiny();
        for (number, point) in (0..).zip(fault_points("convert")) {
            for (next, way) in (1..).zip(["clone", "backup"]) {
                println!("convert killed at {point}, then {way}");
                let ve = half_converted(node, 10 * number + next, &point);
                let copy = node.ve(10 * number + next + 5);
                let run = copied(node, &ve, &copy, way);
                assert_eq!(run.code, 0, "{run}");
                let layout = if committed(&point) { "ploop" } else { "overlay" };
                assert_eq!(ve.conf_value("VE_LAYOUT").as_deref(), Some(layout), "{point}");
                assert!(!Path::new(&format!("{}.convert", ve.private().display())).exists(), "{point}");
                for one in [&copy, &ve] {
                    one.start();
                    assert_eq!(one.sh("cat /root/kept"), "kept", "{point}, {way}");
                    one.destroy();
                }
            }
        }
    });
}

#[test]
fn what_a_killed_verb_left_is_mended_before_it_moves() {
    on_two_nodes(|pair: &Pair<'_>| {
        if lacks(&[Need::Loops]) {
            return;
        }
        pair.a.need_tiny();
        let begun = pair.a.ve(1);
        begun.fault("creating.config", "create", &CREATE).exits(-9);
        pair.migrate(pair.a, &[], &begun.id).says("does not exist").exits(10);
        assert!(!begun.private().exists() && !begun.conf_path().exists());
        for (number, point) in (2..).zip(["convert.copied", "convert.exchanged"]) {
            let here = half_converted(pair.a, number, point);
            pair.migrate(pair.a, &[], &here.id).ok();
            here.is("deleted unmounted down");
            let there = pair.b.ve(number);
            let layout = if committed(point) { "ploop" } else { "overlay" };
            assert_eq!(there.conf_value("VE_LAYOUT").as_deref(), Some(layout), "{point}");
            there.start();
            assert_eq!(there.sh("cat /root/kept"), "kept", "{point}");
        }
    });
}

#[test]
fn a_damaged_mark_takes_nothing_away_that_may_have_been_there_before() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        let mark = format!("/var/lib/vzctl/creating/{}", ve.id);
        for text in ["", "{\"private\":"] {
            fs::create_dir_all("/var/lib/vzctl/creating").unwrap();
            fs::copy("/etc/vz/conf/ve-basic.conf-sample", ve.conf_path()).unwrap();
            fs::create_dir_all(ve.private()).unwrap();
            fs::write(&mark, text).unwrap();
            ve.ok("set", &["--hostname", "kept", "--save"]).says("interrupted");
            assert!(ve.conf_path().exists() && ve.private().exists() && !Path::new(&mark).exists());
            ve.ok("create", &["--ostemplate", "tiny"]).says("it will be used");
            ve.ok("destroy", &[]);
        }
    });
}

#[test]
fn whatever_makes_a_container_tells_and_asks_the_same() {
    on_node(|node| {
        let ve = node.tiny(1);
        let (clone, restored) = (node.ve(2), node.ve(3));
        ve.add_conf("CPUUNITS=\"7\"\n");
        let said = "invalid value for CPUUNITS: 7";
        let trace = node.scratch().join("made");
        let script = format!("#!/bin/sh\necho $VEID >> {}\n", trace.display());
        let _script = node.script("vps.create", &script);
        copied(node, &ve, &clone, "clone").ok().says(said);
        copied(node, &ve, &restored, "backup").ok().says(said);
        let made = format!("{}\n{}\n", clone.id, restored.id);
        assert_eq!(fs::read_to_string(&trace).unwrap(), made, "the script of the node is run for each");
        clone.destroy();
        restored.destroy();
        // It has the last word, also about a copy.
        let _script = node.script("vps.create", "#!/bin/sh\nexit 1\n");
        for (copy, way) in [(&clone, "clone"), (&restored, "backup")] {
            copied(node, &ve, copy, way).exits(79);
            assert!(!copy.conf_path().exists() && !copy.private().exists(), "{way}");
        }
    });
}
