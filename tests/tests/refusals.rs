//! Refusals: the exit code, what is said, what is advised, and that the manual says of the code what to do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use vztests::{Background, Node, Run, Ve, command, on_node, run};

/// Fails unless the run ended with this code, said this, and vzctl(8) has a row for the code.
#[track_caller]
fn ends(run: Run, code: i32, says: &str) -> Run {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/man/vzctl.8");
    let page = fs::read_to_string(page).unwrap();
    let row = format!("{code}\tT{{");
    assert!(page.lines().any(|line| line == row), "vzctl(8) has no row for exit code {code}");
    run.exits(code).says(says)
}

/// Replaces a line of the VE's configuration.
fn set_line(ve: &Ve<'_>, key: &str, line: &str) {
    let prefix = format!("{key}=");
    let text = ve.conf();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&prefix)).collect();
    fs::write(ve.conf_path(), format!("{}\n{line}\n", kept.join("\n"))).unwrap();
}

#[test]
fn the_command_line() {
    on_node(|node| {
        ends(node.vzctl(&["--version"]), 0, "vzctl version ");
        for verb in ["suspend", "resume", "snapshot", "convert"] {
            ends(node.vzctl(&[verb, "101"]), 14, "Container config file does not exist\n").says("vzlist -a");
        }
        ends(node.vzctl(&[]), 20, "Usage: vzctl");
        ends(node.vzctl(&["sart", "1"]), 20, "Bad command: sart\nDid you mean: vzctl start?\n");
        ends(node.vzctl(&["start", "1", "--frob"]), 20, "unrecognized option '--frob'");
        ends(node.vzctl(&["start"]), 21, "CT ID missing");
        let ve = node.ve(1);
        let id = ve.id.as_str();
        ends(node.vzctl(&["start", "no-such-name"]), 21, "Bad CT ID no-such-name\n").says("vzlist -a");
        ends(node.vzctl(&["start", "2147483645"]), 21, "Bad CT ID 2147483645\n");
        ends(node.vzctl(&["start", "0"]), 21, "Only set actions are allowed for CT0\n");
        ends(node.vzctl(&["set", id, "--cpuunits", "7", "--save"]), 21, "Bad parameter for --cpuunits: 7\n");
        ends(node.vzctl(&["set", id, "--name", "x"]), 131, "Option --name requires --save\n");
        ends(ve.run("start", &[]), 14, "Container config file does not exist\n");
        // What is found out before a command is run has its own code for exec as well.
        for verb in ["exec", "exec2", "exec3"] {
            ends(ve.run(verb, &["true"]), 14, "Container config file does not exist\n");
            ends(node.vzctl(&[verb, "no-such-name", "true"]), 21, "Bad CT ID no-such-name\n");
        }
        assert_eq!(ve.ok("status", &[]).out(), format!("CTID {id} deleted unmounted down\n"));
    });
}

