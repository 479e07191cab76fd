//! `/proc/user_beancounters` and sysinfo(2) in a VE, answered by its supervisor.
#![allow(clippy::unwrap_used)]

use vztests::supervisor::{put, supervisors, with};
use vztests::{compile, compile_i386, on_node, run, skip};

const TABLE: &str = "/proc/user_beancounters";

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

/// Without any libc, for 32 bits: open and read, stat64, sysinfo, sched_getaffinity.
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
static unsigned info[16], mask[32];
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
    number(call(242, 0, 128, (long)mask) % 8);
    number(mask[0] & mask[0] - 1);
    number(-call(242, 0, 3, (long)mask));
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
        ve.ok(
            "set",
            &["--features", "procbc:on,sysinfo:on", "--ram", "96M", "--swap", "0", "--cpus", "1", "--save"],
        );
        ve.start();
        put(&ve, &program, "narrow");
        assert_eq!(
            ve.sh("/root/narrow"),
            format!("Version: 2.5\n0\n{0}\n0\n{0}\n0\n{1}\n0\n0\n22", 0o100_400, 96 * 1024)
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
        // A busy process counts in the averages, and none did before.
        assert!(ve.sh("uptime").contains("load average: 0.00"));
        ve.sh("(while :; do :; done) > /dev/null 2>&1 &");
        vztests::until("the load rises", std::time::Duration::from_secs(30), || {
            !ve.sh("uptime").contains("load average: 0.00")
        });
        // Only that call stops: the path is not there.
        ve.run("exec2", &["cat /proc/user_beancounters"]).exits(1);
    });
}

#[test]
fn a_thread_that_asks_for_its_processors_is_told_as_many_as_the_ve_has() {
    on_node(|node| {
        let source = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static int count(cpu_set_t *set, int done) { return done ? -1 : CPU_COUNT(set); }
static void failed(long done, int why) { printf(" %s", done == -1 && errno == why ? "refused" : "wrong"); }
static void *thread(void *x) {
    cpu_set_t set;
    /* By its own number, as nproc asks; by none; another thread's. */
    printf("%d ", count(&set, pthread_getaffinity_np(pthread_self(), sizeof set, &set)));
    printf("%d ", count(&set, sched_getaffinity(0, sizeof set, &set)));
    printf("%d ", count(&set, sched_getaffinity(getpid(), sizeof set, &set)));
    return x;
}
int main(void) {
    pthread_t t;
    cpu_set_t set;
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    /* What it is told it can be bound to. */
    sched_getaffinity(0, sizeof set, &set);
    printf("%d", sched_setaffinity(0, sizeof set, &set));
    failed(syscall(SYS_sched_getaffinity, 0, 3, &set), EINVAL);
    failed(syscall(SYS_sched_getaffinity, 0, sizeof set, 8), EFAULT);
    failed(syscall(SYS_sched_getaffinity, 1 << 21, sizeof set, &set), ESRCH);
    return 0;
}"#;
        let Some(program) = compile(&node.scratch(), "mask", source) else { return skip("a C compiler") };
        let host = std::thread::available_parallelism().unwrap().get();
        let ve = node.tiny(1);
        ve.ok("set", &["--features", "sysinfo:on", "--cpus", "1", "--save"]);
        ve.start();
        put(&ve, &program, "mask");
        assert_eq!(ve.sh("/root/mask"), format!("1 1 {host} 0 refused refused refused"));
        assert_eq!(ve.sh("nproc"), "1");
        ve.ok("set", &["--cpus", "0", "--save"]);
        assert_eq!(ve.sh("/root/mask"), format!("{host} {host} {host} 0 refused refused refused"));
        ve.ok("set", &["--cpulimit", "30", "--save"]);
        assert_eq!(ve.sh("nproc"), "1");
        ve.ok("set", &["--cpulimit", "0", "--cpumask", "0", "--save"]);
        assert_eq!(ve.sh("/root/mask"), "1 1 1 0 refused refused refused");
    });
}

#[test]
fn every_way_into_the_ve_is_answered() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--features", "procbc:on", "--save"]);
        // Without a running init: its supervisor is there before.
        let script = node.scratch().join("script");
        std::fs::write(&script, "head -n 1 /proc/user_beancounters\n").unwrap();
        assert_eq!(ve.ok("runscript", &[script.to_str().unwrap()]).out().trim(), "Version: 2.5");
        assert!(supervisors(&ve).is_empty());
        ve.start();
        assert_eq!(ve.ok("runscript", &[script.to_str().unwrap()]).out().trim(), "Version: 2.5");
        let mut terminal = ve.at_terminal("enter", &[]);
        terminal.send("head -n 1 /proc/user_beancounters; exit\n");
        terminal.expect("Version: 2.5");
        assert_eq!(terminal.finish().0, 0);
        // Init's own children, and those of its next life.
        for _ in 0..2 {
            ve.sh("(sleep 1; cat /proc/user_beancounters > /root/seen) > /dev/null 2>&1 &");
            vztests::until("it is seen", std::time::Duration::from_secs(20), || {
                ve.run("exec2", &["grep -q Version /root/seen"]).code == 0
            });
            ve.sh("rm /root/seen");
            ve.ok("restart", &["--fast"]);
            ve.wait_up();
        }
        vztests::until("there are two of this life", std::time::Duration::from_secs(20), || {
            supervisors(&ve).len() == 2
        });
    });
}

#[test]
fn root_of_a_namespace_inside_is_not_root_of_the_ve() {
    on_node(|node| {
        let ve = with(node, 1, "procbc:on,nesting:on");
        assert_eq!(ve.sh("unshare -U -r id -u"), "0");
        let denied = ve.run("exec2", &["unshare -U -r cat /proc/user_beancounters"]);
        assert!(denied.code != 0 && denied.text().contains("Permission denied"), "{denied}");
    });
}

#[test]
fn a_privileged_ve_is_answered_too() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.add_conf("LOCAL_UID=\"0\"");
        ve.ok("set", &["--features", "procbc:on,sysinfo:on", "--save"]);
        ve.start();
        assert!(ve.sh("cat /proc/user_beancounters").contains(&format!("{}: kmemsize", ve.id)));
    });
}
