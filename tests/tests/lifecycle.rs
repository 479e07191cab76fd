//! create, start, status, stop, restart, mount, umount, destroy: what they do, say and exit with.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use vztests::{Need, Node, Ve, on_node, run, until};

const DOWN: &str = "exist unmounted down";
const UP: &str = "exist mounted running";
const GONE: &str = "deleted unmounted down";

#[test]
fn a_ve_lives_its_whole_life() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.is(GONE);
        ve.ok("create", &["--ostemplate", "tiny"])
            .says("Creating container private area (tiny)\n")
            .says("Performing postcreate actions\n")
            .says("Container private area was created\n");
        ve.is(DOWN);
        assert_eq!(ve.conf_value("OSTEMPLATE").as_deref(), Some("tiny"));
        assert_eq!(ve.conf_value("ORIGIN_SAMPLE").as_deref(), Some("vswap-256m"));
        assert_eq!(ve.conf_value("VE_ROOT").as_deref(), Some("/vz/root/$VEID"));
        assert_eq!(ve.conf_value("VE_PRIVATE").as_deref(), Some("/vz/private/$VEID"));
        assert!(ve.conf_value("VE_LAYOUT").is_some());
        ve.ok("start", &[]).says("Starting container...\n").says("Container start in progress...\n");
        ve.is(UP);
        ve.wait_up();
        assert_eq!(ve.sh("cat /proc/1/comm"), "init");
        ve.ok("stop", &[]).says("Stopping container ...\n").says("Container was stopped\n");
        ve.is(DOWN);
        ve.ok("destroy", &[])
            .says(&format!("Destroying container private area: /vz/private/{}\n", ve.id))
            .says("Container private area was destroyed\n");
        ve.is(GONE);
    });
}

#[test]
fn every_layout_carries_a_ve_and_its_changes() {
    on_node(|node| {
        node.need_tiny();
        let layouts = [
            ("simfs", "free"),
            ("overlay", "free"),
            ("overlay", "basic"),
            ("auto", "basic"),
            ("ploop", "basic"),
        ];
        for (number, (layout, sample)) in layouts.into_iter().enumerate() {
            let ve = node.ve(u32::try_from(number).unwrap());
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--config", sample]);
            ve.start();
            ve.sh("echo kept > /root/file; rm -f /etc/motd; ln -s file /root/link; chmod 4711 /root/file");
            ve.ok("restart", &[]).says("Restarting container\n");
            ve.wait_up();
            assert_eq!(ve.sh("cat /root/link; stat -c %a /root/file"), "kept\n4711", "{layout}");
        }
    });
}

#[test]
fn create_refuses_what_is_there_already() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.run("create", &["--ostemplate", "tiny"]).exits(44).says("Private area already exists in");
        ve.run("create", &["--ostemplate", "tiny", "--config", "basic"]).exits(82);
        ve.is(DOWN);
        // A private area without a configuration.
        let other = node.ve(2);
        fs::create_dir_all(other.private().join("etc")).unwrap();
        other
            .run("create", &["--ostemplate", "tiny"])
            .exits(44)
            .says("Private area already exists in")
            .says("Creation of container private area failed");
        assert!(!other.conf_path().exists());
        assert!(other.private().join("etc").is_dir());
        fs::remove_dir_all(other.private()).unwrap();
    });
}

#[test]
fn create_fails_with_the_known_codes_and_leaves_nothing() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        let failed = "Creation of container private area failed";
        let create = |rest: &[&str]| {
            let run = ve.run("create", rest);
            ve.is(GONE);
            assert!(!ve.conf_path().exists(), "a configuration is left by\n{run}");
            assert!(!ve.private().exists(), "a private area is left by\n{run}");
            run
        };
        create(&["--ostemplate", "tiny", "--config", "none"]).exits(82).says("not found").says(failed);
        create(&["--ostemplate", "no-such-1-x86_64"]).exits(91).says("not found").says(failed);
        if !Need::ProjectQuota.is_met() {
            create(&["--ostemplate", "tiny", "--layout", "simfs"]).exits(60).says("DISK_QUOTA");
        }
        create(&["--ostemplate", "tiny", "--layout", "zfs"]).exits(21);
        create(&["--ostemplate", "tiny", "--ipadd", "1.2.3"]).exits(21);
        create(&["--ostemplate", "tiny", "--no-such-option", "1"]).exits(21);
        create(&["--ostemplate", "tiny", "stray"]).exits(20);
        node.set_conf("DEF_OSTEMPLATE", "");
        create(&[]).exits(29).says("OS template is not specified");
        node.set_conf("CONFIGFILE", "gone");
        create(&["--ostemplate", "tiny"]).exits(82);
    });
}

