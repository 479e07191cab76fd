//! VEs whose files lie in an image: limits that are kept where the file system keeps none.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vztests::{Need, Node, Ve, World, fault_points, lacks, on_node, run, until};

const SOON: Duration = Duration::from_secs(20);
const LAYOUTS: [&str; 2] = ["overlay", "ploop"];

/// Whether this layout has an image here: where the file system keeps limits, only one that is nothing else.
fn by_image(layout: &str) -> bool {
    layout == "ploop" || !Need::ProjectQuota.is_met()
}

fn image(ve: &Ve<'_>) -> PathBuf {
    let places = ["upper.img", "root.hdd/root.hds"].map(|name| ve.private().join(name));
    places.into_iter().find(|path| path.exists()).unwrap()
}

/// How many loop devices there are of the file with this inode number.
fn devices(inode: u64) -> usize {
    let text = run("losetup", &["-n", "-O", "BACK-INO"]).out();
    text.lines().filter(|line| line.trim() == inode.to_string()).count()
}

fn inode(ve: &Ve<'_>) -> u64 {
    fs::metadata(image(ve)).unwrap().ino()
}

#[track_caller]
fn becomes_free(inode: u64) {
    until("its device is gone", SOON, || devices(inode) == 0);
}

fn create<'n>(node: &'n Node, number: u32, layout: &str, rest: &[&str]) -> Ve<'n> {
    node.need_tiny();
    let ve = node.ve(number);
    ve.ok("create", &[&["--ostemplate", "tiny", "--layout", layout], rest].concat());
    ve
}

#[test]
fn a_limit_is_seen_by_df_and_never_exceeded() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in [(1, "overlay"), (2, "ploop"), (3, "auto")] {
            if !by_image(layout) {
                continue;
            }
            let limits = ["--diskspace", "64M:70M", "--diskinodes", "4000:5000"];
            let ve = create(node, number, layout, &limits);
            assert_eq!(
                ve.conf_value("VE_LAYOUT").unwrap(),
                if layout == "ploop" { "ploop" } else { "overlay" }
            );
            ve.start();
            let [size, ..] = ve.df("-k");
            assert!((70 << 10..72 << 10).contains(&size), "{layout}: {size} KiB");
            let full = ve.run("exec2", &["dd if=/dev/zero of=/big bs=1M count=200"]);
            assert_ne!(full.code, 0, "{layout}: {full}");
            let [size, used, _] = ve.df("-k");
            assert!(used <= size && used > size * 8 / 10, "{layout}: {used} of {size} KiB");
            // Its neighbours, the host among them, go on.
            fs::write(node.scratch().join("file"), vec![0; 1 << 20]).unwrap();
            ve.sh("rm /big; echo kept > /root/file; ln /root/file /root/link");
            let files =
                ve.run("exec2", &["mkdir /many; cd /many; for i in $(seq 7000); do : > $i || exit 1; done"]);
            assert_ne!(files.code, 0, "{layout}: more than 5000 inodes");
            ve.sh("rm -rf /many; sync");
            ve.ok("stop", &["--fast"]);
            ve.start();
            assert_eq!(ve.sh("cat /root/link; [ -e /many ] || echo none"), "kept\nnone", "{layout}");
            let inode = inode(&ve);
            ve.destroy();
            becomes_free(inode);
        }
    });
}

#[test]
fn every_way_into_the_files_of_a_ve_goes_through_the_same_image() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in LAYOUTS.into_iter().filter(|layout| by_image(layout)).enumerate() {
            let ve = create(node, u32::try_from(number).unwrap() + 1, layout, &["--diskspace", "64M"]);
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
            ve.ok("mount", &[]);
            assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), mounts + 1);
            assert_eq!(devices(inode(&ve)), 1, "{layout}");
            fs::write(ve.root().join("root/by-host"), "1\n").unwrap();
            ve.ok("umount", &[]);
            let script = node.scratch().join("script");
            fs::write(&script, "cat /root/by-host; echo 2 > /root/by-script\n").unwrap();
            assert_eq!(ve.ok("runscript", &[script.to_str().unwrap()]).out().trim(), "1");
            ve.ok("set", &["--userpasswd", "root:secret", "--save"]);
            ve.start();
            assert_eq!(
                ve.sh("cat /root/by-host /root/by-script; grep -c '^root:[$]' /etc/shadow"),
                "1\n2\n1"
            );
            assert_eq!(devices(inode(&ve)), 1, "{layout}");
            // A root that somebody on the host sits in ends later, and the next start sees the same files.
            let shell = fs::File::open(ve.root().join("root")).unwrap();
            ve.sh("echo 3 > /root/last; sync");
            ve.ok("restart", &[]);
            ve.wait_up();
            assert_eq!(ve.sh("cat /root/last"), "3", "{layout}");
            drop(shell);
            let inode = inode(&ve);
            ve.destroy();
            becomes_free(inode);
        }
    });
}

