//! A network with a client in it, beside two hosts.
//!
//! ```text
//!  node: lan 10.5.0.101 ──┐
//!                         ├── br0 10.5.0.100: the client
//!  second: lan 10.5.0.102 ┘
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::pair::Pair;
use crate::run::{command, run};
use crate::wait::until;

const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// It goes with the value.
#[derive(Debug)]
pub struct Lan {
    client: Child,
}

impl Pair<'_> {
    /// Makes it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn lan(&self) -> Lan {
        let client = command("unshare", &["--net", "--kill-child=KILL", "--", "sleep", "100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = client.id().to_string();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let there = || std::fs::read_link(format!("/proc/{pid}/ns/net"));
        until("the client's network is there", SOON, || there().is_ok_and(|netns| netns != own));
        let inside = |words: &[&str]| {
            run("nsenter", &[&["--target", &pid, "--net", "--", "ip"], words].concat()).ok();
        };
        inside(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
        inside(&["address", "add", "10.5.0.100/24", "dev", "br0"]);
        inside(&["link", "set", "br0", "up"]);
        for (node, port) in [(self.a, "a"), (&self.b, "b")] {
            let end = format!("lan{port}");
            run("ip", &["link", "add", &end, "type", "veth", "peer", "name", port, "netns", &pid]).ok();
            inside(&["link", "set", "dev", port, "master", "br0", "up"]);
            if let Some(init) = node.first_process() {
                run("ip", &["link", "set", "dev", &end, "netns", &init.to_string()]).ok();
            }
            let address = if port == "a" { "10.5.0.101/24" } else { "10.5.0.102/24" };
            for words in [
                vec!["link", "set", "dev", &end, "name", "lan"],
                vec!["link", "set", "dev", "lan", "addrgenmode", "none"],
                vec!["address", "add", address, "dev", "lan"],
                vec!["link", "set", "dev", "lan", "up"],
            ] {
                crate::run::Background::spawn(node.command_of("/sbin/ip", &words), &[]).finish().ok();
            }
        }
        Lan { client }
    }
}

impl Lan {
    /// Does something as the client.
    ///
    /// # Panics
    /// When the client is gone, or `work` panics.
    pub fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.netns();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || in_netns(&netns, work));
            thread.join().expect("the client does its work")
        })
    }

    /// The client's network.
    ///
    /// # Panics
    /// When the client is gone.
    #[must_use]
    pub fn netns(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.client.id())).unwrap()
    }

    /// A program of the client's, not started.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let pid = self.client.id().to_string();
        command("nsenter", &[&["--target", &pid, "--net", "--"], words].concat())
    }
}

/// Does something in a network; this thread stays in it.
///
/// # Panics
/// When it cannot be entered, or `work` panics.
pub fn in_netns<T>(netns: &File, work: impl FnOnce() -> T) -> T {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    work()
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
        // The devices go with the client's namespace, or now.
        let _ = run("ip", &["link", "del", "lan"]);
    }
}
