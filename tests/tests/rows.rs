//! Rows of the table that no cgroup counts: what a VE has is counted, and a limit stops it where it says it does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use beancounters::{Count, Hierarchies, Reading, Resource, VeCgroup, resync};
use vztests::{Node, Ve, compile, on_node, run, skip, until};

const SOON: Duration = Duration::from_secs(20);

/// `hog KIND N [FILE]` takes N of a kind, or as many as it gets: prints how many and the errno that stopped it. With a
/// file it waits until that is there, and goes on.
const HOG: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <unistd.h>
static struct sockaddr_in at = { .sin_family = AF_INET };
static int bound(int type) {
    int fd = socket(AF_INET, type, 0);
    struct sockaddr_in any = { .sin_family = AF_INET };
    if (fd >= 0 && bind(fd, (void *)&any, sizeof any)) return -1;
    return fd;
}
static int listener = -1;
static int one(const char *kind) {
    if (!strcmp(kind, "tcp")) return socket(AF_INET, SOCK_STREAM, 0);
    if (!strcmp(kind, "tcp6")) return socket(AF_INET6, SOCK_STREAM, 0);
    if (!strcmp(kind, "udp")) return bound(SOCK_DGRAM);
    if (!strcmp(kind, "unix")) return socket(AF_UNIX, SOCK_STREAM, 0);
    if (!strcmp(kind, "pty")) return open("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (!strcmp(kind, "shm")) return shmget(IPC_PRIVATE, 16 * 4096, 0600);
    if (!strcmp(kind, "signal")) return sigqueue(getpid(), SIGRTMIN, (union sigval){ 0 });
    if (!strcmp(kind, "file")) return open("/dev/null", O_RDONLY);
    if (!strcmp(kind, "locked")) {
        void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return mlock(page, 4096);
    }
    if (!strcmp(kind, "flock")) {
        char name[] = "/tmp/lockXXXXXX";
        return flock(mkstemp(name), LOCK_EX);
    }
    if (!strcmp(kind, "accepted")) {
        socklen_t length = sizeof at;
        if (listener < 0) {
            listener = bound(SOCK_STREAM);
            if (listen(listener, 64) || getsockname(listener, (void *)&at, &length)) return -1;
            at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        }
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (void *)&at, sizeof at)) return -1;
        return accept(listener, 0, 0);
    }
    return -1;
}
static void take(const char *kind, int wanted) {
    static int had;
    int error = 0;
    while (had < wanted) {
        if (one(kind) < 0) { error = errno; break; }
        had++;
    }
    printf("%d %d\n", had, error);
    fflush(stdout);
}
int main(int argc, char **argv) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    take(argv[1], atoi(argv[2]));
    if (argc > 3) {
        while (access(argv[3], F_OK)) usleep(5000);
        take(argv[1], atoi(argv[2]));
    }
    if (argc > 4) while (access(argv[4], F_OK)) usleep(5000);
    return 0;
}
"#;

/// A VE with the program in it, running.
fn with_hog<'n>(node: &'n Node, options: &[&str]) -> Option<Ve<'n>> {
    let Some(program) = compile(&node.scratch(), "hog", HOG) else {
        skip("a C compiler");
        return None;
    };
    let ve = node.tiny(1);
    if !options.is_empty() {
        ve.ok("set", &[options, &["--save"]].concat());
    }
    ve.start();
    ve.begin("exec2", &["cat > /hog && chmod 755 /hog"], &fs::read(program).unwrap()).finish().ok();
    Some(ve)
}

fn hog(ve: &Ve<'_>, kind: &str, number: u32) -> (u32, i32) {
    numbers(&ve.sh(&format!("/hog {kind} {number}")))
}

fn numbers(line: &str) -> (u32, i32) {
    let (had, errno) = line.trim().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    (had.parse().unwrap(), errno.parse().unwrap())
}

/// A hog that goes on when told, and ends when told.
struct Held<'v> {
    ve: &'v Ve<'v>,
    name: String,
}

impl<'v> Held<'v> {
    fn begin(ve: &'v Ve<'v>, kind: &str, number: u32) -> Self {
        let name = format!("/tmp/{kind}");
        ve.sh(&format!("setsid /hog {kind} {number} {name}.on {name}.off > {name}.out 2>&1 < /dev/null &"));
        Held { ve, name }
    }

    /// The last line that it has said, when it has said so many.
    fn says(&self, lines: usize) -> (u32, i32) {
        let mut said = String::new();
        until(&format!("{} has said {lines} lines", self.name), SOON, || {
            // Its shell makes the file in its own time.
            said = self.ve.sh(&format!("cat {}.out 2> /dev/null || :", self.name));
            said.lines().count() >= lines
        });
        numbers(said.lines().nth(lines - 1).unwrap())
    }

