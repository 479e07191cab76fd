//! How a VE ends: by a verb, by itself, by accident.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use vztests::{Ve, holds, on_node, run, until};

const SOON: Duration = Duration::from_secs(30);
const DOWN: &str = "exist unmounted down";
const UP: &str = "exist mounted running";

/// Makes the VE's init deaf to all that asks it to stop.
fn deafen(ve: &Ve<'_>) {
    let init = ve.private().join("sbin/init");
    let script = "#!/bin/sh\ntrap '' TERM INT HUP QUIT USR1 USR2 PWR\nwhile :; do sleep 1; done\n";
    fs::remove_file(&init).unwrap();
    fs::write(&init, script).unwrap();
    run("chmod", &["755", init.to_str().unwrap()]).ok();
}

#[test]
fn a_clean_stop_lets_the_guest_shut_down() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        ve.start();
        ve.sh("mkdir -p /root; (trap 'sync; echo asked > /root/asked; exit' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 </dev/null &");
        let stop = ve.ok("stop", &[]).says("Container was stopped").never_says("Killing");
        assert!(stop.took < Duration::from_secs(20), "{stop}");
        let asked = fs::read_to_string(ve.private().join("root/asked")).unwrap_or_default();
        assert_eq!(asked, "asked\n", "processes are asked by SIGTERM before they are killed");
        ve.is(DOWN);
    });
}

#[test]
fn a_guest_that_does_not_stop_is_killed_after_its_time() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        deafen(&ve);
        ve.ok("set", &["--stop-timeout", "1", "--save"]);
        ve.start();
        let stop = ve.ok("stop", &[]);
        let stop = stop
            .says("Stopping container ...\n")
            .says("Killing container ...\n")
            .says("Container was stopped\n");
        assert!(stop.took > Duration::from_millis(900) && stop.took < Duration::from_secs(15), "{stop}");
        ve.is(DOWN);
        // The node's own time counts where the VE has none.
        let conf = ve.conf();
        let kept: Vec<&str> = conf.lines().filter(|line| !line.starts_with("STOP_TIMEOUT")).collect();
        fs::write(ve.conf_path(), kept.join("\n") + "\n").unwrap();
        node.set_conf("STOP_TIMEOUT", "1");
        ve.start();
        assert!(ve.ok("stop", &[]).took < Duration::from_secs(15));
    });
}

#[test]
fn a_fast_stop_is_fast() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.sh("for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 </dev/null & done");
        let stop = ve.ok("stop", &["--fast"]);
        assert!(stop.took < Duration::from_secs(5), "{stop}");
        ve.is(DOWN);
    });
}

#[test]
fn halt_and_poweroff_inside_leave_it_stopped_and_unmounted() {
    on_node(|node| {
        let ve = node.tiny(1);
        for command in ["halt", "poweroff"] {
            ve.start();
            let _ = ve.run("exec", &[command]);
            ve.becomes(DOWN);
            until("nothing of its run is left", SOON, || !fs::exists(format!("/run/vz/{}", ve.id)).unwrap());
            let log = node.log();
            assert!(log.contains("Container was halted from inside"), "after {command}:\n{log}");
        }
    });
}

/// Waits until the VE runs with another init than this one.
fn comes_back(ve: &Ve<'_>, old: i32) {
    until("it comes back with a new init", SOON, || {
        ve.init().is_some_and(|init| init != old) && ve.status() == UP
    });
    ve.wait_up();
}

#[test]
fn reboot_inside_starts_it_again_without_a_daemon() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ipadd", "10.7.0.1", "--save"]);
        ve.start();
        ve.sh("echo disk > /root/disk; echo ram > /run/ram");
        for _ in 0..3 {
            let old = ve.init().unwrap();
            let _ = ve.run("exec", &["reboot"]);
            comes_back(&ve, old);
            assert_eq!(ve.sh("cat /root/disk; cat /run/ram 2>/dev/null || echo none"), "disk\nnone");
        }
        run("ping", &["-q", "-c", "1", "-W", "2", "10.7.0.1"]).ok();
        assert!(node.log().contains("Container rebooted"));
        let monitors = run("pgrep", &["-x", "-c", &format!("vzmon {}", ve.id)]).out();
        assert_eq!(monitors.trim(), "1", "one monitor");
    });
}

#[test]
fn reboot_inside_works_when_starting_is_disabled() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.ok("set", &["--disabled", "yes", "--save"]);
        let old = ve.init().unwrap();
        let _ = ve.run("exec", &["reboot"]);
        comes_back(&ve, old);
    });
}