#[test]
fn create_takes_options_and_a_name() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        let description = "first, of  many";
        ve.ok(
            "create",
            &[
                "--ostemplate",
                "tiny",
                "--config",
                "basic",
                "--hostname",
                "web.test",
                "--name",
                "web",
                "--description",
                description,
                "--ipadd",
                "10.1.0.1",
                "--ipadd",
                "fd01::1",
            ],
        );
        assert_eq!(ve.conf_value("ORIGIN_SAMPLE").as_deref(), Some("basic"));
        assert_eq!(ve.conf_value("HOSTNAME").as_deref(), Some("web.test"));
        assert_eq!(ve.conf_value("DESCRIPTION").as_deref(), Some(description));
        assert_eq!(ve.conf_value("IP_ADDRESS").as_deref(), Some("10.1.0.1 fd01::1"));
        node.vzctl(&["status", "web"]).ok().says(&format!("CTID {} {DOWN}\n", ve.id));
        let other = node.ve(2);
        other.run("create", &["--ostemplate", "tiny", "--name", "web"]).exits(131).says("Conflict");
        other.is(GONE);
        node.vzctl(&["destroy", "web"]).ok();
        node.vzctl(&["status", "web"]).exits(21).says("Bad CT ID web");
    });
}

#[test]
fn start_refuses_with_the_known_codes() {
    on_node(|node| {
        node.ve(9).run("start", &[]).exits(14).says("Container config file does not exist\n");
        let ve = node.tiny(1);
        ve.ok("set", &["--disabled", "yes", "--save"]);
        ve.run("start", &[]).exits(105).says("Container start disabled");
        ve.ok("start", &["--force"]);
        ve.run("start", &[]).exits(105);
        ve.ok("set", &["--disabled", "no", "--save"]);
        ve.run("start", &[]).exits(32).says("Container is already running");
        ve.run("destroy", &[]).exits(32).says("Container is currently running. Stop it first.\n");
        ve.run("umount", &[]).exits(32).says("Container is running -- stop it first");
        ve.is(UP);
        ve.ok("stop", &["--fast"]);
        fs::rename(ve.private(), "/vz/private/away").unwrap();
        ve.run("start", &[]).exits(43).says("does not exist");
        fs::rename("/vz/private/away", ve.private()).unwrap();
        ve.is(DOWN);
    });
}

#[test]
fn a_template_without_init_fails_with_47_and_leaves_nothing_mounted() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        for init in ["sbin/init", "etc/init", "bin/init"] {
            let _ = fs::remove_file(ve.private().join(init));
        }
        ve.run("start", &[]).exits(47).says("Unable to start init, probably incorrect template");
        ve.is(DOWN);
    });
}

#[test]
fn beancounters_that_are_missing_keep_a_ve_from_starting() {
    on_node(|node| {
        let ve = node.tiny(1);
        let conf = ve.conf();
        let kept: Vec<&str> = conf.lines().filter(|line| !line.starts_with("SWAPPAGES")).collect();
        fs::write(ve.conf_path(), kept.join("\n") + "\n").unwrap();
        ve.run("start", &[]).exits(28).says("not set");
        ve.is(DOWN);
    });
}

#[test]
fn stopping_what_is_stopped_is_no_error() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("stop", &[]).says("Unable to stop: container is not running\n");
        ve.ok("stop", &["--fast"]).says("Unable to stop: container is not running\n");
        ve.ok("restart", &[]);
        ve.is(UP);
        ve.wait_up();
        ve.ok("stop", &["--fast"]).says("Killing container ...\n").says("Container was stopped\n");
        ve.is(DOWN);
    });
}

