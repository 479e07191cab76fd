//! The supervisor that answers calls of a VE: it cannot be lost, held up or filled.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vztests::supervisor::{kill, opener, pair, put, supervisors, with};
use vztests::{compile, on_node, skip, until};

const TABLE: &str = "/proc/user_beancounters";
const SOON: Duration = Duration::from_secs(10);

#[test]
fn whichever_is_killed_no_open_fails_and_none_waits_long() {
    on_node(|node| {
        let Some(program) = opener(node) else { return skip("a C compiler") };
        let ve = with(node, 1, "procbc:on");
        put(&ve, &program, "opener");
        let init = ve.init().unwrap();
        let loops: Vec<_> = ["/etc/passwd", TABLE]
            .map(|path| ve.begin("exec3", &["/root/opener", path, "6000"], &[]))
            .into_iter()
            .collect();
        let end = Instant::now() + Duration::from_secs(5);
        let mut kills = 0;
        while Instant::now() < end {
            let (mut first, mut second) = (0, 0);
            until("there are two again", SOON, || {
                (first, second) = pair(&ve).unwrap_or_default();
                first != 0
            });
            let one = if kills % 3 == 0 { second } else { first };
            kill(one);
            // Both at once would be the end of it.
            until("it is dead", SOON, || !supervisors(&ve).contains(&one));
            kills += 1;
            if kills == 4 {
                kill(ve.monitor().unwrap());
            }
        }
        for done in loops {
            let said = done.finish().ok().out();
            let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
            println!("{kills} kills: {said}");
            assert!(numbers[0] > 10 && numbers[1] == 0, "{said}");
            // A virtual machine of a busy host stands still for a while.
            assert!(numbers[2] < 5_000_000, "{said}");
        }
        assert!(kills > 20, "{kills}");
        assert_eq!(ve.init(), Some(init));
        ve.sh("cat /proc/user_beancounters");
    });
}

#[test]
fn nothing_is_left_open_and_nothing_runs_afterwards() {
    on_node(|node| {
        let Some(program) = opener(node) else { return skip("a C compiler") };
        let ve = with(node, 1, "procbc:on,sysinfo:on");
        put(&ve, &program, "opener");
        until("there are two", SOON, || supervisors(&ve).len() == 2);
        let open = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let count = || supervisors(&ve).iter().map(open).sum::<usize>();
        let before = count();
        for _ in 0..30 {
            ve.sh("true");
        }
        let said = ve.ok("exec3", &["/root/opener", TABLE, "4000"]).out();
        assert!(said.split_whitespace().next().unwrap().parse::<u64>().unwrap() > 100, "{said}");
        // A session's listener goes when its last process has.
        until("descriptors are as before", SOON, || count() <= before + 2);
        let resident: u64 = supervisors(&ve).iter().map(|pid| private_kib(*pid)).max().unwrap();
        assert!(resident < 1024, "{resident} KiB");
        ve.ok("stop", &["--fast"]);
        until("the supervisor ends with the VE", SOON, || supervisors(&ve).is_empty());
    });
}

fn private_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[test]
fn without_any_supervisor_a_session_still_comes_in() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on");
        until("there are two", SOON, || supervisors(&ve).len() == 2);
        // Stopped first, or one makes a successor of the other.
        let both = supervisors(&ve);
        for pid in &both {
            kill_process(Pid::from_raw(*pid).unwrap(), Signal::STOP).unwrap();
        }
        // Held, they do not answer, and are not waited for long.
        let held = ve.ok("exec2", &["cat /etc/passwd"]);
        assert!(held.stderr.contains("WARNING: the container's supervisor does not answer"), "{held}");
        both.into_iter().for_each(kill);
        until("none is left", SOON, || supervisors(&ve).is_empty());
        ve.ok("exec2", &["cat /etc/passwd"]).says("restart the container");
        ve.ok("restart", &["--fast"]);
        ve.wait_up();
        ve.sh("cat /proc/user_beancounters");
    });
}

#[test]
fn a_hostile_caller_hurts_only_itself() {
    on_node(|node| {
        let source = r#"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static char path[64] = "/proc/user_beancounters";
static void *flip(void *x) {
    for (;;) { memcpy(path, "/etc/nothing_at_all_ther", 24); memcpy(path, "/proc/user_beancounters", 24); }
    return x;
}
int main(void) {
    pthread_t t;
    /* Dies in the middle of its calls. */
    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (!child) for (;;) { int fd = open("/proc/user_beancounters", O_RDONLY); close(fd); }
        usleep(500 * (i % 7));
        kill(child, SIGKILL);
        waitpid(child, 0, 0);
    }
    /* Has no descriptor left. */
    int n = 0;
    while (open("/proc/user_beancounters", O_RDONLY) >= 0) n++;
    printf("%s\n", n > 100 ? "full" : "early");
    for (int i = 3; i < 4096; i++) close(i);
    /* A string at the very end of its memory. */
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    char *edge = page + 4096 - sizeof "/proc/user_beancounters";
    strcpy(edge, "/proc/user_beancounters");
    printf("%s\n", open(edge, O_RDONLY) >= 0 ? "edge" : "no edge");
    memset(page, 'a', 4096);
    printf("%d\n", open(page, O_RDONLY));
    /* Changes the path under our eyes. */
    pthread_create(&t, 0, flip, 0);
    for (int i = 0; i < 5000; i++) {
        char text[8] = "";
        int fd = open(path, O_RDONLY);
        if (fd < 0) continue;
        if (read(fd, text, 7) != 7 || memcmp(text, "Version", 7)) printf("wrong\n");
        close(fd);
    }
    return 0;
}"#;
        let Some(program) = compile(&node.scratch(), "hostile", source) else { return skip("a C compiler") };
        let ve = with(node, 1, "procbc:on");
        put(&ve, &program, "hostile");
        assert_eq!(ve.sh("/root/hostile"), "full\nedge\n-1");
        ve.sh("cat /proc/user_beancounters");
        assert_eq!(supervisors(&ve).len(), 2);
    });
}

