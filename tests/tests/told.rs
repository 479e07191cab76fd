//! What people and scripts are told besides exit codes, and what words on the command line stand for.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use vztests::{Background, on_node, run};

#[test]
fn what_is_wrong_in_a_configuration_is_said_by_the_verbs_that_act_on_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        let name = format!("/etc/vz/conf/{}.conf", ve.id);
        ve.add_conf("CPUUNITS=\"7\"\nnot a line\nONBOOT=\"yes\"\nONBOOT=\"no\"\nIP_ADDRESS=\"10.5.0.300\"\nMY_KEY=\"1\"");
        let run = ve.ok("mount", &[]);
        for text in [
            format!("Warning: {name}: invalid value for CPUUNITS: 7 (expected "),
            format!("Warning: {name}: duplicate for ONBOOT, the first is used\n"),
            format!("Warning: {name}: invalid value in IP_ADDRESS: 10.5.0.300 "),
            "not a KEY=value line, ignored\n".to_owned(),
        ] {
            assert!(run.stderr.contains(&text), "{text:?} expected of\n{run}");
        }
        assert!(!run.stderr.contains("MY_KEY"), "{run}");
        ve.ok("umount", &[]);
        ve.start();
        // Their output is that of programs.
        assert_eq!(ve.ok("exec", &["true"]).text(), "");
        assert_eq!(ve.ok("status", &[]).stderr, "");
        node.set_conf("NETFILTER", "full");
        ve.ok("stop", &["--fast"]).says("Warning: /etc/vz/vz.conf: NETFILTER is ignored here\n");
    });
}

#[test]
fn what_could_not_be_started_again_is_not_stopped() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let init = ve.init();
        ve.ok("set", &["--disabled", "yes", "--save"]);
        ve.run("restart", &["--fast"]).exits(105).says("Container start disabled\n");
        assert_eq!(ve.init(), init, "it goes on");
        ve.ok("restart", &["--fast", "--force", "--wait"])
            .says("Restarting container\n")
            .says("Container was stopped\n")
            .says("Container started successfully\n");
        assert_ne!(ve.init(), init);
    });
}

#[test]
fn a_name_counts_only_if_both_sides_have_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--name", "my web-1_a+b.c", "--save"]);
        node.vzctl(&["status", "my web-1_a+b.c"]).ok().says(&format!("CTID {} exist", ve.id));
        node.vzctl(&["start", "my web-1_a+b.c"]).ok();
        node.vzctl(&["exec2", "my web-1_a+b.c", "exit 5"]).exits(5);
        ve.run("set", &["--name", "wéb", "--save"]).exits(21);
        let conf = ve.conf().replace("my web-1_a+b.c", "other");
        fs::write(ve.conf_path(), conf).unwrap();
        node.vzctl(&["status", "my web-1_a+b.c"])
            .exits(21)
            .says("Unable to find container by name my web-1_a+b.c\n");
        assert_eq!(node.vzlist(&["-H", "-o", "smart_name", &ve.id]).ok().out().trim(), ve.id);
        // `--applyconfig_map` makes the link that the configuration asks for.
        ve.ok("set", &["--applyconfig_map", "name", "--save"]);
        node.vzctl(&["status", "other"]).ok();
        // A number is a number, with or without zeros in front.
        node.vzctl(&["status", &format!("00{}", ve.id)]).ok().says(&format!("CTID {} exist", ve.id));
        fs::remove_file("/etc/vz/names/my web-1_a+b.c").unwrap();
    });
}

#[test]
fn words_that_are_no_text_arrive_as_they_are() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let word = OsStr::from_bytes(b"\xff\x80\xfe a");
        let mut direct = node.command(&["exec3", &ve.id, "printf", "%s"]);
        direct.arg(word);
        assert_eq!(Background::spawn(direct, &[]).finish().ok().stdout, word.as_bytes());
        let mut shell = node.command(&["exec", &ve.id, "printf", "%s"]);
        shell.arg(OsStr::from_bytes(b"'\xff  \xfe'"));
        assert_eq!(Background::spawn(shell, &[]).finish().ok().stdout, b"\xff  \xfe");
    });
}

#[test]
fn a_node_without_ipv6_leaves_such_addresses_out() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ipadd", "10.5.0.1", "--ipadd", "2001:db8::5", "--save"]);
        node.set_conf("IPV6", "no");
        ve.ok("start", &[]).says("IPv6 support is disabled").says("Adding IP address(es): 10.5.0.1\n");
        ve.wait_up();
        let seen = ve.sh("ip addr show dev venet0");
        assert!(seen.contains("10.5.0.1") && !seen.contains("2001:db8::5"), "{seen}");
        // They stay configured.
        ve.ok("set", &["--ipadd", "10.5.0.2", "--save"]);
        assert_eq!(ve.conf_value("IP_ADDRESS").as_deref(), Some("10.5.0.1 2001:db8::5 10.5.0.2"));
        ve.ok("stop", &["--fast"]);
        node.set_conf("IPV6", "yes");
        ve.start();
        assert!(ve.sh("ip addr show dev venet0").contains("2001:db8::5"));
    });
}

