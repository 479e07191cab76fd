//! Who runs a VE of two hosts: never both, and at the end one.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::pair::Pair;
use crate::ve::Ve;
use crate::wait::until;

const SOON: Duration = Duration::from_secs(60);
/// Between two looks of a witness.
const LOOK: Duration = Duration::from_millis(2);

/// How many of the two run the pair's first VE. One that stands still does not.
#[must_use]
pub fn running(pair: &Pair<'_>) -> usize {
    [pair.a.ve(1), pair.b.ve(1)].iter().filter(|ve| goes(ve)).count()
}

fn goes(ve: &Ve<'_>) -> bool {
    ve.init().is_some_and(|pid| in_proc(ve, pid)) && !is_frozen(ve)
}

/// A pid is one of the host's own namespace. One with a SIGKILL does nothing any more.
fn in_proc(ve: &Ve<'_>, pid: i32) -> bool {
    let status = fs::read_to_string(ve.node.path(&format!("/proc/{pid}/status"))).unwrap_or_default();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let pending = |key| value(key).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let killed = (pending("SigPnd:") | pending("ShdPnd:")) & 1 << 8 != 0;
    // What is ending has no memory any more.
    value("VmSize:").is_some() && !killed
}

fn is_frozen(ve: &Ve<'_>) -> bool {
    let file = |name: String| -> Option<String> {
        let path: PathBuf = ve.node.path(&format!("/sys/fs/cgroup/{name}"));
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    match file(format!("freezer/vz/{}/freezer.state", ve.id)) {
        Some(state) => state != "THAWED",
        None => file(format!("vz/{}/cgroup.freeze", ve.id)).is_some_and(|state| state == "1"),
    }
}

/// Does something while a witness looks all the time whether the first VE runs on both hosts.
///
/// # Panics
/// When it does.
pub fn watched<T>(pair: &Pair<'_>, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let (here, there) = (pair.a.ve(1), pair.b.ve(1));
            // One that is killed is there for a moment more.
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                // The looks take a while: it ran here before and after it was seen there.
                let twice = goes(&here) && goes(&there) && goes(&here);
                seen = if twice { seen + 1 } else { 0 };
                assert!(seen < 20, "it runs twice");
                std::thread::sleep(LOOK);
            }
        });
        // The witness ends also when the work fails.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        witness.join().expect("it runs once");
        done.unwrap_or_else(|failed| std::panic::resume_unwind(failed))
    })
}

/// After something died: it never runs twice, and once the move is resolved it runs exactly once, with its files. Then
/// it is brought back to where it began.
///
/// # Panics
/// When it is not so, or something of the move is left.
#[track_caller]
pub fn settled(pair: &Pair<'_>, what: &str) {
    assert!(running(pair) <= 1, "{what}: it runs twice");
    until("nobody serves", SOON, || pair.servers().is_empty());
    assert!(running(pair) <= 1, "{what}: it runs twice");
    let (here, there) = (pair.a.ve(1), pair.b.ve(1));
    for node in [pair.a, &pair.b, pair.a] {
        let run = pair.resolve(node, &here.id, &[]);
        assert!(running(pair) <= 1, "{what}: it runs twice after\n{run}");
    }
    assert_eq!(running(pair), 1, "{what}: it is lost; {} here, {} there", here.status(), there.status());
    let (has, lacks) = if here.init().is_some() { (here, there) } else { (there, here) };
    has.wait_up();
    assert_eq!(has.sh("cat /root/file"), "mine", "{what}");
    lacks.is("deleted unmounted down");
    for node in [pair.a, &pair.b] {
        let id = &has.id;
        for left in [
            format!("/var/lib/vzctl/migrate/{id}.json"),
            format!("/vz/private/{id}.arriving"),
            format!("/run/vz/{id}.memory"),
        ] {
            assert!(!node.path(&left).exists(), "{what}: {left} is left");
        }
    }
    // Back to where it began.
    if has.node.is_second() {
        pair.migrate(&pair.b, &[], &has.id).ok();
    }
}
