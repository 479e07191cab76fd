//! The limit of open files: what a VE has open is counted to the last one, and refused above it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use beancounters::{Count, Hierarchies, Reading, Resource, VeCgroup};
use vzsys::Call;
use vzsys::bpf::FileGate;
use vzsys::idmap::{IdRange, as_ve_root};
use vztests::{Need, Node, Ve, compile, holds, lacks, on_node, run, skip, until};

const SOON: Duration = Duration::from_secs(60);
const ENFILE: i32 = 23;

/// `hog KIND N NAME` opens N files, or as many as it gets: writes how many and the errno that stopped it to NAME.out. It
/// goes on when NAME.on is there, and ends when NAME.off is.
const HOG: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
static int had;
static void take(int wanted) {
    int error = 0;
    while (had < wanted) {
        if (open("/dev/null", O_RDONLY) < 0) { error = errno; break; }
        had++;
    }
    printf("%d %d\n", had, error);
    fflush(stdout);
}
/* Sends all that is open to nobody who takes it, and closes it here. */
static void pass(void) {
    int pair[2], fds[64], first = 3;
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    for (int at = 0; at + 64 <= had; at += 64) {
        char control[CMSG_SPACE(sizeof fds)] = { 0 }, byte = 0;
        struct iovec io = { &byte, 1 };
        struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof control };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        for (int i = 0; i < 64; i++) fds[i] = first + at + i;
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(header), fds, sizeof fds);
        if (sendmsg(pair[0], &message, 0) < 0) had = -1;
        for (int i = 0; i < 64; i++) close(fds[i]);
    }
    printf("%d %d\n", had, errno);
    fflush(stdout);
}
static void await(const char *name, const char *end) {
    char file[256];
    snprintf(file, sizeof file, "%s.%s", name, end);
    while (access(file, F_OK)) usleep(5000);
}
int main(int argc, char **argv) {
    int wanted = atoi(argv[2]);
    struct rlimit many = { 65536, 65536 };
    setrlimit(RLIMIT_NOFILE, &many);
    if (!strcmp(argv[1], "nested") && unshare(CLONE_NEWUSER)) { printf("-1 %d\n", errno); return 1; }
    take(wanted);
    if (!strcmp(argv[1], "pass")) pass();
    await(argv[3], "on");
    take(wanted);
    await(argv[3], "off");
    return 0;
}
"#;

/// A VE with the program in it, running; nobody else does anything in it.
fn with_hog<'n>(node: &'n Node, number: u32, options: &[&str]) -> Option<Ve<'n>> {
    let Some(program) = compile(&node.scratch(), "hog", HOG) else {
        skip("a C compiler");
        return None;
    };
    let ve = node.tiny(number);
    if !options.is_empty() {
        ve.ok("set", &[options, &["--save"]].concat());
    }
    ve.start();
    ve.begin("exec2", &["cat > /hog && chmod 755 /hog"], &fs::read(program).unwrap()).finish().ok();
    Some(ve)
}

/// A hog at work, spoken to from outside: in a full VE nobody else opens anything.
struct Hog {
    owner: IdRange,
    base: PathBuf,
    name: &'static str,
}

impl Hog {
    fn begin(ve: &Ve<'_>, kind: &'static str, number: u32) -> Self {
        let base = PathBuf::from(format!("/proc/{}/root/tmp", ve.init().unwrap()));
        for end in ["on", "off", "out"] {
            let _ = fs::remove_file(base.join(format!("{kind}.{end}")));
        }
        ve.sh(&format!("setsid /hog {kind} {number} /tmp/{kind} > /tmp/{kind}.out 2>&1 < /dev/null &"));
        Hog { owner: IdRange::at(ve.base().unwrap()), base, name: kind }
    }

    fn file(&self, end: &str) -> PathBuf {
        self.base.join(format!("{}.{end}", self.name))
    }

    fn tell(&self, end: &str) {
        let write = || fs::write(self.file(end), "").call("write", || end);
        as_ve_root(Some(self.owner), write).unwrap();
    }

    /// A line that it has said.
    fn says(&self, line: usize) -> (i32, i32) {
        let mut said = String::new();
        until(&format!("{} has said {line} lines", self.name), SOON, || {
            said = fs::read_to_string(self.file("out")).unwrap_or_default();
            said.lines().count() >= line && said.ends_with('\n')
        });
        let (had, errno) = said.lines().nth(line - 1).unwrap().split_once(' ').unwrap();
        (had.parse().unwrap(), errno.parse().unwrap())
    }

