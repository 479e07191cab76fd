//! Snapshots: what a VE was is kept, whatever happens to it, and comes back as it was.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use vztests::{Node, Ve, fault_points, on_btrfs, on_node, run, until};

/// Takes a snapshot; its id.
fn take(ve: &Ve<'_>, name: &str) -> String {
    ve.ok("snapshot", &["--name", name]);
    let list = ve.ok("snapshot-list", &["-H", "-o", "name,uuid"]).out();
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{list}")).split_whitespace().last().unwrap().to_owned()
}

/// The names of all snapshots, the current one with a star, in the order listed.
fn listed(ve: &Ve<'_>) -> Vec<String> {
    let list = ve.ok("snapshot-list", &["-H", "-o", "current,name"]).out();
    list.lines().map(|line| line.split_whitespace().collect()).collect()
}

const LAYOUTS: [&str; 4] = ["overlay", "simfs", "ploop", "image"];

fn each_layout(node: &Node, test: fn(&Node, u32, &str)) {
    for (number, layout) in (1..).zip(LAYOUTS) {
        test(node, number, layout);
    }
}

#[test]
fn a_stopped_container_goes_back_and_forth_between_its_snapshots() {
    on_node(|node| each_layout(node, back_and_forth));
}

fn back_and_forth(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    assert_eq!(ve.ok("snapshot-list", &[]).out().lines().count(), 1);
    ve.write("etc/state", "one");
    ve.ok("set", &["--hostname", "one", "--save"]);
    let one = take(&ve, "one");
    ve.write("etc/state", "two");
    ve.write("etc/more", "x");
    ve.ok("set", &["--hostname", "two", "--save"]);
    let two = take(&ve, "two");
    ve.write("etc/state", "lost");
    assert_eq!(listed(&ve), ["one", "*two"]);
    ve.ok("snapshot-switch", &["--id", &one]);
    assert_eq!(listed(&ve), ["*one", "two"]);
    assert_eq!((ve.read("etc/state").as_deref(), ve.read("etc/more")), (Some("one"), None));
    assert!(ve.conf().contains("HOSTNAME=\"one\""));
    ve.write("etc/state", "branch");
    take(&ve, "branch");
    ve.ok("snapshot-switch", &["--id", &two, "--skip-config"]);
    assert_eq!(ve.read("etc/state").as_deref(), Some("two"));
    assert_eq!(ve.read("etc/more").as_deref(), Some("x"));
    assert!(ve.conf().contains("HOSTNAME=\"one\""));
    let chain = ve.ok("snapshot-list", &["-H", "-o", "name", "--id", &two]).out();
    assert_eq!(chain, "two\none\n");
    ve.start();
    assert_eq!(ve.sh("cat /etc/state"), "two");
    ve.ok("stop", &["--fast"]);
}

#[test]
fn deleting_a_snapshot_changes_nothing_else() {
    on_node(|node| each_layout(node, deleting));
}

fn deleting(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    ve.write("etc/a", "1");
    let one = take(&ve, "one");
    ve.write("etc/b", "2");
    let two = take(&ve, "two");
    ve.write("etc/c", "3");
    ve.ok("snapshot-delete", &["--id", &one]);
    assert_eq!(listed(&ve), ["*two"]);
    for (path, text) in [("etc/a", "1"), ("etc/b", "2"), ("etc/c", "3")] {
        assert_eq!(ve.read(path).as_deref(), Some(text));
    }
    ve.ok("snapshot-switch", &["--id", &two]);
    assert_eq!((ve.read("etc/a").as_deref(), ve.read("etc/c")), (Some("1"), None));
    ve.run("snapshot-switch", &["--id", &one]).exits(159);
    ve.run("snapshot-delete", &["--id", &one]).exits(158);
    ve.ok("snapshot-delete", &["--id", &two]);
    assert_eq!(ve.read("etc/b").as_deref(), Some("2"));
    assert!(listed(&ve).is_empty());
}

#[test]
fn a_running_container_is_taken_at_one_moment_and_goes_on() {
    on_node(|node| each_layout(node, at_one_moment));
}

