//! What the root of a VE cannot do, and whose its files and processes are.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vztests::{Ve, compile, compile_i386, on_node, run, skip};

/// Makes raw system calls, without any libc, for both ABIs: prints `name result` for each.
const PROBE: &str = r#"
#ifdef __x86_64__
#define NR(a, b) a
static long call(long n, long a, long b, long c) {
    long r;
    register long d __asm__("r10") = 0;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(d) : "rcx", "r11", "memory");
    return r;
}
#define WRITE 1
#define EXIT 60
#else
#define NR(a, b) b
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(0) : "memory");
    return r;
}
#define WRITE 4
#define EXIT 1
#endif
static void put(const char *s) {
    long n = 0;
    while (s[n]) n++;
    call(WRITE, 1, (long)s, n);
}
static void number(long v) {
    char t[24];
    int i = 23;
    int negative = v < 0;
    t[i] = 0;
    if (negative) v = -v;
    do { t[--i] = '0' + v % 10; v /= 10; } while (v);
    if (negative) t[--i] = '-';
    put(t + i);
}
static void try(const char *name, long nr, long a, long b, long c) {
    long r = call(nr, a, b, c);
    put(name); put(" "); number(r); put("\n");
}
#define T(name, n64, n32, a, b, c) try(name, NR(n64, n32), a, b, c)
void probe(void) {
    T("getpid", 39, 20, 0, 0, 0);
    T("init_module", 175, 128, 0, 0, 0);
    T("finit_module", 313, 350, -1, 0, 0);
    T("delete_module", 176, 129, 0, 0, 0);
    T("kexec_load", 246, 283, 0, 0, 0);
    T("iopl", 172, 110, 3, 0, 0);
    T("ioperm", 173, 101, 0x70, 1, 1);
    T("swapon", 167, 87, 0, 0, 0);
    T("swapoff", 168, 115, 0, 0, 0);
    T("settimeofday", 164, 79, 0, 0, 0);
    T("clock_settime", 227, 264, 0, 0, 0);
    T("acct", 163, 51, 0, 0, 0);
    T("syslog", 103, 103, 3, 0, 0);
    T("open_by_handle_at", 304, 342, -1, 0, 0);
    T("bpf", 321, 357, 0, 0, 0);
    T("perf_event_open", 298, 336, 0, 0, 0);
    T("unshare_user", 272, 310, 0x10000000, 0, 0);
    T("clone_user", 56, 120, 0x10000011, 0, 0);
    T("keyctl", 250, 288, 0, 0, 0);
    T("add_key", 248, 286, 0, 0, 0);
    T("io_uring_setup", 425, 425, 1, 0, 0);
    T("clone3", 435, 435, 0, 0, 0);
#ifdef __x86_64__
    try("x32_getpid", 39 + 0x40000000, 0, 0, 0);
#endif
    call(EXIT, 0, 0, 0);
}
__asm__(".globl _start\n_start:\n"
#ifdef __x86_64__
        "and $-16, %rsp\n"
#else
        "and $-16, %esp\n"
#endif
        "call probe\n");
"#;

/// Copies a program into a VE and runs it there.
fn inside(ve: &Ve<'_>, program: &Path) -> String {
    let bytes = fs::read(program).unwrap();
    ve.begin("exec2", &["cat > /root/probe && chmod 755 /root/probe"], &bytes).finish().ok();
    ve.sh("/root/probe")
}

fn check_refusals(said: &str) {
    let results: Vec<(&str, i64)> =
        said.lines().filter_map(|line| line.split_once(' ')).map(|(n, r)| (n, r.parse().unwrap())).collect();
    assert!(results.len() >= 22, "{said}");
    for (name, result) in results {
        match name {
            "getpid" => assert!(result > 0, "{name} {result}: ordinary calls are allowed"),
            "keyctl" | "add_key" | "io_uring_setup" | "clone3" => assert_eq!(result, -38, "{name}: ENOSYS"),
            "x32_getpid" => assert!(result < 0, "{name} {result}"),
            _ => assert_eq!(result, -1, "{name}: EPERM"),
        }
    }
}

#[test]
fn refused_system_calls_are_refused() {
    on_node(|node| {
        let dir = node.scratch();
        let source = PROBE.to_owned();
        let Some(program) = vztests::compile_bare(&dir, "probe64", &source) else {
            return skip("a C compiler");
        };
        let ve = node.tiny(1);
        ve.start();
        check_refusals(&inside(&ve, &program));
        // On the host the same program may make its calls: it is the VE that refuses.
        assert!(run(&program, &[]).ok().out().contains("getpid"));
    });
}

