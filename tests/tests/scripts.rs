//! Action scripts of the admin: when they run, where, with what, and what their failure does.
#![allow(clippy::unwrap_used)]

use std::fs;

use vztests::{Node, Ve, on_node, run};

const TRACE: &str = "/run/scratch/trace";

fn trace() -> Vec<String> {
    let text = fs::read_to_string(TRACE).unwrap_or_default();
    let _ = fs::remove_file(TRACE);
    text.lines().map(str::to_owned).collect()
}

/// A script of every host action, which writes its name.
fn all_scripts<'n>(node: &'n Node, ve: &Ve<'n>) -> Vec<impl Drop + use<>> {
    let mut scripts = Vec::new();
    for action in ["premount", "mount", "umount", "postumount"] {
        for prefix in ["vps", &ve.id] {
            let name = format!("{prefix}.{action}");
            let short = if prefix == "vps" { "vps" } else { "ve" };
            scripts.push(node.script(&name, &format!("#!/bin/sh\necho {short}.{action} >> {TRACE}\n")));
        }
    }
    scripts
}

const UP: [&str; 4] = ["vps.premount", "ve.premount", "vps.mount", "ve.mount"];
const DOWN: [&str; 4] = ["ve.umount", "vps.umount", "ve.postumount", "vps.postumount"];

#[test]
fn scripts_run_in_the_documented_order() {
    on_node(|node| {
        let ve = node.tiny(1);
        let _scripts = all_scripts(node, &ve);
        ve.ok("mount", &[]);
        assert_eq!(trace(), UP);
        ve.ok("umount", &[]);
        assert_eq!(trace(), DOWN);
        ve.ok("start", &[]);
        assert_eq!(trace(), UP);
        ve.ok("stop", &["--fast"]);
        assert_eq!(trace(), DOWN);
        // A mounted root is mounted anew for its VE.
        ve.ok("mount", &[]);
        trace();
        ve.ok("start", &[]);
        assert_eq!(trace(), [DOWN, UP].concat());
        ve.ok("restart", &["--fast"]);
        assert_eq!(trace(), [DOWN, UP].concat());
        let _ = fs::remove_file(TRACE);
    });
}

#[test]
fn scripts_run_when_the_ve_ends_by_itself_too() {
    on_node(|node| {
        let ve = node.tiny(1);
        let _scripts = all_scripts(node, &ve);
        ve.start();
        trace();
        let _ = ve.run("exec", &["halt"]);
        ve.becomes("exist unmounted down");
        let mut seen = Vec::new();
        vztests::until("the umount scripts have run", std::time::Duration::from_secs(20), || {
            seen.extend(trace());
            seen.len() >= DOWN.len()
        });
        assert_eq!(seen, DOWN);
    });
}