    fn goes_on(&self) -> (u32, i32) {
        self.ve.sh(&format!("touch {}.on", self.name));
        self.says(2)
    }

    fn end(self) {
        self.ve.sh(&format!("touch {0}.on {0}.off", self.name));
    }
}

fn cgroup(ve: &Ve<'_>) -> VeCgroup {
    VeCgroup::open(&Hierarchies::detect().unwrap(), ve.id.parse().unwrap()).unwrap().unwrap()
}

fn count(ve: &Ve<'_>, resource: Resource) -> Count {
    Reading::of_all(ve.init().unwrap(), &cgroup(ve)).count(resource)
}

fn held(ve: &Ve<'_>, resource: Resource) -> u64 {
    count(ve, resource).held.unwrap()
}

#[track_caller]
fn becomes(ve: &Ve<'_>, resource: Resource, number: u64) {
    until(&format!("{resource} is {number}, not {:?}", count(ve, resource)), SOON, || {
        held(ve, resource) == number
    });
}

/// What `socket()` is refused with: old kernels know only one errno.
fn is_refusal(errno: i32) -> bool {
    [105, 1].contains(&errno)
}

#[test]
fn the_admin_comes_in_when_there_is_no_room_for_one_more_process() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.wait_up();
        let busy = ve.begin("exec2", &["sleep 100 & sleep 100 & sleep 100 & sleep 100 & wait"], b"");
        let tasks = || Reading::of_cgroup(&cgroup(&ve)).count(Resource::Numproc).held.unwrap();
        until("it is full", SOON, || tasks() >= 6);
        for limit in ["6", "5", "2"] {
            ve.ok("set", &["--numproc", limit]);
            assert!(ve.run("exec2", &["sleep 0 & wait"]).code != 0, "nobody inside may fork with {limit}");
            ve.ok("exec2", &["true"]);
        }
        ve.ok("exec2", &["kill -9 -1"]);
        assert!(busy.finish().code != 0);
        ve.ok("set", &["--numproc", "50"]);
        ve.ok("exec2", &["sleep 0 & wait"]);
    });
}

#[test]
fn sockets_stop_at_their_limit_and_go_on_when_it_is_raised() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numtcpsock", "10", "--numothersock", "8"]) else { return };
        for (kind, resource, limit) in [("tcp", Resource::Numtcpsock, 10), ("udp", Resource::Numothersock, 8)]
        {
            let before = held(&ve, resource);
            let hog = Held::begin(&ve, kind, 30);
            let (had, errno) = hog.says(1);
            assert!(had == limit && is_refusal(errno), "{kind}: {had} {errno}");
            assert_eq!(held(&ve, resource), before + u64::from(limit));
            assert_eq!(count(&ve, resource).failed, Some(1), "{kind}");
            // Without --save too, and at once.
            ve.ok("set", &[&format!("--{resource}"), "20"]);
            let (had, errno) = hog.goes_on();
            assert!(had == 20 && is_refusal(errno), "{kind}: {had} {errno}");
            assert_eq!(count(&ve, resource).failed, Some(2), "{kind}");
            ve.ok("set", &[&format!("--{resource}"), "unlimited"]);
            hog.end();
            becomes(&ve, resource, before);
        }
        assert_eq!(hog(&ve, "tcp", 100), (100, 0));
        assert_eq!(hog(&ve, "unix", 100), (100, 0));
        assert_eq!(count(&ve, Resource::Numtcpsock).peak, Some(100));
    });
}

#[test]
fn accepted_connections_are_counted_too() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numtcpsock", "21"]) else { return };
        let hog = Held::begin(&ve, "accepted", 15);
        // A listener, and two for each connection: 1 + 2 * 10.
        let (had, errno) = hog.says(1);
        assert!(had == 10 && is_refusal(errno), "{had} {errno}");
        assert_eq!(held(&ve, Resource::Numtcpsock), 21);
        ve.ok("set", &["--numtcpsock", "100"]);
        assert_eq!(hog.goes_on(), (15, 0));
        assert_eq!(held(&ve, Resource::Numtcpsock), 31);
        hog.end();
        becomes(&ve, Resource::Numtcpsock, 0);
    });
}

