//! The layout of btrfs: subvolumes, snapshots of the template, and limits of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vztests::{Btrfs, Node, Ve, compile, on_btrfs, on_node, run, until};

fn root(ve: &Ve<'_>) -> PathBuf {
    ve.private().join("root")
}

fn used(node: &Node, ve: &Ve<'_>) -> u64 {
    run("sync", &["-f", "/vz"]).ok();
    node.vzlist(&["-a", "-H", "-o", "diskspace", &ve.id]).ok().out().trim().parse().unwrap_or(0)
}

const MAKE: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
struct v1 { long long fd; char name[4088]; };
struct v2 { long long fd; unsigned long long transid, flags, unused[4]; char name[4040]; };
int main(void) {
    int fd = open("/root", O_RDONLY), top = open("/", O_RDONLY), made = 0;
    struct v1 a; struct v2 b;
    memset(&a, 0, sizeof a); strcpy(a.name, "s1"); made += ioctl(fd, _IOW(0x94, 14, struct v1), &a) == 0;
    a.fd = top; strcpy(a.name, "s2"); made += ioctl(fd, _IOW(0x94, 1, struct v1), &a) == 0;
    memset(&b, 0, sizeof b); strcpy(b.name, "s3"); made += ioctl(fd, _IOW(0x94, 24, struct v2), &b) == 0;
    b.fd = top; strcpy(b.name, "s4"); made += ioctl(fd, _IOW(0x94, 23, struct v2), &b) == 0;
    printf("%d made, errno %d\n", made, errno == ENOTTY);
    return 0;
}
"#;

#[test]
fn a_ve_is_a_snapshot_of_its_template_and_its_limit_holds() {
    on_node(|node| {
        let Some(disk) = Btrfs::new(node) else { return };
        let ve = node.ve(1);
        let create = ve.ok("create", &["--ostemplate", "tiny", "--diskspace", "64M", "--diskinodes", "1000"]);
        create.says("btrfs limits no inodes");
        assert_eq!(ve.conf_value("VE_LAYOUT").as_deref(), Some("btrfs"));
        assert_eq!(fs::metadata(root(&ve)).unwrap().ino(), 256);
        ve.start();
        ve.sh("echo x >/root/mine && chown 5:6 /root/mine && stat -c %u:%g /root/mine");
        let meta = fs::metadata(root(&ve).join("root/mine")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (5, 6));
        ve.sh("dd if=/dev/zero of=/root/a bs=1M count=20 2>/dev/null; sync");
        let now = used(node, &ve);
        assert!((20_480..30_000).contains(&now), "{now}");
        assert_ne!(ve.run("exec2", &["dd if=/dev/zero of=/root/b bs=1M count=60 2>&1"]).code, 0);
        assert!(used(node, &ve) <= 65_536);
        // Another one of the same template has its own.
        let other = node.ve(2);
        other.ok("create", &["--ostemplate", "tiny", "--layout", "btrfs", "--diskspace", "64M"]);
        other.start();
        other.sh("test ! -e /root/mine && dd if=/dev/zero of=/root/a bs=1M count=30 2>/dev/null");
        ve.ok("set", &["--diskspace", "200M", "--save"]);
        ve.sh("dd if=/dev/zero of=/root/b bs=1M count=60 2>/dev/null");
        // Full, it stops, starts and can make room.
        ve.ok("set", &["--diskspace", "30M", "--save"]);
        ve.ok("restart", &[]);
        ve.wait_up();
        ve.sh("rm -f /root/a /root/b; cat /root/mine");
        if let Some(program) = compile(&node.scratch(), "make", MAKE) {
            let bytes = fs::read(program).unwrap();
            ve.begin("exec2", &["cat >/root/make && chmod 755 /root/make"], &bytes).finish().ok();
            assert_eq!(ve.sh("/root/make"), "0 made, errno 1");
        }
        ve.destroy();
        other.destroy();
        until("the trash is gone", Duration::from_secs(20), || {
            fs::read_dir("/vz/vztmp").is_ok_and(|mut dir| dir.next().is_none())
        });
        let left = run("btrfs", &["subvolume", "list", "/vz"]).out();
        assert_eq!(left.lines().count(), 1, "the template alone: {left}");
        drop(disk);
    });
}

/// A plain directory shares the blocks of its template where the file system can, and is the same as one that was unpacked.
#[test]
fn a_plain_directory_shares_its_templates_blocks() {
    on_btrfs(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        node.set_conf("DISK_QUOTA", "no");
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs"]);
        run("sync", &["-f", "/vz"]).ok();
        let shared =
            |path: &Path| run("filefrag", &["-v", path.to_str().unwrap()]).ok().out().contains("shared");
        let busybox = fs::read_dir("/vz/template/base").unwrap().flatten().map(|entry| entry.path());
        let base =
            busybox.into_iter().find(|path| path.is_dir() && path.join("bin/busybox").is_file()).unwrap();
        assert!(shared(&ve.private().join("bin/busybox")));
        // (Names, modes, owners, targets and sizes; what create has set up is the same there.)
        let list = |top: &Path| {
            let format = "%P %y %m %U %G %l %n\n";
            run("find", &[top.to_str().unwrap(), "-path", "*/etc", "-prune", "-o", "-printf", format])
                .ok()
                .out()
        };
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(list(&ve.private())), sorted(list(&base)));
        ve.start();
        assert_eq!(ve.sh("echo up"), "up");
        ve.destroy();
    });
}

#[test]
fn a_template_that_comes_by_a_move_can_be_snapshotted_as_one_that_was_unpacked_here() {
    on_btrfs(|node| {
        let cache = templates::cache::Cache::open(Path::new("/vz/template"));
        let base = |name: &str| cache.bases().join(name);
        // What a killed move has left does not stay in the way.
        drop(cache.arriving("moved").unwrap().unwrap());
        fs::create_dir_all(base("moved.tmp/old")).unwrap();
        let arriving = cache.arriving("moved").unwrap().unwrap();
        fs::write(arriving.path().join("file"), "x").unwrap();
        arriving.finish().unwrap();
        let show = run("btrfs", &["subvolume", "show", base("moved").to_str().unwrap()]).ok();
        assert!(show.out().contains("readonly"), "{show}");
        assert!(base("moved/file").exists() && !base("moved/old").exists());
        assert!(cache.arriving("moved").unwrap().is_none());
        let _ = node;
        run("btrfs", &["subvolume", "delete", base("moved").to_str().unwrap()]).ok();
        fs::remove_file(base("moved.lock")).unwrap();
    });
}
