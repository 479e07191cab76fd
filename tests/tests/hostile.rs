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
            ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
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
            ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
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
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
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

#[test]
fn a_shell_that_is_a_link_to_a_descriptor_of_the_host_finds_nothing() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let program = node.scratch().join("busybox");
        fs::copy(ve.private().join("bin/busybox"), &program).unwrap();
        ve.start();
        // Some number of those that vzctl has open itself, and one that it inherits.
        let vzctl = node.program("vzctl");
        for number in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
            let sh = ve.private().join("bin/sh");
            fs::remove_file(&sh).unwrap();
            symlink(format!("/proc/self/fd/{number}/run/scratch/busybox"), &sh).unwrap();
            let line = format!("exec {number}</ && exec {} exec2 {} 'echo reached'", vzctl.display(), ve.id);
            let run = run("bash", &["-c", &line]);
            assert!(!run.text().contains("reached"), "the host's program is run through {number}\n{run}");
            assert_ne!(run.code, 0, "{run}");
        }
    });
}

#[test]
fn a_ve_that_stops_whatever_comes_in_holds_no_verb() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny"]);
        ve.ok("set", &["--stop-timeout", "2", "--save"]);
        ve.start();
        let _script = node.script(&format!("{}.stop", ve.id), "echo bye\n");
        ve.sh("(while ! [ -e /run/go ]; do sleep 0.1; done; while :; do kill -STOP -1; done) >/dev/null 2>&1 </dev/null &");
        ve.sh("touch /run/go");
        let stuck = |run: &vztests::Run| run.text().contains("its processes stop others");
        let told = vztests::holds(Duration::from_secs(120), || {
            let mut exec = ve.begin("exec2", &["true"], b"");
            // Stopped after its start it is a program like any other, which is waited for.
            let ended = vztests::holds(Duration::from_secs(15), || !exec.running());
            if !ended {
                exec.signal(rustix::process::Signal::KILL);
            }
            stuck(&exec.finish())
        });
        assert!(told, "vzctl exec does not tell that it cannot get in");
        // A script may slip through; none may hold us.
        let stop = ve.begin("stop", &[], b"").finish_within(BOUND);
        if stop.code != 0 {
            let fast = ve.begin("stop", &["--fast"], b"").finish_within(BOUND).ok();
            assert!(fast.stderr.contains("WARNING"), "{fast}");
        }
        ve.is("exist unmounted down");
    });
}

#[test]
fn a_plain_copy_that_looks_like_an_overlay_is_none() {
    on_node(|node| {
        node.need_tiny();
        let (ve, other) = (node.ve(1), node.ve(2));
        other.ok("create", &["--ostemplate", "tiny", "--layout", "overlay"]);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        // As a VE of OpenVZ has it: its configuration does not say.
        let conf: Vec<String> =
            ve.conf().lines().filter(|line| !line.starts_with("VE_LAYOUT")).map(str::to_owned).collect();
        fs::write(ve.conf_path(), conf.join("\n") + "\n").unwrap();
        fs::copy(other.private().join("layout.json"), ve.private().join("layout.json")).unwrap();
        for dir in ["upper", "work"] {
            fs::create_dir(ve.private().join(dir)).unwrap();
        }
        fs::write(ve.private().join("etc/mine"), "").unwrap();
        // A wish for new VEs is no word about this one.
        node.set_conf("VE_LAYOUT", "overlay");
        ve.start();
        ve.sh("test -e /etc/mine && test -d /upper");
        ve.destroy();
        other.start();
        other.sh("true");
    });
}

#[test]
fn a_tree_without_an_end_is_destroyed() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let mut at = fs::File::open(ve.private()).unwrap();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
        }
        drop(at);
        ve.ok("destroy", &[]);
        vztests::until("the trash is empty", Duration::from_secs(60), || {
            fs::read_dir("/vz/vztmp").unwrap().count() == 0
        });
    });
}

#[test]
fn a_frozen_ve_whose_halt_never_ends_is_stopped_in_time() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        ve.ok("set", &["--stop-timeout", "2", "--save"]);
        // An init that is told by its halt program alone.
        for (name, text) in [("sbin/init", "while :; do sleep 1; done"), ("sbin/halt", "exec sleep 998")] {
            let path = ve.private().join(name);
            let _ = fs::remove_file(&path);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            run("chmod", &["755", path.to_str().unwrap()]).ok();
        }
        ve.start();
        let stop = ve.begin("stop", &[], b"");
        let halting = || run("pgrep", &["-f", "^sleep 998$"]).code == 0;
        vztests::until("its halt runs", BOUND, halting);
        freeze(&ve);
        let stop = stop.finish_within(Duration::from_secs(20)).ok();
        assert!(stop.out().contains("Killing container"), "{stop}");
        ve.is("exist unmounted down");
        // And what cannot even begin does not wait for longer than that.
        ve.start();
        freeze(&ve);
        let began = std::time::Instant::now();
        ve.begin("stop", &[], b"").finish_within(BOUND).ok();
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    });
}

/// As the admin freezes it, with whichever freezer there is.
fn freeze(ve: &Ve<'_>) {
    let old = format!("/sys/fs/cgroup/freezer/vz/{}/freezer.state", ve.id);
    if fs::write(&old, "FROZEN").is_ok() {
        return;
    }
    let dirs = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|top| format!("{top}/vz/{}", ve.id));
    let frozen = dirs.iter().any(|dir| fs::write(format!("{dir}/cgroup.freeze"), "1").is_ok());
    assert!(frozen, "no freezer for {}", ve.id);
}
