//! What was held at most and what was refused goes with a VE that goes on: through a dump and to another host. A VE that
//! starts begins anew.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use vztests::{Background, Pair, Ve, on_node, on_two_nodes, skip, until};

const SOON: Duration = Duration::from_secs(60);
/// What is refused and what is held below, and what is only seen now and then.
const FIELDS: &str =
    "numproc.f,numproc.m,oomguarpages.f,oomguarpages.m,physpages.f,physpages.m,numfile.m,numothersock.m";
const REFUSED: [usize; 3] = [0, 2, 4];

/// Whether this host has a CRIU that is new enough.
fn has_criu() -> bool {
    let there = criu::Program::find();
    if let Err(error) = &there {
        skip(&format!("CRIU: {error}"));
    }
    there.is_ok()
}

/// Columns of one VE, by the `vzlist` of its host.
fn columns(ve: &Ve<'_>) -> Vec<u64> {
    let list = ve.node.command_of("vzlist", &["-H", "-o", FIELDS, &ve.id]);
    let out = Background::spawn(list, b"").finish().ok().out();
    out.split_whitespace().map(|word| word.parse().unwrap_or_else(|_| panic!("{out}"))).collect()
}

/// More processes than it may have, for a moment.
fn crowd(ve: &Ve<'_>) {
    ve.sh("(for n in $(seq 60); do sleep 1000 & done) 2>/dev/null; true");
    until("they have ended", SOON, || {
        ve.run("exec2", &["killall sleep"]);
        let out = ve.run("exec2", &["ps"]);
        out.code == 0 && !out.out().contains("sleep 1000")
    });
}

/// A running VE that has had too many processes and too much memory.
fn refuse_some(ve: &Ve<'_>) -> Vec<u64> {
    ve.ok("set", &["--numproc", "40", "--ram", "64M", "--swap", "0", "--save"]);
    ve.start();
    crowd(ve);
    let hog = "x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' x)";
    until("its memory is not enough", SOON, || {
        ve.run("exec2", &[hog]);
        columns(ve)[2] > 0
    });
    let seen = columns(ve);
    assert!(REFUSED.iter().all(|&at| seen[at] > 0), "{FIELDS}: {seen:?}");
    assert!(seen[1] >= 30 && seen[5] > 8 << 8, "{FIELDS}: {seen:?}");
    seen
}

#[track_caller]
fn goes_on(ve: &Ve<'_>, before: &[u64]) {
    let now = columns(ve);
    let less = before.iter().zip(&now).any(|(before, now)| now < before);
    assert!(!less, "{FIELDS}: {now:?} after {before:?}");
    // Nobody was refused anything meanwhile.
    assert!(REFUSED.iter().all(|&at| now[at] == before[at]), "{FIELDS}: {now:?} after {before:?}");
}

#[track_caller]
fn begins_anew(ve: &Ve<'_>) {
    let now = columns(ve);
    assert!(REFUSED.iter().all(|&at| now[at] == 0) && now[1] < 30, "{FIELDS}: {now:?}");
}

#[test]
fn a_dump_has_them_and_a_start_has_not() {
    on_node(|node| {
        if !has_criu() {
            return;
        }
        let ve = node.tiny(1);
        let before = refuse_some(&ve);
        for _ in 0..2 {
            ve.ok("suspend", &[]);
            ve.ok("resume", &[]);
            goes_on(&ve, &before);
        }
        // They go on, and not from nothing.
        crowd(&ve);
        let more = columns(&ve);
        assert!(more[0] > before[0] && more[1] >= before[1], "{FIELDS}: {more:?} after {before:?}");
        ve.ok("restart", &["--fast"]);
        begins_anew(&ve);
    });
}

#[test]
fn a_stop_ends_them() {
    on_node(|node| {
        let ve = node.tiny(1);
        refuse_some(&ve);
        ve.ok("stop", &["--fast"]);
        ve.start();
        begins_anew(&ve);
    });
}

/// Where the VE of a pair goes on.
fn moves(pair: &Pair<'_>, options: &[&str]) -> Vec<u64> {
    let here = pair.a.tiny(1);
    let before = refuse_some(&here);
    if options.contains(&"suspended") {
        here.ok("suspend", &[]);
        pair.migrate(pair.a, &[], &here.id).ok();
        pair.b.ve(1).is("exist unmounted down suspended");
        pair.b.ve(1).ok("resume", &[]);
    } else {
        pair.migrate(pair.a, options, &here.id).ok();
    }
    pair.b.ve(1).is("exist mounted running");
    before
}

#[test]
fn they_move_online_there_and_back() {
    on_two_nodes(|pair| {
        if !has_criu() {
            return;
        }
        let before = moves(pair, &["--online"]);
        goes_on(&pair.b.ve(1), &before);
        pair.migrate(&pair.b, &["--online"], &pair.b.ve(1).id).ok();
        goes_on(&pair.a.ve(1), &before);
    });
}

#[test]
fn they_move_with_a_dump() {
    on_two_nodes(|pair| {
        if !has_criu() {
            return;
        }
        let before = moves(pair, &["suspended"]);
        goes_on(&pair.b.ve(1), &before);
    });
}

/// It is stopped here and started there.
#[test]
fn an_offline_move_begins_anew() {
    on_two_nodes(|pair| {
        moves(pair, &[]);
        pair.b.ve(1).wait_up();
        begins_anew(&pair.b.ve(1));
    });
}
