//! The host's side of a node: its directory, its namespaces, and what is left of nodes that were killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::ctid;
use crate::run::command;
use crate::wait::holds;

pub(crate) const NODE: &str = "VZTESTS_NODE";
pub(crate) const FIRST: &str = "VZTESTS_FIRST";
/// A file of the node's directory that says that its body ran.
pub(crate) const RAN: &str = "ran";
/// A file of the node's first process: the host's network namespace.
pub(crate) const NET: &str = "/proc/1/fd/3";

/// Where nodes live: on a file system that overlays and idmapped mounts can be made of.
pub(crate) fn home() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/vztests");
    std::env::var_os("VZTESTS_DIR").map_or_else(default, PathBuf::from)
}

/// Runs a test of this program inside a node of its own.
pub(crate) fn run_inside(test: &str) {
    let place = Place::make();
    let exe = std::env::current_exe().unwrap();
    let status = isolated()
        .arg(exe)
        .args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(NODE, &place.dir)
        .env(FIRST, place.first.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::from(File::open("/proc/self/ns/net").unwrap()))
        .status()
        .unwrap();
    let ran = place.dir.join(RAN).exists();
    place.remove();
    assert!(status.success(), "{test} failed on its node ({status}); see above");
    // The body is found by its test's name; a name that nothing has runs nothing, and that succeeds.
    assert!(ran, "{test} did not run on its node: on_node must be called by the test function itself");
}

/// The shell is the first process: it reaps what the tests' programs leave to init. It keeps its standard
/// input as [`NET`]; only in a subshell does dash redirect without doing so itself.
pub(crate) fn isolated() -> Command {
    let mut command = command("setpriv", &["--pdeathsig", "KILL", "--", "unshare"]);
    command.args(UNSHARE).args(["/bin/sh", "-c", FIRST_PROCESS, "node"]);
    command
}

const UNSHARE: [&str; 8] =
    ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--"];
const FIRST_PROCESS: &str = "exec 3<&0 </dev/null; (exec \"$@\" 3<&-); exit $?";
/// Makes the cgroup `vz/$1` of each hierarchy, which is a whole tree to a host that is in it, and enters it. In a cgroup2 its
/// processes are in one below, from which controllers may be given on.
const ENTER: &str = include_str!("enter.sh");

/// The same with cgroups of its own too: another host with VEs of the same numbers.
pub(crate) fn apart(group: &str) -> Command {
    let mut command =
        command("setpriv", &["--pdeathsig", "KILL", "--", "/bin/sh", "-c", ENTER, "enter", group]);
    command.args(UNSHARE).args(["/bin/sh", "-c", FIRST_PROCESS, "node"]);
    command
}

/// The directory of a node, locked as long as the node lives.
struct Place {
    dir: PathBuf,
    first: u32,
    _lock: File,
}

impl Place {
    fn make() -> Self {
        let nodes = home().join("nodes");
        fs::create_dir_all(&nodes).unwrap();
        let _all = ctid::locked(File::create(home().join("lock")).unwrap());
        sweep(&nodes);
        let first = ctid::claim();
        let dir = nodes.join(first.to_string());
        fs::create_dir_all(&dir).unwrap();
        let lock = ctid::locked(File::create(dir.join("lock")).unwrap());
        Self { dir, first, _lock: lock }
    }

    fn remove(&self) {
        clear(&self.dir, self.first);
    }
}

/// Removes what killed nodes left: those whose lock nobody holds.
fn sweep(nodes: &Path) {
    for entry in fs::read_dir(nodes).unwrap().flatten() {
        let dir = entry.path();
        let held = File::open(dir.join("lock"))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        let first = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (false, Some(first)) = (held, first) {
            clear(&dir, first);
        }
    }
}

fn clear(dir: &Path, first: u32) {
    // The last processes of a killed node may take a moment to go.
    holds(Duration::from_secs(10), || {
        ctid::sweep(first);
        ctid::groups_of(first).is_empty()
    });
    let _ = fs::remove_dir_all(dir);
}
