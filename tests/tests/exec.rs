//! exec, exec2, exec3, enter, console, runscript: a person and a script inside a VE.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vztests::{Ve, on_node, run, until};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn exit_codes_are_those_of_each_verb() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.run("exec", &["true"]).exits(8);
        ve.run("exec2", &["true"]).exits(31).says("Container is not running");
        ve.run("exec3", &["true"]).exits(31).says("Container is not running");
        ve.run("enter", &[]).exits(31).says("Container is not running");
        ve.start();
        for verb in ["exec", "exec2", "exec3"] {
            ve.ok(verb, &["true"]);
        }
        ve.run("exec", &["exit 7"]).exits(8);
        ve.run("exec2", &["exit 7"]).exits(7);
        ve.run("exec2", &["exit 255"]).exits(255);
        ve.run("exec3", &["sh", "-c", "exit 9"]).exits(9);
        ve.run("exec2", &["kill -KILL $$"]).exits(3).says("Got signal 9");
        ve.run("exec", &["no-such-program"]).exits(8).says("not found");
        ve.run("exec2", &["no-such-program"]).exits(127);
        let missing = ve.run("exec3", &["/no/such"]);
        assert_ne!(missing.code, 0, "{missing}");
        ve.run("exec", &[]).exits(20).says("No command line given for exec");
    });
}

#[test]
fn words_reach_the_shell_or_the_program() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        // One string for the VE's shell, which takes it apart again.
        assert_eq!(ve.ok("exec", &["echo", "a   b", "$((1 + 2))", "", ">&1"]).out(), "a b 3 \n");
        assert_eq!(ve.ok("exec2", &["set -- \"x y\" ''; echo $#"]).out(), "2\n");
        // The words as they are.
        let program = ["printf", "<%s>", "a  b", "", "$HOME", "'", "\n"];
        assert_eq!(ve.ok("exec3", &program).out(), "<a  b><><$HOME><'><\n>");
    });
}

#[test]
fn the_environment_is_exactly_the_documented_one() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut command = node.command(&["exec3", &ve.id, "env"]);
        command.env("SECRET", "of the host").env("LD_PRELOAD", "/no/such.so");
        let seen = vztests::Background::spawn(command, &[]).finish().ok().out();
        let mut seen: Vec<&str> = seen.lines().filter(|line| !line.starts_with("_=")).collect();
        seen.sort_unstable();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(seen, ["HOME=/", path, "TERM=linux"]);
        assert_eq!(ve.sh("pwd"), "/");
    });
}

#[test]
fn shell_reads_commands_from_stdin() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let run = ve.begin("exec2", &["-"], b"echo one\nfalse\necho two; exit 5\n").finish().exits(5);
        assert_eq!(run.out(), "one\ntwo\n");
    });
}

/// Bytes that no text has: all values, without a period that a lost block could hide in.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend(x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn fifty_megabytes_pass_unchanged_both_ways() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let bytes = noise(50 << 20);
        let run = ve.begin("exec2", &["cat"], &bytes).finish().ok();
        assert_eq!(run.stdout.len(), bytes.len());
        assert!(run.stdout == bytes, "bytes have changed on the way");
        // The same from and to files.
        let (from, to) = (node.scratch().join("from"), node.scratch().join("to"));
        fs::write(&from, &bytes[..5 << 20]).unwrap();
        let status = node
            .command(&["exec3", &ve.id, "cat"])
            .stdin(File::open(&from).unwrap())
            .stdout(File::create(&to).unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        assert!(fs::read(&to).unwrap() == bytes[..5 << 20]);
    });
}

#[test]
fn streams_are_kept_apart_and_end_when_they_should() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let run = ve.ok("exec2", &["echo out; echo err >&2"]);
        assert_eq!((run.out().as_str(), run.stderr.as_str()), ("out\n", "err\n"));
        // The end of our input is the end of the program's.
        assert_eq!(ve.begin("exec2", &["wc -c"], b"12345").finish().ok().out().trim(), "5");
        let mut command = node.command(&["exec2", &ve.id, "cat; echo done"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.stdout, b"done\n");
        // A reader that goes away ends the writer, not us by a hang.
        let mut child = node.command(&["exec2", &ve.id, "yes"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        until("exec ends when nobody reads", SOON, || child.try_wait().unwrap().is_some());
    });
}