/// What `vzlist` and `vzquota` say of space and inodes: used and limit of each.
fn told(node: &Node, ve: &Ve<'_>) -> [u64; 4] {
    let fields = "diskspace,diskspace.h,diskinodes,diskinodes.h";
    let list = node.vzlist(&["-a", "-H", "-o", fields, &ve.id]).ok().out();
    let listed: Vec<u64> = list.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let stat = run(node.program("vzquota"), &["stat", "-b", &ve.id]).ok().out();
    let stat: Vec<u64> = stat.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!((stat[0], stat[5]), (listed[0], listed[2]), "vzlist and vzquota: {list}, {stat:?}");
    assert_eq!((stat[1], stat[2], stat[3]), (stat[2], stat[2], 0), "{stat:?}");
    [listed[0], stat[2], listed[2], stat[7]]
}

#[test]
fn what_an_image_holds_is_told_of_running_and_stopped_containers() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in (1..).zip(LAYOUTS).filter(|(_, layout)| by_image(layout)) {
            let ve = create(node, number, layout, &["--diskspace", "64M", "--diskinodes", "4000"]);
            let [before, limit, files, _] = told(node, &ve);
            assert!((64 << 10..66 << 10).contains(&limit), "{layout}: {limit} KiB");
            ve.start();
            ve.sh("dd if=/dev/zero of=/root/big bs=1M count=20 2>/dev/null; touch /root/a /root/b /root/c; sync");
            let [size, used, _] = ve.df("-k");
            let [now, limit, more, inodes] = told(node, &ve);
            assert_eq!(
                (limit, now.abs_diff(used) < 256),
                (size, true),
                "{layout}: {now} KiB, df says {used}"
            );
            assert!(
                now >= before + (20 << 10) && more >= files + 4 && inodes >= 4000,
                "{layout}: {more} files"
            );
            ve.ok("stop", &["--fast"]);
            becomes_free(inode(&ve));
            let [rest, _, left, _] = told(node, &ve);
            assert!(rest.abs_diff(now) < 512 && left.abs_diff(more) < 64, "{layout}: {rest} KiB after {now}");
        }
    });
}

/// Sectors that `DiskDescriptor.xml` tells.
fn sectors(ve: &Ve<'_>) -> u64 {
    let text = fs::read_to_string(ve.private().join("root.hdd/DiskDescriptor.xml")).unwrap();
    let (_, rest) = text.split_once("<Disk_size>").unwrap();
    rest.split_once('<').unwrap().0.parse().unwrap()
}

#[test]
fn the_descriptor_tells_the_length_of_the_image() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let is_right = |ve: &Ve<'_>| {
            let length = fs::metadata(ve.private().join("root.hdd/root.hds")).unwrap().len();
            assert_eq!(sectors(ve) * 512, length);
            length
        };
        let (ve, clone, live) = (create(node, 1, "ploop", &["--diskspace", "64M"]), node.ve(2), node.ve(3));
        let first = is_right(&ve);
        assert!(first > 64 << 20, "more than df shows: {first}");
        ve.ok("snapshot", &["--name", "small", "--id", "{0f0e0d0c-0b0a-4908-8706-050403020100}"]);
        ve.ok("set", &["--diskspace", "128M", "--save"]);
        assert!(is_right(&ve) > first);
        clone.ok("create", &["--from", &ve.id]);
        is_right(&clone);
        ve.start();
        live.ok("create", &["--from", &ve.id]);
        is_right(&live);
        ve.ok("snapshot-switch", &["--id", "{0f0e0d0c-0b0a-4908-8706-050403020100}"]);
        assert_eq!(is_right(&ve), first);
        live.ok("set", &["--diskspace", "80M", "--save"]);
        is_right(&live);
        // One that an earlier version wrote is put right by the next verb that looks after snapshots.
        let path = ve.private().join("root.hdd/DiskDescriptor.xml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&format!(">{}<", first / 512), ">131072<")).unwrap();
        ve.ok("snapshot", &["--name", "another"]);
        is_right(&ve);
    });
}

