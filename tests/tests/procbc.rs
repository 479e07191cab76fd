//! `/proc/user_beancounters` and sysinfo(2) in a VE, answered by its supervisor.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vztests::{Node, Ve, compile, compile_i386, on_node, run, skip, until};

const TABLE: &str = "/proc/user_beancounters";
const SOON: Duration = Duration::from_secs(10);

/// A running VE with these features.
fn with<'n>(node: &'n Node, number: u32, features: &str) -> Ve<'n> {
    let ve = node.tiny(number);
    ve.ok("set", &["--features", features, "--save"]);
    ve.start();
    ve
}

/// Both processes of a VE's supervisor.
fn supervisors(ve: &Ve<'_>) -> Vec<i32> {
    let name = format!("vznotify {}", ve.id);
    let name = &name[..name.len().min(15)];
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_called(*pid, name)).collect()
}

fn is_called(pid: i32, name: &str) -> bool {
    let dead = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name) && !dead
}

/// The server, which is the keeper's parent, and the keeper.
fn pair(ve: &Ve<'_>) -> Option<(i32, i32)> {
    let pids = supervisors(ve);
    let of = |server: i32| pids.iter().copied().find(|pid| parent(*pid) == Some(server));
    pids.iter().find_map(|pid| Some((*pid, of(*pid)?)))
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Puts a program of the host into a VE.
fn put(ve: &Ve<'_>, program: &Path, name: &str) {
    let line = format!("cat > /root/{name} && chmod 755 /root/{name}");
    ve.begin("exec2", &[&line], &fs::read(program).unwrap()).finish().ok();
}

/// The rows of a table: words of the lines after the titles.
fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().skip(2).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn it_is_not_there_by_default() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.run("exec2", &["cat /proc/user_beancounters"]).exits(1);
        assert_eq!(ve.sh("test -e /proc/user_beancounters || echo none"), "none");
        assert!(supervisors(&ve).is_empty());
    });
}

#[test]
fn the_table_is_read_in_every_way() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on");
        let id = format!("{}:", ve.id);
        for way in [
            "cat /proc/user_beancounters",
            "cat < /proc/user_beancounters",
            "cd /proc && cat user_beancounters",
            "cd / && cat ./proc/user_beancounters",
            "cat /proc/self/../user_beancounters",
            "while read -r line; do echo \"$line\"; done < /proc/user_beancounters",
            "awk '{ print }' /proc/user_beancounters",
            "grep '' /proc/user_beancounters",
        ] {
            let table = ve.sh(way);
            assert!(table.starts_with("Version: 2.5\n"), "{way}: {table}");
            let rows = rows(&table);
            assert_eq!(rows.len(), 24, "{way}: {table}");
            assert_eq!(rows[0][..2], [id.as_str(), "kmemsize"], "{way}");
        }
        let table = ve.sh("cat /proc/user_beancounters");
        assert!(table.lines().skip(1).all(|line| line.len() == 129), "{table}");
    });
}

#[test]
fn it_looks_like_a_file_of_root() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on");
        assert_eq!(
            ve.sh("stat -c '%f %u %g %h %s %n' /proc/user_beancounters"),
            format!("8100 0 0 1 0 {TABLE}")
        );
        ve.sh("[ -f /proc/user_beancounters ] && [ -e /proc/user_beancounters ] && [ -r /proc/user_beancounters ]");
        assert!(ve.sh("ls -l /proc/user_beancounters").starts_with("-r--------"));
        ve.run("exec2", &["echo x > /proc/user_beancounters"]).exits(1);
        ve.run("exec2", &["cat /proc/user_beancounters/"]).exits(1);
        ve.run("exec2", &["readlink /proc/user_beancounters"]).exits(1);
        // What has the name elsewhere is an ordinary file.
        assert_eq!(ve.sh("cd /tmp && echo mine > user_beancounters && cat user_beancounters"), "mine");
        // The neighbours of the path are untouched.
        ve.run("exec2", &["cat /proc/user_beancounters2"]).exits(1);
        assert!(ve.sh("cat /proc/self/status").contains("Seccomp:\t2"));
    });
}

#[test]
fn the_numbers_are_the_ves_own() {
    on_node(|node| {
        let (a, b) = (with(node, 1, "procbc:on"), with(node, 2, "procbc:on"));
        for (ve, limit) in [(&a, "117:118"), (&b, "217:218")] {
            ve.ok("set", &["--numproc", limit]);
        }
        for (ve, pair) in [(&a, ["117", "118"]), (&b, ["217", "218"])] {
            let table = ve.sh("cat /proc/user_beancounters");
            let rows = rows(&table);
            assert_eq!(rows[0][0], format!("{}:", ve.id));
            assert!(!table.contains(&format!("{}:", if ve.id == a.id { &b.id } else { &a.id })));
            let numproc = rows.iter().find(|row| row[0] == "numproc").unwrap();
            assert_eq!(numproc[3..5], pair, "{table}");
            let held: u64 = numproc[1].parse().unwrap();
            assert!((2..100).contains(&held), "{table}");
        }
    });
}