#[test]
fn the_32_bit_way_is_no_way_around() {
    on_node(|node| {
        let dir = node.scratch();
        let Some(program) = compile_i386(&dir, "probe32", PROBE) else {
            return skip("a C compiler with -m32");
        };
        if run(&program, &[]).code != 0 {
            return skip("a kernel that runs 32-bit programs");
        }
        let ve = node.tiny(1);
        ve.start();
        check_refusals(&inside(&ve, &program));
    });
}

#[test]
fn ordinary_programs_run_threads_and_children() {
    on_node(|node| {
        let source = r#"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *x) { return x; }
int main(void) {
    pthread_t t;
    if (pthread_create(&t, 0, work, 0) || pthread_join(t, 0)) return 1;
    if (fork() == 0) _exit(7);
    int status;
    wait(&status);
    printf("%d\n", WEXITSTATUS(status));
    return 0;
}"#;
        let Some(program) = compile(&node.scratch(), "threads", source) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        ve.start();
        assert_eq!(inside(&ve, &program), "7");
    });
}

#[test]
fn root_of_a_ve_makes_no_devices_and_mounts_no_disks() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        for line in [
            "mknod /root/sda b 8 0",
            "mknod /root/vda b 254 0",
            "mknod /root/mem c 1 1",
            "mknod /root/kmsg c 1 11",
            "mount -t ext4 /dev/vda /mnt",
            "mount -t ext4 /dev/sda1 /mnt",
            "mount -t devtmpfs none /mnt",
            "mount -t debugfs none /mnt",
            "mount -t tracefs none /mnt",
            "mount -t securityfs none /mnt",
            "cat /proc/kcore | head -c 1 | grep -q .",
            "losetup /dev/loop0 /etc/passwd",
            "insmod /root/x.ko",
            "echo h > /proc/sysrq-trigger",
            "echo 1 > /proc/sys/kernel/panic",
            "! date -s 2001-01-01 2>&1 | grep -q permitted", // busybox says so and exits 0
            "echo x > /proc/sys/kernel/core_pattern",
            "echo 1 > /proc/sys/vm/drop_caches",
            "dmesg",
            "echo 1 > /sys/kernel/mm/ksm/run",
            "nice -n -10 true && renice -n -20 -p 1 && false",
        ] {
            let run = ve.run("exec2", &[&format!("mkdir -p /mnt; {line}")]);
            assert_ne!(run.code, 0, "{run}");
        }
        // And what it does have.
        for line in [
            "echo x > /dev/null",
            "head -c 1 /dev/zero | wc -c",
            "head -c 4 /dev/urandom | wc -c",
            "test -c /dev/tty",
            "mount -t tmpfs none /mnt && umount /mnt",
        ] {
            ve.sh(line);
        }
    });
}

#[test]
fn nothing_of_the_host_can_be_seen() {
    on_node(|node| {
        let ve = node.tiny(1);
        let other = node.tiny(2);
        ve.start();
        other.start();
        let mut mark = vztests::command("sleep", &["8765"]).spawn().unwrap();
        other.sh("sleep 5678 >/dev/null 2>&1 </dev/null &");
        let seen = ve.sh("ps; cat /proc/*/cmdline | tr '\\0' ' '");
        assert!(!seen.contains("8765") && !seen.contains("5678") && !seen.contains("vzmon"), "{seen}");
        let mounts = ve.sh("cat /proc/self/mountinfo");
        for secret in ["/vz/private", "/vz/template", "/run/vz/", "target/vztests"] {
            let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
            // Its own views are where those of the host would be.
            let hosts = |point: &&&str| point.starts_with(secret) && **point != "/run/vz/proc";
            assert!(!points.iter().any(|point| hosts(&point)), "{secret} in {points:?}");
        }
        assert!(!ve.sh("ip -o link").contains("venet5"));
        mark.kill().unwrap();
        mark.wait().unwrap();
    });
}

#[test]
fn no_descriptor_of_the_host_is_open_inside() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let init = ve.sh("ls -l /proc/1/fd");
        assert!(!init.contains("socket:") && !init.contains("pipe:") && !init.contains("/vz"), "{init}");
        // ls has the directory open.
        let own = ve.ok("exec3", &["ls", "/proc/self/fd"]).out();
        assert_eq!(own.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        let namespaces =
            ve.sh("ls -l /proc/self/ns | sed 's/.*-> //'; echo; ls -l /proc/1/ns | sed 's/.*-> //'");
        let (own, init) = namespaces.split_once("\n\n").unwrap();
        assert_eq!(own.trim(), init.trim(), "exec is in all namespaces of init");
        for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
            let inside = ve.sh(&format!("readlink /proc/1/ns/{name}"));
            let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_ne!(inside, outside.to_str().unwrap(), "the {name} namespace is its own");
        }
    });
}