#[test]
fn a_background_process_does_not_hang_exec() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let quiet = ve.begin("exec2", &["sleep 1000 >/dev/null 2>&1 </dev/null & echo started"], b"");
        assert_eq!(quiet.finish_within(SOON).ok().out(), "started\n");
        let loud = ve.begin("exec2", &["sleep 1001 & echo started"], b"");
        assert_eq!(loud.finish_within(SOON).ok().out(), "started\n");
        // They are the VE's now, and live on in it.
        assert!(ve.sh("ps").contains("sleep 1000"));
        assert!(ve.sh("ps").contains("sleep 1001"));
    });
}

#[test]
fn signals_reach_the_program_inside() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
            let line = format!(
                "trap 'echo got {name}; exit 42' {name}; echo ready > /tmp/ready; while :; do sleep 0.1; done"
            );
            ve.sh("rm -f /tmp/ready");
            let exec = ve.begin("exec2", &[&line], b"");
            until("the trap is set", SOON, || ve.run("exec2", &["test -e /tmp/ready"]).code == 0);
            exec.signal(signal);
            exec.finish_within(SOON).exits(42).says(&format!("got {name}"));
        }
    });
}

#[test]
fn the_end_of_exec_by_force_leaves_no_carrier_behind() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let exec = ve.begin("exec2", &["sleep 999"], b"");
        until("it sleeps", SOON, || ve.sh("ps").contains("sleep 999"));
        exec.signal(Signal::KILL);
        exec.finish_within(SOON).exits(-9);
        ve.ok("stop", &["--fast"]);
    });
}

/// What could leak with each call: descriptors of the monitor, cgroups, processes.
fn held(ve: &Ve<'_>) -> (usize, usize, usize) {
    let fds = fs::read_dir(format!("/proc/{}/fd", ve.monitor().unwrap())).unwrap().count();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes =
        processes.filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok())).count();
    (fds, ve.cgroups().len(), processes)
}

#[test]
fn three_hundred_execs_leak_nothing() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        for _ in 0..3 {
            ve.sh("true");
        }
        // Those who serve views get their seconds when the start is over.
        let (mut before, mut since) = (held(&ve), Instant::now());
        until("all that a start begins is there", SOON, || {
            let now = held(&ve);
            if now != before {
                (before, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_secs(1)
        });
        for i in 0..300 {
            assert_eq!(ve.sh(&format!("echo {i}")), i.to_string());
        }
        let mut after = (0, 0, 0);
        let same = vztests::holds(SOON, || {
            after = held(&ve);
            after == before
        });
        assert!(same, "descriptors, cgroups, processes: {before:?} before, {after:?} after");
    });
}

#[test]
fn processes_of_exec_are_in_the_cgroups_of_the_ve_and_die_with_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.sh("sleep 4321 >/dev/null 2>&1 </dev/null &");
        let pids = run("pgrep", &["-f", "sleep 4321"]).ok().out();
        let pid = pids.lines().next().unwrap();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for line in groups.lines().filter(|line| !line.starts_with("0::")) {
            assert!(line.contains(&format!("/vz/{}", ve.id)), "{groups}");
        }
        ve.ok("stop", &["--fast"]);
        until("it died with its VE", SOON, || !fs::exists(format!("/proc/{pid}")).unwrap());
    });
}

#[test]
fn enter_gives_a_terminal() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut pty = ve.at_terminal("enter", &[]);
        pty.expect(&format!("entered into CT {}", ve.id));
        pty.send("tty; stty size; echo MARK-$((40 + 2))\n");
        let text = pty.expect("MARK-42");
        assert!(text.contains("/dev/pts/"), "{text:?}");
        assert!(text.contains("24 80"), "{text:?}");
        pty.resize(50, 132);
        // Nobody says when the size has arrived.
        until("the new size is seen inside", SOON, || {
            pty.send("echo SIZE-$(stty size | tr ' ' x)-END\n");
            pty.expect("SIZE-5");
            pty.expect("-END") == "0x132"
        });
        pty.send("env | sort | tr '\\n' ' '; echo ENV-$((1 + 1))\n");
        let env = pty.expect("ENV-2");
        for entry in ["HISTFILE=/dev/null", "HOME=/root", "LOGNAME=root", "TERM=vt100", "USER=root"] {
            assert!(env.contains(entry), "{entry} in {env:?}");
        }
        pty.send("exit 3\n");
        let (code, rest) = pty.finish();
        assert!(rest.contains(&format!("exited from CT {}", ve.id)), "{rest:?}");
        assert_eq!(code, 0, "a session that went well is 0, whatever the shell returned");
    });
}

