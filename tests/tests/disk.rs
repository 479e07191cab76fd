//! Disks that are full, read-only, or elsewhere.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use vztests::{Node, Ve, on_node, run, skip, until};

/// A file system of some megabytes at `/vz`, for the time of a value.
struct SmallDisk;

impl SmallDisk {
    fn new(node: &Node, megabytes: u32) -> Option<Self> {
        node.need_tiny();
        let image = node.scratch().join("image");
        run("truncate", &["-s", &format!("{megabytes}M"), image.to_str().unwrap()]).ok();
        run("mkfs.ext4", &["-q", "-m", "0", "-F", image.to_str().unwrap()]).ok();
        let keep = node.scratch().join("cache");
        run("cp", &["-a", "/vz/template/cache", keep.to_str().unwrap()]).ok();
        if run("mount", &["-o", "loop", image.to_str().unwrap(), "/vz"]).code != 0 {
            skip("loop devices");
            return None;
        }
        for dir in ["root", "private", "template", "lock", "dump"] {
            fs::create_dir_all(Path::new("/vz").join(dir)).unwrap();
        }
        run("cp", &["-a", keep.to_str().unwrap(), "/vz/template/cache"]).ok();
        Some(Self)
    }

    /// Leaves this many kilobytes.
    fn fill(&self, left: u64) {
        let stat = rustix::fs::statvfs("/vz").unwrap();
        let free = stat.f_bavail * stat.f_frsize / 1024;
        let take = free.saturating_sub(left).to_string();
        run("dd", &["if=/dev/zero", "of=/vz/ballast", "bs=1K", &format!("count={take}"), "conv=fsync"]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = run("umount", &["/vz"]);
        if done.code != 0 && !std::thread::panicking() {
            panic!("/vz is still in use\n{done}\n{}", run("fuser", &["-vm", "/vz"]));
        }
    }
}

/// All paths below `/vz` but the ballast. What is deleted in the background may go while it looks, which it says.
fn tree() -> Vec<String> {
    let text = run("find", &["/vz", "-xdev"]).out();
    let mut paths: Vec<String> =
        text.lines().filter(|line| !line.contains("lost+found")).map(str::to_owned).collect();
    paths.sort();
    paths
}

#[test]
fn create_on_a_full_disk_fails_with_46_and_leaves_nothing() {
    on_node(|node| {
        for layout in ["simfs", "overlay"] {
            let Some(disk) = SmallDisk::new(node, 32) else { return };
            disk.fill(200);
            let ve = node.ve(1);
            // Directories that every create makes once.
            fs::create_dir_all("/vz/template/base").unwrap();
            fs::create_dir_all("/vz/vztmp").unwrap();
            let before = tree();
            let create = ve.run("create", &["--ostemplate", "tiny", "--layout", layout, "--config", "free"]);
            create.exits(46).says("Creation of container private area failed");
            ve.is("deleted unmounted down");
            let mut after = tree();
            let same = vztests::holds(std::time::Duration::from_secs(10), || {
                after = tree();
                after == before
            });
            assert!(
                same,
                "{layout}: left behind: {:?}",
                after.iter().filter(|p| !before.contains(p)).collect::<Vec<_>>()
            );
            assert!(!ve.conf_path().exists());
            // With room it works.
            fs::remove_file("/vz/ballast").unwrap();
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--config", "free"]);
            ve.start();
            ve.destroy();
            vztests::until("the trash is gone", std::time::Duration::from_secs(10), || {
                !tree().iter().any(|path| path.starts_with("/vz/vztmp/"))
            });
        }
    });
}

#[test]
fn a_ve_on_a_full_disk_still_starts_stops_and_is_destroyed() {
    on_node(|node| {
        let Some(disk) = SmallDisk::new(node, 32) else { return };
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny"]);
        disk.fill(0);
        let start = ve.run("start", &[]);
        if start.code == 0 {
            ve.ok("stop", &["--fast"]);
        } else {
            start.exits(46);
        }
        ve.is("exist unmounted down");
        ve.ok("destroy", &[]);
        vztests::until("the trash is gone", std::time::Duration::from_secs(10), || {
            !tree().iter().any(|path| path.starts_with("/vz/vztmp/"))
        });
        drop(disk);
    });
}

/// Kilobytes of ballast are taken away again.
fn make_room() {
    fs::remove_file("/vz/ballast").unwrap();
}

/// A VE with a known file and some megabytes of its own.
fn furnished<'n>(node: &'n Node, number: u32, layout: &str) -> Ve<'n> {
    let ve = node.ve(number);
    let rest: &[&str] = if layout == "ploop" { &["--diskspace", "64M"] } else { &["--config", "free"] };
    ve.ok("create", &[&["--ostemplate", "tiny", "--layout", layout], rest].concat());
    ve.start();
    ve.sh("echo kept >/root/file; dd if=/dev/urandom of=/root/some bs=1M count=6 2>/dev/null; sync");
    ve
}