#[test]
fn limits_cannot_be_raised_from_inside() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--numproc", "50:50", "--save"]);
        ve.start();
        let limits = || {
            let names = [
                "pids.max",
                "memory.limit_in_bytes",
                "memory.max",
                "cpu.cfs_quota_us",
                "cpu.shares",
                "cpu.max",
                "devices.list",
            ];
            let mut found = String::new();
            for dir in own_cgroups(&ve) {
                for name in names {
                    if let Ok(text) = fs::read_to_string(dir.join(name)) {
                        found += &format!("{}/{name} {text}", dir.display());
                    }
                }
            }
            found
        };
        let before = limits();
        assert!(before.contains("pids.max 50"), "{before}");
        ve.sh("exec 2>&1; cd /sys/fs/cgroup; for f in pids.max memory.max cpu.max; do echo max > $f; done
            for c in pids memory cpu devices freezer blkio cpuset; do
                mkdir -p /tmp/$c && mount -t cgroup -o $c none /tmp/$c && cd /tmp/$c || continue
                echo max > pids.max; echo -1 > memory.limit_in_bytes; echo a > devices.allow
                echo -1 > cpu.cfs_quota_us; echo 262144 > cpu.shares
                echo $$ > ../tasks; echo $$ > /tmp/$c/../../tasks
            done; true");
        assert_eq!(limits(), before);
    });
}

#[test]
fn files_are_unshifted_on_disk_and_processes_have_the_range_of_their_ve() {
    on_node(|node| {
        for (number, layout) in ["overlay", "simfs"].into_iter().enumerate() {
            node.need_tiny();
            let ve = node.ve(u32::try_from(number).unwrap());
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--config", "free"]);
            ve.start();
            ve.sh("echo x > /root/mine; echo x > /root/theirs; chown 1000:1001 /root/theirs; chmod 4755 /root/mine");
            assert_eq!(ve.sh("stat -c '%u:%g' /root/mine /root/theirs"), "0:0\n1000:1001");
            let find = |name: &str| run("find", &[ve.private().to_str().unwrap(), "-name", name]).ok().out();
            let on_disk = |name: &str| fs::metadata(find(name).trim()).unwrap();
            assert_eq!((on_disk("mine").uid(), on_disk("mine").gid()), (0, 0), "{layout}");
            assert_eq!((on_disk("theirs").uid(), on_disk("theirs").gid()), (1000, 1001), "{layout}");
            assert_eq!(on_disk("mine").permissions().mode() & 0o7777, 0o4755);
            let base = ve.base().unwrap();
            assert!(base >= 65536);
            let status = fs::read_to_string(format!("/proc/{}/status", ve.init().unwrap())).unwrap();
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
            assert!(uid.starts_with(&format!("{base}\t")), "{uid} is not {base}");
        }
        assert_ne!(node.ve(0).base(), node.ve(1).base(), "each VE has a range of its own");
    });
}

#[test]
fn a_privileged_ve_is_an_explicit_choice() {
    on_node(|node| {
        node.need_tiny();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "tiny", "--local_uid", "0"]);
        ve.start();
        let status = fs::read_to_string(format!("/proc/{}/status", ve.init().unwrap())).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
        for line in [
            "mknod /root/vda b 254 0 && dd if=/root/vda of=/dev/null bs=512 count=1",
            "echo h > /proc/sysrq-trigger",
            "insmod x",
            "echo 1 > /proc/sys/kernel/panic",
        ] {
            let run = ve.run("exec2", &[line]);
            assert_ne!(run.code, 0, "{run}");
        }
    });
}

#[test]
fn clocks_and_host_name_are_its_own() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.sh("hostname changed");
        assert_eq!(run("hostname", &[]).out(), "node.test\n");
        // Its uptime is its own: it has just been started.
        let uptime = ve.sh("cut -d. -f1 /proc/uptime").parse::<u64>().unwrap();
        assert!(uptime < 120, "{uptime}");
    });
}

/// The options of the mount at a path.
fn mount_options(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == path.to_str());
    line.unwrap_or_else(|| panic!("{} is not mounted", path.display())).split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn set_uid_programs_of_a_ve_that_is_mounted_for_the_admin_are_nobodys() {
    on_node(|node| {
        node.need_tiny();
        for (number, layout) in [(1, "simfs"), (2, "overlay")] {
            let ve = node.ve(number);
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--config", "free"]);
            ve.ok("mount", &[]);
            let options = mount_options(&ve.root());
            assert!(options.contains("nosuid") && options.contains("nodev"), "{layout}: {options}");
            ve.ok("umount", &[]);
            // The VE itself has them.
            ve.start();
            assert!(!mount_options(&ve.root()).contains("nosuid"), "{layout}");
            ve.ok("stop", &["--fast"]);
            ve.add_conf("LOCAL_UID=\"0\"");
            ve.ok("mount", &[]);
            assert!(!mount_options(&ve.root()).contains("nosuid"), "{layout}, privileged");
        }
    });
}

