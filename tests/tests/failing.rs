//! A disk that fails below containers: what a verb said to have done is on it, and what it could not do has changed nothing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use vztests::{FailingDisk, Node, Run, Ve, on_node, run, until};

const SOON: Duration = Duration::from_secs(30);
const LAYOUTS: [&str; 3] = ["simfs", "overlay", "ploop"];
/// What is looked at: a file that changes, one that comes, and one of the template.
const LOOK: &str =
    "cat /root/file; md5sum </root/some; ls /root/more 2>/dev/null; ls -l /bin/busybox | cut -d' ' -f5";

/// `/vz` on a disk that can fail, with the tiny template.
fn vz(node: &Node) -> Option<FailingDisk> {
    node.need_tiny();
    let keep = node.scratch().join("cache");
    if !keep.exists() {
        run("cp", &["-a", "/vz/template/cache", keep.to_str().unwrap()]).ok();
    }
    let disk = FailingDisk::at(node, Path::new("/vz"), true)?;
    for dir in ["root", "private", "template", "lock", "dump"] {
        fs::create_dir_all(Path::new("/vz").join(dir)).unwrap();
    }
    run("cp", &["-a", keep.to_str().unwrap(), "/vz/template/cache"]).ok();
    run("sync", &["-f", "/vz"]).ok();
    Some(disk)
}

fn create(ve: &Ve<'_>, layout: &str) -> Run {
    let rest: &[&str] = if layout == "ploop" { &["--diskspace", "48M"] } else { &["--config", "free"] };
    ve.run("create", &[&["--ostemplate", "tiny", "--layout", layout], rest].concat())
}

/// A stopped VE with a snapshot, and what has changed since.
struct Scene<'n> {
    disk: FailingDisk,
    ve: Ve<'n>,
    snapshot: String,
    at_snapshot: String,
    now: String,
}

impl<'n> Scene<'n> {
    fn new(node: &'n Node, layout: &str) -> Option<Self> {
        let disk = vz(node)?;
        let ve = node.ve(1);
        create(&ve, layout).exits(0);
        ve.start();
        ve.sh("echo kept >/root/file; dd if=/dev/urandom of=/root/some bs=1M count=6 2>/dev/null; sync");
        let at_snapshot = ve.sh(LOOK);
        ve.ok("stop", &["--fast"]);
        ve.ok("snapshot", &["--name", "one"]);
        let snapshot = ve.ok("snapshot-list", &["-H", "-o", "uuid"]).out().trim().to_owned();
        ve.start();
        ve.sh("echo changed >/root/file; dd if=/dev/urandom of=/root/more bs=1M count=4 2>/dev/null; sync");
        let now = ve.sh(LOOK);
        ve.ok("stop", &["--fast"]);
        quiet();
        run("sync", &["-f", "/vz"]).ok();
        Some(Self { disk, ve, snapshot, at_snapshot, now })
    }

    /// Runs a verb while the disk takes no more than that, then has the disk tell what it has. Returns the exit code.
    fn while_failing(&self, left: u64, verb: &str, words: &[&str]) -> i32 {
        self.disk.leave(left);
        let done = self.ve.run(verb, words);
        println!("{left}: {done}");
        if done.code != 0 {
            let told = ["Input/output error", "No space left", "Read-only file system"]
                .iter()
                .any(|words| done.text().contains(words));
            assert!(told, "it is told why: {done}");
        }
        self.disk.leave(64 << 20);
        quiet();
        until("nothing keeps the disk", SOON, || self.disk.reopen());
        done.code
    }

    fn look(&self) -> String {
        self.ve.start();
        let seen = self.ve.sh(LOOK);
        self.ve.ok("stop", &["--fast"]);
        seen
    }