#[test]
fn enter_has_job_control() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut pty = ve.at_terminal("enter", &[]);
        pty.expect("entered into");
        pty.send("echo READY-$((1 + 1))\n");
        pty.expect("READY-2");
        pty.send("sleep 1234\n");
        until("the command runs", SOON, || ve.sh("ps").contains("sleep 1234"));
        pty.send("\x03");
        until("Ctrl-C ends it", SOON, || !ve.sh("ps").contains("sleep 1234"));
        pty.send("echo STILL-$((1 + 2))\n");
        pty.expect("STILL-3");
        pty.send("sleep 1235\n");
        until("the command runs", SOON, || ve.sh("ps").contains("sleep 1235"));
        pty.send("\x1a");
        pty.send("jobs; echo JOBS-$((1 + 3))\n");
        let jobs = pty.expect("JOBS-4");
        assert!(jobs.contains("sleep 1235"), "{jobs:?}");
        pty.send("kill -9 %1\n");
        until("it is gone", SOON, || !ve.sh("ps").contains("sleep 1235"));
        // The shell looks at its jobs before each prompt.
        pty.send("\nexit\n");
        assert_eq!(pty.finish().0, 0);
    });
}

#[test]
fn enter_types_what_exec_says() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut pty = ve.at_terminal("enter", &["--exec", "echo", "TYPED-$((6 * 7));", "exit"]);
        pty.expect("TYPED-42");
        assert_eq!(pty.finish().0, 0);
        ve.run("enter", &["--exec"]).exits(20);
        ve.run("enter", &["stray"]).exits(20);
    });
}

#[test]
fn the_console_shows_what_the_ve_writes_and_takes_what_is_typed() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut pty = ve.at_terminal("console", &[]);
        pty.expect(&format!("Attached to CT {} (ESC . to detach)", ve.id));
        ve.sh("echo SAID-$((20 + 1)) > /dev/console");
        pty.expect("SAID-21");
        // Detached, it is remembered for the next who looks.
        pty.send("\x1b.");
        let (code, rest) = pty.finish();
        assert_eq!(code, 0);
        assert!(rest.contains(&format!("Detached from CT {}", ve.id)), "{rest:?}");
        ve.sh("echo SAID-$((20 + 2)) > /dev/console");
        let mut pty = ve.at_terminal("console", &[]);
        pty.expect("SAID-22");
        // It outlives a restart.
        ve.ok("restart", &["--fast"]);
        ve.wait_up();
        ve.sh("echo SAID-$((20 + 3)) > /dev/console");
        pty.expect("SAID-23");
        pty.send("\r\x1b.");
        assert_eq!(pty.finish().0, 0);
    });
}

#[test]
fn the_console_of_a_stopped_ve_waits_for_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        let mut pty = ve.at_terminal("console", &[]);
        pty.expect("Attached to CT");
        ve.start();
        until("console output arrives", SOON, || {
            ve.run("exec2", &["echo HELLO-$((2 + 3)) > /dev/console"]).code == 0
        });
        pty.expect("HELLO-5");
        pty.send("\r\x1b.");
        assert_eq!(pty.finish().0, 0);
    });
}

#[test]
fn a_ve_never_blocks_on_a_console_that_nobody_reads() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let line = "i=0; while [ $i -lt 3000 ]; do echo a line of some length on the console: $i; i=$((i + 1)); done > /dev/console";
        ve.begin("exec2", &[line], b"").finish_within(SOON).ok();
    });
}

#[test]
fn runscript_runs_in_running_and_stopped_ves() {
    on_node(|node| {
        let ve = node.tiny(1);
        let file = node.scratch().join("script");
        let name = file.to_str().unwrap();
        ve.run("runscript", &["/no/such/script"]).exits(11).says("Script not found: /no/such/script");
        fs::write(&file, "hostname > /root/ran\necho here: $(id -u)\nexit 6\n").unwrap();
        ve.run("runscript", &[name]).exits(6).says("here: 0\n");
        ve.is("exist unmounted down");
        ve.start();
        ve.run("runscript", &[name]).exits(6).says("here: 0\n");
        assert!(!ve.sh("cat /root/ran").is_empty());
        ve.is("exist mounted running");
    });
}