#[test]
fn a_limit_set_while_it_runs_knows_what_is_open_and_drift_is_put_right() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &[]) else { return };
        let old = Held::begin(&ve, "udp", 6);
        assert_eq!(old.says(1), (6, 0));
        ve.ok("set", &["--numothersock", "10"]);
        let before = held(&ve, Resource::Numothersock);
        let new = Held::begin(&ve, "tcp", 3);
        assert_eq!(new.says(1), (3, 0));
        assert_eq!(hog(&ve, "udp", 9).0, 4);
        assert_eq!(held(&ve, Resource::Numothersock), before);
        let gate = || {
            let dir = fs::File::open(cgroup(&ve).v2_dir().unwrap()).unwrap();
            vzsys::bpf::SocketGate::find(&dir).unwrap().unwrap()
        };
        let other = || gate().tally(vzsys::bpf::Kind::Other).count;
        assert_eq!(other(), 6);
        // Counted and not there, there and not counted.
        gate().seed(vzsys::bpf::Kind::Other, 5000);
        assert_eq!(hog(&ve, "udp", 9).0, 0);
        until("what is not there is forgotten", SOON, || {
            resync(ve.init().unwrap(), &cgroup(&ve));
            other() < 5000
        });
        gate().forget(vzsys::bpf::Kind::Other, other());
        until("what is there is counted", SOON, || {
            resync(ve.init().unwrap(), &cgroup(&ve));
            other() == 6
        });
        old.end();
        until("all are closed", SOON, || other() == 0);
        new.end();
    });
}

#[test]
fn the_gate_outlives_its_monitor_and_goes_with_the_ve() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numtcpsock", "5"]) else { return };
        assert_eq!(hog(&ve, "tcp", 9).0, 5);
        run("kill", &["-9", &ve.monitor().unwrap().to_string()]).ok();
        assert_eq!(hog(&ve, "tcp", 9).0, 5);
        assert_eq!(count(&ve, Resource::Numtcpsock).failed, Some(2));
        let dir = cgroup(&ve).v2_dir().unwrap();
        let fd = fs::File::open(&dir).unwrap();
        let programs = vzsys::bpf::SocketGate::programs(&fd).unwrap();
        assert_eq!(programs.len(), 3);
        drop(fd);
        ve.ok("stop", &["--fast"]);
        // Nothing is pinned: with the cgroup go its programs, and their maps with them.
        assert!(!dir.exists());
        until("the programs are gone", SOON, || {
            programs.iter().all(|id| !vzsys::bpf::is_loaded(*id).unwrap())
        });
        ve.start();
        assert_eq!(hog(&ve, "tcp", 9).0, 5);
        assert_eq!(count(&ve, Resource::Numtcpsock).failed, Some(1), "a new life begins with nothing");
    });
}

#[test]
fn terminals_and_system_v_memory_have_limits_that_can_be_moved() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numpty", "6", "--shmpages", "160"]) else { return };
        // The console is not one of them.
        assert_eq!(held(&ve, Resource::Numpty), 0);
        let options = ve.sh("grep ' /dev/pts ' /proc/self/mountinfo");
        // The kernel says ids as the host has them.
        let group = format!("gid={}", ve.base().unwrap() + 5);
        for option in [group.as_str(), "mode=620", "ptmxmode=666", "max=6"] {
            assert!(options.contains(option), "{option}: {options}");
        }
        let ptys = Held::begin(&ve, "pty", 20);
        assert_eq!(ptys.says(1), (6, 28));
        assert_eq!(held(&ve, Resource::Numpty), 6);
        ve.ok("set", &["--numpty", "12"]);
        assert_eq!(ptys.goes_on(), (12, 28));
        ve.ok("set", &["--numpty", "unlimited"]);
        ptys.end();
        becomes(&ve, Resource::Numpty, 0);
        assert_eq!(hog(&ve, "pty", 30), (30, 0));

        // Segments of 16 pages. Its root may set this for its own namespace, but not past us.
        assert_ne!(ve.run("exec2", &["echo 100000 > /proc/sys/kernel/shmall"]).code, 0);
        assert_eq!(
            ve.sh("cat /proc/sys/kernel/shmall; echo 100 > /proc/sys/kernel/msgmni && echo other"),
            "160\nother"
        );
        let memory = Held::begin(&ve, "shm", 40);
        assert_eq!(memory.says(1), (10, 28));
        ve.ok("set", &["--shmpages", "320"]);
        assert_eq!(memory.goes_on(), (20, 28));
        ve.ok("set", &["--shmpages", "unlimited"]);
        memory.end();
        assert_eq!(hog(&ve, "shm", 40), (40, 0));
        // Only some kernels give a VE's root the file at all (6.9).
        ve.run("exec2", &["echo 100000 > /proc/sys/kernel/shmall"]);
        assert_ne!(ve.sh("cat /proc/sys/kernel/shmall"), "320");
    });
}

