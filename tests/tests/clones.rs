//! Clones: containers made from others, which know nothing of one another afterwards.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use vztests::{Node, fault_points, on_btrfs, on_node, run, until};

const LAYOUTS: [&str; 4] = ["overlay", "simfs", "ploop", "image"];

fn nothing_is_left() {
    until("all is deleted", Duration::from_secs(30), || {
        run("find", &["/vz/private", "/vz/vztmp", "-mindepth", "1"]).out().is_empty()
    });
}

#[test]
fn a_clone_is_as_its_original_was_and_outlives_it() {
    on_node(|node| {
        for (number, layout) in (0..).zip(LAYOUTS) {
            as_its_original(node, number, layout);
        }
    });
}

fn as_its_original(node: &Node, number: u32, layout: &str) {
    let original = node.with_layout(10 * number + 1, layout);
    original.write("etc/state", "one");
    original.ok("set", &["--hostname", "first", "--ipadd", "10.5.0.1", "--numproc", "200:200", "--save"]);
    original.ok("snapshot", &["--name", "one"]);
    original.write("etc/state", "two");
    let (old, new, live) = (node.ve(10 * number + 2), node.ve(10 * number + 3), node.ve(10 * number + 4));
    old.ok("create", &["--from", &format!("{}@one", original.id), "--hostname", "second"]);
    new.ok("create", &["--from", &original.id]);
    original.start();
    original.sh("echo three >/etc/state; mkdir /d; ln /etc/state /d/other");
    live.ok("create", &["--from", &original.id]);
    assert_eq!(original.sh("cat /etc/state"), "three");
    let conf = old.conf();
    assert!(conf.contains("HOSTNAME=\"second\"") && conf.contains("NUMPROC=\"200\""), "{conf}");
    assert!(!conf.contains("10.5.0.1") && !live.conf().contains("first"), "{conf}");
    original.destroy();
    for (clone, state) in [(&old, "one"), (&new, "two"), (&live, "three\n")] {
        assert_eq!(clone.read("etc/state").as_deref(), Some(state), "{layout}");
        clone.start();
        clone.sh("echo own >/etc/own; rm /etc/state");
    }
    assert_eq!(live.sh("cat /d/other; test -e /etc/state || echo gone"), "three\ngone");
    for clone in [old, new, live] {
        assert_eq!(clone.sh("cat /etc/own"), "own");
        clone.destroy();
    }
    nothing_is_left();
}

#[test]
fn a_clone_is_another_machine_unless_it_is_to_be_the_same() {
    on_node(|node| {
        let original = node.with_layout(1, "overlay");
        original.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        let (other, same) = (node.ve(2), node.ve(3));
        other.ok("create", &["--from", &original.id]);
        same.ok("create", &["--from", &original.id, "--keep-identity"]);
        let id = original.read("etc/machine-id");
        assert_ne!(other.read("etc/machine-id"), id);
        assert_eq!(same.read("etc/machine-id"), id);
    });
}

/// Linux 6.1 can be told of so many; see templates/src/layout/stack.rs.
const MOST_LAYERS: usize = 60;

#[test]
fn layers_are_as_many_as_every_kernel_takes() {
    on_node(|node| {
        let original = node.with_layout(1, "overlay");
        let layers = || fs::read_dir("/vz/private/.layers").map_or(0, |all| all.count()) / 2;
        original.write("etc/state", "0");
        for _ in 0..3 {
            let clone = node.ve(2);
            clone.ok("create", &["--from", &original.id]);
            clone.ok("destroy", &[]);
        }
        assert_eq!(layers(), 1, "nothing was written between the clones");
        for number in 1..=MOST_LAYERS {
            original.write("etc/state", &number.to_string());
            original.ok("snapshot", &[]);
        }
        assert_eq!(layers(), MOST_LAYERS);
        original.write("etc/state", "last");
        original.run("snapshot", &[]).exits(156).says("60 layers");
        let clone = node.ve(2);
        clone.run("create", &["--from", &original.id]).says("60 layers");
        clone.is("deleted unmounted down");
        assert_eq!(original.read("etc/state").as_deref(), Some("last"));
        original.start();
        original.run("snapshot", &[]).says("60 layers");
        assert_eq!(original.sh("cat /etc/state"), "last");
    });
}