#[test]
fn mount_options_reach_the_image_and_harmful_ones_do_not() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in (1..).zip(LAYOUTS).filter(|(_, layout)| by_image(layout)) {
            let ve = create(node, number, layout, &["--diskspace", "64M"]);
            ve.ok("set", &["--mount_opts", "noatime,nodelalloc", "--save"]);
            ve.start();
            let root = ve.sh("grep ' / ' /proc/mounts | tail -n 1");
            assert!(root.contains("noatime"), "{root}");
            assert!(layout != "ploop" || root.contains("nodelalloc"), "{root}");
            ve.ok("stop", &["--fast"]);
            becomes_free(inode(&ve));
            for (bad, why) in [("errors=panic", "must not stop the host"), ("frobnicate", "frobnicate")] {
                ve.ok("set", &["--mount_opts", bad, "--save"]);
                let refused = ve.run("start", &[]);
                assert_ne!(refused.code, 0);
                refused.says(why);
                ve.is("exist unmounted down");
            }
            ve.ok("set", &["--mount_opts", "", "--save"]);
            ve.start();
            ve.ok("stop", &["--fast"]);
            // Not unmounted cleanly: checked, or not.
            for (rest, is_checked) in [(&["--skip-fsck"][..], false), (&[][..], true)] {
                becomes_free(inode(&ve));
                run("debugfs", &["-w", "-R", "ssv state 2", image(&ve).to_str().unwrap()]).ok();
                ve.ok("start", rest);
                ve.ok("stop", &["--fast"]);
                becomes_free(inode(&ve));
                let header = run("dumpe2fs", &["-h", image(&ve).to_str().unwrap()]).ok().out();
                let checked = header.lines().find(|line| line.starts_with("Filesystem state:")).unwrap();
                assert_eq!(
                    checked.contains("clean") && !checked.contains("error"),
                    is_checked,
                    "{layout}: {checked}"
                );
            }
        }
    });
}

#[test]
fn users_inside_an_image_have_limits_where_the_kernel_keeps_them() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let vzquota = |words: &[&str]| run(node.program("vzquota"), words);
        for (number, layout) in (1..).zip(LAYOUTS).filter(|(_, layout)| by_image(layout)) {
            let ve = create(node, number, layout, &["--diskspace", "128M"]);
            let id = ve.id.as_str();
            vzquota(&["setlimit2", id, "-u", "1000", "0", "4096", "0", "20"])
                .exits(9)
                .says("--quotaugidlimit");
            vzquota(&["stat", id, "-t"]).exits(9).says("User/group quota: off,inactive");
            ve.ok("set", &["--quotaugidlimit", "100", "--save"]);
            let start = ve.ok("start", &[]);
            ve.wait_up();
            if start.text().contains("CONFIG_QFMT_V2") {
                // Told, and the image is as it was.
                vzquota(&["setlimit2", id, "-u", "1000", "0", "4096", "0", "20"]).exits(9);
                ve.ok("restart", &[]);
                continue;
            }
            vzquota(&["setlimit2", id, "-u", "1000", "0", "4096", "0", "20"]).ok();
            vzquota(&["settime2", id, "-u", "3600", "3600"]).ok();
            ve.sh("mkdir /home/u && chown 1000:1000 /home/u");
            let as_user = |line: &str| {
                let user =
                    "echo 'u:x:1000:1000::/home/u:/bin/sh' >>/etc/passwd; echo 'u:x:1000:' >>/etc/group";
                ve.sh(&format!("grep -q ^u: /etc/passwd || {{ {user}; }}"));
                ve.run("exec2", &[&format!("busybox su u -c '{line}' 2>&1")])
            };
            assert_ne!(as_user("dd if=/dev/zero of=/home/u/big bs=1M count=8").code, 0, "{layout}");
            as_user("rm /home/u/big && dd if=/dev/zero of=/home/u/small bs=1M count=2").ok();
            let many = "for i in $(seq 30); do : >/home/u/$i || exit 1; done";
            assert_ne!(as_user(many).code, 0, "{layout}: more than 20 files");
            // Nobody else is held up.
            ve.sh("dd if=/dev/zero of=/root/big bs=1M count=8 2>/dev/null; sync");
            let shown = vzquota(&["stat", id, "-t", "-b"]).ok().out();
            let line = shown.lines().find(|line| line.starts_with("1000 user 1k-blocks ")).unwrap();
            let used: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
            assert!((2048..=4096).contains(&used) && line.ends_with(" 0 4096 0"), "{layout}: {line}");
            assert!(shown.contains("user 3600 3600 0\n"), "{shown}");
            // Over a restart, of a stopped one, in a smaller image; and off.
            ve.ok("stop", &["--fast"]);
            becomes_free(inode(&ve));
            vzquota(&["setlimit2", id, "-u", "1000", "0", "3072", "0", "0"]).ok();
            ve.start();
            assert_ne!(as_user("dd if=/dev/zero of=/home/u/more bs=1M count=3").code, 0, "{layout}");
            ve.ok("stop", &["--fast"]);
            ve.ok("set", &["--quotaugidlimit", "0", "--save"]);
            ve.start();
            as_user("dd if=/dev/zero of=/home/u/more bs=1M count=8").ok();
        }
    });
}