#[test]
fn the_node() {
    on_node(|node| {
        let ve = node.tiny(1);
        let id = ve.id.as_str();
        // Nobody else may read the directory of the programs, but everybody may run this one.
        let copy = node.scratch().join("vzctl");
        fs::copy(node.program("vzctl"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = copy.to_str().unwrap();
        ends(
            run("setpriv", &["--reuid=65534", "--clear-groups", copy, "status", id]),
            12,
            "vzctl must be run by root\n",
        );
        let lock = format!("/vz/lock/{id}.lck");
        fs::write(&lock, "1\nstarting\n").unwrap();
        ends(ve.run("start", &[]), 9, "Container already locked\nLocked by: pid 1, cmdline ");
        ve.ok("status", &[]);
        node.vzctl(&["--skiplock", "mount", id]).ok();
        fs::write(&lock, "2147483646\n\n").unwrap();
        ve.ok("umount", &[]).says(&format!("Removing stale lock file {lock}\n"));
        assert!(!Path::new(&lock).exists());
        node.set_conf("LOCKDIR", "/proc/no-such-directory");
        ends(ve.run("mount", &[]), 3, "Unable to lock container: /proc/no-such-directory/");
        node.set_conf("LOCKDIR", "/vz/lock");
        fs::rename("/etc/vz/vz.conf", "/etc/vz/away").unwrap();
        let gone = node.vzctl(&["status", id]);
        fs::rename("/etc/vz/away", "/etc/vz/vz.conf").unwrap();
        ends(gone, 10, "/etc/vz/vz.conf");
        // A log that cannot be written is told and is no failure.
        node.set_conf("LOGFILE", "/proc/no-such-file");
        ve.ok("mount", &[])
            .says("WARNING: cannot write the log file /proc/no-such-file")
            .says("Container is mounted");
        node.set_conf("LOGFILE", "/var/log/vzctl.log");
        ve.ok("umount", &[]);
    });
}

#[test]
fn create() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        let tiny = ["--ostemplate", "tiny"];
        let with = |more: &[&'static str]| ve.run("create", &[&tiny, more].concat());
        let failed = "Creation of container private area failed\n";
        ends(with(&["--config", "none"]), 82, "Sample config ").says("not found").says(failed);
        ends(with(&["--layout", "simfs"]), 60, "--layout overlay").says(failed);
        ends(ve.run("create", &["--ostemplate", "none"]), 91, "Cached OS template ").says("vztmpl list");
        node.set_conf("DEF_OSTEMPLATE", "");
        ends(ve.run("create", &[]), 29, "OS template is not specified\n").says("--ostemplate");
        let file = node.scratch().join("file");
        fs::write(&file, "").unwrap();
        let private = ["--ostemplate", "tiny", "--private", file.to_str().unwrap()];
        ends(ve.run("create", &private), 48, "is no directory");
        node.set_conf("VE_PRIVATE", "");
        ends(with(&[]), 23, "VE_PRIVATE");
        // A directory for all is none.
        node.set_conf("VE_PRIVATE", "/vz/private");
        ends(with(&[]), 23, "VE_PRIVATE must contain $VEID");
        node.set_conf("VE_PRIVATE", "/vz/private/$VEID");
        node.set_conf("VE_ROOT", "");
        ends(with(&[]), 22, "VE_ROOT");
        node.set_conf("VE_ROOT", "/vz/root/$VEID");
        ve.is("deleted unmounted down");
        with(&["--name", "mine"]).ok();
        ends(with(&[]), 44, "Private area already exists in ").says(&format!("vzctl destroy {}", ve.id));
        ends(
            node.ve(2).run("create", &["--ostemplate", "tiny", "--name", "mine"]),
            131,
            "Conflict: name mine ",
        );
        let script = node.script("vps.create", "#!/bin/sh\nexit 1\n");
        ends(node.ve(2).run("create", &tiny), 79, "vps.create returned 1");
        drop(script);
        node.ve(2).is("deleted unmounted down");
    });
}

#[test]
fn life() {
    on_node(|node| {
        let ve = node.tiny(1);
        let id = ve.id.as_str();
        let start_it = format!("Container {id} is not running; start it with: vzctl start {id}\n");
        ends(ve.run("exec", &["true"]), 8, "Container is not running\n").says(&start_it);
        ends(ve.run("exec2", &["true"]), 31, "Container is not running\n").says(&start_it);
        ends(ve.run("enter", &[]), 31, "Container is not running\n").says(&start_it);
        ends(ve.run("umount", &[]), 40, "CT is not mounted\n");
        ends(ve.run("runscript", &["/none"]), 11, "Script not found: /none\n");
        ve.ok("mount", &[]);
        ends(ve.run("destroy", &[]), 41, "Container is currently mounted (umount first)\n")
            .says(&format!("vzctl umount {id}\n"));
        let mut busy = command("sleep", &["1000"]);
        busy.current_dir(ve.root());
        let busy = Background::spawn(busy, &[]);
        vztests::until("somebody is in the root", std::time::Duration::from_secs(20), || {
            ve.run("umount", &[]).code == 51 || {
                ve.ok("mount", &[]);
                false
            }
        });
        ends(ve.run("umount", &[]), 51, &format!("cannot unmount {}", ve.root().display())).says("fuser");
        busy.signal(rustix::process::Signal::KILL);
        busy.finish().exits(-9);
        ve.ok("umount", &[]);
        ve.start();
        ends(ve.run("start", &[]), 32, "Container is already running\n")
            .says(&format!("vzctl restart {id}\n"));
        ends(ve.run("destroy", &[]), 32, "Container is currently running. Stop it first.\n")
            .says(&format!("vzctl stop {id}\n"));
        ends(ve.run("umount", &[]), 32, "Container is running -- stop it first\n");
        ends(ve.run("exec3", &["/no/such/program"]), 47, "/no/such/program");
        ends(ve.run("exec2", &["kill -9 $$"]), 3, "Got signal 9\n");
        ve.ok("exec2", &["mv /bin/sh /bin/aside"]);
        let shell = format!("container {id} has no shell (/bin/bash or /bin/sh)\n");
        ends(ve.run("exec2", &["true"]), 47, &shell);
        ends(ve.run("exec", &["true"]), 8, &shell);
        ends(ve.run("enter", &[]), 47, &shell);
        ends(ve.run("runscript", &["/dev/null"]), 47, &shell);
        ve.ok("exec3", &["busybox", "mv", "/bin/aside", "/bin/sh"]);
    });
}

