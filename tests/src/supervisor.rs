//! VEs whose calls the host answers, and the two processes that do.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::Node;
use crate::source::compile;
use crate::ve::Ve;

/// A running VE with these features.
pub fn with<'n>(node: &'n Node, number: u32, features: &str) -> Ve<'n> {
    let ve = node.tiny(number);
    ve.ok("set", &["--features", features, "--save"]);
    ve.start();
    ve
}

/// Both processes of a VE's supervisor.
pub fn supervisors(ve: &Ve<'_>) -> Vec<i32> {
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
pub fn pair(ve: &Ve<'_>) -> Option<(i32, i32)> {
    let pids = supervisors(ve);
    let of = |server: i32| pids.iter().copied().find(|pid| parent(*pid) == Some(server));
    pids.iter().find_map(|pid| Some((*pid, of(*pid)?)))
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// By SIGKILL.
pub fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Puts a program of the host into a VE.
pub fn put(ve: &Ve<'_>, program: &Path, name: &str) {
    let line = format!("cat > /root/{name} && chmod 755 /root/{name}");
    ve.begin("exec2", &[&line], &fs::read(program).unwrap()).finish().ok();
}

/// The program [`OPENER`]; none without a C compiler.
pub fn opener(node: &Node) -> Option<PathBuf> {
    compile(&node.scratch(), "opener", OPENER)
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