/// Looks at the program of every process, again and again, and tells of one that is not the VE's.
const SPY: &str = r#"
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    char path[300], target[300];
    struct stat there;
    DIR *proc = opendir("/proc");
    if (!proc) return 1;
    puts("watching");
    fflush(stdout);
    while (stat("/root/enough", &there)) {
        struct dirent *entry;
        rewinddir(proc);
        while ((entry = readdir(proc))) {
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            ssize_t n = readlink(path, target, sizeof target - 1);
            if (n <= 0) continue;
            target[n] = 0;
            if (strstr(target, "vzctl") || strstr(target, "vzmon")) {
                printf("seen %s\n", target);
                return 0;
            }
        }
    }
    return 0;
}"#;

#[test]
fn a_program_on_its_way_in_cannot_be_taken_hold_of() {
    on_node(|node| {
        let Some(program) = compile(&node.scratch(), "spy", SPY) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        ve.start();
        let bytes = fs::read(program).unwrap();
        ve.begin("exec2", &["cat > /root/spy && chmod 755 /root/spy"], &bytes).finish().ok();
        ve.sh("/root/spy > /root/said 2>&1 < /dev/null &");
        vztests::until("the spy watches", std::time::Duration::from_secs(10), || {
            ve.sh("cat /root/said").contains("watching")
        });
        for _ in 0..150 {
            ve.ok("exec3", &["true"]);
        }
        ve.sh("touch /root/enough");
        assert_eq!(ve.sh("cat /root/said"), "watching");
    });
}

#[test]
fn settings_of_the_host_cannot_be_written_wherever_they_are() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        // Opening alone: nothing is written. /sys is mounted read-only, which its root can undo.
        let script = r#"mount -o remount,rw /sys 2>/dev/null
            find /proc/sys /proc/irq /proc/bus /proc/fs /proc/sys* /sys -xdev -type f 2>/dev/null |
            while IFS= read -r f; do
                true 2>/dev/null >>"$f" && echo "$f"
            done 2>/dev/null; true"#;
        let open = ve.sh(script);
        // What belongs to namespaces of its own, and what everybody may write.
        let own = |path: &str| {
            path.starts_with("/proc/sys/net/")
                || path.starts_with("/proc/sys/user/")
                || path.starts_with("/proc/sys/fs/mqueue/")
                || path.starts_with("/proc/sys/kernel/") && {
                    let name = path.rsplit('/').next().unwrap_or_default();
                    // pid_max is of the pid namespace since 6.14.
                    ["shm", "msg", "sem", "auto_msgmni", "hostname", "domainname", "ns_last_pid", "pid_max"]
                        .iter()
                        .any(|start| name.starts_with(start))
                }
                || path.starts_with("/sys/devices/virtual/net/")
                || path.starts_with("/sys/fs/cgroup/")
        };
        let foreign: Vec<&str> = open.lines().filter(|path| !own(path)).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(open.contains("/proc/sys/net/"), "its own network's can be written: {open}");
    });
}

/// Without those that it made itself.
fn own_cgroups(ve: &Ve<'_>) -> Vec<PathBuf> {
    let mut all = ve.cgroups();
    all.retain(|dir| dir.ends_with(format!("vz/{}", ve.id)));
    all.sort();
    all
}

#[test]
fn in_its_own_cgroup_only_the_files_of_delegation_are_the_ves() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let base = ve.base().unwrap();
        let mut given = Vec::new();
        for dir in own_cgroups(&ve) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() && entry.metadata().unwrap().uid() >= base {
                    given.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        // The kernel's own list, and what an old systemd needs of its v1 hierarchy.
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
        let usual = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"];
        let foreign: Vec<&String> = given
            .iter()
            .filter(|name| !usual.contains(&name.as_str()) && !listed.lines().any(|known| known == *name))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(!given.is_empty());
        // Nor can it leave: what is above is not to be seen.
        let seen = ve.sh("grep '^0:' /proc/self/cgroup");
        assert!(["0::/", "0::/.exec"].contains(&seen.as_str()), "{seen}");
        let leave = ve.run(
            "exec2",
            &["echo $$ > /sys/fs/cgroup/../cgroup.procs || echo $$ > /sys/fs/cgroup/../../cgroup.procs"],
        );
        assert_ne!(leave.code, 0, "{leave}");
    });
}

#[test]
fn files_of_the_kernel_that_tell_of_the_host_are_out_of_sight() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        for path in [
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ] {
            // Empty, or not there at all with this kernel.
            let look = format!("cat {path} 2>/dev/null; ls {path}/ 2>/dev/null; true");
            assert_eq!(ve.sh(&look), "", "{path}");
        }
    });
}