#[test]
fn start() {
    on_node(|node| {
        let ve = node.ve(1);
        node.need_tiny();
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let id = ve.id.as_str();
        let conf = ve.conf();
        let wrong = |key: &str, line: &str, code, says: &str| {
            set_line(&ve, key, line);
            let ended = ends(ve.run("start", &[]), code, says);
            fs::write(ve.conf_path(), &conf).unwrap();
            ve.is("exist unmounted down");
            ended
        };
        wrong("VE_PRIVATE", "VE_PRIVATE=\"\"", 23, "VE_PRIVATE");
        wrong("VE_ROOT", "VE_ROOT=\"\"", 22, "VE_ROOT");
        wrong("VE_ROOT", "VE_ROOT=\"/etc/passwd/root\"", 49, "/etc/passwd/root");
        wrong("SWAPPAGES", "", 28, "Error: required UB parameter swappages not set\n");
        wrong("PHYSPAGES", "", 28, "Error: required UB parameter kmemsize not set\n")
            .says("Error: required UB parameter numfile not set\n");
        wrong("DISABLED", "DISABLED=\"yes\"", 105, "Container start disabled\n").says("--force");
        wrong("DEVNODES", "DEVNODES=\"no-such-device:rw\"", 86, "no-such-device");
        wrong("NETIF", "NETIF=\"ifname=eth0,bridge=nobridge,host_ifname=v.none\"", 130, "nobridge");
        let script = node.script(&format!("{id}.premount"), "#!/bin/sh\nexit 3\n");
        ends(ve.run("start", &[]), 79, "premount returned 3");
        drop(script);
        let away = ve.private().with_extension("away");
        fs::rename(ve.private(), &away).unwrap();
        ends(ve.run("start", &[]), 43, "Container private area /vz/private/").says("does not exist");
        fs::rename(&away, ve.private()).unwrap();
        for init in ["sbin/init", "etc/init", "bin/init"] {
            let _ = fs::remove_file(ve.private().join(init));
        }
        ends(ve.run("start", &[]), 47, "Unable to start init, probably incorrect template\n");
        ve.is("exist unmounted down");
    });
}

#[test]
fn start_of_an_overlay() {
    on_node(|node| {
        let ve = node.tiny(1);
        // The template's files, without which an overlay is nothing.
        let (base, aside) = (Path::new("/vz/template/base"), Path::new("/vz/template/aside"));
        fs::rename(base, aside).unwrap();
        for verb in ["mount", "start"] {
            ends(ve.run(verb, &[]), 50, "its template /vz/template/base/");
        }
        fs::rename(aside, base).unwrap();
        ve.is("exist unmounted down");
        ve.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
        run("ip", &["link", "add", &ve.venet(), "type", "bridge"]).ok();
        let taken = ve.run("start", &[]);
        run("ip", &["link", "delete", &ve.venet()]).ok();
        ends(taken, 34, &ve.venet());
        ve.is("exist unmounted down");
        ve.start();
    });
}

#[test]
fn a_ve_that_ends_before_it_is_up() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("mount", &[]);
        let init = ve.root().join("sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\nexit 5\n").unwrap();
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
        ve.ok("umount", &[]);
        let waited = ve.run("start", &["--wait"]);
        ends(waited, 133, "Container wait failed\n").says(&format!("vzctl console {}", ve.id));
        ve.becomes("exist unmounted down");
    });
}

