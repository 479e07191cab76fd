//! A throw-away host and VEs: network namespaces of the test process.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns::{NetGuard, NetParams, NetPlan};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vzconf::{Ctid, Paths};

/// The test's own "host": the whole process lives in it, and so do the threads it starts.
pub struct Host {
    pub paths: Paths,
    _dir: tempfile::TempDir,
}

impl Host {
    /// A new, empty network namespace for this thread, with `lo` up and the filter in place.
    pub fn new() -> Self {
        enter_new();
        // A new namespace takes IPv4's switches from the machine it is on (net.core.devconf_inherit_init_net).
        for switch in ["ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default"] {
            std::fs::write(format!("/proc/sys/net/{switch}/forwarding"), "0").unwrap();
        }
        ip("link set lo up");
        netns::filter::ensure().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { paths: Paths::under(dir.path()), _dir: dir }
    }

    /// VEs talk to one another over IPv6: before 6.17 devices have no switch of their own for that.
    pub fn forwards_ipv6_as_the_kernel_needs_it(&self) {
        if !std::path::Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        }
    }

    /// A network with one machine in it: `eth0` here, `peer0` in the machine's namespace.
    pub fn network(&self) -> Ve {
        let machine = Ve::new(0);
        ip("link add eth0 type veth peer name peer0");
        ip("link set eth0 addrgenmode none");
        ip(&format!("link set peer0 netns {}", machine.path()));
        ip("addr add 192.0.2.1/24 dev eth0");
        ip("addr add 2001:db8:1::1/64 dev eth0 nodad");
        ip("link set eth0 up");
        machine.ip("link set peer0 addrgenmode none");
        machine.ip("addr add 192.0.2.2/24 dev peer0");
        machine.ip("addr add 2001:db8:1::2/64 dev peer0 nodad");
        machine.ip("link set peer0 up");
        machine
    }

    pub fn params(&self, ctid: u32, addresses: &[&str]) -> NetParams {
        let mut params = NetParams::new(Ctid::new(ctid).unwrap(), &self.paths);
        params.addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        params
    }

    pub fn attach(&self, ve: &Ve, addresses: &[&str]) -> Result<NetGuard, netns::Error> {
        let plan = NetPlan::new(&self.params(ve.ctid.get(), addresses)).unwrap();
        netns::attach(&plan, ve.fd())
    }

    /// A running VE with these addresses.
    pub fn start(&self, ctid: u32, addresses: &[&str]) -> Ve {
        let ve = Ve::new(ctid);
        self.attach(&ve, addresses).unwrap().commit();
        ve
    }

    /// Everything of the host that a verb may leave something in.
    pub fn snapshot(&self) -> String {
        let mut text = String::new();
        for question in [
            "-d link show",
            "addr show",
            "-4 route show table all",
            "-6 route show table all",
            "neigh show proxy",
            "-6 neigh show proxy",
            "rule show",
        ] {
            text += &output(Command::new("ip").args(question.split(' ')));
        }
        text += &output(Command::new("nft").args(["list", "ruleset"]));
        for tree in ["ipv4", "ipv6"] {
            text += &output(
                Command::new("sh").args(["-c", &format!("cd /proc/sys/net/{tree} && grep -rs . . | sort")]),
            );
        }
        text += &output(Command::new("find").arg(self.paths.state_dir()));
        // Counters, clocks and kernel-picked numbers are no state; whether a link is down is told late.
        text.lines()
            .filter(|l| {
                !l.contains("stable_secret")
                    && !l.contains("gc_timer")
                    && !l.contains("route/gc_")
                    && !l.contains("dev/")
            })
            .map(|l| l.split(" expires ").next().unwrap_or(l).to_string() + "\n")
            .map(|l| l.replace(" linkdown", "").replace("NO-CARRIER,", "").replace("state DOWN", "state UP"))
            .collect()
    }
}

/// A VE's network namespace, held by a descriptor.
pub struct Ve {
    pub ctid: Ctid,
    fd: Option<OwnedFd>,
}

impl Ve {
    pub fn new(ctid: u32) -> Self {
        let fd = std::thread::spawn(|| {
            enter_new();
            own_netns()
        })
        .join()
        .unwrap();
        Self { ctid: Ctid::new(ctid).unwrap(), fd: Some(fd) }
    }

    /// The same in a user namespace with an id range of its own, as real VEs have.
    pub fn unprivileged(ctid: u32) -> Self {
        let mut holder =
            Command::new("unshare").args(["-U", "-n", "sleep", "60"]).stdin(Stdio::null()).spawn().unwrap();
        let proc = format!("/proc/{}", holder.id());
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        eventually("a user namespace", || std::fs::read_link(format!("{proc}/ns/user")).unwrap() != own);
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("{proc}/{map}"), "0 300000 65536").unwrap();
        }
        let thread = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        eventually("a network namespace", || std::fs::read_link(format!("{proc}/ns/net")).unwrap() != thread);
        let fd = std::fs::File::open(format!("{proc}/ns/net")).unwrap().into();
        holder.kill().unwrap();
        holder.wait().unwrap();
        Self { ctid: Ctid::new(ctid).unwrap(), fd: Some(fd) }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().unwrap().as_fd()
    }

    /// The namespace as a path for programs.
    pub fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.fd().as_raw_fd())
    }

    /// Runs `work` in the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| {
            s.spawn(|| {
                move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            })
            .join()
            .unwrap()
        })
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.inside(|| ip(arguments))
    }

    pub fn pings(&self, address: &str) -> bool {
        self.inside(|| pings(address, &[]))
    }

    /// Ends the namespace, as the end of the VE's last process does.
    pub fn die(&mut self) {
        self.fd = None;
    }
}

fn enter_new() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

fn own_netns() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn output(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs ip(8) in the calling thread's namespace; it must succeed.
pub fn ip(arguments: &str) -> String {
    let out = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn pings(address: &str, more: &[&str]) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-c1", "-W1"]).args(more).arg(address);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Fails with the lines that differ only.
pub fn assert_same(now: &str, before: &str, when: &str) {
    let missing = |a: &str, b: &str| -> Vec<String> {
        let b: std::collections::HashSet<_> = b.lines().collect();
        a.lines().filter(|l| !b.contains(l)).map(str::to_string).collect()
    };
    let (new, lost) = (missing(now, before), missing(before, now));
    assert!(now == before, "{when}: new {new:#?}, lost {lost:#?}");
}

/// Waits until it holds; fails after some seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn record(paths: &Paths, ctid: u32) -> PathBuf {
    paths.state_dir().join("veip").join(ctid.to_string())
}