/// A FUSE file system whose file `f` is never read to the end, and a path that lies in a page of it.
const NEVER_READ: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static char request[1 << 17];
static int dev;
static void reply(const void *what, unsigned size) {
    static struct { struct fuse_out_header h; char body[512]; } out;
    out.h.len = sizeof out.h + size;
    out.h.unique = ((struct fuse_in_header *)request)->unique;
    memcpy(out.body, what, size);
    write(dev, &out, out.h.len);
}
static void refuse(void) {
    struct fuse_out_header h = { sizeof h, -38, ((struct fuse_in_header *)request)->unique };
    write(dev, &h, sizeof h);
}
static struct fuse_attr attr(unsigned long node) {
    struct fuse_attr a = { .ino = node, .size = 4096, .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = 1 };
    return a;
}
static void serve(void) {
    while (read(dev, request, sizeof request) > 0) {
        struct fuse_in_header *in = (void *)request;
        struct fuse_init_out init = { .major = 7, .minor = 31, .max_readahead = 4096, .max_write = 4096 };
        struct fuse_attr_out state = { .attr = attr(in->nodeid) };
        struct fuse_entry_out entry = { .nodeid = 2, .attr = attr(2) };
        struct fuse_open_out open = { .fh = 1 };
        switch (in->opcode) {
        case FUSE_INIT: reply(&init, sizeof init); break;
        case FUSE_GETATTR: reply(&state, sizeof state); break;
        case FUSE_LOOKUP: reply(&entry, sizeof entry); break;
        case FUSE_OPEN: reply(&open, sizeof open); break;
        case FUSE_READ: break; /* for ever */
        case FUSE_FORGET: break;
        default: refuse(); break;
        }
    }
}
int main(void) {
    char options[64];
    dev = open("/dev/fuse", O_RDWR);
    mkdir("/tmp/m", 0755);
    sprintf(options, "fd=%d,rootmode=40000,user_id=0,group_id=0", dev);
    if (dev < 0 || mount("x", "/tmp/m", "fuse", 0, options)) { perror("mount"); return 1; }
    if (!fork()) { serve(); _exit(0); }
    int fd = open("/tmp/m/f", O_RDONLY);
    char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd < 0 || page == MAP_FAILED) { perror("f"); return 1; }
    close(fd);
    close(dev);
    for (int i = 0; i < 8; i++) {
        if (!fork()) { open(page, O_RDONLY); _exit(0); }
        usleep(100000);
    }
    puts("begun");
    fflush(stdout);
    pause();
    return 0;
}"#;

#[test]
fn memory_that_never_comes_holds_nobody_else() {
    on_node(|node| {
        let Some(program) = compile(&node.scratch(), "never", NEVER_READ) else {
            return skip("a C compiler");
        };
        let opener = opener(node).unwrap();
        if !Path::new("/dev/fuse").exists() {
            return skip("/dev/fuse");
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--devnodes", "fuse:rw", "--features", "procbc:on", "--save"]);
        ve.start();
        put(&ve, &program, "never");
        put(&ve, &opener, "opener");
        let hostile = ve.begin("exec3", &["/root/never"], &[]);
        let said = ve.ok("exec3", &["/root/opener", "/etc/passwd", "8000"]).out();
        let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
        println!("{said}");
        assert!(numbers[0] > 100 && numbers[1] == 0 && numbers[2] < 5_000_000, "{said}");
        assert!(supervisors(&ve).len() <= 2 + 4, "{:?}", supervisors(&ve));
        ve.ok("stop", &["--fast"]);
        until("all of the supervisor ends", SOON, || supervisors(&ve).is_empty());
        let _ = hostile.finish();
    });
}

/// The numbers are for docs/benchmarks.md; the bound is only against what would be wrong by orders of magnitude.
#[test]
fn what_an_open_costs() {
    on_node(|node| {
        let Some(program) = opener(node) else { return skip("a C compiler") };
        let ways = [
            (1, "procbc:off", "/etc/passwd"),
            (2, "sysinfo:on", "/etc/passwd"),
            (3, "procbc:on", "/etc/passwd"),
            (3, "procbc:on", TABLE),
        ];
        for (number, features, path) in ways {
            let ve = if path == TABLE { node.ve(number) } else { with(node, number, features) };
            put(&ve, &program, "opener");
            let said = ve.ok("exec3", &["/root/opener", path, "500"]).out();
            let opens: f64 = said.split_whitespace().next().unwrap().parse().unwrap();
            let cost = 5e5 / opens;
            println!("{features} {path}: {cost:.2} us for an open and a close");
            assert!(cost < 20_000.0, "{said}");
        }
    });
}

#[test]
fn the_socket_is_the_hosts_own() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on");
        let meta = fs::metadata(format!("/run/vz/{}/notify.sock", ve.id)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, 0));
    });
}
