//! Whoever reads the files that a VE has in place of the kernel's is answered, whatever becomes of those who serve them
//! and whatever state the VE is in.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vztests::{Node, Ve, alive, compile, on_node, skip, until};

/// What takes longer hangs.
const SOON: Duration = Duration::from_secs(60);
const RAM: &str = "65536";

/// Reads the two files a thousand times a second, from open to close, and writes down after each how many times it has
/// and what the longest took, in µs. What is not the whole text, with the VE's own memory, is written down and ends it.
const READER: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static char text[65536];
static int out;
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}
static void bad(const char *file, const char *what) {
    char line[200];
    int length = snprintf(line, sizeof line, "bad %s: %s, errno %d, text: %.100s\n", file, what, errno, text);
    pwrite(out, line, length, 0);
    exit(1);
}
static void take(const char *file) {
    ssize_t length, all = 0;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    text[0] = 0;
    if (fd < 0) bad(file, "open");
    while ((length = read(fd, text + all, sizeof text - 1 - all)) > 0) all += length;
    text[all] = 0;
    if (length < 0) bad(file, "read");
    close(fd);
    if (!all || text[all - 1] != '\n' || strlen(text) != (size_t) all) bad(file, "no whole text");
}
int main(int argc, char **argv) {
    long reads = 0, longest = 0, next = now();
    char line[64], total[64];
    snprintf(total, sizeof total, "MemTotal:%15s kB\n", argv[2]);
    out = open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (;; next += 1000) {
        long begin = now(), took;
        double up;
        take("/proc/meminfo");
        if (strncmp(text, total, strlen(total)) || !strstr(text, "\nPageTables:")) bad("meminfo", "not its own");
        take("/proc/uptime");
        if (sscanf(text, "%lf", &up) != 1 || up > 600) bad("uptime", "not its own");
        took = now() - begin;
        if (took > longest) longest = took;
        snprintf(line, sizeof line, "%20ld %20ld\n", reads += 2, longest);
        pwrite(out, line, strlen(line), 0);
        if (next > now()) usleep(next - now());
        else next = now();
    }
}
"#;

/// A reader inside of a VE.
struct Reader {
    said: PathBuf,
}

impl Reader {
    /// A VE with so much RAM and a reader in it; `None` where that cannot be had.
    fn begin<'n>(node: &'n Node) -> Option<(Ve<'n>, Self)> {
        if !Path::new("/dev/fuse").exists() {
            skip("FUSE");
            return None;
        }
        let Some(program) = compile(&node.scratch(), "reader", READER) else {
            skip("a C compiler");
            return None;
        };
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "64M", "--swap", "0", "--save"]);
        ve.start();
        ve.begin("exec2", &["cat > /reader && chmod 755 /reader"], &fs::read(program).unwrap()).finish().ok();
        ve.sh(&format!("setsid /reader /said {RAM} > /dev/null 2>&1 < /dev/null &"));
        let reader = Self { said: ve.from_outside("/said") };
        reader.goes_on();
        Some((ve, reader))
    }

    /// How many reads there were, and what the longest of them took.
    #[track_caller]
    fn reads(&self) -> (u64, Duration) {
        let mut numbers = None;
        until("the reader has said how many", SOON, || {
            let text = fs::read_to_string(&self.said).unwrap_or_default();
            assert!(!text.starts_with("bad"), "{text}");
            let mut words = text.split_whitespace().filter_map(|word| word.parse().ok());
            numbers = words.next().zip(words.next());
            numbers.is_some()
        });
        let (reads, longest) = numbers.unwrap();
        (reads, Duration::from_micros(longest))
    }

    /// How long it takes until there are some that began after now.
    #[track_caller]
    fn goes_on(&self) -> Duration {
        let (begin, before) = (Instant::now(), self.reads().0);
        until("it is read on", SOON, || self.reads().0 >= before + 6);
        begin.elapsed()
    }
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    until("it is gone", SOON, || !alive(pid));
}

#[test]
fn a_thousand_reads_a_second_go_on_whoever_is_killed() {
    on_node(|node| {
        let Some((ve, reader)) = Reader::begin(node) else { return };
        let mut healed = Duration::ZERO;
        for _ in 0..4 {
            until("both who serve are there", SOON, || ve.view_servers().len() == 2);
            let monitor = ve.monitor().unwrap();
            for pid in ve.view_servers().into_iter().chain([monitor]) {
                kill(pid);
                healed = healed.max(reader.goes_on());
            }
            // It brings a new monitor.
            assert_eq!(ve.sh("echo alive"), "alive");
            until("there is a monitor again", SOON, || ve.monitor().is_some_and(|new| new != monitor));
        }
        let (reads, longest) = reader.reads();
        println!("{reads} reads; whole again {healed:?} after a kill at most, the longest took {longest:?}");
    });
}

#[test]
fn a_limit_that_was_changed_shows_in_the_very_next_read() {
    on_node(|node| {
        if !Path::new("/dev/fuse").exists() {
            return skip("FUSE");
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "64M", "--swap", "0", "--save"]);
        ve.start();
        let (path, stop) = (ve.from_outside("/proc/meminfo"), AtomicBool::new(false));
        let total = || {
            let text = fs::read_to_string(&path).unwrap();
            text.split_whitespace().nth(1).unwrap().to_owned()
        };
        std::thread::scope(|scope| {
            // So that there is always a text that was shown a moment ago.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::read_to_string(&path);
                }
            });
            let shown: Vec<_> = (0..12)
                .map(|round| {
                    let (option, shows) = if round % 2 == 0 { ("96M", "98304") } else { ("64M", RAM) };
                    ve.ok("set", &["--ram", option, "--save"]);
                    (total(), shows.to_owned())
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            assert!(shown.iter().all(|(is, should)| is == should), "{shown:?}");
        });
    });
}

#[test]
fn reads_go_on_at_the_limits_of_memory_and_processes_and_while_it_stops() {
    on_node(|node| {
        let Some((ve, reader)) = Reader::begin(node) else { return };
        ve.ok("set", &["--numproc", "2"]);
        assert!(ve.run("exec2", &["sleep 0 & wait"]).code != 0, "nobody inside may fork");
        reader.goes_on();
        ve.ok("set", &["--numproc", "100"]);

        let hog = "while :; do x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' x); done";
        let hog = ve.begin("exec2", &[hog], b"");
        until("it is short of memory", SOON, || {
            node.log().contains(&format!("CT {} : WARNING: out of memory", ve.id))
        });
        for _ in 0..20 {
            reader.goes_on();
        }
        ve.ok("set", &["--ram", "64M"]);
        reader.goes_on();

        // Those who read from outside come through as well, until there is nothing to read.
        let path = ve.from_outside("/proc/meminfo");
        let outside = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            loop {
                let begin = Instant::now();
                let text = fs::read_to_string(&path);
                longest = longest.max(begin.elapsed());
                match text {
                    Ok(text) => assert!(text.is_empty() || text.starts_with("MemTotal:"), "{text}"),
                    Err(_) => return longest,
                }
            }
        });
        let (reads, longest) = reader.reads();
        ve.ok("stop", &["--fast"]);
        let _ = hog.finish_within(SOON);
        until("its end is seen", SOON, || outside.is_finished());
        let last = outside.join().unwrap();
        println!("{reads} reads inside, the longest took {longest:?}; {last:?} outside, while it stopped");
    });
}
