//! Disk limits that a file system keeps: what a VE may use, what it sees, and that it cannot get around them. On ext4
//! and xfs with project quota; elsewhere these are skipped.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use vztests::{Need, Node, Ve, compile, lacks, on_node, run, skip, until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A VE with limits.
fn limited<'n>(node: &'n Node, number: u32, more: &[&str]) -> Ve<'n> {
    node.need_tiny();
    let ve = node.ve(number);
    ve.ok("create", &[&["--ostemplate", "tiny"], more].concat());
    ve
}

fn list(node: &Node, ve: &Ve<'_>, fields: &str) -> Vec<String> {
    let text = node.vzlist(&["-a", "-H", "-o", fields, &ve.id]).ok().out();
    text.split_whitespace().map(str::to_owned).collect()
}

/// What `vzquota` of the host's tables says of a VE: rows of usage, soft, hard, time, expire.
fn table(ve: &Ve<'_>) -> Option<[Vec<u64>; 2]> {
    let text = fs::read_to_string("/run/vz/proc/vz/vzquota").ok()?;
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{}: ", ve.id))).skip(1);
    let mut row = |name: &str| {
        let words = lines.next()?.trim_start().strip_prefix(name)?.split_whitespace();
        Some(words.map(|word| word.parse().unwrap()).collect())
    };
    Some([row("1k-blocks")?, row("inodes")?])
}

#[test]
fn a_ve_sees_its_limits_as_the_size_of_its_disk_and_they_change_at_once() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        for (number, layout) in [(1, "overlay"), (2, "simfs")] {
            let ve = limited(
                node,
                number,
                &["--layout", layout, "--diskspace", "64M:80M", "--diskinodes", "2000:2200"],
            );
            assert_eq!(list(node, &ve, "diskspace.s,diskspace.h"), ["65536", "81920"], "{layout}");
            ve.start();
            // The sample's QUOTATIME is 0: the barrier holds at once.
            assert_eq!(ve.df("-k")[0], 65536, "{layout}");
            assert_eq!(ve.df("-i")[0], 2000, "{layout}");
            ve.sh("dd if=/dev/zero of=/root/ten bs=1M count=10 2>/dev/null; sync");
            let [_, used, free] = ve.df("-k");
            assert!((10240..30000).contains(&used) && free <= 65536 - used, "{layout}: {used} {free}");
            let listed = list(node, &ve, "diskspace,diskspace.s,diskspace.h,diskinodes,diskinodes.h");
            assert!((10240..30000).contains(&listed[0].parse::<u64>().unwrap()), "{layout}: {listed:?}");
            assert_eq!([&listed[1], &listed[2], &listed[4]], ["65536", "81920", "2200"], "{layout}");
            until("the host's table is served", PATIENCE, || table(&ve).is_some());
            let [space, inodes] = table(&ve).unwrap();
            assert!(space[0] >= 10240 && space[1..] == [65536, 81920, 0, 0], "{layout}: {space:?}");
            assert!(inodes[0] > 0 && inodes[1..] == [2000, 2200, 0, 0], "{layout}: {inodes:?}");
            let stat = run(node.program("vzquota"), &["-b", "stat", &ve.id]).ok().out();
            let numbers: Vec<Vec<u64>> = stat
                .lines()
                .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
                .collect();
            assert!(numbers[0][0] >= 10240 && numbers[0][1..] == [65536, 81920, 0, 0], "{layout}: {stat}");
            ve.ok("set", &["--diskspace", "128M", "--diskinodes", "3000"]);
            assert_eq!([ve.df("-k")[0], ve.df("-i")[0]], [131_072, 3000], "{layout}");
            assert_eq!(list(node, &ve, "diskspace.h,diskinodes.s"), ["131072", "3000"], "{layout}");
            assert_eq!(ve.conf_value("DISKSPACE").as_deref(), Some("65536:81920"), "{layout}");
            // Below what is in use: nothing more, and nothing is lost.
            ve.ok("set", &["--diskspace", "5M", "--save"]);
            ve.run("exec2", &["dd if=/dev/zero of=/root/more bs=64k count=4 2>/dev/null; sync"]);
            assert!(ve.df("-k")[2] == 0 && ve.sh("stat -c %s /root/ten") == "10485760", "{layout}");
            assert_ne!(ve.run("exec2", &["dd if=/dev/zero of=/root/x bs=1M count=1 2>&1"]).code, 0);
            // A VE without room for anything starts all the same.
            ve.ok("stop", &["--fast"]);
            ve.start();
            assert_eq!(ve.df("-k")[2], 0, "{layout}");
            ve.ok("set", &["--diskspace", "64M", "--save"]);
            ve.sh("dd if=/dev/zero of=/root/x bs=1M count=1 2>/dev/null");
            ve.ok("stop", &["--fast"]);
            let listed = list(node, &ve, "diskspace,diskspace.s");
            assert!(
                listed[0].parse::<u64>().unwrap() >= 11264 && listed[1] == "65536",
                "{layout}: {listed:?}"
            );
            ve.destroy();
        }
    });
}

