//! A VE's files are its owner's: whatever they are, the verbs touch nothing of the host and never hang.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vztests::{Node, Ve, on_node, run};

const VICTIM: &str = "/run/scratch/victim";
const TEXT: &str = "nobody may change this\n";
/// No verb may take longer over a hostile tree.
const BOUND: Duration = Duration::from_secs(40);

/// A directory and a file of the host that links in the VE point to.
fn make_victims() {
    fs::create_dir_all(VICTIM).unwrap();
    for name in ["hosts", "init", "passwd", "resolv.conf", "network", "null", "systemd"] {
        fs::write(Path::new(VICTIM).join(name), TEXT).unwrap();
    }
}

#[track_caller]
fn victims_are_untouched(what: &str) {
    let mut names = Vec::new();
    for entry in fs::read_dir(VICTIM).unwrap().flatten() {
        assert_eq!(fs::read_to_string(entry.path()).unwrap(), TEXT, "{what}: {:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["hosts", "init", "network", "null", "passwd", "resolv.conf", "systemd"], "{what}");
}

/// How a path of the VE can be turned against the host.
#[derive(Clone, Copy, Debug)]
enum Trick {
    /// A link by an absolute path.
    Absolute,
    /// A link that climbs out of any root.
    Climbing,
    /// To a file instead of a directory.
    ToFile,
    /// To itself.
    Loop,
    /// A FIFO, which blocks whoever opens it.
    Fifo,
}

const TRICKS: [Trick; 5] = [Trick::Absolute, Trick::Climbing, Trick::ToFile, Trick::Loop, Trick::Fifo];

fn play(trick: Trick, at: &Path) {
    match fs::symlink_metadata(at) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(at).unwrap(),
        Ok(_) => fs::remove_file(at).unwrap(),
        Err(_) => {}
    }
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let name = at.file_name().unwrap();
    match trick {
        Trick::Absolute => symlink(VICTIM, at).unwrap(),
        Trick::Climbing => symlink(format!("../../../../../../../..{VICTIM}"), at).unwrap(),
        Trick::ToFile => symlink(format!("{VICTIM}/hosts"), at).unwrap(),
        Trick::Loop => symlink(name, at).unwrap(),
        Trick::Fifo => drop(run("mkfifo", &[at.to_str().unwrap()]).ok()),
    }
}

/// Everything that reads or writes a VE's files; each may fail, none may hang or reach the host.
fn work_on(ve: &Ve<'_>, what: &str) {
    for (verb, rest) in [
        ("set", &["--hostname", "h.test", "--nameserver", "192.0.2.7", "--ipadd", "10.5.0.1", "--save"][..]),
        ("set", &["--userpasswd", "root:secret"]),
        ("start", &[]),
        ("set", &["--hostname", "g.test", "--ipadd", "10.5.0.2", "--nameserver", "192.0.2.8", "--save"]),
        ("set", &["--userpasswd", "root:secret2"]),
        ("exec2", &["true"]),
        ("stop", &["--fast"]),
        ("mount", &[]),
        ("umount", &[]),
    ] {
        let run = ve.begin(verb, rest, b"").finish_within(BOUND);
        assert!(run.code >= 0, "{what}: a crash\n{run}");
        assert!(!run.text().contains("panicked"), "{what}:\n{run}");
        victims_are_untouched(&format!("{what}, after {}", run.line));
    }
    ve.is("exist unmounted down");
}

/// Plays every trick on some paths of a fresh VE each.
fn attack(node: &Node, paths: &[&str]) {
    node.need_tiny();
    make_victims();
    let ve = node.ve(1);
    for path in paths {
        for trick in TRICKS {
            ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs"]);
            play(trick, &ve.private().join(path));
            work_on(&ve, &format!("{trick:?} at /{path}"));
            ve.ok("destroy", &[]);
            victims_are_untouched("destroy");
        }
    }
}

mod heavy {
    use super::*;

    #[test]
    fn configuration_files_of_the_guest() {
        on_node(|node| attack(node, &["etc/hosts", "etc/hostname", "etc/resolv.conf"]));
    }

    #[test]
    fn password_files_of_the_guest() {
        on_node(|node| attack(node, &["etc/passwd", "etc/shadow", "etc/group"]));
    }

    #[test]
    fn network_files_of_the_guest() {
        on_node(|node| attack(node, &["etc/network", "etc/network/interfaces", "etc/os-release"]));
    }

    #[test]
    fn mount_points_of_the_guest() {
        on_node(|node| attack(node, &["proc", "sys", "dev", "run"]));
    }

    #[test]
    fn whole_directories_of_the_guest() {
        on_node(|node| attack(node, &["etc", "sbin", "bin", "lib"]));
    }
}

#[test]
fn inits_and_shells_that_are_none() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        for kind in ["directory", "empty", "noise", "no mode"] {
            ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs"]);
            for name in ["sbin/init", "bin/sh"] {
                let path: PathBuf = ve.private().join(name);
                fs::remove_file(&path).unwrap();
                match kind {
                    "directory" => fs::create_dir(&path).unwrap(),
                    "empty" => fs::write(&path, "").unwrap(),
                    "noise" => fs::write(&path, [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]).unwrap(),
                    _ => fs::write(&path, "#!/bin/busybox sh\n").unwrap(),
                }
                let mode = if kind == "no mode" { "644" } else { "755" };
                run("chmod", &[mode, path.to_str().unwrap()]).ok();
            }
            let start = ve.begin("start", &[], b"").finish_within(BOUND);
            assert_ne!(start.code, 0, "init is {kind}\n{start}");
            ve.becomes("exist unmounted down");
            ve.ok("destroy", &[]);
        }
    });
}

#[test]
fn a_device_node_or_a_setuid_file_in_the_tree_gives_nothing() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs"]);
        // Such as an archive from elsewhere may hold: the memory and a disk of the host.
        for (name, kind, major, minor) in
            [("mem", "c", "1", "1"), ("disk", "b", "8", "0"), ("vda", "b", "254", "0")]
        {
            run("mknod", &[ve.private().join("root").join(name).to_str().unwrap(), kind, major, minor]).ok();
        }
        ve.start();
        for name in ["mem", "disk", "vda"] {
            let read = ve.run("exec2", &[&format!("dd if=/root/{name} of=/dev/null bs=1 count=1")]);
            assert_ne!(read.code, 0, "{read}");
        }
    });
}
