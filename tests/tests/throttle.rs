//! Limits of I/O, on the disk that the node's areas lie on.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use beancounters::Disk;
use vztests::{Ve, on_node, skip};

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