#[test]
fn a_ve_that_fills_its_disk_and_inodes_harms_nobody_else() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        for layout in ["overlay", "simfs"] {
            let hog = limited(node, 1, &["--layout", layout, "--diskspace", "48M", "--diskinodes", "1500"]);
            let other = limited(node, 2, &["--layout", layout, "--diskspace", "48M", "--diskinodes", "1500"]);
            hog.start();
            other.start();
            // Written, mapped, allocated ahead, and by a process of its own without root's rights.
            hog.run("exec2", &["dd if=/dev/zero of=/root/a bs=1M 2>/dev/null"]);
            hog.run("exec2", &["fallocate -l 200M /root/b 2>/dev/null; truncate -s 1G /root/c; dd if=/dev/zero of=/root/c bs=1M conv=notrunc 2>/dev/null"]);
            hog.run("exec2", &["mkdir -m 777 /root/d; sync"]);
            let used = list(node, &hog, "diskspace")[0].parse::<u64>().unwrap();
            assert!((40_000..=49_152).contains(&used), "{layout}: {used}");
            hog.run("exec2", &["rm -f /root/a /root/b /root/c; mkdir /root/many; i=0; while : >/root/many/$i; do i=$((i+1)); done 2>/dev/null"]);
            let made: u64 = hog.sh("ls /root/many | wc -l").parse().unwrap();
            assert!((100..=1500).contains(&made), "{layout}: {made}");
            assert_eq!(hog.df("-i")[2], 0, "{layout}");
            // The other one has all of its own.
            other.sh("dd if=/dev/zero of=/root/a bs=1M count=20 2>/dev/null && mkdir /root/m");
            other.sh("i=0; while [ $i -lt 500 ]; do : >/root/m/$i || exit 1; i=$((i+1)); done");
            // And the one that is full can make room, stop and start.
            hog.sh("rm -rf /root/many && echo room >/root/room && cat /root/room");
            hog.destroy();
            other.destroy();
        }
    });
}

/// Tries what would give files of a VE to another project, or its project more room. Prints what worked.
const ATTACK: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
struct fsx { unsigned xflags, extsize, nextents, projid, cow; char pad[8]; };
#define GETX _IOR('X', 31, struct fsx)
#define SETX _IOW('X', 32, struct fsx)
#define GETF _IOR('f', 1, long)
#define SETF _IOW('f', 2, long)
static void try(const char *what, int r) { if (r >= 0) printf("%s WORKED\n", what); else printf("%s refused %d\n", what, errno); }
static void attack(const char *path) {
    struct fsx x; long flags = 0; int fd = open(path, O_RDONLY);
    if (fd < 0) { printf("cannot open %s\n", path); return; }
    if (ioctl(fd, GETX, &x) < 0) { printf("no project of %s: %d\n", path, errno); return; }
    printf("project %u inherit %d\n", x.projid, !!(x.xflags & 0x200));
    struct fsx y = x;
    y.projid = 0; try("project 0", ioctl(fd, SETX, &y));
    y = x; y.projid = x.projid + 1; try("another project", ioctl(fd, SETX, &y));
    y = x; y.xflags ^= 0x200; try("inheritance", ioctl(fd, SETX, &y));
    if (ioctl(fd, GETF, &flags) == 0) { flags ^= 0x20000000; try("inheritance by flags", ioctl(fd, SETF, &flags)); }
    struct { unsigned long long v[8]; unsigned valid, id; } q;
    memset(&q, 0, sizeof q); q.valid = 5;
    try("quotactl_fd", syscall(443, fd, 0x80000802u, x.projid, &q));
    ioctl(fd, GETX, &y);
    printf("after %u inherit %d\n", y.projid, !!(y.xflags & 0x200));
    close(fd);
}
int main(int argc, char **argv) {
    attack(argv[1]);
    return 0;
}
"#;

/// Puts a program into a VE.
fn put(ve: &Ve<'_>, program: &Path, at: &str) {
    let bytes = fs::read(program).unwrap();
    ve.begin("exec2", &[&format!("cat >{at} && chmod 755 {at}")], &bytes).finish().ok();
}