#[test]
fn an_image_on_a_full_disk_loses_nothing_that_was_synced() {
    on_node(|node| {
        let Some(disk) = SmallDisk::new(node, 96) else { return };
        let ve = furnished(node, 1, "ploop");
        disk.fill(300);
        // The image promises more than the disk has: it is an I/O error inside, of this VE alone.
        let more = ve.run("exec2", &["dd if=/dev/urandom of=/root/more bs=1M count=30 conv=fsync 2>&1"]);
        assert_ne!(more.code, 0, "{more}");
        ve.ok("stop", &["--fast"]);
        ve.is("exist unmounted down");
        make_room();
        ve.start();
        assert_eq!(ve.sh("cat /root/file; stat -c %s /root/some"), "kept\n6291456");
        ve.sh("rm -f /root/more; dd if=/dev/urandom of=/root/more bs=1M count=10 conv=fsync 2>/dev/null");
        ve.destroy();
        drop_when_swept(disk);
    });
}

/// What is deleted in the background keeps the disk busy.
fn drop_when_swept(disk: SmallDisk) {
    until("the trash is gone", Duration::from_secs(20), || {
        !tree().iter().any(|path| path.contains("vztmp/"))
    });
    drop(disk);
}

#[test]
fn snapshots_and_clones_without_room_leave_nothing_and_say_what_helps() {
    on_node(|node| {
        for (layout, running) in
            [("overlay", true), ("simfs", false), ("simfs", true), ("ploop", false), ("ploop", true)]
        {
            let Some(disk) = SmallDisk::new(node, 96) else { return };
            let (ve, clone) = (furnished(node, 1, layout), node.ve(2));
            if !running {
                ve.ok("stop", &["--fast"]);
            }
            ve.ok("snapshot", &["--name", "before"]);
            let ids = ve.ok("snapshot-list", &["-H", "-o", "uuid"]).out();
            disk.fill(1500);
            let snapshot = ve.run("snapshot", &["--name", "none"]).exits(156);
            snapshot.says("Make room on that disk");
            clone.run("create", &["--from", &ve.id]).exits(46).says("Make room on that disk");
            clone.is("deleted unmounted down");
            assert_eq!(ve.ok("snapshot-list", &["-H", "-o", "uuid"]).out(), ids, "{layout}");
            if running {
                assert_eq!(ve.sh("cat /root/file"), "kept", "{layout}");
            }
            make_room();
            ve.ok("snapshot", &["--name", "after"]);
            ve.ok("snapshot-switch", &["--id", ids.trim()]);
            ve.start();
            assert_eq!(ve.sh("cat /root/file; stat -c %s /root/some"), "kept\n6291456", "{layout}");
            ve.destroy();
            drop_when_swept(disk);
        }
    });
}

#[test]
fn a_convert_without_room_leaves_the_container_as_it_was() {
    on_node(|node| {
        // The last one is an overlay in an image: what lies above the template has no room.
        let ways = [
            ("simfs", "ploop", "no"),
            ("ploop", "simfs", "no"),
            ("overlay", "simfs", "no"),
            ("simfs", "overlay", "yes"),
        ];
        for (from, to, quota) in ways {
            let Some(disk) = SmallDisk::new(node, 96) else { return };
            let ve = furnished(node, 1, from);
            ve.ok("stop", &["--fast"]);
            ve.ok("set", &["--diskspace", "64M", "--diskquota", quota, "--save"]);
            disk.fill(2000);
            ve.run("convert", &["--layout", to]).exits(46);
            assert_eq!(ve.conf_value("VE_LAYOUT").as_deref(), Some(from));
            until("what was begun is gone", Duration::from_secs(20), || {
                !tree().iter().any(|path| path.contains(".convert") || path.contains("vztmp/"))
            });
            make_room();
            ve.ok("set", &["--diskquota", "no", "--save"]);
            ve.start();
            assert_eq!(ve.sh("cat /root/file"), "kept", "{from}");
            ve.ok("stop", &["--fast"]);
            ve.ok("set", &["--diskquota", quota, "--save"]);
            ve.ok("convert", &["--layout", to]);
            ve.start();
            assert_eq!(ve.sh("cat /root/file; stat -c %s /root/some"), "kept\n6291456", "{from}");
            ve.destroy();
            drop_when_swept(disk);
        }
    });
}

