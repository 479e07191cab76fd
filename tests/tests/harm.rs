//! What one VE does to harm, its neighbour and the node survive: the neighbour answers, the harmful one obeys.
//! How much slower the neighbour is, is measured by the benchmarks; here nothing may hang.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use vztests::{Node, Ve, on_node, until};

/// Far above what a verb takes; below it, a verb did not hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `harm` in the background of a limited VE; while it goes on, the neighbour and the node work. It then ends.
fn contained(node: &Node, harm: &str, at_work: impl Fn(&Ve<'_>) -> bool) {
    let (bad, good) = (node.tiny(1), node.tiny(2));
    bad.ok("set", &["--ram", "64M", "--swap", "0", "--numproc", "100", "--save"]);
    bad.start();
    good.start();
    let running = bad.begin("exec2", &[harm], b"");
    until("the harm is being done", PATIENCE, || at_work(&bad));
    let begin = Instant::now();
    for _ in 0..5 {
        assert_eq!(good.sh("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo $i"), "20000");
    }
    let third = node.tiny(3);
    third.start();
    third.ok("stop", &["--fast"]);
    bad.is("exist mounted running");
    bad.ok("stop", &["--fast"]);
    let _ = running.finish_within(PATIENCE);
    bad.ok("destroy", &[]);
    assert_eq!(good.sh("echo alive"), "alive");
    assert!(begin.elapsed() < 3 * PATIENCE, "{:?}", begin.elapsed());
}

fn cgroup_number(ve: &Ve<'_>, controller: &str, file: &str) -> u64 {
    let paths = [
        format!("/sys/fs/cgroup/{controller}/vz/{}/{file}", ve.id),
        format!("/sys/fs/cgroup/vz/{}/{file}", ve.id),
    ];
    let text = paths.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn tasks(ve: &Ve<'_>) -> u64 {
    cgroup_number(ve, "pids", "pids.current")
}

#[test]
fn a_fork_bomb() {
    on_node(|node| {
        let bomb = "bomb() { while :; do bomb & done 2>/dev/null; }; bomb";
        contained(node, bomb, |ve| tasks(ve) >= 90);
    });
}

#[test]
fn a_memory_hog_is_killed_and_told() {
    on_node(|node| {
        let hog = "while :; do x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' x); done";
        contained(node, hog, |ve| node.log().contains(&format!("CT {} : WARNING: out of memory", ve.id)));
    });
}

#[test]
fn many_open_files() {
    on_node(|node| {
        // Each of many shells holds what its own limit allows.
        let hog = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                   (for n in 3 4 5 6 7 8 9; do eval \"exec $n</dev/null\"; done; sleep 1000) & done; echo; wait";
        contained(node, hog, |ve| tasks(ve) >= 20);
    });
}

#[test]
fn a_storm_of_fsyncs() {
    on_node(|node| {
        let storm = "for i in 1 2 3 4; do \
                     (while :; do dd if=/dev/zero of=/storm$i bs=4k count=50 conv=fsync 2>/dev/null; done) & done; wait";
        contained(node, storm, |ve| ve.root().join("storm4").exists());
    });
}

#[test]
fn a_flood_of_signals() {
    on_node(|node| {
        // The senders ignore what they send to the whole group; the first shell has a handler for it.
        let flood = "trap '' USR1; touch /flood; for i in 1 2 3 4; do \
                     (while :; do kill -USR1 0; done) & done; trap : USR1; while :; do wait; done";
        contained(node, flood, |ve| ve.root().join("flood").exists());
    });
}