#[test]
fn a_limit_that_nothing_would_keep_is_refused() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        let tiny = |rest: &[&str]| ve.run("create", &[&["--ostemplate", "tiny"], rest].concat());
        if !Need::ProjectQuota.is_met() {
            tiny(&["--layout", "simfs", "--diskspace", "1G"]).exits(60).says("DISK_QUOTA=no");
        }
        node.set_conf("CONFIGFILE", "");
        tiny(&["--layout", "ploop"]).exits(63).says("diskspace not set (required for ploop)");
        tiny(&["--layout", "ploop:strange", "--diskspace", "1G"]).exits(21);
        tiny(&["--layout", "ploop", "--diskspace", "100K"]).exits(154).says("KiB at least");
        ve.is("deleted unmounted down");
        // The admin may give the limit up.
        node.set_conf("DISK_QUOTA", "no");
        tiny(&["--layout", "simfs", "--diskspace", "1G"]).exits(0);
        ve.destroy();
        tiny(&["--diskspace", "1G"]).exits(0);
        assert!(ve.private().join("upper").is_dir());
        ve.destroy();
    });
}

#[test]
fn create_with_images_killed_anywhere_leaves_nothing() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let layout = if by_image("overlay") { "overlay" } else { "ploop" };
        let ve = create(node, 1, layout, &["--diskspace", "64M"]);
        ve.ok("destroy", &[]);
        let before = World::take(node);
        for layout in LAYOUTS.into_iter().filter(|layout| by_image(layout)) {
            let options = ["--ostemplate", "tiny", "--layout", layout, "--diskspace", "64M"];
            let mut points = fault_points("create");
            points.extend(["image.attached".to_owned(), format!("{layout}.made")]);
            for point in points {
                println!("{layout}: killed at {point}");
                ve.fault(&point, "create", &options).exits(-9);
                let destroyed = ve.run("destroy", &[]);
                assert!([0, 14].contains(&destroyed.code), "{destroyed}");
                before.must_return(node);
            }
            ve.ok("create", &options);
            for verb in ["mount", "start"] {
                ve.fault("image.attached", verb, &[]).exits(-9);
                ve.start();
                ve.ok("stop", &["--fast"]);
            }
            let inode = inode(&ve);
            ve.ok("destroy", &[]);
            before.must_return(node);
            becomes_free(inode);
        }
    });
}

#[test]
fn a_dirty_image_is_mended_at_the_next_start_and_a_corrupt_one_is_told_of() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in LAYOUTS.into_iter().filter(|layout| by_image(layout)).enumerate() {
            let ve = create(node, u32::try_from(number).unwrap() + 1, layout, &["--diskspace", "64M"]);
            ve.start();
            ve.sh("echo kept > /root/file; sync; echo lost > /root/other");
            let copy = node.scratch().join("copy");
            // What a power cut would leave.
            run("cp", &["--sparse=always", image(&ve).to_str().unwrap(), copy.to_str().unwrap()]).ok();
            ve.ok("stop", &["--fast"]);
            becomes_free(inode(&ve));
            run("cp", &["--sparse=always", copy.to_str().unwrap(), image(&ve).to_str().unwrap()]).ok();
            ve.start();
            assert_eq!(ve.sh("cat /root/file"), "kept", "{layout}");
            ve.ok("stop", &["--fast"]);
            becomes_free(inode(&ve));
            spoil(&image(&ve));
            ve.run("start", &[]).exits(152).says("e2fsck");
            ve.is("exist unmounted down");
            ve.ok("destroy", &[]);
        }
    });
}

/// Overwrites the tables of a file system, and marks it as one with errors.
fn spoil(image: &Path) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&[0xFF; 8192], 4096).unwrap();
    file.write_all_at(&[2, 0], 1024 + 0x3A).unwrap();
}