#[test]
fn the_death_of_init_is_reported() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        run("kill", &["-KILL", &ve.init().unwrap().to_string()]).ok();
        ve.becomes(DOWN);
        until("it is in the log", SOON, || node.log().contains("ended unexpectedly (signal:9)"));
        ve.start();
    });
}

#[test]
fn the_exit_of_init_is_reported() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let init = ve.private().join("sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\nexit 5\n").unwrap();
        run("chmod", &["755", init.to_str().unwrap()]).ok();
        ve.ok("start", &[]);
        ve.becomes(DOWN);
        until("it is in the log", SOON, || node.log().contains("ended unexpectedly (exit:5)"));
        let waited = ve.run("start", &["--wait"]);
        waited.exits(133);
        ve.becomes(DOWN);
    });
}

#[test]
fn a_dead_monitor_takes_nothing_with_it_and_is_replaced() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let (init, monitor) = (ve.init().unwrap(), ve.monitor().unwrap());
        run("kill", &["-KILL", &monitor.to_string()]).ok();
        until("the monitor is gone", SOON, || !vztests::alive(monitor));
        ve.is(UP);
        assert_eq!(ve.sh("echo works"), "works");
        assert_eq!(ve.init(), Some(init));
        // The next verb that changes something adopts it.
        ve.ok("set", &["--cpuunits", "2000", "--save"]);
        let second = ve.monitor().unwrap();
        assert_ne!(second, monitor);
        assert!(vztests::alive(second));
        let _ = ve.run("exec", &["reboot"]);
        // A stranger sees only that init has ended, not why: it may come back, or stay down.
        until("its end is noticed", SOON, || {
            ve.init() != Some(init) && matches!(ve.status().as_str(), UP | DOWN)
        });
    });
}

#[test]
fn the_console_works_again_after_the_monitor_died() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let monitor = ve.monitor().unwrap();
        run("kill", &["-KILL", &monitor.to_string()]).ok();
        until("the monitor is gone", SOON, || !vztests::alive(monitor));
        let mut pty = ve.at_terminal("console", &[]);
        pty.expect("Attached to CT");
        until("the VE can write to its console", SOON, || {
            ve.run("exec2", &["echo AGAIN-$((1 + 1)) > /dev/console"]).code == 0
        });
        pty.expect("AGAIN-2");
        pty.send("\r\x1b.");
        assert_eq!(pty.finish().0, 0);
    });
}

#[test]
fn stop_works_with_a_dead_monitor() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        run("kill", &["-KILL", &ve.monitor().unwrap().to_string()]).ok();
        ve.ok("stop", &[]).says("Container was stopped");
        ve.is(DOWN);
        ve.start();
        run("kill", &["-KILL", &ve.monitor().unwrap().to_string()]).ok();
        run("kill", &["-KILL", &ve.init().unwrap().to_string()]).ok();
        until("its init is gone", SOON, || ve.status().ends_with("down"));
        ve.start();
        ve.is(UP);
    });
}

#[test]
fn a_ve_whose_monitor_and_init_died_is_mended_by_the_next_verb() {
    on_node(|node| {
        let ve = node.tiny(1);
        for verb in ["stop", "start", "destroy"] {
            if !ve.status().ends_with("running") {
                ve.start();
            }
            let (init, monitor) = (ve.init().unwrap(), ve.monitor().unwrap());
            run("kill", &["-KILL", &monitor.to_string(), &init.to_string()]).ok();
            until("both are gone", SOON, || !vztests::alive(init) && !vztests::alive(monitor));
            assert!(holds(SOON, || ve.status().ends_with("down")));
            ve.ok(verb, &[]);
        }
    });
}

#[test]
fn a_ve_that_reboots_at_once_is_started_with_pauses_and_stops_at_once() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "simfs", "--config", "free"]);
        let init = ve.private().join("sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\nexec /bin/busybox reboot -f\n").unwrap();
        run("chmod", &["755", init.to_str().unwrap()]).ok();
        let started = Instant::now();
        ve.ok("start", &[]);
        let reboots = || node.log().matches("Container rebooted").count();
        until("it has rebooted twice", SOON, || reboots() >= 2);
        assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
        let stop = ve.run("stop", &["--fast"]);
        assert!(stop.took < Duration::from_secs(5), "{stop}");
        let enders = || run("pgrep", &["-c", "-f", &format!("^vzctl __ended {}", ve.id)]).out();
        until("nobody restarts it any more", SOON, || enders().trim() == "0");
        ve.is(DOWN);
    });
}