#[test]
fn mount_and_umount_show_the_root_on_the_host() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.run("umount", &[]).exits(40).says("CT is not mounted");
        ve.ok("mount", &[]).says("Container is mounted\n");
        ve.is("exist mounted down");
        assert!(ve.root().join("sbin/init").exists());
        ve.ok("mount", &[]).says("Container is already mounted\n");
        ve.run("destroy", &[]).exits(41).says("Container is currently mounted (umount first)");
        fs::write(ve.root().join("root/from-host"), "hello\n").unwrap();
        // Start takes over a mounted root.
        ve.start();
        assert_eq!(ve.sh("cat /root/from-host; stat -c %u /root/from-host"), "hello\n0");
        ve.ok("stop", &["--fast"]);
        ve.ok("mount", &[]);
        ve.ok("umount", &[]).says("Container is unmounted\n");
        ve.is(DOWN);
    });
}

#[test]
fn umount_takes_what_is_mounted_below_with_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("mount", &[]);
        for dir in ["root", "root/inner"] {
            let at = ve.root().join(dir);
            fs::create_dir_all(&at).unwrap();
            vztests::run("mount", &["-t", "tmpfs", "none", at.to_str().unwrap()]).ok();
        }
        ve.ok("umount", &[]);
        ve.is(DOWN);
    });
}

#[test]
fn skip_umount_leaves_the_root_mounted() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.ok("stop", &["--fast", "--skip-umount"]);
        ve.is("exist mounted down");
        ve.ok("umount", &[]);
    });
}

#[test]
fn two_commands_on_one_ve_do_not_run_at_once() {
    on_node(|node| {
        let ve = node.tiny(1);
        let fifo = node.scratch().join("go");
        vztests::run("mkfifo", &[fifo.to_str().unwrap()]).ok();
        let _script =
            node.script(&format!("{}.premount", ve.id), &format!("#!/bin/sh\nread x < {}\n", fifo.display()));
        let start = ve.begin("start", &[], b"");
        let lock = format!("/vz/lock/{}.lck", ve.id);
        until("start has the lock", std::time::Duration::from_secs(10), || fs::exists(&lock).unwrap());
        for verb in ["start", "stop", "destroy", "mount", "umount", "restart"] {
            ve.run(verb, &[]).exits(9).says("Container already locked");
        }
        ve.run("set", &["--onboot", "yes", "--save"]).exits(9);
        ve.is(DOWN);
        fs::write(&fifo, "go\n").unwrap();
        start.finish().ok();
        ve.is(UP);
        assert!(!fs::exists(&lock).unwrap());
    });
}

#[test]
fn command_lines_that_make_no_sense_are_refused() {
    on_node(|node| {
        let ve = node.tiny(1);
        node.vzctl(&[]).exits(20);
        node.vzctl(&["fly", &ve.id]).exits(20).says("Bad command: fly");
        node.vzctl(&["start"]).exits(21).says("CT ID missing");
        node.vzctl(&["start", "nobody"]).exits(21).says("Bad CT ID nobody");
        node.vzctl(&["start", "0"]).exits(21).says("Only set actions are allowed for CT0");
        node.vzctl(&["start", "99999999999"]).exits(21);
        ve.run("start", &["--fast"]).exits(20);
        ve.run("stop", &["--wait"]).exits(20);
        ve.run("start", &["stray"]).exits(20);
        ve.run("start", &["--no-such"]).exits(20);
        ve.run("destroy", &["stray"]).exits(20);
        ve.run("exec", &[]).exits(20).says("No command line given for exec");
        node.vzctl(&["--version"]).ok().says("vzctl version ");
        let help = node.vzctl(&["--help"]).ok();
        assert!(help.out().starts_with("vzctl version "), "{help}");
        fs::remove_file("/etc/vz/vz.conf").unwrap();
        let start = ve.run("start", &[]).exits(10);
        assert!(start.stderr.contains("vz.conf"), "{start}");
        let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/conf/vz.conf");
        fs::copy(conf, "/etc/vz/vz.conf").unwrap();
    });
}

#[test]
fn status_is_one_line_whatever_happens() {
    on_node(|node| {
        let ve = node.tiny(1);
        let line = format!("CTID {} {DOWN}\n", ve.id);
        for flags in [&["--quiet"][..], &["--verbose", "--verbose"], &[]] {
            let run = node.vzctl(&[flags, &["status", &ve.id]].concat()).ok();
            assert_eq!(run.text(), line);
        }
        assert_eq!(node.vzctl(&["status", "777"]).ok().text(), "CTID 777 deleted unmounted down\n");
        ve.ok("destroy", &[]);
        ve.is(GONE);
    });
}