#[test]
fn queued_signals_have_a_limit_for_all_users_together() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numsiginfo", "40"]) else { return };
        let mine = Held::begin(&ve, "signal", 25);
        assert_eq!(mine.says(1), (25, 0));
        ve.sh("adduser -D -H other 2>/dev/null || echo 'other:x:1000:1000::/:/bin/sh' >> /etc/passwd");
        let theirs = numbers(&ve.sh("su other -c '/hog signal 30'"));
        assert!(theirs.0 <= 15 && theirs.1 == 11, "{theirs:?}");
        assert_eq!(held(&ve, Resource::Numsiginfo), 25);
        mine.end();
        becomes(&ve, Resource::Numsiginfo, 0);
        ve.ok("set", &["--numsiginfo", "80", "--save"]).says("from the next start");
        ve.ok("restart", &[]);
        ve.wait_up();
        let (had, errno) = hog(&ve, "signal", 100);
        assert!((75..=80).contains(&had) && errno == 11, "{had} {errno}");
    });
}

#[test]
fn locked_memory_is_limited_for_each_process() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--lockedpages", "20"]) else { return };
        let locked = Held::begin(&ve, "locked", 60);
        let (had, errno) = locked.says(1);
        assert!(had == 20 && errno == 12, "{had} {errno}");
        until("locked pages are counted", SOON, || {
            let all = {
                let mut reading = Reading::of_cgroup(&cgroup(&ve));
                reading.take(&Reading::of_all(ve.init().unwrap(), &cgroup(&ve)));
                reading
            };
            all.count(Resource::Lockedpages).held.unwrap() >= 20
        });
        ve.ok("set", &["--lockedpages", "40"]).says("LOCKEDPAGES is accounted");
        // What runs already: only a root with this right may raise it.
        let rights = fs::read_to_string("/proc/self/status").unwrap();
        let rights = rights.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        let may_raise = u64::from_str_radix(rights, 16).unwrap() & 1 << 24 != 0;
        assert_eq!(locked.goes_on(), (if may_raise { 40 } else { 20 }, 12));
        // What comes in later has the new one too.
        assert_eq!(hog(&ve, "locked", 60), (40, 12));
        locked.end();
        ve.ok("set", &["--lockedpages", "unlimited"]);
        assert_eq!(hog(&ve, "locked", 60), (60, 0));
    });
}

#[test]
fn files_locks_and_rules_are_counted() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &[]) else { return };
        let (files, flocks) = (held(&ve, Resource::Numfile), held(&ve, Resource::Numflock));
        let opened = Held::begin(&ve, "file", 50);
        opened.says(1);
        let locked = Held::begin(&ve, "flock", 7);
        locked.says(1);
        assert!(held(&ve, Resource::Numfile) >= files + 57);
        assert_eq!(held(&ve, Resource::Numflock), flocks + 7);
        assert!(held(&ve, Resource::Privvmpages) > 0);
        assert!(held(&ve, Resource::Dgramrcvbuf) < 1 << 20);
        opened.end();
        locked.end();
        becomes(&ve, Resource::Numflock, flocks);
        if Path::new("/usr/sbin/nft").exists() {
            let rules = held(&ve, Resource::Numiptent);
            let net = format!("/proc/{}/ns/net", ve.init().unwrap());
            let table =
                "add table inet t; add chain inet t c; add rule inet t c accept; add rule inet t c drop";
            run("nsenter", &[&format!("--net={net}"), "/usr/sbin/nft", table]).ok();
            assert_eq!(held(&ve, Resource::Numiptent), rules + 2);
        }
    });
}

#[test]
fn a_limit_that_is_none_here_is_told_once_and_stored() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let told =
            ve.ok("set", &["--numflock", "100:110", "--vmguarpages", "1000", "--numproc", "100", "--save"]);
        let text = told.text();
        assert_eq!(text.matches("NUMFLOCK is accounted").count(), 1, "{text}");
        assert_eq!(text.matches("VMGUARPAGES is stored").count(), 1, "{text}");
        assert!(!text.contains("NUMPROC"), "{text}");
        assert_eq!(ve.conf_value("NUMFLOCK").as_deref(), Some("100:110"));
        ve.run("set", &["--numtcpsock", "many", "--save"]).exits(21);
    });
}

/// The monitor counts all this by itself, and remembers the most.
#[test]
fn the_record_remembers_what_was_there() {
    on_node(|node| {
        let Some(ve) = with_hog(node, &["--numtcpsock", "12"]) else { return };
        assert_eq!(hog(&ve, "tcp", 20).0, 12);
        let row = || {
            let text = fs::read_to_string(format!("/run/vz/{}/beancounters", ve.id)).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("numtcpsock ")).unwrap_or("").to_owned();
            line.split(' ').skip(1).map(|n| n.parse().unwrap()).collect::<Vec<u64>>()
        };
        until("the monitor has counted", SOON, || {
            row()
                .first_chunk()
                .is_some_and(|[_, max, barrier, limit]| (*max, *barrier, *limit) == (12, 12, 12))
                && row().last() == Some(&1)
        });
    });
}
