//! The node's side: its root, its configuration, its network, and the test's body.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use crate::ctid::{self, BLOCK};
use crate::node::Node;
use crate::outside;
use crate::run::run;
use crate::wait::until;
use crate::world::World;

/// Reports that a test cannot run on this host.
pub fn skip(needs: &str) {
    println!("\nSKIP: needs {needs}");
}

/// Runs a test's body on a throw-away host of its own. Afterwards every VE is destroyed, and the host
/// must be as it was.
///
/// # Panics
/// When the body does, or something is left behind.
pub fn on_node<F: FnOnce(&Node)>(body: F) {
    on_node_named(test_name::<F>(), body);
}

/// The same of the test with this name.
pub(crate) fn on_node_named(test: &str, body: impl FnOnce(&Node)) {
    if !rustix::process::geteuid().is_root() {
        return skip("root");
    }
    let Some(dir) = std::env::var_os(outside::NODE) else {
        return outside::run_inside(test);
    };
    let first = std::env::var(outside::FIRST).unwrap().parse().unwrap();
    let node = Node::new(PathBuf::from(dir), first);
    fs::write(node.dir().join(outside::RAN), "").unwrap();
    make_host(&node, "node.test", None);
    let before = World::take(&node);
    node.witness(|| body(&node));
    node.destroy_all();
    before.must_return(&node);
}

/// `file::test::{{closure}}` is `test` in the file's program.
pub(crate) fn test_name<F>() -> &'static str {
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    name.split_once("::").map_or(name, |(_, test)| test)
}

/// The cgroup, below `vz`, that is all the cgroups of a second host: the last number of its block.
pub(crate) fn group_of_second(first: u32) -> String {
    (first + BLOCK - 1).to_string()
}

/// Makes a host of the namespaces that this process is in; `group` holds its cgroups, if not all are its own.
pub(crate) fn make_host(node: &Node, name: &str, group: Option<&str>) {
    make_root(node, group);
    configure();
    rustix::system::sethostname(name.as_bytes()).unwrap();
    network();
}

/// Where a node sees the template cache of its host, if that has one.
pub(crate) const HOST_CACHE: &str = "/host-templates";

const OWN: [&str; 7] = ["proc", "sys", "etc", "run", "var", "vz", "lost+found"];

/// A root of the host's own directories, with those of the product fresh.
fn make_root(node: &Node, group: Option<&str>) {
    // Copies first: the new root lies in one of these trees and must not be part of itself.
    let trees = |dir: &str, own: &[&str]| -> Vec<(String, Tree)> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let wanted = names.filter(|name| !own.contains(&name.as_str()));
        wanted.filter_map(|name| Some((name.clone(), Tree::of(&Path::new(dir).join(&name))?))).collect()
    };
    let top = trees("/", &OWN);
    let var = trees("/var", &["lib", "log", "run", "lock"]);
    let cgroups = cgroups(group);
    let vz = make_dir(&node.dir().join("vz"));
    let vz = Tree::of(&vz).unwrap();
    let templates = Tree::of(Path::new("/vz/template/cache"));
    let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
    let root = make_dir(&node.dir().join("root"));
    simple("tmpfs", &root, "mode=755");
    for (name, tree) in top {
        tree.place(&root.join(name));
    }
    for (name, tree) in var {
        tree.place(&root.join("var").join(name));
    }
    vz.place(&root.join("vz"));
    simple("proc", &make_dir(&root.join("proc")), "");
    simple("sysfs", &make_dir(&root.join("sys")), "");
    if group.is_some() && cgroups.len() > 1 {
        simple("tmpfs", &root.join("sys/fs/cgroup"), "mode=755");
    }
    for (path, tree) in cgroups {
        tree.place(&root.join(path.strip_prefix("/").unwrap()));
    }
    simple("tmpfs", &make_dir(&root.join("run")), "mode=755");
    simple("tmpfs", &make_dir(&root.join("var/log")), "mode=755");
    overlay(node, "/etc", &make_dir(&root.join("etc")));
    overlay(node, "/var/lib", &make_dir(&root.join("var/lib")));
    if let Some(templates) = templates {
        templates.place(&root.join(HOST_CACHE.trim_start_matches('/')));
    }
    // It may be a link into the host's /run.
    let _ = fs::remove_file(root.join("etc/resolv.conf"));
    fs::write(root.join("etc/resolv.conf"), resolv).unwrap();
    let _ = symlink("/run", root.join("var/run"));
    std::env::set_current_dir(&root).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    unmount(".", UnmountFlags::DETACH).unwrap();
    std::env::set_current_dir("/").unwrap();
    // As systemd has it on every host.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
}