    fn names(&self) -> Vec<String> {
        let list = self.ve.ok("snapshot-list", &["-H", "-o", "name"]).out();
        list.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn ends(self) {
        self.ve.ok("destroy", &[]);
        quiet();
        until("nothing keeps the disk", SOON, || self.disk.close());
    }
}

/// Waits until nobody deletes in the background.
fn quiet() {
    until("the trash is gone", SOON, || {
        !Path::new("/vz/vztmp").exists() || fs::read_dir("/vz/vztmp").unwrap().next().is_none()
    });
}

/// Bytes that the disk still takes: none, a part of what a verb writes, all but the end.
const LEFT: [u64; 3] = [0, 512 << 10, 5 << 20];

/// On each layout, with so much room, and what to call that.
fn everywhere(node: &Node, test: impl Fn(&Scene<'_>, u64, &str)) {
    for layout in LAYOUTS {
        for left in LEFT {
            let Some(scene) = Scene::new(node, layout) else { return };
            test(&scene, left, &format!("{layout}, {left} bytes"));
            scene.ends();
        }
    }
}

#[test]
fn a_snapshot_that_was_made_is_there_and_one_that_failed_is_not() {
    on_node(|node| {
        everywhere(node, |scene, left, case| {
            let code = scene.while_failing(left, "snapshot", &["--name", "two"]);
            let names: &[&str] = if code == 0 { &["one", "two"] } else { &["one"] };
            assert_eq!(scene.names(), names, "{case}");
            assert_eq!(scene.look(), scene.now, "{case}");
            scene.ve.ok("snapshot-switch", &["--id", &scene.snapshot]);
            assert_eq!(scene.look(), scene.at_snapshot, "{case}");
        });
    });
}

#[test]
fn a_switch_is_done_or_not_begun() {
    on_node(|node| {
        everywhere(node, |scene, left, case| {
            let code =
                scene.while_failing(left, "snapshot-switch", &["--id", &scene.snapshot, "--skip-resume"]);
            let want = if code == 0 { &scene.at_snapshot } else { &scene.now };
            assert_eq!(scene.look(), *want, "{case}");
            assert_eq!(scene.names(), ["one"], "{case}");
        });
    });
}

#[test]
fn a_snapshot_is_deleted_or_stays_and_what_came_after_it_stays() {
    on_node(|node| {
        everywhere(node, |scene, left, case| {
            let code = scene.while_failing(left, "snapshot-delete", &["--id", &scene.snapshot]);
            assert_eq!(scene.look(), scene.now, "{case}");
            let names: &[&str] = if code == 0 { &[] } else { &["one"] };
            assert_eq!(scene.names(), names, "{case}");
        });
    });
}

#[test]
fn a_convert_is_done_or_not_begun() {
    on_node(|node| {
        for (from, to) in [("simfs", "ploop"), ("ploop", "overlay"), ("overlay", "simfs")] {
            for left in LEFT {
                let Some(scene) = Scene::new(node, from) else { return };
                if to == "ploop" {
                    scene.ve.ok("set", &["--diskspace", "48M", "--diskquota", "no", "--save"]);
                }
                scene.ve.ok("snapshot-delete", &["--id", &scene.snapshot]);
                let code = scene.while_failing(left, "convert", &["--layout", to]);
                assert_eq!(scene.look(), scene.now, "{from} to {to} {left}");
                let layout = if code == 0 { to } else { from };
                assert_eq!(scene.ve.conf_value("VE_LAYOUT").as_deref(), Some(layout), "{left}");
                scene.ends();
            }
        }
    });
}

#[test]
fn a_container_is_made_or_there_is_none() {
    on_node(|node| {
        for layout in LAYOUTS {
            for left in [0, 256 << 10, 1 << 20] {
                let Some(disk) = vz(node) else { return };
                let ve = node.ve(1);
                disk.leave(left);
                let done = create(&ve, layout);
                println!("{layout} {left}: {done}");
                disk.leave(64 << 20);
                quiet();
                until("nothing keeps the disk", SOON, || disk.reopen());
                if done.code == 0 {
                    // Its files are not waited for, but what all containers share is.
                    if layout != "simfs" {
                        ve.start();
                        ve.ok("stop", &["--fast"]);
                    }
                    ve.ok("destroy", &[]);
                } else {
                    ve.is("deleted unmounted down");
                    assert!(!ve.conf_path().exists());
                }
                // Nothing of it is in the way of another.
                create(&ve, layout).exits(0);
                ve.start();
                ve.ok("stop", &["--fast"]);
                ve.ok("destroy", &[]);
                quiet();
                until("nothing keeps the disk", SOON, || disk.close());
            }
        }
    });
}