fn at_one_moment(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    ve.start();
    // Two files that are never far apart: a copy that is not of one moment would have them apart.
    let line = "mkdir -p /data; cd /data; n=0; \
                while :; do n=$((n+1)); echo $n >a.new; mv a.new a; echo $n >b.new; mv b.new b; done";
    ve.sh(&format!("({line}) </dev/null >/dev/null 2>&1 & sleep 0; echo begun"));
    until("it writes", Duration::from_secs(20), || ve.run("exec2", &["test -s /data/b"]).code == 0);
    let run = node.vzctl(&["--verbose", "snapshot", &ve.id, "--name", "live"]).ok();
    assert!(run.text().contains("stood still for"), "{run}");
    let before: u64 = ve.sh("cat /data/b").parse().unwrap();
    until("it goes on", Duration::from_secs(20), || {
        ve.sh("cat /data/b").parse::<u64>().is_ok_and(|now| now > before + 3)
    });
    ve.ok("snapshot-switch", &["--id", &take_id(&ve, "live")]);
    ve.is("exist unmounted down");
    let number = |path: &str| ve.read(path).unwrap().trim().parse::<u64>().unwrap();
    let (a, b) = (number("data/a"), number("data/b"));
    assert!(a == b || a == b + 1, "{layout}: a is {a}, b is {b}");
    assert!(b <= before);
    ve.start();
    ve.ok("stop", &["--fast"]);
}

