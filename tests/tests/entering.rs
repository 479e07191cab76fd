//! The admin comes into a VE that has used up what it may have. Processes are in rows.rs, open files in files.rs.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use vztests::{Ve, on_node, until};

const SOON: Duration = Duration::from_secs(60);

/// Columns of one VE.
fn column(ve: &Ve<'_>, field: &str) -> u64 {
    ve.node.vzlist(&["-H", "-o", field, &ve.id]).ok().out().trim().parse().unwrap()
}

#[test]
fn one_without_a_terminal_left_gets_one_more_for_the_admin() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--numpty", "2", "--save"]);
        ve.start();
        ve.sh("for n in 1 2 3; do (exec setsid sleep 1000 <> /dev/ptmx > /dev/null 2>&1 &); done");
        until("it has all terminals", SOON, || column(&ve, "numpty") == 2);
        let mut shell = ve.at_terminal("enter", &[]);
        shell.expect("entered into CT");
        shell.send("test -t 0 && stty size; echo HERE-$((20 + 3))\n");
        let text = shell.expect("HERE-23");
        assert!(text.contains("24 80"), "{text:?}");
        // Ctrl-C goes where it should: it is the controlling terminal.
        shell.send("sleep 1234\n");
        until("the command runs", SOON, || ve.sh("ps").contains("sleep 1234"));
        shell.send("\x03");
        until("Ctrl-C ends it", SOON, || !ve.sh("ps").contains("sleep 1234"));
        assert_eq!(column(&ve, "numpty"), 2, "it is none of the VE's");
        shell.send("exit\n");
        assert_eq!(shell.finish().0, 0);
        assert!(ve.run("exec2", &["true < /dev/ptmx"]).code != 0, "nobody else gets one");
    });
}

/// All of it is in files of a tmpfs, which nobody takes away: whoever comes in may be killed. The admin gives it a little
/// room, without coming in.
#[test]
fn one_whose_memory_is_full_gets_a_little_more_and_is_emptied() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "48M", "--swap", "0", "--save"]);
        ve.start();
        ve.sh("mkdir /full && mount -t tmpfs none /full");
        // Whoever writes is killed when there is nothing left.
        let full = || column(&ve, "physpages") * 100 >= column(&ve, "physpages.l") * 95;
        until("it is full", SOON, || {
            let told = ve.run("exec2", &["dd if=/dev/zero of=/full/file bs=64k oflag=append conv=notrunc"]);
            let killed = told.stderr.contains("its memory is full");
            killed && full()
        });
        ve.ok("set", &["--ram", "56M"]);
        let mut shell = ve.at_terminal("enter", &[]);
        shell.expect("entered into CT");
        shell.send("rm /full/*; echo DONE-$((20 + 3)); exit\n");
        shell.expect("DONE-23");
        assert_eq!(shell.finish().0, 0);
        until("there is room", SOON, || column(&ve, "physpages") * 2 < column(&ve, "physpages.l"));
        ve.ok("set", &["--ram", "48M"]);
        assert!(column(&ve, "oomguarpages.f") > 0 && column(&ve, "physpages.f") > 0, "killed and counted");
    });
}