#[test]
fn only_root_with_its_rights_may_read_it() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on");
        ve.sh("adduser -D -H guest1 2>/dev/null || echo 'guest1:x:1234:1234::/:/bin/sh' >> /etc/passwd");
        let denied = ve.run("exec2", &["su guest1 -s /bin/sh -c 'cat /proc/user_beancounters' 2>&1"]);
        assert!(denied.code != 0 && denied.text().contains("Permission denied"), "{denied}");
        // Everybody may see that it is there.
        assert_eq!(ve.sh("su guest1 -s /bin/sh -c 'test -e /proc/user_beancounters && ! test -r /proc/user_beancounters && echo seen'"), "seen");
        // Root without CAP_DAC_READ_SEARCH is none.
        let dir = node.scratch();
        let source = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    unsigned header[2] = { 0x20080522, 0 }, data[6];
    syscall(SYS_capget, header, data);
    data[0] &= ~(1u << 2);
    syscall(SYS_capset, header, data);
    int fd = open("/proc/user_beancounters", O_RDONLY);
    printf("%d %d\n", fd, fd < 0 ? errno : 0);
    return 0;
}"#;
        let Some(program) = compile(&dir, "weak", source) else { return skip("a C compiler") };
        put(&ve, &program, "weak");
        assert_eq!(ve.sh("/root/weak"), "-1 13");
    });
}

#[test]
fn a_static_program_reads_it_by_every_call() {
    on_node(|node| {
        let source = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static void content(const char *name, int fd) {
    char text[64] = "";
    long n = read(fd, text, 12);
    printf("%s %s %d\n", name, n == 12 && !memcmp(text, "Version: 2.5", 12) ? "ok" : "bad", fcntl(fd, F_GETFD));
    close(fd);
}
int main(void) {
    const char *path = "/proc/user_beancounters";
    struct { unsigned long flags, mode, resolve; } how = { O_RDONLY, 0, 0 };
    content("open", syscall(SYS_open, path, O_RDONLY));
    content("cloexec", syscall(SYS_open, path, O_RDONLY | O_CLOEXEC));
    content("openat", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY));
    int proc = open("/proc", O_RDONLY | O_DIRECTORY);
    content("dirfd", syscall(SYS_openat, proc, "user_beancounters", O_RDONLY));
    content("openat2", syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how));
    int r;
    struct stat s[3];
    memset(s, 7, sizeof s);
    r = syscall(SYS_stat, path, &s[0]);
    printf("stat %d %o\n", r, s[0].st_mode);
    r = syscall(SYS_lstat, path, &s[1]);
    printf("lstat %d %o\n", r, s[1].st_mode);
    r = syscall(SYS_newfstatat, AT_FDCWD, path, &s[2], 0);
    printf("fstatat %d %o\n", r, s[2].st_mode);
    struct statx x;
    r = syscall(SYS_statx, AT_FDCWD, path, 0, STATX_BASIC_STATS, &x);
    printf("statx %d %o %d\n", r, x.stx_mode, (int)x.stx_size);
    printf("fault %d\n", (int)syscall(SYS_stat, path, (void *)8));
    printf("badpath %d\n", (int)syscall(SYS_open, (void *)8, O_RDONLY));
    return 0;
}"#;
        let Some(program) = compile(&node.scratch(), "every", source) else { return skip("a C compiler") };
        let ve = with(node, 1, "procbc:on");
        put(&ve, &program, "every");
        let want = "open ok 0\ncloexec ok 1\nopenat ok 0\ndirfd ok 0\nopenat2 ok 0\nstat 0 100400\nlstat 0 100400\n\
                    fstatat 0 100400\nstatx 0 100400 0\nfault -1\nbadpath -1";
        assert_eq!(ve.sh("/root/every"), want);
    });
}

/// Without any libc, for 32 bits: open and read, stat64, sysinfo.
const PROGRAM32: &str = r#"
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(0) : "memory");
    return r;
}
static void number(unsigned v) {
    char t[16];
    int i = 15;
    t[i] = '\n';
    do { t[--i] = '0' + v % 10; v /= 10; } while (v);
    call(4, 1, (long)(t + i), 16 - i);
}
static unsigned char text[12], s[96], old[64];
static unsigned info[16];
void work(void) {
    const char *path = "/proc/user_beancounters";
    long fd = call(5, (long)path, 0, 0);
    call(3, fd, (long)text, 12);
    call(4, 1, (long)text, 12);
    call(4, 1, (long)"\n", 1);
    number(call(195, (long)path, (long)s, 0));
    number(*(unsigned *)(s + 16));
    number(call(106, (long)path, (long)old, 0));
    number(*(unsigned short *)(old + 8));
    number(call(116, (long)info, 0, 0));
    number(info[4] / 1024 * info[13]);
    call(1, 0, 0, 0);
}
__asm__(".globl _start\n_start:\nand $-16, %esp\ncall work\n");
"#;