/// `/etc/vz` is read-only for the time of a value.
struct ReadOnly;

impl ReadOnly {
    fn new() -> Self {
        run("mount", &["--bind", "/etc/vz", "/etc/vz"]).ok();
        run("mount", &["-o", "remount,bind,ro", "/etc/vz"]).ok();
        Self
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        run("umount", &["/etc/vz"]);
    }
}

#[test]
fn a_read_only_configuration_is_said_to_be_one_and_ves_run_on() {
    on_node(|node| {
        let ve = node.tiny(1);
        let other = node.ve(2);
        let conf = ve.conf();
        {
            let _read_only = ReadOnly::new();
            let create = other.run("create", &["--ostemplate", "tiny"]);
            assert_ne!(create.code, 0);
            create.says("Read-only file system");
            assert!(!other.private().exists());
            let set = ve.run("set", &["--onboot", "yes", "--save"]);
            assert_ne!(set.code, 0);
            set.says("Read-only file system");
            assert_eq!(ve.conf(), conf);
            ve.start();
            ve.ok("stop", &[]);
            let destroy = ve.run("destroy", &[]);
            assert_ne!(destroy.code, 0);
            destroy.says("Read-only file system");
        }
        ve.ok("destroy", &[]);
    });
}

#[test]
fn vz_may_be_a_symbolic_link() {
    on_node(|node| {
        node.need_tiny();
        fs::create_dir("/bigdisk").unwrap();
        // What is shared cannot be moved.
        run("mount", &["--make-private", "/"]).ok();
        run("mount", &["--move", "/vz", "/bigdisk"]).ok();
        fs::remove_dir("/vz").unwrap();
        symlink("/bigdisk", "/vz").unwrap();
        let (one, two) = (node.ve(1), node.ve(2));
        one.ok("create", &["--ostemplate", "tiny", "--layout", "overlay"]);
        two.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        for ve in [&one, &two] {
            ve.start();
            ve.is("exist mounted running");
            ve.sh("echo x > /root/file");
            ve.ok("stop", &[]);
            ve.is("exist unmounted down");
            ve.ok("mount", &[]);
            assert!(Path::new("/bigdisk/root").join(&ve.id).join("root/file").exists());
            ve.ok("umount", &[]);
            ve.ok("destroy", &[]);
        }
        // Deleted in the background, through the link.
        until("nothing is left to delete", Duration::from_secs(60), || {
            fs::read_dir("/vz/vztmp").unwrap().next().is_none()
        });
        fs::remove_file("/vz").unwrap();
        fs::create_dir("/vz").unwrap();
        run("mount", &["--move", "/bigdisk", "/vz"]).ok();
        fs::remove_dir("/bigdisk").unwrap();
    });
}

#[test]
fn private_areas_elsewhere_work() {
    on_node(|node| {
        node.need_tiny();
        fs::create_dir_all("/vz/elsewhere").unwrap();
        let ve = node.ve(1);
        let private = format!("/vz/elsewhere/{}-private", ve.id);
        let root = format!("/vz/elsewhere/{}-root", ve.id);
        ve.ok(
            "create",
            &[
                "--ostemplate",
                "tiny",
                "--private",
                "/vz/elsewhere/$VEID-private",
                "--root",
                "/vz/elsewhere/$VEID-root",
            ],
        );
        assert!(Path::new(&private).is_dir());
        ve.start();
        assert!(Path::new(&root).join("sbin/init").exists());
        ve.destroy();
        assert!(!Path::new(&private).exists() && !Path::new(&root).exists());
        fs::remove_dir("/vz/elsewhere").unwrap();
    });
}