#[test]
fn a_path_may_have_the_number_in_either_form() {
    on_node(|node| {
        let ve = node.tiny(1);
        let scratch = node.scratch();
        ve.ok("set", &["--root", &format!("{}/${{VEID}}/root/", scratch.display()), "--save"]);
        ve.ok("mount", &[]);
        let root = scratch.join(&ve.id).join("root");
        assert!(root.join("etc").is_dir());
        assert_eq!(
            node.vzlist(&["-a", "-H", "-o", "root", &ve.id]).ok().out().trim(),
            root.to_str().unwrap()
        );
        run(
            "sh",
            &[
                "-c",
                &format!(
                    "VEID={}; . {}; test \"$VE_ROOT\" -ef {}",
                    ve.id,
                    ve.conf_path().display(),
                    root.display()
                ),
            ],
        )
        .ok();
        ve.ok("umount", &[]);
        ve.ok("set", &["--root", "/vz/root/$VEID", "--save"]);
    });
}

#[test]
fn limits_of_the_host_are_not_pretended() {
    on_node(|node| {
        let warning =
            "WARNING: limits of the host itself (CT0) other than CPU units are stored and not applied\n";
        node.vzctl(&["set", "0", "--numproc", "1000"]).ok().says(warning);
        node.vzctl(&["set", "0", "--cpuunits", "1000"])
            .ok()
            .says("Setting CPU units: 1000")
            .never_says(warning);
        node.vzctl(&["set", "0", "--reset_ub"]).ok().says(warning).never_says("successfully");
    });
}

#[test]
fn quiet_is_quiet_and_the_log_has_it_all() {
    on_node(|node| {
        let ve = node.tiny(1);
        let id = ve.id.as_str();
        assert_eq!(node.vzctl(&["--quiet", "start", id]).ok().text(), "");
        assert_eq!(node.vzctl(&["--quiet", "start", id]).exits(32).text(), "");
        assert_eq!(
            node.vzctl(&["--quiet", "status", id]).ok().out(),
            format!("CTID {id} exist mounted running\n")
        );
        let log = node.log();
        for text in ["Starting container...", "Container is already running"] {
            let line = log.lines().find(|line| line.ends_with(&format!(" vzctl : CT {id} : {text}")));
            let line = line.unwrap_or_else(|| panic!("{text:?} in\n{log}"));
            let date = line.split(' ').next().unwrap();
            assert!(
                date.len() == 24 && date.as_bytes()[10] == b'T' && b"+-".contains(&date.as_bytes()[19]),
                "{line}"
            );
        }
        ve.ok("stop", &["--fast"]);
        node.vzctl(&["--verbose", "start", id]).ok();
        node.vzctl(&["--dry-run", "stop", id]).ok().says("would stop container");
        ve.is("exist mounted running");
    });
}

#[test]
fn addresses_that_are_configured_no_more_are_gone_from_the_guests_files() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok(
            "create",
            &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free", "--ipadd", "10.5.0.77"],
        );
        let etc = ve.private().join("etc");
        fs::write(etc.join("os-release"), "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
        fs::write(etc.join("debian_version"), "12.0\n").unwrap();
        fs::create_dir_all(etc.join("network")).unwrap();
        let interfaces = etc.join("network/interfaces");
        fs::write(&interfaces, "auto lo\niface lo inet loopback\n").unwrap();
        let told = || fs::read_to_string(&interfaces).unwrap();
        ve.ok("start", &[]);
        assert!(told().contains("10.5.0.77"), "{}", told());
        ve.ok("stop", &["--fast"]);
        // By hand, so that no verb has seen it go.
        let conf = ve.conf().replace("10.5.0.77", "");
        fs::write(ve.conf_path(), conf).unwrap();
        ve.ok("start", &[]);
        assert!(!told().contains("10.5.0.77") && told().contains("lo"), "{}", told());
    });
}

#[test]
fn a_dry_run_of_set_tells_what_would_change_and_changes_nothing() {
    on_node(|node| {
        let ve = node.tiny(1);
        let id = ve.id.as_str();
        let conf = ve.conf();
        let dry = |rest: &[&str]| node.vzctl(&[&["--dry-run", "set", id], rest].concat());
        let run = dry(&[
            "--cpuunits",
            "2000",
            "--onboot",
            "yes",
            "--features",
            "nfs:on",
            "--userpasswd",
            "root:x",
            "--save",
        ]);
        let want = format!(
            "CPUUNITS: \"1000\" -> \"2000\" (at once)\nONBOOT: \"\" -> \"yes\" (stored)\n\
             FEATURES: \"\" -> \"nfs:on\" (after a restart)\npassword of root: changed\nsave /etc/vz/conf/{id}.conf\n"
        );
        assert_eq!(run.ok().out(), want);
        assert_eq!(dry(&["--cpuunits", "1000", "--save"]).ok().out(), "");
        dry(&["--cpuunits", "2000"]).exits(31);
        dry(&["--applyconfig", "none", "--save"]).exits(109);
        assert_eq!(ve.conf(), conf);
    });
}

#[test]
fn a_quiet_program_still_says_why_it_failed() {
    on_node(|node| {
        let calls: [(&str, &[&str]); 4] = [
            ("vzbackup", &["-q", "none"]),
            ("vzrestore", &["-q", "/none.vzb"]),
            ("vzimport", &["-q", "/none", "101"]),
            ("vzmigrate", &["-q", "10.98.0.2", "none"]),
        ];
        for (program, words) in calls {
            let run = run(node.program(program), words);
            assert!(run.code != 0 && run.stderr.contains("none") && run.stdout.is_empty(), "{run}");
        }
    });
}