    fn goes_on(&self) -> (i32, i32) {
        self.tell("on");
        self.says(2)
    }

    fn end(self) {
        self.tell("on");
        self.tell("off");
    }

    /// Without a chance to close anything.
    fn kill(self, ve: &Ve<'_>) {
        for pid in cgroup(ve).processes().unwrap() {
            if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "hog") {
                run("kill", &["-9", &pid.to_string()]).ok();
            }
        }
    }
}

fn cgroup(ve: &Ve<'_>) -> VeCgroup {
    VeCgroup::open(&Hierarchies::detect().unwrap(), ve.id.parse().unwrap()).unwrap().unwrap()
}

fn count(ve: &Ve<'_>) -> Count {
    Reading::of_init(ve.init().unwrap(), &cgroup(ve)).count(Resource::Numfile)
}

fn held(ve: &Ve<'_>) -> u64 {
    count(ve).held.expect("its files are counted")
}

/// What an idle VE has open: the same for a while.
fn settled(ve: &Ve<'_>) -> u64 {
    let (mut last, mut same) = (held(ve), 0);
    until("the VE is idle", SOON, || {
        let now = held(ve);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 20
    });
    last
}

#[track_caller]
fn becomes(ve: &Ve<'_>, number: u64) {
    let mut last = 0;
    let same = holds(SOON, || {
        last = held(ve);
        last == number
    });
    assert!(same, "numfile is {last}, not {number}");
}

fn knows(ve: &Ve<'_>) -> bool {
    FileGate::find().unwrap().is_some_and(|gate| gate.knows(ve.id.parse().unwrap()).unwrap())
}

#[test]
fn open_files_stop_at_their_limit_which_can_be_moved() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    on_node(|node| {
        let Some(ve) = with_hog(node, 1, &["--numfile", "100:100"]) else { return };
        let before = settled(&ve);
        assert!((1..50).contains(&before), "{before}");
        let hog = Hog::begin(&ve, "open", 400);
        let (had, errno) = hog.says(1);
        assert!((50..100).contains(&had) && errno == ENFILE, "{had} {errno}");
        let full = count(&ve);
        assert!(full.peak == Some(100) && full.failed >= Some(1) && full.held <= Some(100), "{full:?}");
        // Without --save too, and at once.
        ve.ok("set", &["--numfile", "300"]).never_says("NUMFILE");
        let (more, errno) = hog.goes_on();
        assert!((had + 200..300).contains(&more) && errno == ENFILE, "{more} {errno}");
        assert_eq!((held(&ve), count(&ve).peak), (300, Some(300)));
        assert!(count(&ve).failed > full.failed);
        // Lower than what is open: that stays, and nothing is added.
        ve.ok("set", &["--numfile", "200"]);
        assert_eq!(held(&ve), 300);
        // The admin comes in all the same, and nobody whom he starts does anything.
        let inside = |line: &str| ve.run("exec2", &[line]);
        inside("read name < /etc/hostname; echo \"in $name\"").ok().says("in ");
        ve.ok("exec3", &["/bin/ls", "/etc/passwd"]).says("/etc/passwd");
        let refused = inside("/bin/ls / & wait $!");
        assert!(refused.code != 0, "{refused}");
        becomes(&ve, 300);
        let mut shell = ve.at_terminal("enter", &[]);
        shell.expect("entered into CT");
        shell.send("echo HERE-$((20 + 3)); exit\n");
        shell.expect("HERE-23");
        assert_eq!(shell.finish().0, 0);
        becomes(&ve, 300);
        ve.ok("set", &["--numfile", "unlimited"]);
        hog.end();
        becomes(&ve, before);
        let hog = Hog::begin(&ve, "open", 400);
        assert_eq!(hog.says(1), (400, 0));
        // Its program, its /dev/null and its output are open too. What an overlay opens below that is not the VE's.
        assert_eq!(held(&ve), before + 400 + 3);
        hog.kill(&ve);
        becomes(&ve, before);
        let row = || fs::read_to_string(format!("/run/vz/{}/beancounters", ve.id)).unwrap_or_default();
        until("the record has it", SOON, || {
            let text = row();
            let line = text.lines().find(|line| line.starts_with("numfile ")).unwrap_or_default();
            let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|n| n.parse().ok()).collect();
            numbers.len() == 6 && numbers[1] >= before + 400 && numbers[5] >= 2
        });
    });
}

