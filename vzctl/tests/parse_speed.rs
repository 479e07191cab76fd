//! What it costs to understand a command line: it is paid at each start of `vzctl`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::OsString;
use std::hint::black_box;
use std::time::{Duration, Instant};

use vzctl::cli::parse;

const LINES: &[&str] = &[
    "exec 101 true",
    "--quiet start 101 --wait",
    "status 101",
    "set 101 --ipadd 10.0.0.101 --hostname web --ram 1G --swap 512M --cpus 2 --save",
];

/// The time of the first and of the median call.
fn measure(line: &str) -> (Duration, Duration) {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let words = words.clone();
            let start = Instant::now();
            black_box(parse(black_box(words)).unwrap());
            start.elapsed()
        })
        .collect();
    let first = times[0];
    times.sort();
    (first, times[times.len() / 2])
}

#[test]
fn a_command_line_is_understood_in_no_time() {
    // A debug build on a loaded machine is many times slower than what is installed.
    let limit = if cfg!(debug_assertions) { Duration::from_millis(30) } else { Duration::from_micros(300) };
    for line in LINES {
        let (first, median) = measure(line);
        println!("{line}: first {first:?}, median {median:?}");
        assert!(median < limit, "{line}: {median:?}");
    }
}
