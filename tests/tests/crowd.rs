//! Many at once.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use vztests::{Background, Ve, on_node, run, until};

const MANY: u32 = 20;
const SOON: Duration = Duration::from_secs(60);

/// Runs one verb on all of them at the same time.
fn together(ves: &[Ve<'_>], verb: &str, rest: &[&str]) {
    let runs: Vec<Background> = ves.iter().map(|ve| ve.begin(verb, rest, b"")).collect();
    for run in runs {
        run.finish().ok();
    }
}

mod heavy {
    use super::*;

    #[test]
    fn twenty_ves_live_in_parallel() {
        on_node(|node| {
            node.need_tiny();
            let ves: Vec<Ve<'_>> = (0..MANY).map(|number| node.ve(number)).collect();
            together(&ves, "create", &["--ostemplate", "tiny"]);
            for (number, ve) in ves.iter().enumerate() {
                ve.ok("set", &["--ipadd", &format!("10.20.0.{}", number + 1), "--save"]);
            }
            together(&ves, "start", &[]);
            for (number, ve) in ves.iter().enumerate() {
                ve.is("exist mounted running");
                ve.wait_up();
                let address = format!("10.20.0.{}", number + 1);
                until(&address, SOON, || run("ping", &["-q", "-c", "1", "-W", "1", &address]).code == 0);
            }
            let bases: BTreeSet<u32> = ves.iter().map(|ve| ve.base().unwrap()).collect();
            assert_eq!(bases.len(), ves.len(), "a range of ids for each");
            together(&ves, "exec2", &["sleep 0.1; true"]);
            let listed = node.vzlist(&["-H", "-o", "ctid,status"]).ok().out();
            assert_eq!(listed.lines().filter(|line| line.contains("running")).count(), ves.len(), "{listed}");
            together(&ves, "restart", &["--fast"]);
            together(&ves, "stop", &[]);
            together(&ves, "destroy", &[]);
            assert_eq!(node.vzlist(&["-a", "-H", "-o", "ctid"]).ok().out().trim(), "");
        });
    }

    #[test]
    fn one_of_many_starts_of_a_ve_wins() {
        on_node(|node| {
            let ve = node.tiny(1);
            for _ in 0..5 {
                let starts: Vec<Background> = (0..6).map(|_| ve.begin("start", &[], b"")).collect();
                let codes: Vec<i32> = starts.into_iter().map(|start| start.finish().code).collect();
                assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
                assert!(codes.iter().all(|code| [0, 9, 32].contains(code)), "{codes:?}");
                ve.is("exist mounted running");
                ve.ok("stop", &["--fast"]);
            }
        });
    }

    #[test]
    fn one_of_many_creates_of_a_number_wins() {
        on_node(|node| {
            node.need_tiny();
            let ve = node.ve(1);
            let creates: Vec<Background> =
                (0..6).map(|_| ve.begin("create", &["--ostemplate", "tiny"], b"")).collect();
            let codes: Vec<i32> = creates.into_iter().map(|create| create.finish().code).collect();
            assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
            assert!(codes.iter().all(|code| [0, 9, 44].contains(code)), "{codes:?}");
            ve.start();
        });
    }

    #[test]
    fn verbs_at_random_on_one_ve_leave_it_sound() {
        on_node(|node| {
            let ve = node.tiny(1);
            for _ in 0..4 {
                let verbs =
                    ["start", "stop", "restart", "mount", "umount", "exec2", "status", "start", "stop"];
                let runs: Vec<Background> = verbs
                    .iter()
                    .map(|verb| {
                        let rest: &[&str] = match *verb {
                            "exec2" => &["true"],
                            "stop" | "restart" => &["--fast"],
                            _ => &[],
                        };
                        ve.begin(verb, rest, b"")
                    })
                    .collect();
                for run in runs {
                    let run = run.finish();
                    assert!([0, 3, 9, 31, 32, 40, 41].contains(&run.code), "{run}");
                }
            }
            ve.ok("stop", &["--fast"]);
            let _ = ve.run("umount", &[]);
            ve.is("exist unmounted down");
            ve.start();
        });
    }
}