#[test]
fn quiet_says_nothing_and_logs_all() {
    on_node(|node| {
        let ve = node.tiny(1);
        let start = node.vzctl(&["--quiet", "start", &ve.id]).ok();
        assert_eq!(start.text(), "");
        assert_eq!(node.vzctl(&["--quiet", "start", &ve.id]).exits(32).text(), "");
        let log = node.log();
        assert!(log.contains("Starting container"), "{log}");
        assert!(log.contains("Container is already running"), "{log}");
        assert!(log.contains(&ve.id), "{log}");
    });
}

#[test]
fn dry_run_does_nothing() {
    on_node(|node| {
        let ve = node.tiny(1);
        for verb in ["start", "destroy", "mount"] {
            node.vzctl(&["--dry-run", verb, &ve.id]).ok();
            ve.is(DOWN);
        }
        let other = node.ve(2);
        let private = other.private().parent().unwrap().to_owned();
        run("chmod", &["755", private.to_str().unwrap()]).ok();
        node.vzctl(&["--dry-run", "create", &other.id, "--ostemplate", "tiny"]).ok();
        other.is(GONE);
        assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o755);
        let missing = node.scratch().join("missing/$VEID");
        let path = missing.to_str().unwrap();
        node.vzctl(&["--dry-run", "create", &other.id, "--ostemplate", "tiny", "--private", path]).ok();
        assert!(!missing.parent().unwrap().exists());
    });
}

#[test]
fn destroy_keeps_the_configuration_for_the_admin_and_create_removes_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        let _script = node.script(&format!("{}.mount", ve.id), "#!/bin/sh\n");
        ve.ok("destroy", &[]);
        let kept = format!("/etc/vz/conf/{}.conf.destroyed", ve.id);
        let script = format!("/etc/vz/conf/{}.mount.destroyed", ve.id);
        assert!(fs::exists(&kept).unwrap() && fs::exists(&script).unwrap());
        ve.ok("create", &["--ostemplate", "tiny"]);
        assert!(!fs::exists(&kept).unwrap() && !fs::exists(&script).unwrap());
    });
}

#[test]
fn destroy_never_follows_a_symbolic_link() {
    on_node(|node| {
        let ve = node.tiny(1);
        fs::rename(ve.private(), "/vz/private/elsewhere").unwrap();
        symlink("/vz/private/elsewhere", ve.private()).unwrap();
        ve.ok("destroy", &[]).says("elsewhere");
        assert!(fs::symlink_metadata(ve.private()).is_err());
        assert!(fs::exists("/vz/private/elsewhere").unwrap());
        fs::remove_dir_all("/vz/private/elsewhere").unwrap();
    });
}

#[test]
fn a_stale_lock_is_removed() {
    on_node(|node| {
        let ve = node.tiny(1);
        fs::write(format!("/vz/lock/{}.lck", ve.id), "4194303\n\n").unwrap();
        ve.start();
    });
}

#[test]
fn skiplock_takes_no_lock() {
    on_node(|node| {
        let ve = node.tiny(1);
        let lock = format!("/vz/lock/{}.lck", ve.id);
        fs::write(&lock, format!("{}\n\n", std::process::id())).unwrap();
        ve.run("start", &[]).exits(9);
        node.vzctl(&["--skiplock", "start", &ve.id]).ok();
        ve.is(UP);
        assert!(fs::exists(&lock).unwrap());
        fs::remove_file(&lock).unwrap();
    });
}

#[test]
fn start_waits_until_the_ve_is_up() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("start", &["--wait"])
            .says("Container start in progress, waiting ...\n")
            .says("Container started successfully\n");
        ve.is(UP);
    });
}

/// The commands of a shell script, as somebody had them for years.
fn old_script(node: &Node, ve: &Ve<'_>) {
    for line in [
        "create ID --ostemplate tiny --config basic",
        "set ID --onboot yes --save",
        "set ID --ipadd 10.1.0.9 --save",
        "set ID --hostname old.test --save",
        "start ID",
        "exec ID true",
        "restart ID",
        "stop ID",
        "destroy ID",
    ] {
        let line = line.replace("ID", &ve.id);
        node.vzctl(&line.split(' ').collect::<Vec<_>>()).ok();
    }
}

#[test]
fn an_old_script_runs_twice() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        old_script(node, &ve);
        old_script(node, &ve);
    });
}