#[test]
fn a_32_bit_program_is_answered_in_its_own_way() {
    on_node(|node| {
        let Some(program) = compile_i386(&node.scratch(), "narrow", PROGRAM32) else {
            return skip("a C compiler with -m32");
        };
        if run(&program, &[]).code != 0 {
            return skip("a kernel that runs 32-bit programs");
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--features", "procbc:on,sysinfo:on", "--ram", "96M", "--swap", "0", "--save"]);
        ve.start();
        put(&ve, &program, "narrow");
        assert_eq!(
            ve.sh("/root/narrow"),
            format!("Version: 2.5\n0\n{0}\n0\n{0}\n0\n{1}", 0o100_400, 96 * 1024)
        );
    });
}

#[test]
fn the_node_may_want_it_for_all() {
    on_node(|node| {
        node.set_conf("PROC_BEANCOUNTERS", "yes");
        let (all, not) = (node.tiny(1), node.tiny(2));
        not.ok("set", &["--features", "procbc:off", "--save"]);
        all.start();
        not.start();
        all.sh("cat /proc/user_beancounters");
        not.run("exec2", &["cat /proc/user_beancounters"]).exits(1);
    });
}

#[test]
fn sysinfo_says_what_the_limits_are() {
    on_node(|node| {
        let source = r#"
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
int main(void) {
    struct sysinfo s;
    memset(&s, 7, sizeof s);
    int done = sysinfo(&s);
    printf("%d %lu %lu %lu %lu %u %ld %u\n", done, s.totalram >> 10, s.freeram >> 10, s.totalswap >> 10,
           s.freeswap >> 10, s.mem_unit, s.uptime, s.procs);
    return 0;
}"#;
        let Some(program) = compile(&node.scratch(), "info", source) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        ve.ok("set", &["--features", "sysinfo:on", "--ram", "128M", "--swap", "0", "--save"]);
        ve.start();
        put(&ve, &program, "info");
        let said = ve.sh("/root/info");
        let numbers: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
        let [done, ram, free, swap, swap_free, unit, uptime, processes] = numbers[..] else {
            panic!("{said}")
        };
        assert_eq!((done, ram, swap, swap_free, unit), (0, 128 * 1024, 0, 0, 1), "{said}");
        assert!(free > 64 * 1024 && free < ram, "{said}");
        assert!(uptime < 60 && (2..100).contains(&processes), "{said}");
        let free = ve.sh("free -k");
        assert!(free.contains("Mem:         131072"), "{free}");
        assert!(ve.sh("uptime").contains("up 0 min"), "{}", ve.sh("uptime"));
        // Only that call stops: the path is not there.
        ve.run("exec2", &["cat /proc/user_beancounters"]).exits(1);
    });
}

/// Opens a file all the time for so many milliseconds; tells how often, failures, the worst in microseconds.
const OPENER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
int main(int argc, char **argv) {
    long end = now() + atol(argv[2]) * 1000, worst = 0, opens = 0, failed = 0;
    for (long begun = now(); begun < end; opens++) {
        int fd = open(argv[1], O_RDONLY);
        if (fd < 0) failed++; else close(fd);
        long after = now();
        if (after - begun > worst) worst = after - begun;
        begun = after;
    }
    printf("%ld %ld %ld\n", opens, failed, worst);
    return 0;
}"#;

fn opener(node: &Node) -> Option<PathBuf> {
    compile(&node.scratch(), "opener", OPENER)
}

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
            assert!(numbers[0] > 100 && numbers[1] == 0, "{said}");
            assert!(numbers[2] < 1_000_000, "{said}");
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
        let said = ve.ok("exec3", &["/root/opener", TABLE, "1000"]).out();
        assert!(said.split_whitespace().next().unwrap().parse::<u64>().unwrap() > 1000, "{said}");
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
        default: break;
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
        assert!(numbers[0] > 100 && numbers[1] == 0 && numbers[2] < 3_000_000, "{said}");
        assert!(supervisors(&ve).len() <= 2 + 4, "{:?}", supervisors(&ve));
        ve.ok("stop", &["--fast"]);
        until("all of the supervisor ends", SOON, || supervisors(&ve).is_empty());
        drop(hostile);
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
