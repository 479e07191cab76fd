//! Limits of I/O, on the disk that the node's areas lie on.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use beancounters::Disk;
use vztests::{Ve, on_node, skip, until};

/// Reads or writes past the page cache; how long that took.
fn transfer(ve: &Ve<'_>, dd: &str) -> Duration {
    let begin = Instant::now();
    ve.sh(&format!("dd {dd} 2>&1"));
    begin.elapsed()
}

const WRITE: &str = "if=/dev/zero of=/file bs=64k count=48 oflag=direct";
const READ: &str = "if=/file of=/dev/null bs=64k count=48 iflag=direct";
const SMALL_READS: &str = "if=/file of=/dev/null bs=4k count=60 iflag=direct";

#[test]
fn bytes_and_operations_are_held_back_on_the_disk_of_the_area() {
    on_node(|node| {
        if Disk::of(Path::new("/vz/private")).is_none() {
            return skip("a disk below /vz/private");
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--iolimit", "1M", "--save"]);
        ve.start();
        if ve.run("exec", &[&format!("dd {WRITE}")]).stderr.contains("invalid flag") {
            return skip("dd of the template with direct I/O");
        }
        // 3 MiB at 1 MiB/s; the first of a burst goes through at once.
        let wrote = transfer(&ve, WRITE);
        assert!(wrote > Duration::from_secs(2), "wrote 3 MiB in {wrote:?} at 1 MiB/s");
        let read = transfer(&ve, READ);
        assert!(read > Duration::from_secs(2), "read 3 MiB in {read:?} at 1 MiB/s");

        ve.ok("set", &["--iolimit", "0", "--iopslimit", "20"]);
        let read = transfer(&ve, SMALL_READS);
        assert!(read > Duration::from_secs(2), "60 reads took {read:?} at 20 a second");
        ve.ok("set", &["--iopslimit", "0"]);
        // 3 MiB that would take 3 s, or the 48 operations 2.4 s.
        let free = transfer(&ve, READ);
        assert!(free < Duration::from_secs(2), "without a limit: {free:?}");
    });
}

/// A number of the VE's account of I/O.
fn accounted(ve: &Ve<'_>, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/run/vz/proc/bc/{}/ioacct", ve.id)).unwrap();
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("{key}: {text}"))
}

#[test]
fn what_goes_to_the_disk_and_comes_from_it_is_counted_for_each() {
    on_node(|node| {
        if Disk::of(Path::new("/vz/private")).is_none() {
            return skip("a disk below /vz/private");
        }
        let (ve, idle) = (node.tiny(1), node.tiny(2));
        ve.start();
        idle.start();
        if ve.run("exec", &[&format!("dd {WRITE}")]).stderr.contains("invalid flag") {
            return skip("dd of the template with direct I/O");
        }
        let (written, read, others) =
            (accounted(&ve, "write"), accounted(&ve, "read"), accounted(&idle, "write"));
        assert!(written >= 3 << 20, "{written}");
        transfer(&ve, WRITE);
        transfer(&ve, READ);
        // What is shown may be a moment old.
        until("both are counted", Duration::from_secs(20), || {
            accounted(&ve, "write") >= written + (3 << 20) && accounted(&ve, "read") >= read + (3 << 20)
        });
        assert!(accounted(&idle, "write") < others + (1 << 20), "not for the neighbour");
    });
}

#[test]
fn a_priority_is_a_weight_where_the_kernel_has_one() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ioprio", "7", "--save"]);
        ve.start();
        let files = [
            "blkio/vz/ID/blkio.bfq.weight",
            "blkio/vz/ID/blkio.weight",
            "vz/ID/io.bfq.weight",
            "vz/ID/io.weight",
        ];
        let weight = || {
            let path = |file: &&str| Path::new("/sys/fs/cgroup").join(file.replace("ID", &ve.id));
            let text = files.iter().find_map(|file| fs::read_to_string(path(file)).ok())?;
            text.split_whitespace().last()?.parse::<u32>().ok()
        };
        let Some(high) = weight() else { return skip("weights of I/O") };
        ve.ok("set", &["--ioprio", "0"]);
        let low = weight().unwrap();
        assert!(low < 100 && high > 100, "{low} {high}");
        ve.ok("set", &["--ioprio", "4"]);
        assert_eq!(weight(), Some(100));
    });
}
