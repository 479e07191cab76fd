//! The optional kernel module: empty places in /proc, to be mounted over.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use vztests::{Need, Node, lacks, on_machine, run, skip};

const PLACES: [&str; 3] = ["/proc/user_beancounters", "/proc/bc", "/proc/vz"];

/// The module that was built for this kernel.
fn module() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let dir = std::env::var("VZTESTS_MODULES").ok()?;
    let path = Path::new(&dir).join(release.trim()).join("vzproc.ko");
    path.exists().then(|| path.to_str().unwrap().to_owned())
}

/// What is mounted on the places is seen by whoever reads them.
fn carry_mounts(node: &Node) {
    let table = node.scratch().join("table");
    fs::create_dir_all(node.scratch()).unwrap();
    fs::write(&table, "Version: 2.5\n").unwrap();
    run("mount", &["--bind", table.to_str().unwrap(), PLACES[0]]).ok();
    assert_eq!(fs::read_to_string(PLACES[0]).unwrap(), "Version: 2.5\n");
    run("umount", &[PLACES[0]]).ok();
    for dir in &PLACES[1..] {
        run("mount", &["-t", "tmpfs", "vz", dir]).ok();
        fs::write(format!("{dir}/file"), "").unwrap();
        run("umount", &[dir]).ok();
    }
}

#[test]
fn the_module_makes_empty_mount_points_and_unloads_cleanly() {
    if lacks(&[Need::Machine, Need::Modules]) {
        return;
    }
    let Some(module) = module() else { return skip("the module, built for this kernel") };
    on_machine(|node| {
        for _ in 0..2 {
            run("insmod", &[&module]).ok();
            assert_eq!(fs::read_to_string(PLACES[0]).unwrap(), "");
            assert!(PLACES[1..].iter().all(|dir| fs::read_dir(dir).unwrap().next().is_none()));
            carry_mounts(node);
            let ve = node.tiny(1);
            ve.start();
            assert_eq!(ve.sh("cat /proc/user_beancounters; ls /proc/bc /proc/vz | grep -v :"), "");
            ve.ok("stop", &["--fast"]);
            ve.ok("destroy", &[]);
            run("rmmod", &["vzproc"]).ok();
            assert!(PLACES.iter().all(|place| !Path::new(place).exists()));
        }
        let log = run("dmesg", &[]).out();
        assert!(!log.contains("vzproc") || !log.contains("Call Trace"), "{log}");
    });
}