/// The host's cgroups, or that one group of each hierarchy.
fn cgroups(group: Option<&str>) -> Vec<(PathBuf, Tree)> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let Some(group) = group else { return vec![(top.clone(), Tree::of(&top).unwrap())] };
    let dirs = ctid::vz_groups().into_iter().map(|vz| (vz.parent().unwrap().to_owned(), vz.join(group)));
    dirs.filter_map(|(top, dir)| Some((top, Tree::of(&dir)?))).collect()
}

/// One entry of the host's tree.
enum Tree {
    Dir(OwnedFd),
    Link(PathBuf),
}

impl Tree {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        if meta.is_symlink() {
            return fs::read_link(path).ok().map(Self::Link);
        }
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        meta.is_dir().then(|| Self::Dir(open_tree(rustix::fs::CWD, path, flags).unwrap()))
    }

    fn place(self, at: &Path) {
        match self {
            Self::Link(target) => {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                symlink(target, at).unwrap();
            }
            Self::Dir(tree) => {
                make_dir(at);
                move_mount(tree, "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
            }
        }
    }
}

fn make_dir(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    path.to_owned()
}

fn simple(kind: &str, at: &Path, data: &str) {
    let data = std::ffi::CString::new(data).unwrap();
    mount(kind, at, kind, MountFlags::empty(), data.as_c_str())
        .unwrap_or_else(|error| panic!("mount {kind} at {}: {error}", at.display()));
}

/// The host's directory, with changes kept in the node.
fn overlay(node: &Node, lower: &str, at: &Path) {
    let own = node.dir().join(lower.replace('/', "_"));
    let (upper, work) = (make_dir(&own.join("upper")), make_dir(&own.join("work")));
    simple(
        "overlay",
        at,
        &format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display()),
    );
}

/// What `make install` puts into `/etc/vz`.
pub(crate) fn configure() {
    let _ = fs::remove_dir_all("/etc/vz");
    let _ = fs::remove_dir_all("/var/lib/vzctl");
    for dir in [
        "/etc/vz/conf",
        "/etc/vz/names",
        "/etc/vz/dists",
        "/var/lib/vzctl",
        "/run/vz",
        "/run/lock",
        "/vz/root",
        "/vz/private",
        "/run/scratch",
        "/vz/template/cache",
        "/vz/lock",
        "/vz/dump",
    ] {
        make_dir(Path::new(dir));
    }
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/conf");
    for entry in fs::read_dir(conf).unwrap().flatten() {
        let name = entry.file_name();
        let dir = if name == "vz.conf" { "/etc/vz" } else { "/etc/vz/conf" };
        fs::copy(entry.path(), Path::new(dir).join(name)).unwrap();
    }
    // The same without limits of the disk, which not every layout keeps everywhere.
    let usual = fs::read_to_string("/etc/vz/conf/ve-vswap-256m.conf-sample").unwrap();
    let free: Vec<&str> = usual.lines().filter(|line| !line.starts_with("DISK")).collect();
    fs::write("/etc/vz/conf/ve-free.conf-sample", free.join("\n") + "\n").unwrap();
}

/// Addresses of the node, on its loopback device: VEs reach them through their default route. It
/// forwards, as `make install` has it.
fn network() {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    // Since 6.17 each device has a switch of its own for IPv6, and the product sets it.
    if !Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    }
    run("ip", &["link", "set", "lo", "up"]).ok();
    run("ip", &["address", "add", "10.99.0.1/32", "dev", "lo"]).ok();
    run("ip", &["-6", "address", "add", "fd99::1/128", "nodad", "dev", "lo"]).ok();
    // The kernel makes its route a moment later.
    until("the node's address has its route", Duration::from_secs(20), || {
        run("ip", &["-6", "route", "show", "table", "local"]).out().contains("local fd99::1 ")
    });
}