#[test]
fn root_of_a_ve_cannot_leave_its_project() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        let Some(program) = compile(&node.scratch(), "attack", ATTACK) else { return skip("a C compiler") };
        for layout in ["overlay", "simfs"] {
            let ve = limited(node, 1, &["--layout", layout, "--diskspace", "64M", "--diskinodes", "2000"]);
            ve.start();
            put(&ve, &program, "/root/attack");
            ve.sh("mkdir -p /root/dir/sub && echo x >/root/dir/file && mkfifo /root/dir/fifo && ln -s x /root/dir/link");
            for path in ["/root/dir", "/root/dir/file", "/"] {
                let said = ve.sh(&format!("/root/attack {path}"));
                assert!(!said.contains("WORKED"), "{layout} {path}:\n{said}");
                // A merged directory of an overlay is nobody's project until it is written.
                if said.contains("project ") && path != "/" {
                    let own = format!("project {} inherit {}", ve.id, u8::from(path == "/root/dir"));
                    assert!(said.contains(&own), "{layout} {path}: want {own}:\n{said}");
                }
            }
            let before = list(node, &ve, "diskspace,diskinodes");
            // Moved, linked, bound and unlinked: what is written is still the VE's.
            ve.sh("mkdir /mnt/b && mount --bind /root/dir /mnt/b && dd if=/dev/zero of=/mnt/b/big bs=1M count=8 2>/dev/null");
            ve.sh("mv /root/dir/sub /root/moved; mv /root/dir/link /root/l2; ln /root/dir/file /root/hard; mv /root/dir/fifo /root/f2; ln /root/f2 /root/f3");
            ve.sh("mkdir /tmp/t && cp /root/dir/big /tmp/t/copy && chown 1000:1000 /tmp/t/copy && sync");
            let after = list(node, &ve, "diskspace,diskinodes");
            let more = |at: usize| after[at].parse::<u64>().unwrap() - before[at].parse::<u64>().unwrap();
            assert!((16384..20000).contains(&more(0)), "{layout}: {before:?} {after:?}");
            // Held open by a process after its name is gone.
            ve.sh("exec 3>/root/held; rm /root/held; dd if=/dev/zero bs=1M count=100 >&3 2>/dev/null; true");
            let used = list(node, &ve, "diskspace")[0].parse::<u64>().unwrap();
            assert!(used <= 65536, "{layout}: {used}");
            ve.destroy();
        }
    });
}

#[test]
fn a_barrier_holds_when_its_time_is_up_and_gives_way_again() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        let ve = limited(node, 1, &["--diskspace", "16M:64M", "--diskinodes", "1000:2000"]);
        ve.ok("set", &["--quotatime", "4", "--save"]);
        ve.start();
        assert_eq!(ve.df("-k")[0], 65536);
        ve.sh("dd if=/dev/zero of=/root/a bs=1M count=30 2>/dev/null; sync");
        let until_held = || {
            until("the barrier holds", PATIENCE, || ve.df("-k")[0] == 16384);
            let [space, inodes] = table(&ve).unwrap();
            assert!(space[3] == 4 && space[4] > 0 && inodes[4] == 0, "{space:?} {inodes:?}");
        };
        until("the host's table is served", PATIENCE, || table(&ve).is_some());
        until_held();
        assert_ne!(ve.run("exec2", &["dd if=/dev/zero of=/root/b bs=1M count=1 2>&1"]).code, 0);
        // Over a restart, too; and with somebody having killed the monitor.
        ve.ok("stop", &["--fast"]);
        ve.start();
        until_held();
        ve.sh("rm -f /root/a /root/b; sync");
        until("the barrier gives way", PATIENCE, || ve.df("-k")[0] == 65536);
        assert_eq!(table(&ve).unwrap()[0][4], 0);
    });
}