#[test]
fn files_on_their_way_are_counted_until_nobody_has_them() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    on_node(|node| {
        let Some(ve) = with_hog(node, 1, &["--numfile", "500"]) else { return };
        let before = settled(&ve);
        let hog = Hog::begin(&ve, "pass", 256);
        assert_eq!(hog.says(1), (256, 0));
        assert_eq!(hog.says(2), (256, 0));
        // In no descriptor of any process.
        let held = settled(&ve);
        assert!(held >= before + 256, "{held} {before}");
        hog.kill(&ve);
        becomes(&ve, before);
    });
}

#[test]
fn nobody_escapes_and_nobody_else_is_limited() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    on_node(|node| {
        let Some(ve) = with_hog(node, 1, &["--numfile", "100", "--features", "nesting:on"]) else { return };
        let Some(neighbour) = with_hog(node, 2, &[]) else { return };
        let before = settled(&ve);
        let hog = Hog::begin(&ve, "nested", 400);
        let (had, errno) = hog.says(1);
        assert!((50..100).contains(&had) && errno == ENFILE, "{had} {errno}");
        assert_eq!(count(&ve).peak, Some(100));
        let other = Hog::begin(&neighbour, "open", 400);
        assert_eq!(other.says(1), (400, 0));
        let ours: Vec<File> = (0..400).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(held(&ve) <= 100 && held(&neighbour) >= 400);
        drop(ours);
        hog.kill(&ve);
        becomes(&ve, before);
        other.end();
    });
}

#[test]
fn the_count_needs_no_process_of_ours_and_ends_with_the_ve() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    on_node(|node| {
        let Some(ve) = with_hog(node, 1, &["--numfile", "100"]) else { return };
        let before = settled(&ve);
        run("kill", &["-9", &ve.monitor().unwrap().to_string()]).ok();
        // The console's terminal goes with the monitor, and who has it open stays.
        let hog = Hog::begin(&ve, "open", 400);
        let (had, errno) = hog.says(1);
        assert!((50..100).contains(&had) && errno == ENFILE, "{had} {errno}");
        // A full VE can still be stopped.
        ve.ok("stop", &["--fast"]);
        assert!(!knows(&ve));
        ve.start();
        assert!(knows(&ve));
        assert_eq!(count(&ve).failed, Some(0), "a new life begins with nothing");
        becomes(&ve, before);
        ve.ok("restart", &[]);
        ve.wait_up();
        becomes(&ve, before);
        ve.ok("stop", &[]);
        assert!(!knows(&ve));
    });
}

#[test]
fn what_a_killed_one_left_is_put_up_anew() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    const SET: &str = "/run/vz/bpf/files-2";
    on_node(|node| {
        let Some(ve) = with_hog(node, 1, &["--numfile", "100"]) else { return };
        for left in ["alloc", "excused", "counts"] {
            fs::remove_file(Path::new(SET).join(left)).unwrap();
            let second = node.tiny(2);
            second.ok("set", &["--numfile", "200", "--save"]);
            second.start();
            assert!(Path::new(SET).join(left).exists(), "{left}");
            assert_eq!(fs::read_dir(SET).unwrap().count(), 6);
            assert!(knows(&second) && count(&second).failed == Some(0));
            // Whoever was counted before is not any more, and is told so.
            ve.ok("set", &["--numfile", "150"])
                .says("NUMFILE is stored and not enforced here: from the next start");
            assert!(count(&ve).held.is_none());
            let all = Reading::of_all(ve.init().unwrap(), &cgroup(&ve)).count(Resource::Numfile);
            assert!(all.held.is_some() && all.peak.is_none(), "{all:?}");
            second.destroy();
        }
        ve.ok("restart", &[]);
        ve.wait_up();
        let hog = Hog::begin(&ve, "open", 400);
        assert_eq!(hog.says(1).1, ENFILE);
        hog.end();
    });
}

#[test]
fn a_container_that_shares_the_hosts_ids_is_not_counted_as_the_host() {
    if lacks(&[Need::BpfLsm]) {
        return;
    }
    on_node(|node| {
        let ve = node.tiny(1);
        ve.add_conf("LOCAL_UID=\"0\"\nNUMFILE=\"30:30\"\n");
        ve.start();
        assert!(!knows(&ve) && count(&ve).held.is_none());
        ve.ok("set", &["--numfile", "20"]).says("NUMFILE is stored and not enforced here");
        let ours: Vec<File> = (0..400).map(|_| File::open("/dev/null").unwrap()).collect();
        assert_eq!(ve.sh("echo alive"), "alive");
        drop(ours);
    });
}