#[test]
fn what_cannot_be_cloned_is_refused_and_leaves_nothing() {
    on_node(|node| {
        let original = node.with_layout(1, "overlay");
        let clone = node.ve(2);
        let from = |word: &str| clone.run("create", &["--from", word]);
        from("no-such").exits(21);
        from(&node.ve(9).id).exits(14);
        from(&clone.id).exits(21);
        from(&format!("{}@none", original.id)).exits(156).says("snapshot-list");
        clone.run("create", &["--from", &original.id, "--ostemplate", "tiny"]).exits(20);
        clone.run("create", &["--keep-identity"]).exits(20);
        for _ in 0..2 {
            original.ok("snapshot", &["--name", "twice"]);
        }
        from(&format!("{}@twice", original.id)).exits(156).says("use an id");
        clone.is("deleted unmounted down");
        clone.ok("create", &["--from", &original.id]);
        clone.run("create", &["--from", &original.id]).exits(82);
    });
}

#[test]
fn a_clone_killed_anywhere_leaves_nothing_or_is_whole() {
    on_node(|node| {
        for layout in ["overlay", "simfs"] {
            killed_anywhere(node, layout);
        }
    });
}

fn killed_anywhere(node: &Node, layout: &str) {
    let original = node.with_layout(1, layout);
    original.write("etc/state", "one");
    for point in fault_points("clone") {
        println!("{layout}: killed at {point}");
        let clone = node.ve(2);
        let killed = clone.fault(&point, "create", &["--from", &original.id]);
        if killed.code == 0 {
            clone.ok("destroy", &[]);
            continue;
        }
        killed.exits(-9);
        let again = clone.run("create", &["--from", &original.id]);
        assert!([0, 82].contains(&again.code), "{again}");
        assert_eq!(clone.read("etc/state").as_deref(), Some("one"));
        assert_eq!(original.read("etc/state").as_deref(), Some("one"));
        clone.start();
        clone.destroy();
    }
    original.ok("destroy", &[]);
    nothing_is_left();
}

/// Of subvolumes: the files are shared, the limits are not.
mod btrfs {
    use super::*;

    #[test]
    fn a_clone_is_as_its_original_was() {
        on_btrfs(|node| as_its_original(node, 0, "btrfs"));
    }

    #[test]
    fn a_clone_killed_anywhere_leaves_nothing() {
        on_btrfs(|node| killed_anywhere(node, "btrfs"));
    }

    #[test]
    fn a_clone_takes_no_room_and_has_a_limit_of_its_own() {
        on_btrfs(|node| {
            let (original, clone) = (node.with_layout(1, "btrfs"), node.ve(2));
            original.start();
            original.sh("dd if=/dev/urandom of=/root/a bs=1M count=60 2>/dev/null; sync");
            let free = || {
                run("sync", &["-f", "/vz"]).ok();
                let text = run("df", &["-k", "--output=avail", "/vz"]).ok().out();
                text.lines().last().unwrap().trim().parse::<u64>().unwrap()
            };
            let before = free();
            clone.ok("create", &["--from", &original.id]);
            assert!(before - free().min(before) < 20 << 10, "{before} KiB before, {} after", free());
            clone.start();
            let write = "dd if=/dev/zero of=/root/b bs=1M count=200 2>&1";
            for ve in [&clone, &original] {
                assert_ne!(ve.run("exec2", &[write]).code, 0);
                ve.sh("rm /root/b; sync");
            }
            original.destroy();
            clone.sh("test $(stat -c %s /root/a) = 62914560 && dd if=/dev/zero of=/root/b bs=1M count=20 2>/dev/null");
        });
    }
}

/// As `vzmigrate -r no` leaves it: the container is elsewhere, and what starts here under its number is out of date.
#[test]
fn a_number_that_a_container_has_left_is_free_for_another_one() {
    on_node(|node| {
        let original = node.with_layout(1, "overlay");
        let (clone, restored) = (node.ve(2), node.ve(3));
        let epochs = Path::new("/var/lib/vzctl/migrate/epochs");
        fs::create_dir_all(epochs).unwrap();
        for ve in [&clone, &restored] {
            fs::write(epochs.join(&ve.id), r#"{"number":1,"left_for":"elsewhere"}"#).unwrap();
        }
        clone.ok("create", &["--from", &original.id]);
        let file = node.scratch().join("backup").display().to_string();
        run(node.program("vzbackup"), &["--to", &file, &original.id]).ok();
        run(node.program("vzrestore"), &[&file, "--as", &restored.id]).ok();
        for ve in [clone, restored] {
            ve.start();
            ve.destroy();
        }
        fs::remove_dir_all("/var/lib/vzctl/migrate").unwrap();
        original.destroy();
    });
}
