//! `kill -9` of vzctl at every named point: the next verb, whichever it is, mends what was left.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use vztests::{Node, Ve, World, fault_points, on_node, run, until};

const SOON: Duration = Duration::from_secs(20);

const CREATE: [&str; 4] = ["--ostemplate", "tiny", "--name", "faulty"];
const NEXT: [&str; 4] = ["create", "start", "stop", "destroy"];

/// Runs one verb after a crash. What it may answer depends on how far the crashed one had come; it must
/// not hang, crash, or complain of anything but the state of the VE.
fn next(ve: &Ve<'_>, verb: &str) {
    let rest: &[&str] = if verb == "create" { &CREATE } else { &[] };
    let run = ve.run(verb, rest);
    // Done, no configuration, running, exists, no private area.
    let allowed: &[i32] = match verb {
        "create" => &[0, 44],
        "start" => &[0, 14, 32, 43],
        "stop" => &[0, 14],
        _ => &[0, 14, 32],
    };
    assert!(allowed.contains(&run.code), "{run}");
}

/// The VE can live a whole life, whatever happened before; then nothing of it is left.
fn full_cycle(ve: &Ve<'_>, before: &World) {
    if !ve.status().starts_with("exist") {
        ve.ok("create", &CREATE);
    }
    if !ve.status().ends_with("running") {
        ve.ok("start", &[]);
    }
    ve.wait_up();
    assert_eq!(ve.sh("echo alive"), "alive");
    ve.ok("stop", &[]);
    ve.is("exist unmounted down");
    ve.ok("start", &[]);
    ve.is("exist mounted running");
    ve.ok("stop", &["--fast"]);
    ve.ok("destroy", &[]);
    before.must_return(ve.node);
}

/// For each point of a verb and each verb after it.
fn crash_everywhere(node: &Node, verb: &str, points: &[String], prepare: impl Fn(&Ve<'_>)) {
    node.need_tiny();
    let ve = node.ve(1);
    // The first use of a template and of the network makes what all later ones share.
    ve.ok("create", &CREATE);
    ve.start();
    ve.destroy();
    // The kernel takes a namespace's devices away in its own time.
    until("its device is gone", SOON, || run("ip", &["link", "show", &ve.venet()]).code != 0);
    let before = World::take(node);
    for point in points {
        for after in NEXT {
            println!("{verb} killed at {point}, then {after}");
            prepare(&ve);
            let rest: &[&str] = if verb == "create" { &CREATE } else { &[] };
            ve.fault(point, verb, rest).exits(-9);
            next(&ve, after);
            full_cycle(&ve, &before);
        }
    }
}

mod heavy {
    use super::*;

    #[test]
    fn create_killed_anywhere_is_mended() {
        on_node(|node| crash_everywhere(node, "create", &fault_points("create"), |_| {}));
    }

    #[test]
    fn start_killed_anywhere_is_mended() {
        on_node(|node| {
            let points = [fault_points("mount"), fault_points("start")].concat();
            crash_everywhere(node, "start", &points, |ve| {
                ve.ok("create", &CREATE);
                ve.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
            });
        });
    }

    #[test]
    fn stop_killed_anywhere_is_mended() {
        on_node(|node| {
            crash_everywhere(node, "stop", &fault_points("stop"), |ve| {
                ve.ok("create", &CREATE);
                ve.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
                ve.start();
            });
        });
    }

    #[test]
    fn destroy_killed_anywhere_is_mended() {
        on_node(|node| {
            crash_everywhere(node, "destroy", &fault_points("destroy"), |ve| {
                ve.ok("create", &CREATE);
            });
        });
    }
}

#[test]
fn mount_killed_is_mended() {
    on_node(|node| {
        let ve = node.tiny(1);
        for point in fault_points("mount") {
            ve.fault(&point, "mount", &[]).exits(-9);
            assert!([0, 40].contains(&ve.run("umount", &[]).code));
            ve.is("exist unmounted down");
        }
    });
}

#[test]
fn a_create_that_was_killed_and_given_up_leaves_nothing_after_destroy() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &CREATE);
        ve.ok("destroy", &[]);
        let before = World::take(node);
        for point in fault_points("create") {
            ve.fault(&point, "create", &CREATE).exits(-9);
            let run = ve.run("destroy", &[]);
            assert!([0, 14].contains(&run.code), "{run}");
            println!("given up after {point}");
            before.must_return(node);
        }
    });
}
