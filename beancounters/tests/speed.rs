//! What a verb may cost. The bounds are loose: they catch a wait for the kernel, not noise.
#![allow(clippy::unwrap_used)] // a test fails by panic, in its shared functions too
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use beancounters::{Hierarchies, Limits, Usage, VeCgroup};
use vzconf::{Ctid, Pair};

fn median(mut one: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..21).map(|_| one()).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn timed(body: impl FnOnce()) -> Duration {
    let start = Instant::now();
    body();
    start.elapsed()
}

#[test]
fn nothing_here_waits() {
    let ctid = Ctid::new(2_100_000_000 + std::process::id() % 1_000_000).unwrap();
    let detect = median(|| timed(|| drop(Hierarchies::detect().unwrap())));
    let h = Hierarchies::detect().unwrap();
    let deadline = || Instant::now() + Duration::from_secs(5);
    let mut made = Vec::new();
    let both = median(|| {
        timed(|| {
            let start = Instant::now();
            let mut ve = VeCgroup::create(&h, ctid, Some((100_000, 100_000))).unwrap();
            made.push(start.elapsed());
            ve.remove(deadline()).unwrap();
        })
    });
    made.sort_unstable();
    let ve = VeCgroup::create(&h, ctid, None).unwrap();
    let open = median(|| timed(|| drop(VeCgroup::open(&h, ctid).unwrap())));
    let usage = median(|| timed(|| assert_eq!(Usage::read(&ve).numproc, 0)));
    let limits = Limits {
        physpages: Some(Pair::both(65536)),
        swappages: Some(Pair::both(65536)),
        numproc: Some(Pair::both(100)),
        cpuunits: Some(1000),
        cpulimit: Some(100),
        ..Limits::default()
    };
    let apply = median(|| timed(|| drop(limits.apply(&ve).unwrap())));
    eprintln!(
        "detect {detect:?}, create {:?}, create+remove {both:?}, open {open:?}, usage {usage:?}, limits {apply:?}",
        made[made.len() / 2]
    );
    assert!(detect < Duration::from_millis(2));
    assert!(both < Duration::from_millis(12)); // emulated machines too
    assert!(open < Duration::from_micros(500));
    assert!(usage < Duration::from_millis(2));
}

/// A process that ends at once, moved by its pid or having moved itself.
#[test]
fn a_process_that_moves_itself_does_not_wait_for_the_kernel() {
    let ctid = Ctid::new(2_101_000_000 + std::process::id() % 1_000_000).unwrap();
    let ve = VeCgroup::create(&Hierarchies::detect().unwrap(), ctid, None).unwrap();
    let Some(tasks) = ve.v1_task_paths().into_iter().next() else { return };
    let list: Vec<String> = ve.v1_task_paths().iter().map(|p| p.display().to_string()).collect();
    // dash writes from its only thread, builtin, without a fork.
    let script = list.iter().map(|p| format!("echo 0 > '{p}'\n")).collect::<String>();
    let shell =
        |script: &str| assert!(Command::new("/bin/sh").arg("-c").arg(script).status().unwrap().success());
    let alone = median(|| timed(|| shell(":")));
    let itself = median(|| timed(|| shell(&script)));
    let procs = tasks.with_file_name("cgroup.procs");
    let by_pid = |pause: Duration| {
        std::thread::sleep(pause); // the kernel leaves its slow mode only after a quiet time
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&procs).unwrap();
        let took = timed(|| {
            rustix::io::write(file.as_fd(), child.id().to_string().as_bytes()).unwrap();
        });
        drop(child.stdin.take());
        child.wait().unwrap();
        took
    };
    let pid = (0..5).map(|_| by_pid(Duration::from_millis(200))).max().unwrap();
    let joins = itself.saturating_sub(alone);
    eprintln!("{} tasks files by itself {joins:?}, one cgroup.procs by pid {pid:?}", list.len());
    // One grace period is 10 ms and more; a machine that is slow at everything gets its share.
    assert!(joins < Duration::from_millis(5) + alone);
}