#[test]
fn the_environment_of_host_scripts_is_exactly_the_documented_one() {
    on_node(|node| {
        let ve = node.tiny(1);
        let text = format!(
            "#!/bin/sh\n/usr/bin/env | sort > {TRACE}\necho \"args:$#\" >> {TRACE}\ncat >> {TRACE}\n"
        );
        let _script = node.script(&format!("{}.mount", ve.id), &text);
        let mut command = node.command(&["mount", &ve.id]);
        command.env("SECRET", "of the caller").env("HOME", "/root");
        vztests::Background::spawn(command, b"input of the caller\n").finish().ok();
        let seen: Vec<String> = trace()
            .into_iter()
            .filter(|l| {
                !l.starts_with("_=")
                    && !l.starts_with("PWD=")
                    && !l.starts_with("SHLVL=")
                    && !l.starts_with("OLDPWD=")
            })
            .collect();
        let expected = [
            "HOME=/".to_owned(),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "TERM=linux".to_owned(),
            format!("VEID={}", ve.id),
            format!("VE_CONFFILE=/etc/vz/conf/{}.conf", ve.id),
            "args:0".to_owned(),
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn scripts_in_the_ve_run_before_init_and_before_the_stop() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--hostname", "inside.test", "--ipadd", "10.5.0.1", "--save"]);
        // Neither the mode nor the first line matters: the text is fed to the VE's shell.
        let start = "#!/no/such/interpreter\n(hostname; ip addr show dev venet0; tr '\\0' ' ' < /proc/1/cmdline; env) > /root/start\n";
        let path = format!("/etc/vz/conf/{}.start", ve.id);
        fs::write(&path, start).unwrap();
        let stop = format!("/etc/vz/conf/{}.stop", ve.id);
        fs::write(&stop, "hostname > /root/stop\n").unwrap();
        ve.start();
        let seen = ve.sh("cat /root/start");
        assert!(seen.starts_with("inside.test\n") && seen.contains("10.5.0.1/"), "{seen}");
        assert!(!seen.contains("VEID="), "{seen}");
        assert!(!ve.run("exec2", &["test -e /root/stop"]).text().contains("inside"));
        ve.ok("stop", &["--fast"]);
        ve.ok("mount", &[]);
        assert_eq!(fs::read_to_string(ve.root().join("root/stop")).unwrap(), "inside.test\n");
        ve.ok("umount", &[]);
        fs::remove_file(path).unwrap();
        fs::remove_file(stop).unwrap();
    });
}

#[test]
fn a_failing_script_stops_the_verb_with_79() {
    on_node(|node| {
        let ve = node.tiny(1);
        for action in ["premount", "mount", "start"] {
            for prefix in ["vps", &ve.id] {
                if (prefix, action) == ("vps", "start") {
                    continue;
                }
                let _script = node.script(&format!("{prefix}.{action}"), "#!/bin/sh\nexit 3\n");
                ve.run("start", &[]).exits(79).says(&format!("{prefix}.{action}"));
                ve.is("exist unmounted down");
            }
        }
        ve.start();
        {
            let _script = node.script(&format!("{}.stop", ve.id), "exit 1\n");
            ve.run("stop", &["--fast"]).exits(79);
            ve.is("exist mounted running");
        }
        ve.ok("stop", &["--fast"]);
        ve.ok("mount", &[]);
        {
            let _script = node.script(&format!("{}.umount", ve.id), "#!/bin/sh\nexit 1\n");
            ve.run("umount", &[]).exits(79);
            ve.is("exist mounted down");
        }
        {
            // Too late to stop anything.
            let _script = node.script(&format!("{}.postumount", ve.id), "#!/bin/sh\nexit 1\n");
            ve.run("umount", &[]).exits(79);
            ve.is("exist unmounted down");
        }
    });
}

#[test]
fn a_script_that_cannot_be_executed_is_a_failure() {
    on_node(|node| {
        let ve = node.tiny(1);
        let path = format!("/etc/vz/conf/{}.mount", ve.id);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        ve.run("mount", &[]).exits(79).says(&path);
        ve.is("exist unmounted down");
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn the_create_script_has_the_last_word() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        {
            let _script = node.script("vps.create", "#!/bin/sh\nexit 1\n");
            ve.run("create", &["--ostemplate", "tiny"])
                .exits(79)
                .says("Creation of container private area failed");
            ve.is("deleted unmounted down");
            assert!(!ve.conf_path().exists() && !ve.private().exists());
        }
        let _script = node.script("vps.create", &format!("#!/bin/sh\necho $VEID $VE_CONFFILE > {TRACE}\n"));
        ve.ok("create", &["--ostemplate", "tiny"]);
        assert_eq!(trace(), [format!("{0} /etc/vz/conf/{0}.conf", ve.id)]);
    });
}

#[test]
fn runscript_in_a_stopped_ve_runs_no_action_script_and_leaves_a_mounted_root_mounted() {
    on_node(|node| {
        let ve = node.tiny(1);
        let _scripts = all_scripts(node, &ve);
        let inside = "#!/bin/sh\ntouch /ran\n";
        let _inside = ["start", "stop"].map(|action| node.script(&format!("{}.{action}", ve.id), inside));
        let file = node.scratch().join("script");
        fs::write(&file, "test -e /ran && exit 8\nexit 7\n").unwrap();
        let file = file.to_str().unwrap();
        ve.run("runscript", &[file]).exits(7);
        ve.is("exist unmounted down");
        assert_eq!(trace(), [""; 0]);
        ve.ok("mount", &[]);
        assert_eq!(trace(), UP);
        ve.run("runscript", &[file]).exits(7);
        ve.is("exist mounted down");
        assert_eq!(trace(), [""; 0]);
        // As the admin had it: with the ids of the disk, and without set-user-ID programs.
        let root = fs::metadata(ve.root().join("bin")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&root), 0);
        let root = ve.root();
        let options = run("findmnt", &["-n", "-o", "OPTIONS", root.to_str().unwrap()]).ok().out();
        assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
        ve.ok("umount", &[]);
        assert_eq!(trace(), DOWN);
    });
}
