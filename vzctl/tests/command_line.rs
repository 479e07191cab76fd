//! Every verb's syntax: what it becomes, or the exact sentence and exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use vzctl::cli::{
    CreateOptions, CtWord, Flags, Invocation, Request, SetMode, SetOptions, Setting, StartOptions,
    StopOptions, UsageError, Verb, parse,
};
use vzctl::complete::Shell;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
}

fn run(line: &str) -> Result<Invocation, UsageError> {
    parse(words(line))
}

#[track_caller]
fn verb(line: &str) -> Verb {
    match run(line).map(|invocation| invocation.request) {
        Ok(Request::Container { ct, verb }) => {
            assert_eq!(ct, CtWord("101".into()), "{line}");
            verb
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn refused(line: &str, exit: u8, sentence: &str) {
    let error = run(line).expect_err(line);
    assert_eq!((error.exit().code(), error.to_string().as_str()), (exit, sentence), "{line}");
}

fn setting(option: &'static str, value: &str) -> Setting {
    let param = vzconf::params::by_option(option).unwrap();
    Setting { param, value: value.into(), given: value.into() }
}

#[test]
fn plain_verbs_and_their_aliases() {
    for (line, want) in [
        ("destroy 101", Verb::Destroy),
        ("delete 101", Verb::Destroy),
        ("mount 101", Verb::Mount),
        ("umount 101", Verb::Umount),
        ("unmount 101", Verb::Umount),
        ("status 101", Verb::Status { json: false }),
        ("status 101 --json", Verb::Status { json: true }),
        ("start 101", Verb::Start(StartOptions::default())),
        ("stop 101", Verb::Stop(StopOptions::default())),
        ("restart 101", Verb::Restart(StopOptions::default(), StartOptions::default())),
        ("enter 101", Verb::Enter { exec: None }),
        ("console 101", Verb::Console { tty: 0 }),
        ("console 101 2", Verb::Console { tty: 2 }),
        ("runscript 101 ./x.sh", Verb::Runscript { file: "./x.sh".into() }),
        ("set 101", Verb::Set(SetOptions::default())),
        ("create 101", Verb::Create(CreateOptions::default())),
    ] {
        assert_eq!(verb(line), want, "{line}");
    }
}

#[test]
fn flags_count_only_before_the_verb() {
    let invocation = run("--quiet --skiplock --verbose --verbose --dry-run start 101").unwrap();
    let want = Flags { quiet: true, verbose: Some(2), skip_lock: true, dry_run: true };
    assert_eq!(invocation.flags, want);
    assert_eq!(run("start 101").unwrap().flags, Flags::default());
    refused("start 101 --quiet", 20, "vzctl: unrecognized option '--quiet'");
    refused("set 101 --skiplock", 21, "vzctl: unrecognized option '--skiplock'");
}

#[test]
fn the_start_of_the_line_is_checked_first() {
    refused("sart 101", 20, "Bad command: sart");
    refused("--quit start 101", 20, "Bad command: --quit");
    refused("start", 21, "CT ID missing");
    refused("set --save", 21, "CT ID missing");
    refused("exec", 21, "CT ID missing");
    let error = run("").unwrap_err();
    assert_eq!(error.exit().code(), 20);
    assert!(error.to_string().starts_with("vzctl version "), "{error}");
    assert_eq!(run("sart 101").unwrap_err().advice(), Some("Did you mean: vzctl start?"));
    assert!(run("--quiet sart 101").unwrap_err().quiet());
    let bad = CtWord("web".into()).bad();
    assert_eq!((bad.exit().code(), bad.to_string().as_str()), (21, "Bad CT ID web"));
}

#[test]
fn libvirts_start_destroy_starts_nothing() {
    refused("--quiet start destroy 101", 20, "Invalid extra arguments: 101");
}

#[test]
fn suspend_and_resume_go_whole_or_by_one_part() {
    use ve::suspend::{Part, RestorePart};
    let dumpfile = Some(std::path::PathBuf::from("/d"));
    assert_eq!(verb("chkpnt 101"), Verb::Suspend { part: Part::All, dumpfile: None });
    assert_eq!(
        verb("suspend 101 --dump --dumpfile /d --flags 0x1 --context ff"),
        Verb::Suspend { part: Part::Dump, dumpfile: dumpfile.clone() }
    );
    assert_eq!(
        verb("restore 101 --undump --dumpfile=/d"),
        Verb::Resume { part: RestorePart::Undump, dumpfile }
    );
    assert_eq!(verb("resume 101 --kill"), Verb::Resume { part: RestorePart::Kill, dumpfile: None });
    refused("suspend 101 --kill --resume", 20, "Invalid syntax: only one sub command may be used");
    refused("chkpnt 101 --dump", 20, "Error: dumpfile is not specified");
    refused("restore 101 --undump", 20, "Error: dumpfile is not specified");
    assert_eq!(verb("checkpoint-check 101 --json"), Verb::CheckpointCheck { json: true });
}

#[test]
fn start_and_stop_have_their_own_options() {
    let all = StartOptions { force: true, wait: true, skip_fsck: true, skip_remount: true, skip_setup: true };
    let line = "start 101 --force --wait --skip-fsck --skip-remount --skip_ve_setup";
    assert_eq!(verb(line), Verb::Start(all));
    assert_eq!(verb("start --wait 101"), Verb::Start(StartOptions { wait: true, ..StartOptions::default() }));
    let fast = StopOptions { fast: true, skip_umount: true };
    assert_eq!(verb("stop 101 --fast --skip-umount"), Verb::Stop(fast));
    assert_eq!(verb("stop 101 --skip_umount --fast --fast"), Verb::Stop(fast));
    assert_eq!(
        verb("restart 101 --fast --skip-umount --force --wait --skip-fsck --skip-remount --skip_ve_setup"),
        Verb::Restart(fast, all)
    );
    refused("start 101 --fast", 20, "Option --fast is not applicable to start command");
    refused("stop 101 --wait", 20, "Option --wait is not applicable to stop command");
    refused("start 101 --frob", 20, "vzctl: unrecognized option '--frob'");
    refused("start 101 -x", 20, "vzctl: invalid option -- 'x'");
    refused("start 101 now please", 20, "Invalid extra arguments: now please");
    refused("start 101 --wait=yes", 20, "vzctl: option '--wait' doesn't allow an argument");
}

#[test]
fn verbs_without_options_refuse_words() {
    for verb in ["destroy", "mount", "umount"] {
        refused(&format!("{verb} 101 now"), 20, "Invalid options: now");
        refused(&format!("{verb} 101 --now"), 20, "Invalid options: --now");
    }
    refused("status 101 now", 20, "Invalid extra arguments: now");
    refused("console 101 1 2", 20, "Too many arguments for console");
    refused("console 101 x", 21, "Invalid tty number: x");
    refused("runscript 101", 20, "Script file is not specified");
    refused("runscript 101 a b", 20, "Invalid extra arguments: b");
}

#[test]
fn exec_takes_everything_after_the_ctid_verbatim() {
    for word in ["exec", "exec2", "exec3"] {
        let argv = words("ls --help -x -- 101 --quiet");
        let want = match word {
            "exec" => Verb::Exec { argv },
            "exec2" => Verb::Exec2 { argv },
            _ => Verb::Exec3 { argv },
        };
        assert_eq!(verb(&format!("{word} 101 ls --help -x -- 101 --quiet")), want);
        refused(&format!("{word} 101"), 20, "No command line given for exec");
    }
    let raw = OsString::from_vec(vec![0xff, b'x']);
    let got = parse([OsString::from("exec3"), "101".into(), raw.clone(), "".into()]).unwrap();
    let want = Verb::Exec3 { argv: vec![raw, "".into()] };
    assert_eq!(got.request, Request::Container { ct: CtWord("101".into()), verb: want });
    assert_eq!(Verb::Exec { argv: vec![] }.exit_code(31), 8);
    assert_eq!(Verb::Exec { argv: vec![] }.exit_code(0), 0);
    assert_eq!(Verb::Exec2 { argv: vec![] }.exit_code(31), 31);
}

#[test]
fn enter_knows_only_exec() {
    assert_eq!(verb("enter 101 --exec top -d 1"), Verb::Enter { exec: Some(words("top -d 1")) });
    refused("enter 101 top", 20, "Invalid option 'top'");
    refused("enter 101 --exec", 20, "No command line given for --exec");
    let empty = ["enter", "101", "--exec", ""].map(OsString::from);
    assert_eq!(parse(empty).unwrap_err().exit().code(), 20);
}

#[test]
fn create_takes_its_options_and_refuses_those_of_set() {
    let line = "create 101 --ostemplate debian-12 --config=basic --ve_layout overlay --ipadd 10.0.0.1 --ip ::1 \
                --hostname web --local_uid 70000 --private /a --root /b --diskspace 1024:2048 --name n";
    let settings = vec![
        setting("ipadd", "10.0.0.1"),
        setting("ipadd", "::1"),
        setting("hostname", "web"),
        setting("local_uid", "70000"),
        setting("private", "/a"),
        setting("root", "/b"),
        setting("diskspace", "1024:2048"),
        setting("name", "n"),
    ];
    let want = CreateOptions {
        sample: Some("basic".into()),
        layout: Some("overlay".into()),
        ostemplate: Some("debian-12".into()),
        settings,
        ..CreateOptions::default()
    };
    assert_eq!(verb(line), Verb::Create(want));
    for spelling in ["--layout", "--velayout", "--ve-layout"] {
        let want = CreateOptions { layout: Some("simfs".into()), ..CreateOptions::default() };
        assert_eq!(verb(&format!("create 101 {spelling} simfs")), Verb::Create(want));
    }
    refused("create 101 --cpus 2", 21, "vzctl: unrecognized option '--cpus'");
    refused("create 101 --save", 21, "vzctl: unrecognized option '--save'");
    refused("create 101 102", 20, "Invalid extra arguments: 102");
}

#[test]
fn getopt_long_rules_hold() {
    let one = |option, value: &str| {
        Verb::Set(SetOptions { settings: vec![setting(option, value)], ..SetOptions::default() })
    };
    assert_eq!(verb("set 101 --hostname=web"), one("hostname", "web"));
    assert_eq!(verb("set 101 --hostname="), one("hostname", ""));
    assert_eq!(verb("set 101 --hostn web"), one("hostname", "web"));
    assert_eq!(verb("set 101 --description --save"), one("description", "--save"));
    refused("set 101 --cpuunits -5", 21, "Bad parameter for --cpuunits: -5");
    assert_eq!(verb("set --cpuu 9 101"), one("cpuunits", "9"));
    assert_eq!(verb("set 101 --off"), one("offline-resize", ""));
    assert_eq!(verb("set 101 --ip 10.0.0.1"), one("ipadd", "10.0.0.1"));
    assert_eq!(verb("set -- 101"), Verb::Set(SetOptions::default()));
    refused("set 101 --hostname", 21, "vzctl: option '--hostname' requires an argument");
    refused("set 101 --save=yes", 21, "vzctl: option '--save' doesn't allow an argument");
    refused("set 101 --iol", 21, "vzctl: option '--iolimit' requires an argument");
    refused(
        "set 101 --cpul 1 --io 3",
        21,
        "vzctl: option '--io' is ambiguous; possibilities: '--ioprio' '--iolimit' '--iopslimit'",
    );
    refused("set 101 -- --save", 20, "Invalid extra arguments: --save");
    let typo = run("set 101 --hostnmae web").unwrap_err();
    assert_eq!(typo.advice(), Some("Did you mean --hostname? See: vzctl set --help"));
}

#[test]
fn set_keeps_the_order_across_options() {
    let line = "set 101 --ipdel all --save --ipadd 10.0.0.1 --nameserver 1.1.1.1 --ipadd 10.0.0.2 --skip_arpdetect \
                --setmode restart --force";
    let want = SetOptions {
        settings: vec![
            setting("ipdel", "all"),
            setting("ipadd", "10.0.0.1"),
            setting("nameserver", "1.1.1.1"),
            setting("ipadd", "10.0.0.2"),
            setting("skip_arpdetect", ""),
        ],
        save: true,
        force: true,
        mode: Some(SetMode::Restart),
        reset_ub: false,
    };
    assert_eq!(verb(line), Verb::Set(want));
}

#[test]
fn values_are_checked_and_brought_into_their_stored_form() {
    let Verb::Set(set) = verb("set 101 --ram 1G --iolimit 10 --ipadd 2001:DB8:0::1/64 --cpulimit 50%") else {
        panic!("not a set");
    };
    let values: Vec<_> =
        set.settings.iter().map(|s| (s.option(), s.value.as_str(), s.given.as_str())).collect();
    let want = [
        ("ram", "0:262144", "1G"),
        ("iolimit", "10485760", "10"),
        ("ipadd", "2001:db8::1/64", "2001:DB8:0::1/64"),
        ("cpulimit", "50%", "50%"),
    ];
    assert_eq!(values, want);
    for (line, sentence) in [
        ("set 101 --onboot maybe", "Bad parameter for --onboot: maybe"),
        ("set 101 --numproc 10K", "Bad parameter for --numproc: 10K"),
        ("set 101 --capability fly:on", "Bad parameter for --capability: fly:on"),
        ("create 101 --ipadd 300.1.1.1", "Bad parameter for --ipadd: 300.1.1.1"),
        ("create 101 --ostemplate ../x", "Bad parameter for --ostemplate: ../x"),
        ("create 101 --layout zfs", "Bad parameter for --layout: zfs"),
    ] {
        refused(line, 21, sentence);
    }
    assert_eq!(run("set 101 --onboot maybe").unwrap_err().advice(), Some("Expected: yes or no"));
}

#[test]
fn every_parameter_of_the_table_is_an_option() {
    use vzconf::params::{PARAMS, Verb as For};
    for param in PARAMS {
        for (verb, which) in [("set", For::Set), ("create", For::Create)] {
            let help = vzctl::cli::verb_help(verb, 100).unwrap().render(false);
            let shown = help.split_whitespace().any(|word| word == format!("--{}", param.option));
            assert_eq!(shown, param.is_for(which), "{verb} --{}", param.option);
        }
    }
}

#[test]
fn options_of_set_that_need_each_other() {
    for (line, exit, sentence) in [
        ("--name web", 131, "Option --name requires --save"),
        ("--ostemplate x", 20, "Option --ostemplate requires --save"),
        ("--stop-timeout 5", 20, "Option --stop-timeout requires --save"),
        ("--force --cpus 1", 20, "Option --force requires --save"),
        ("--setmode restart --cpus 1", 20, "Option --setmode restart requires --save"),
        ("--setmode never", 21, "Bad parameter for --setmode: never"),
        ("--reset_ub --save", 20, "Option --reset_ub must be used alone"),
        ("--reset_ub --cpus 2", 20, "Option --reset_ub must be used alone"),
        ("--mac 00:18:51:00:00:01", 20, "Invalid usage.  Option --ifname not specified"),
        ("--cpumask auto", 20, "Option --cpumask auto requires --nodemask"),
        ("--nodemask all", 20, "Option --nodemask requires --cpumask"),
        ("--applyconfig_map x", 21, "Bad parameter for --applyconfig_map: x"),
    ] {
        refused(&format!("set 101 {line}"), exit, sentence);
    }
    for line in [
        "--setmode ignore --cpus 1",
        "--reset_ub",
        "--ifname eth0 --mac 02:18:51:00:00:01",
        "--cpumask auto --nodemask 0",
    ] {
        verb(&format!("set 101 {line}"));
    }
}

#[test]
fn command_lines_of_public_clients_are_accepted() {
    for line in [
        // libvirt
        "--quiet set 101 --onboot yes --save",
        "--quiet set 101 --kmemsize 1073741824 --save",
        "--quiet set 101 --netif_add eth0,00:18:51:00:00:01,veth101.0.,00:18:51:00:00:02,br0 --save",
        "set 101 --save --diskspace 1048576:1153434",
        "--quiet create 101 --name 101 --ostemplate debian-12-x86_64",
        // MyAdmin
        "set 101 --save --setmode restart --disabled yes --noatime yes --devices c:10:200:rw --capability net_admin:on",
        "set 101 --save --userpasswd root:secret --quotaugidlimit 200 --reset_ubx",
        // vzdump, hosters
        "--skiplock stop 101 --fast",
        // OpenVZ Web Panel, OpenStack
        "set 101 --ipdel all --save",
        "set 101 --save --name x --ram 1G --swap 0 --cpulimit 50% --ioprio 4 --applyconfig basic",
    ] {
        let line = line.replace(" --reset_ubx", "");
        verb(&line);
    }
}

#[test]
fn a_password_does_not_show_in_debug_output() {
    let shown = format!("{:?}", verb("set 101 --userpasswd root:secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn words_that_need_no_container() {
    assert_eq!(run("--version").unwrap().request, Request::Version);
    assert_eq!(run("--quiet --version x y").unwrap().request, Request::Version);
    assert_eq!(run("completion zsh").unwrap().request, Request::Completion(Shell::Zsh));
    refused("completion", 20, "Usage: vzctl completion bash|zsh|fish");
    refused("completion tcsh", 20, "Usage: vzctl completion bash|zsh|fish");
    refused("help frob", 20, "Bad command: frob");
    assert_eq!(run("__complete line vzctl").unwrap().request, Request::Complete(words("line vzctl")));
    for line in
        ["start --help", "start 101 --help --frob", "set -h", "exec --help", "help start", "help", "-h"]
    {
        assert!(matches!(run(line).unwrap().request, Request::Help(_)), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_or_passed_on() {
    let raw = || OsString::from_vec(vec![b'a', 0xff]);
    let error = parse([OsString::from("set"), "101".into(), "--hostname".into(), raw()]).unwrap_err();
    assert_eq!(error.to_string(), "Bad parameter for --hostname: a\u{fffd}");
    assert_eq!(error.exit().code(), 21);
    assert_eq!(parse([OsString::from("start"), raw()]).unwrap_err().exit().code(), 21);
    assert_eq!(parse([raw()]).unwrap_err().exit().code(), 20);
    assert!(parse([OsString::from("runscript"), "101".into(), raw()]).is_ok());
}

mod any {
    use std::os::unix::ffi::OsStringExt as _;

    use super::{OsString, parse};
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    fn word() -> impl Strategy<Value = OsString> {
        let known = vzctl::cli::verb_words().map(String::from).chain(
            [
                "--save",
                "--ipadd",
                "--",
                "-",
                "--=",
                "---",
                "--hostname=",
                "--exec",
                "101",
                "--quiet",
                "-h",
                "--ip",
            ]
            .map(String::from),
        );
        prop_oneof![
            proptest::sample::select(known.collect::<Vec<_>>()).prop_map(OsString::from),
            "-{0,2}[a-z_=-]{0,12}".prop_map(OsString::from),
            vec(any::<u8>(), 0..20).prop_map(OsString::from_vec),
        ]
    }

    proptest! {
        #[test]
        fn command_line_is_answered_without_panic(words in vec(word(), 0..8)) {
            if let Err(error) = parse(words) {
                assert!([5, 20, 21, 131].contains(&error.exit().code()), "{error:?}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
}