fn take_id(ve: &Ve<'_>, name: &str) -> String {
    let list = ve.ok("snapshot-list", &["-H", "-o", "name,uuid"]).out();
    let line = list.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn what_a_running_container_deletes_links_and_moves_is_in_its_snapshot_as_it_was() {
    on_node(|node| each_layout(node, deleted_linked_moved));
}

fn deleted_linked_moved(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    ve.start();
    ve.sh("mkdir -p /t/d && echo x >/t/d/f && ln /t/d/f /t/second && ln -s f /t/d/link && mkfifo /t/pipe");
    ve.sh("rm /etc/hostname; rm -r /etc/init.d 2>/dev/null; mkdir -p /etc/init.d; chmod 4711 /t/d/f");
    take(&ve, "live");
    let inode = |path: &str| ve.sh(&format!("ls -i {path}")).split_whitespace().next().unwrap().to_owned();
    assert_eq!(inode("/t/d/f"), inode("/t/second"));
    ve.sh("rm -r /t; echo new >/etc/hostname");
    ve.ok("snapshot-switch", &["--id", &take_id(&ve, "live")]);
    ve.start();
    assert_eq!(ve.sh("cat /t/second"), "x");
    assert_eq!(ve.sh("readlink /t/d/link; test -p /t/pipe && ls -l /t/d/f | cut -c1-10"), "f\n-rws--x--x");
    // An overlay gives a file of a layer below a copy of its own for each name that is written to.
    let other = if layout == "overlay" { "x" } else { "x\nmore" };
    assert_eq!(ve.sh("echo more >>/t/d/f; cat /t/second"), other);
    assert_eq!(ve.run("exec2", &["test -e /etc/init.d/rcS"]).code, 1);
    ve.ok("stop", &["--fast"]);
}

#[test]
fn a_snapshot_is_mounted_to_be_read_only() {
    on_node(|node| each_layout(node, mounted));
}

fn mounted(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    ve.write("etc/kept", "yes");
    let id = take(&ve, "one");
    ve.write("etc/kept", "no");
    let target = node.scratch().join("target");
    fs::create_dir_all(&target).unwrap();
    let at = target.to_str().unwrap();
    ve.ok("snapshot-mount", &["--id", &id, "--target", at]);
    assert_eq!(fs::read_to_string(target.join("etc/kept")).unwrap(), "yes");
    assert!(fs::write(target.join("etc/kept"), "x").is_err());
    ve.run("snapshot-mount", &["--id", &id, "--target", at]).exits(160);
    assert!(ve.ok("snapshot-list", &["-H", "-o", "target"]).out().contains(at));
    ve.run("snapshot-delete", &["--id", &id]).exits(158).says("snapshot-umount");
    ve.ok("snapshot-umount", &["--id", &id]);
    ve.run("snapshot-umount", &["--id", &id]).exits(161);
    ve.ok("snapshot-mount", &["--id", &id, "--target", at]);
    ve.ok("destroy", &[]);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn the_list_is_what_scripts_expect() {
    on_node(|node| {
        let ve = node.with_layout(1, "overlay");
        let head = ve.ok("snapshot-list", &[]).out();
        assert_eq!(head, format!("{:<38} C {:<38} {:<19} NAME\n", "PARENT_UUID", "UUID", "DATE"));
        let id = "{0f0e0d0c-0b0a-4908-8706-050403020100}";
        ve.ok(
            "snapshot",
            &["--uuid", "0F0E0D0C-0b0a-4908-8706-050403020100", "--name", "a b", "--description", "c\nd"],
        );
        let line = ve.ok("snapshot-list", &["-H", "-o", "id,parent_id,current,name,desc"]).out();
        assert_eq!(line, format!("{id} {:<38} * {:<32} c d\n", "", "a b"));
        let json: serde_json::Value =
            serde_json::from_str(&ve.ok("snapshot-list", &["--json"]).out()).unwrap();
        assert_eq!((&json[0]["uuid"], &json[0]["desc"]), (&id.into(), &"c\nd".into()));
        assert!(ve.ok("snapshot-list", &["-L"]).out().contains("parent_uuid     PARENT_UUID    \n"));
        ve.run("snapshot", &["--id", id]).exits(156).says("exists already");
        ve.run("snapshot-list", &["-o", "frob"]).exits(21);
        ve.run("snapshot", &["--frob"]).exits(21);
        ve.run("snapshot-switch", &[]).exits(20).says("Invalid syntax: snapshot id is missing");
        ve.run("snapshot-mount", &["--id", id]).exits(20).says("Invalid syntax: mount target is missing");
        ve.run("snapshot-delete", &["--id", "x"]).exits(21);
        ve.run("snapshot-switch", &["--id", id, "--must-resume", "--skip-resume"]).exits(20);
        ve.run("snapshot-switch", &["--id", id, "--must-resume"]).exits(159);
        let xml = fs::read_to_string(format!("/vz/private/{}/Snapshots.xml", ve.id)).unwrap();
        assert!(xml.contains("<ParallelsSavedStates>") && xml.contains("current=\"yes\""), "{xml}");
        assert!(Path::new(&format!("/vz/private/{}/dump/{id}.ve.conf", ve.id)).is_file());
    });
}

#[test]
fn snapshots_go_with_their_container() {
    on_node(|node| each_layout(node, go_with_container));
}

fn go_with_container(node: &Node, number: u32, layout: &str) {
    let ve = node.with_layout(number, layout);
    take(&ve, "one");
    ve.start();
    take(&ve, "two");
    ve.destroy();
    until("all is deleted", Duration::from_secs(20), || {
        let left = run("find", &["/vz/private", "/vz/vztmp", "-mindepth", "1"]).out();
        left.is_empty()
    });
}

/// Kills a verb at each of its points; then the VE is whole, its snapshots are, and the verb can be done again.
fn killed_everywhere(node: &Node, layout: &str, verb: &str, running: bool) {
    let points = fault_points(verb);
    let mut reached = 0;
    for (number, point) in (1..).zip(&points) {
        println!("{layout}: {verb} killed at {point}");
        let ve = node.with_layout(number, layout);
        ve.write("etc/state", "one");
        let one = take(&ve, "one");
        ve.write("etc/state", "now");
        if running {
            ve.start();
        }
        let id = ["--id", one.as_str()];
        let rest: &[&str] = if verb == "snapshot" { &["--name", "two"] } else { &id };
        let killed = ve.fault(point, verb, rest);
        if killed.code == 0 {
            ve.ok("stop", &["--fast"]);
            ve.ok("destroy", &[]);
            continue;
        }
        killed.exits(-9);
        reached += 1;
        // It is not left frozen.
        if verb == "snapshot" && running {
            until("it goes on", Duration::from_secs(20), || ve.run("exec2", &["true"]).code == 0);
        }
        let again = ve.run(verb, rest);
        let fine: &[i32] = if verb == "snapshot-delete" { &[0, 158] } else { &[0] };
        assert!(fine.contains(&again.code), "{again}");
        ve.ok("stop", &["--fast"]);
        match verb {
            "snapshot" => {
                assert_eq!(ve.read("etc/state").as_deref(), Some("now"));
                ve.ok("snapshot-switch", &["--id", &take_id(&ve, "two")]);
                assert_eq!(ve.read("etc/state").as_deref(), Some("now"));
                ve.ok("snapshot-switch", &id);
                assert_eq!(ve.read("etc/state").as_deref(), Some("one"));
            }
            "snapshot-switch" => {
                assert_eq!(listed(&ve), ["*one"]);
                assert_eq!(ve.read("etc/state").as_deref(), Some("one"));
            }
            _ => {
                assert!(listed(&ve).is_empty());
                assert_eq!(ve.read("etc/state").as_deref(), Some("now"));
            }
        }
        ve.start();
        ve.destroy();
    }
    assert!(reached > 1, "{points:?}");
    until("nothing is left", Duration::from_secs(30), || {
        run("find", &["/vz/private", "/vz/vztmp", "-mindepth", "1"]).out().is_empty()
    });
}

/// Whatever a switch is killed at: the next verb, whichever it is, has configuration and files of one moment.
#[test]
fn a_killed_switch_leaves_nothing_of_two_moments() {
    on_node(|node| {
        for (number, layout) in (1..).zip(LAYOUTS) {
            let ve = node.with_layout(number, layout);
            ve.write("etc/state", "one");
            ve.ok("set", &["--hostname", "one", "--save"]);
            let one = take(&ve, "one");
            take(&ve, "other");
            for point in fault_points("snapshot-switch") {
                ve.write("etc/state", "two");
                ve.ok("set", &["--hostname", "two", "--save"]);
                let killed = ve.fault(&point, "snapshot-switch", &["--id", &one]);
                println!("{layout}: killed at {point}: {}", killed.code);
                ve.ok("set", &["--description", "the next verb", "--save"]);
                let of = |text: &str| if text.contains("one") { "one" } else { "two" };
                let (conf, files) = (ve.conf_value("HOSTNAME").unwrap(), ve.read("etc/state").unwrap());
                assert_eq!(of(&conf), of(&files), "{layout}: {point}");
                let stands = if of(&files) == "one" { "*one" } else { "*other" };
                assert!(listed(&ve).contains(&stands.to_owned()), "{layout}: {point}: {:?}", listed(&ve));
                ve.ok("snapshot-switch", &["--id", &take_id(&ve, "other")]);
            }
            ve.destroy();
        }
    });
}

/// What a deleted snapshot alone kept is free again, and layers do not become more and more.
#[test]
fn layers_that_nobody_needs_apart_become_one() {
    on_node(|node| {
        let ve = node.with_layout(1, "overlay");
        let used = || -> u64 {
            let out = run("du", &["-sk", "/vz/private"]).out();
            out.split_whitespace().next().unwrap().parse().unwrap()
        };
        let fill = |path: &str| {
            ve.ok("mount", &[]);
            let file = ve.root().join(path);
            run("dd", &["if=/dev/zero", &format!("of={}", file.display()), "bs=1M", "count=8"]).ok();
            ve.ok("umount", &[]);
        };
        let layers = || fs::read_dir("/vz/private/.layers").into_iter().flatten().flatten().count() / 2;
        let mut last = None;
        for round in 0..6 {
            fill("root/large");
            ve.write("etc/round", &round.to_string());
            let id = take(&ve, &format!("s{round}"));
            if let Some(last) = last.replace(id) {
                ve.ok("snapshot-delete", &["--id", &last]);
            }
            until("what nobody needs is gone", Duration::from_secs(20), || {
                layers() <= 2 && used() < 20 << 10
            });
            assert_eq!(ve.read("etc/round"), Some(round.to_string()));
        }
        // The last one: the file as it was then is only what the container has of it.
        fill("root/large");
        ve.ok("snapshot-delete", &["--id", &last.unwrap()]);
        until("one copy is left", Duration::from_secs(20), || used() < 10 << 10);
        ve.start();
        assert_eq!(ve.sh("cat /etc/round; wc -c </root/large"), format!("5{}", 8 << 20));
        ve.ok("stop", &["--fast"]);
        // Layers that a clone has too stay as they are.
        take(&ve, "shared");
        let clone = node.ve(2);
        clone.ok("create", &["--from", &ve.id]);
        ve.ok("snapshot-delete", &["--id", &take_id(&ve, "shared")]);
        clone.start();
        assert_eq!(clone.sh("cat /etc/round"), "5");
    });
}

/// The same of subvolumes.
mod btrfs {
    use super::*;

    #[test]
    fn a_stopped_container_goes_back_and_forth() {
        on_btrfs(|node| {
            back_and_forth(node, 1, "btrfs");
            deleting(node, 2, "btrfs");
        });
    }

    #[test]
    fn a_running_one_is_taken_at_one_moment() {
        on_btrfs(|node| {
            at_one_moment(node, 1, "btrfs");
            deleted_linked_moved(node, 2, "btrfs");
        });
    }

    #[test]
    fn snapshots_are_mounted_and_go_with_their_container() {
        on_btrfs(|node| {
            mounted(node, 1, "btrfs");
            go_with_container(node, 2, "btrfs");
            let left = run("btrfs", &["subvolume", "list", "/vz"]).out();
            assert_eq!(left.lines().count(), 1, "the template alone: {left}");
        });
    }

    #[test]
    fn a_limit_holds_after_a_switch_and_counts_what_snapshots_keep() {
        on_btrfs(|node| {
            let ve = node.with_layout(1, "btrfs");
            ve.start();
            ve.sh("dd if=/dev/zero of=/root/a bs=1M count=60 2>/dev/null; sync");
            let full = take(&ve, "full");
            for _ in 0..2 {
                ve.ok("snapshot-switch", &["--id", &full]);
                ve.start();
                assert_ne!(ve.run("exec2", &["dd if=/dev/zero of=/root/b bs=1M count=100 2>&1"]).code, 0);
                ve.sh("rm -f /root/b; sync");
            }
            let report = run(node.program("vzquota").to_str().unwrap(), &["stat", "-b", &ve.id]).ok().out();
            let used: u64 = report.split_whitespace().next().unwrap().parse().unwrap();
            assert!((60 << 10..=128 << 10).contains(&used), "{report}");
            // What nobody has any more is free again.
            ve.sh("rm -f /root/a");
            ve.ok("snapshot-delete", &["--id", &full]);
            run("sync", &["-f", "/vz"]).ok();
            until("there is room", Duration::from_secs(60), || {
                ve.run("exec2", &["dd if=/dev/zero of=/root/b bs=1M count=100 2>/dev/null && rm /root/b"])
                    .code
                    == 0
            });
        });
    }
}

mod heavy {
    use super::*;

    #[test]
    fn a_subvolumes_snapshot_killed_anywhere_is_mended() {
        on_btrfs(|node| killed_everywhere(node, "btrfs", "snapshot", true));
    }

    #[test]
    fn a_subvolumes_switch_killed_anywhere_is_mended() {
        on_btrfs(|node| killed_everywhere(node, "btrfs", "snapshot-switch", false));
    }

    #[test]
    fn a_subvolumes_delete_killed_anywhere_is_mended() {
        on_btrfs(|node| killed_everywhere(node, "btrfs", "snapshot-delete", true));
    }

    #[test]
    fn an_overlay_snapshot_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "overlay", "snapshot", false));
    }

    #[test]
    fn a_running_overlay_snapshot_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "overlay", "snapshot", true));
    }

    #[test]
    fn a_plain_snapshot_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "simfs", "snapshot", false));
    }

    #[test]
    fn a_running_plain_snapshot_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "simfs", "snapshot", true));
    }

    #[test]
    fn an_overlay_switch_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "overlay", "snapshot-switch", false));
    }

    #[test]
    fn a_running_snapshot_in_an_image_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "image", "snapshot", true));
    }

    #[test]
    fn a_switch_of_an_image_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "ploop", "snapshot-switch", false));
    }

    #[test]
    fn a_plain_switch_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "simfs", "snapshot-switch", false));
    }

    #[test]
    fn an_overlay_delete_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "overlay", "snapshot-delete", true));
    }

    #[test]
    fn a_plain_delete_killed_anywhere_is_mended() {
        on_node(|node| killed_everywhere(node, "simfs", "snapshot-delete", true));
    }
}