#[test]
fn set() {
    on_node(|node| {
        let (ve, other) = (node.tiny(1), node.tiny(2));
        ends(ve.run("set", &["--cpuunits", "2000"]), 31, "Container is not running\n").says("--save");
        ends(ve.run("set", &["--reset_ub"]), 31, "Container is not running\n");
        ends(
            ve.run("set", &["--devnodes", "no-such:rw", "--save"]),
            21,
            "Bad parameter for --devnodes: no-such:rw (expected a device of the host; there is no /dev/no-such)",
        );
        ve.ok("set", &["--devnodes", "no-such:none", "--save"]);
        ends(ve.run("set", &["--applyconfig", "none", "--save"]), 109, "Sample config ");
        ends(
            ve.run("set", &["--ifname", "eth7", "--bridge", "b", "--save"]),
            20,
            "Device eth7 is not configured",
        );
        other.ok("set", &["--name", "mine", "--ipadd", "10.5.0.1", "--save"]);
        ends(
            ve.run("set", &["--name", "mine", "--save"]),
            131,
            "Conflict: name mine already used by container ",
        );
        other.start();
        ve.start();
        ends(ve.run("set", &["--ipadd", "10.5.0.1", "--save"]), 78, "10.5.0.1").says("vzlist -a -o ctid,ip");
        ends(ve.run("set", &["--features", "nfs:on", "--setmode", "ignore", "--save"]), 32, "FEATURES");
        ends(
            ve.run("set", &["--root", "/x", "--save"]),
            32,
            "Unable to change VE_ROOT on a running container\n",
        );
        let conf = ve.conf();
        run("mount", &["--bind", "/etc/vz/conf", "/etc/vz/conf"]).ok();
        run("mount", &["-o", "remount,ro,bind", "/etc/vz/conf"]).ok();
        let refused = ve.run("set", &["--onboot", "yes", "--save"]);
        run("umount", &["/etc/vz/conf"]).ok();
        ends(refused, 139, "cannot save /etc/vz/conf/").says("read-only");
        assert_eq!(ve.conf(), conf);
        // A password has no place to go.
        ve.ok("stop", &["--fast"]);
        let simfs = node.ve(3);
        simfs.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        for file in ["etc/passwd", "etc/shadow"] {
            let _ = fs::remove_file(simfs.private().join(file));
            fs::create_dir(simfs.private().join(file)).unwrap();
        }
        ends(simfs.run("set", &["--userpasswd", "root:secret"]), 74, "Password change failed")
            .never_says("secret");
    });
}

#[test]
fn vzlist_has_two() {
    on_node(|node: &Node| {
        let ve = node.tiny(1);
        node.vzlist(&["-H"]).ok().says("Container(s) not found\n");
        assert_eq!(node.vzlist(&["-j"]).ok().out(), "[]\n");
        node.vzlist(&["-a", "-H", "-o", "status", &ve.id]).ok().says("stopped\n");
        node.vzlist(&["no-such"]).exits(1).says("CT ID no-such is invalid.\n");
        node.vzlist(&[&node.ve(5).id]).exits(1).says("Container(s) not found\n");
        node.vzlist(&["-o", "none"]).exits(1).says("Unknown field: none\n");
        node.vzlist(&["-s", "none"]).exits(1).says("Invalid sort field name: none\n");
        node.vzlist(&["--help"]).exits(1).says("Usage: vzlist");
        node.vzlist(&["-L"]).ok().says("ctid            CTID           \n");
        ve.ok("mount", &[]);
        fs::create_dir_all("/vz/dump").unwrap();
        let dump = format!("/vz/dump/Dump.{}", ve.id);
        fs::write(&dump, "").unwrap();
        // Mounted beats suspended, in both programs.
        node.vzlist(&["-a", "-H", "-o", "status", &ve.id]).ok().says("mounted\n");
        ve.ok("status", &["--json"]).says("\"status\":\"mounted\"");
        ve.is("exist mounted down suspended");
        fs::remove_file(&dump).unwrap();
        ve.ok("umount", &[]);
    });
}