#[test]
fn the_standard_files_can_be_opened_by_name() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let line = "echo out >/dev/stdout; echo err >/dev/stderr; su nobody -s /bin/sh -c 'echo too >/dev/stderr'; cat /dev/stdin";
        let run = ve.begin("exec2", &[line], b"in\n").finish().ok();
        assert_eq!((run.out().as_str(), run.stderr.as_str()), ("out\nin\n", "err\ntoo\n"));
    });
}

#[test]
fn limits_of_the_starter_do_not_reach_the_ve() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let vzctl = node.program("vzctl");
        let line =
            format!("ulimit -Sn 4000 -c unlimited; {} exec2 {} 'ulimit -Sn -Sc'", vzctl.display(), ve.id);
        let said = run("bash", &["-c", &line]).ok().out();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert!(words.contains(&"1024") && words.contains(&"0"), "{said}");
    });
}

#[test]
fn a_large_paste_into_a_program_that_answers_is_no_deadlock() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.sh("echo 'exec cat' > /etc/profile");
        let mut paste = String::new();
        for number in 0..6000 {
            paste += &format!("{number} is a line of what somebody pastes into a terminal\n");
        }
        let run = ve.begin("enter", &[], paste.as_bytes()).finish_within(Duration::from_secs(60));
        assert!(run.out().contains("5999 is a line"), "{run}");
    });
}

/// The time that a process has had a CPU, in ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
fn a_console_that_says_nothing_costs_nothing() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let init = ve.private().join("sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\nwhile :; do sleep 1; done\n").unwrap();
        run("chmod", &["755", init.to_str().unwrap()]).ok();
        ve.start();
        let mut command = node.command(&["console", &ve.id]);
        let (input, _held) = std::io::pipe().unwrap();
        let mut console = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(console.id()).unwrap();
        let busy = vztests::holds(Duration::from_secs(3), || ticks(pid) > 30);
        console.kill().unwrap();
        console.wait().unwrap();
        assert!(!busy, "vzctl console is busy with nothing");
    });
}

#[test]
fn a_terminal_that_the_program_has_closed_costs_nothing() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.sh("echo 'exec sleep 1000 </dev/null >/dev/null 2>&1' > /etc/profile");
        let mut command = node.command(&["enter", &ve.id]);
        let (input, _held) = std::io::pipe().unwrap();
        let mut enter = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(enter.id()).unwrap();
        let busy = vztests::holds(Duration::from_secs(3), || ticks(pid) > 60);
        ve.sh("killall sleep");
        enter.wait().unwrap();
        assert!(!busy, "vzctl enter is busy with nothing");
    });
}

#[test]
fn a_process_left_behind_that_writes_for_ever_holds_nobody() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        // To a reader that takes everything: what comes must end all the same.
        let flood = "(trap '' HUP; while :; do echo noise; echo noise >&2; done) & sleep 1; echo END";
        let run = ve.begin("exec2", &[flood], b"").finish_within(Duration::from_secs(30)).ok();
        assert!(run.out().contains("END"), "what the program itself wrote is passed on");
        let pty = ve.at_terminal("enter", &[]);
        pty.send("(trap '' HUP; while :; do echo noise; done) & sleep 1; exit\n");
        assert_eq!(pty.finish().0, 0);
    });
}

#[test]
fn a_stopped_program_takes_signals_all_the_same() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let exec = ve.begin("exec2", &["echo $$ > /tmp/pid; exec sleep 997"], b"");
        until("it runs", SOON, || ve.sh("ps").contains("sleep 997"));
        ve.sh("kill -STOP $(cat /tmp/pid)");
        until("it is stopped", SOON, || ve.sh("cat /proc/$(cat /tmp/pid)/stat").contains(") T "));
        exec.signal(Signal::TERM);
        exec.finish_within(SOON).exits(3).says("Got signal 15");
    });
}

#[test]
fn the_terminal_of_the_admin_is_out_of_reach_of_exec() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        // Without a terminal there is nothing to type into (TIOCSTI), to read or to keep.
        let pty = ve.at_terminal("exec2", &["true <>/dev/tty || echo NO-TERMINAL; tty"]);
        let (_, said) = pty.finish();
        assert!(said.contains("NO-TERMINAL") && said.contains("not a tty"), "{said}");
    });
}