/// All of a tree, with what a copy must keep: kind, mode, owner, device, target, number of names.
fn picture(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).unwrap().flatten() {
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let kind = meta.file_type();
            let target = fs::read_link(entry.path()).unwrap_or_default();
            found.push(format!(
                "{} {:o} {}:{} {:x} {} {} {}",
                entry.path().display(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                target.display(),
                // Overlayfs shares one whiteout among all, and in its own directory.
                if kind.is_char_device() { 0 } else { meta.nlink() },
                if meta.is_dir() { 0 } else { meta.mtime() }
            ));
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_tree_with_content_is_counted_once_and_stays_as_it_was() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        let ve = limited(node, 1, &["--layout", "overlay", "--diskspace", "64M", "--diskinodes", "2000"]);
        ve.ok("set", &["--diskquota", "no", "--save"]);
        // As one that came from elsewhere.
        let stray = ve.private().with_extension("stray");
        run("cp", &["-a", ve.private().to_str().unwrap(), stray.to_str().unwrap()]).ok();
        ve.ok("destroy", &[]);
        fs::rename(ve.conf_path().with_extension("conf.destroyed"), ve.conf_path()).unwrap();
        fs::rename(&stray, ve.private()).unwrap();
        ve.start();
        assert_ne!(ve.df("-k")[0], 65536, "nothing is limited yet");
        ve.sh(
            "mkdir -p /root/t/deep && cd /root/t && echo x >file && ln file hard && ln -s /nowhere link && \
               ln -s a deep/two && ln deep/two deep/three && mkfifo fifo && chown 5:6 fifo && \
               touch -h -d '2001-02-03 04:05:06' link && rm /bin/cp && rm /bin/mv",
        );
        let refused = ve.run("set", &["--diskquota", "yes", "--diskspace", "32M"]);
        refused.exits(62).says("not counted yet");
        ve.ok("stop", &["--fast"]);
        let upper = ve.private().join("upper");
        let before = picture(&upper);
        assert!(before.iter().any(|line| line.contains("/bin/cp 20")), "a whiteout: {before:?}");
        ve.ok("set", &["--diskquota", "yes", "--save"]);
        // Killed half-way, it is done again.
        ve.fault("quota.counting", "start", &[]).exits(-9);
        ve.start();
        ve.ok("stop", &["--fast"]);
        assert_eq!(picture(&upper), before);
        ve.start();
        assert_eq!(ve.df("-k")[0], 65536);
        // Without the project none of these could be renamed or linked within the tree.
        ve.sh("cd /root/t && busybox mv link l && busybox mv fifo f && ln f f2 && ln l l2 && busybox mv deep/three three && \
               busybox cp file /bin/cp && busybox mv l /bin/mv");
        ve.ok("stop", &["--fast"]);
        ve.ok("quotaoff", &[]);
        let vzquota = |words: &[&str]| run(node.program("vzquota"), words);
        vzquota(&["stat", &ve.id]).exits(6);
        vzquota(&["show", &ve.id]).ok().says("1k-blocks");
        vzquota(&["show", "99"]).exits(11);
        vzquota(&["setlimit", &ve.id]).exits(2).says("vzctl set");
        ve.ok("quotainit", &[]);
        vzquota(&["stat", &ve.id, "-t"]).exits(9).says("hardlimit");
        ve.ok("mount", &[]);
        ve.run("quotainit", &[]).exits(61);
        ve.run("quotaoff", &[]).exits(66);
        ve.ok("quotaon", &[]);
        ve.ok("umount", &[]);
        ve.ok("set", &["--diskquota", "no", "--save"]);
        for (verb, code) in [("quotaon", 60), ("quotainit", 61), ("quotaoff", 66)] {
            ve.run(verb, &[]).exits(code).says("Disk quota is not enabled, skipping operation");
        }
    });
}

#[test]
fn a_change_that_fails_leaves_the_limits_as_they_were() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        let ve = limited(node, 1, &["--diskspace", "32M", "--diskinodes", "2000", "--ipadd", "10.99.0.77"]);
        ve.start();
        // Addresses are deleted last, and this one has lost its device.
        run("ip", &["link", "del", &ve.venet()]).ok();
        let set = ve.run("set", &["--diskspace", "48M", "--diskinodes", "3000", "--ipdel", "all", "--save"]);
        assert_ne!(set.code, 0, "{set}");
        set.says("not saving configuration file");
        assert_eq!(ve.df("-k")[0], 32768);
        assert_eq!(list(node, &ve, "diskspace.h,diskinodes.h"), ["32768", "2000"]);
        assert_eq!(ve.conf_value("DISKSPACE").as_deref(), Some("32768:32768"));
    });
}

#[test]
fn a_template_larger_than_the_limit_makes_no_ve() {
    on_node(|node| {
        if lacks(&[Need::ProjectQuota]) {
            return;
        }
        node.need_tiny();
        let ve = node.ve(1);
        ve.run("create", &["--ostemplate", "tiny", "--layout", "simfs", "--diskspace", "100K"]).exits(46);
        ve.is("deleted unmounted down");
        // The number's old files, which are being deleted, are not the new one's.
        let ve = limited(node, 1, &["--layout", "simfs", "--diskspace", "64M"]);
        ve.start();
        ve.sh("dd if=/dev/zero of=/root/a bs=1M count=20 2>/dev/null; mkdir /root/m; i=0; while [ $i -lt 500 ]; do : >/root/m/$i; i=$((i+1)); done");
        ve.destroy();
        let ve = limited(node, 1, &["--layout", "simfs", "--diskspace", "64M"]);
        let used = list(node, &ve, "diskspace")[0].parse::<u64>().unwrap();
        assert!(used < 20_000, "{used}");
    });
}
