//! Addresses and devices of VEs, seen from the host, from inside, and from a neighbour on the wire.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use vztests::{Node, Ve, holds, on_node, run, until};

const SOON: Duration = Duration::from_secs(20);
const NODE: &str = "10.99.0.1";
const NODE6: &str = "fd99::1";

fn ping(address: &str) -> bool {
    run("ping", &["-n", "-q", "-c", "1", "-W", "1", address]).code == 0
}

/// A ping that may need a moment (IPv6 addresses come to life slowly).
#[track_caller]
fn answers(address: &str) {
    assert!(holds(SOON, || ping(address)), "{address} does not answer");
}

#[track_caller]
fn reaches(ve: &Ve<'_>, address: &str) {
    let line = format!("ping -c 1 -W 1 {address}");
    let mut last = String::new();
    let reached = holds(SOON, || {
        let run = ve.run("exec2", &[&line]);
        last = run.to_string();
        run.code == 0
    });
    assert!(
        reached,
        "VE {} does not reach {address}\n{last}\n{}",
        ve.id,
        ve.run("exec2", &["ip addr; ip route; ip -6 route"])
    );
}

fn with_addresses<'n>(node: &'n Node, number: u32, addresses: &[&str]) -> Ve<'n> {
    let ve = node.tiny(number);
    for address in addresses {
        ve.ok("set", &["--ipadd", address, "--save"]);
    }
    ve.start();
    ve
}

#[test]
fn host_and_ve_reach_each_other_by_every_address() {
    on_node(|node| {
        let addresses = ["10.5.0.1", "10.5.0.2", "10.6.0.1", "fd05::1", "fd05::2"];
        let ve = with_addresses(node, 1, &addresses);
        for address in addresses {
            answers(address);
        }
        reaches(&ve, NODE);
        reaches(&ve, NODE6);
        let inside = ve.sh("ip addr show dev venet0");
        for address in addresses {
            assert!(inside.contains(&format!(" {address}/")), "{address} in\n{inside}");
        }
        ve.ok("stop", &["--fast"]);
        assert!(!ping("10.5.0.1"));
        let routes = run("ip", &["route", "show", "table", "all"]).out();
        assert!(!routes.contains("10.5.0.1"), "{routes}");
    });
}

#[test]
fn ves_reach_each_other() {
    on_node(|node| {
        let one = with_addresses(node, 1, &["10.5.0.1", "fd05::1"]);
        let two = with_addresses(node, 2, &["10.5.0.2", "fd05::2"]);
        reaches(&one, "10.5.0.2");
        reaches(&two, "10.5.0.1");
        reaches(&one, "fd05::2");
        reaches(&two, "fd05::1");
    });
}

#[test]
fn tcp_works_through_the_routed_device() {
    on_node(|node| {
        let ve = with_addresses(node, 1, &["10.5.0.1"]);
        let server = ve.begin("exec2", &["nc -l -p 7777 -e cat"], b"");
        let mut stream = None;
        until("the server in the VE listens", SOON, || {
            stream = TcpStream::connect("10.5.0.1:7777").ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // More than any one packet holds.
        let sent = vec![b'x'; 300_000];
        let mut writer = stream.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
        drop(stream);
        let _ = server.finish_within(SOON);
    });
}

#[test]
fn addresses_come_and_go_on_a_running_ve() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        ve.ok("set", &["--ipadd", "10.5.0.1", "--ipadd", "fd05::1", "--save"])
            .says("Adding IP address(es): 10.5.0.1 fd05::1\n")
            .says(&format!("CT configuration saved to /etc/vz/conf/{}.conf\n", ve.id));
        answers("10.5.0.1");
        answers("fd05::1");
        ve.ok("set", &["--ipadd", "10.5.0.2 10.5.0.3", "--ipdel", "10.5.0.1", "--save"]);
        assert_eq!(ve.conf_value("IP_ADDRESS").as_deref(), Some("fd05::1 10.5.0.2 10.5.0.3"));
        answers("10.5.0.2");
        answers("10.5.0.3");
        assert!(!ping("10.5.0.1"));
        assert!(!ve.sh("ip addr").contains("10.5.0.1/"));
        ve.ok("set", &["--ipdel", "all", "--save"]).says("Deleting all IP address(es): ");
        assert!(!ping("10.5.0.2"));
        assert_eq!(ve.conf_value("IP_ADDRESS").unwrap_or_default(), "");
        // Not saved: gone with the next start.
        ve.ok("set", &["--ipadd", "10.5.0.9"]).says("WARNING: Settings were not saved to config");
        answers("10.5.0.9");
        ve.ok("restart", &["--fast"]);
        ve.wait_up();
        assert!(!ping("10.5.0.9"));
    });
}

#[test]
fn an_address_belongs_to_one_ve_only() {
    on_node(|node| {
        let _one = with_addresses(node, 1, &["10.5.0.1"]);
        let two = node.tiny(2);
        two.ok("set", &["--ipadd", "10.5.0.1", "--save"]);
        two.run("start", &[]).exits(78).says("10.5.0.1");
        two.is("exist unmounted down");
        two.ok("set", &["--ipdel", "all", "--save"]);
        two.start();
        two.run("set", &["--ipadd", "10.5.0.1", "--save"])
            .exits(78)
            .says("Error: failed to apply some parameters, not saving configuration file!");
        assert_eq!(two.conf_value("IP_ADDRESS").unwrap_or_default(), "");
        answers("10.5.0.1");
    });
}

/// How many packets the node got from an address, by a counter of its own behind everybody's filters.
fn received(family: &str, address: &str) -> u64 {
    let text = run("nft", &["list", "table", "inet", "probe"]).ok().out();
    let line =
        text.lines().find(|line| line.contains(&format!("{family} saddr {address} "))).unwrap().to_owned();
    let (_, rest) = line.split_once("packets ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_ve_can_send_from_its_own_addresses_only() {
    on_node(|node| {
        let one = with_addresses(node, 1, &["10.5.0.1", "fd05::1"]);
        let _two = with_addresses(node, 2, &["10.5.0.2"]);
        let rules = "table inet probe {
            chain seen {
            type filter hook input priority 300;
            ip saddr 10.5.0.1 counter
            ip saddr 10.5.0.2 counter
            ip saddr 10.66.6.6 counter
            ip6 saddr fd66::6 counter
            }
            }";
        run("nft", &[rules]).ok();
        reaches(&one, NODE);
        assert!(received("ip", "10.5.0.1") > 0);
        // Its root is free to give itself any address; what it sends from it goes nowhere.
        one.sh("ip addr add 10.66.6.6/32 dev venet0; ip addr add 10.5.0.2/32 dev venet0; ip -6 addr add fd66::6/128 dev venet0");
        for address in ["10.66.6.6", "10.5.0.2"] {
            let _ = one.run("exec2", &[&format!("ping -c 2 -W 1 -I {address} {NODE}")]);
            assert_eq!(received("ip", address), 0, "the node got packets from {address}");
        }
        let _ = one.run("exec2", &[&format!("ping -c 2 -W 1 -I fd66::6 {NODE6}")]);
        assert_eq!(received("ip6", "fd66::6"), 0);
        run("nft", &["delete", "table", "inet", "probe"]).ok();
    });
}

/// A machine next to the node, on its network device `wire`.
struct Neighbour;

impl Neighbour {
    fn new() -> Self {
        run("ip", &["netns", "add", "neighbour"]).ok();
        run("ip", &["link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", "neighbour"])
            .ok();
        run("ip", &["address", "add", "10.60.0.1/24", "dev", "wire"]).ok();
        run("ip", &["link", "set", "wire", "up"]).ok();
        let neighbour = Self;
        neighbour.ip(&["address", "add", "10.60.0.2/24", "dev", "eth0"]);
        neighbour.ip(&["link", "set", "eth0", "up"]);
        neighbour
    }

    fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-n", "neighbour"], arguments].concat()).ok().out()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        run("ip", &["netns", "delete", "neighbour"]);
        run("ip", &["link", "delete", "wire"]);
        run("umount", &["/run/netns"]);
        let _ = std::fs::remove_dir("/run/netns");
    }
}

#[test]
fn a_neighbour_on_the_wire_finds_the_ve_and_hears_of_its_address() {
    on_node(|node| {
        let neighbour = Neighbour::new();
        // Somebody else had the address before.
        let stale = "02:00:00:00:00:01";
        neighbour.ip(&["neighbour", "replace", "10.60.0.77", "lladdr", stale, "dev", "eth0", "nud", "stale"]);
        let ve = with_addresses(node, 1, &["10.60.0.77"]);
        until("the neighbour hears where the address is now", SOON, || {
            !neighbour.ip(&["neighbour", "show", "10.60.0.77"]).contains(stale)
        });
        let proxies = run("ip", &["neighbour", "show", "proxy"]).ok().out();
        assert!(proxies.contains("10.60.0.77 dev wire"), "{proxies}");
        assert!(holds(SOON, || {
            run("ip", &["netns", "exec", "neighbour", "ping", "-q", "-c", "1", "-W", "1", "10.60.0.77"]).code
                == 0
        }));
        ve.ok("stop", &["--fast"]);
        let proxies = run("ip", &["neighbour", "show", "proxy"]).ok().out();
        assert!(!proxies.contains("10.60.0.77"), "{proxies}");
    });
}

#[test]
fn an_address_that_a_neighbour_has_is_warned_of_in_the_log() {
    on_node(|node| {
        let neighbour = Neighbour::new();
        let ve = with_addresses(node, 1, &["10.60.0.77", "10.60.0.2"]);
        let warning =
            |address: &str| format!(" : CT {} : WARNING: address {address} is in use by the machine ", ve.id);
        until("the log has the warning", SOON, || node.log().contains(&warning("10.60.0.2")));
        assert!(!node.log().contains("10.60.0.77 is in use"), "{}", node.log());
        // One that comes to a running VE, too; and whoever says so is not asked about.
        neighbour.ip(&["address", "add", "10.60.0.3/24", "dev", "eth0"]);
        neighbour.ip(&["address", "add", "10.60.0.4/24", "dev", "eth0"]);
        ve.ok("set", &["--ipadd", "10.60.0.3", "--skip_arpdetect", "--save"]);
        ve.ok("set", &["--ipadd", "10.60.0.4", "--save"]);
        until("the log has the second", SOON, || node.log().contains(&warning("10.60.0.4")));
        assert!(!node.log().contains("10.60.0.3 is in use"), "{}", node.log());
    });
}

struct Bridge;

impl Bridge {
    fn new() -> Self {
        run("ip", &["link", "add", "br-test", "type", "bridge"]).ok();
        run("ip", &["address", "add", "10.50.0.1/24", "dev", "br-test"]).ok();
        run("ip", &["link", "set", "br-test", "up"]).ok();
        Self
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        run("ip", &["link", "delete", "br-test"]);
    }
}

#[test]
fn a_veth_on_a_bridge_works() {
    on_node(|node| {
        let _bridge = Bridge::new();
        let ve = node.tiny(1);
        ve.ok("set", &["--netif_add", "eth0,,,,br-test", "--save"]);
        assert!(ve.conf_value("NETIF").unwrap().starts_with("ifname=eth0,bridge=br-test,mac="));
        ve.start();
        let host_end = format!("veth{}.0", ve.id);
        let link = run("ip", &["-o", "link", "show", &host_end]).ok().out();
        assert!(link.contains("master br-test"), "{link}");
        ve.sh("ip addr add 10.50.0.2/24 dev eth0; ip link set eth0 up");
        answers("10.50.0.2");
        reaches(&ve, "10.50.0.1");
        ve.ok("stop", &["--fast"]);
        // The kernel takes a namespace's devices away in its own time.
        until("the pair is gone", SOON, || run("ip", &["link", "show", &host_end]).code != 0);
    });
}

#[test]
fn veths_come_and_go_on_a_running_ve() {
    on_node(|node| {
        let _bridge = Bridge::new();
        let ve = node.tiny(1);
        ve.start();
        ve.ok("set", &["--netif_add", "eth0,00:18:51:AA:BB:01,,,br-test", "--netif_add", "eth1", "--save"]);
        let inside = ve.sh("ip link");
        assert!(inside.contains("eth0") && inside.contains("eth1"), "{inside}");
        assert!(inside.to_lowercase().contains("00:18:51:aa:bb:01"), "{inside}");
        ve.ok("set", &["--netif_del", "eth0", "--save"]);
        assert!(!ve.sh("ip link").contains("eth0"));
        assert!(!ve.conf_value("NETIF").unwrap().contains("ifname=eth0"));
        ve.ok("set", &["--netif_del", "all", "--save"]);
        assert!(!ve.sh("ip link").contains("eth1"));
    });
}

#[test]
fn a_bridge_that_is_not_there_keeps_the_ve_from_starting() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--netif_add", "eth0,,,,no-bridge", "--save"]);
        let start = ve.run("start", &[]);
        assert_ne!(start.code, 0, "{start}");
        start.says("no-bridge");
        ve.is("exist unmounted down");
    });
}

#[test]
fn names_of_host_and_servers_reach_the_guest() {
    on_node(|node| {
        let ve = node.tiny(1);
        let arguments = [
            "--hostname",
            "web.test",
            "--nameserver",
            "192.0.2.1",
            "--nameserver",
            "192.0.2.2",
            "--searchdomain",
            "a.test",
            "--save",
        ];
        ve.ok("set", &arguments);
        ve.start();
        assert_eq!(ve.sh("hostname"), "web.test");
        let resolv = ve.sh("cat /etc/resolv.conf");
        for line in ["nameserver 192.0.2.1", "nameserver 192.0.2.2", "search a.test"] {
            assert!(resolv.contains(line), "{resolv}");
        }
        // On a running VE too; a list of servers replaces the old one.
        ve.ok("set", &["--hostname", "db.test", "--nameserver", "192.0.2.3", "--save"]);
        assert_eq!(ve.sh("hostname"), "db.test");
        let resolv = ve.sh("cat /etc/resolv.conf");
        assert!(resolv.contains("192.0.2.3") && !resolv.contains("192.0.2.1"), "{resolv}");
        assert_eq!(run("hostname", &[]).out(), "node.test\n", "the node keeps its own name");
    });
}

#[test]
fn nameserver_inherit_takes_the_nodes() {
    on_node(|node| {
        std::fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\nsearch node.test\n").unwrap();
        let ve = node.tiny(1);
        ve.ok("set", &["--nameserver", "inherit", "--searchdomain", "inherit", "--save"]);
        ve.start();
        let resolv = ve.sh("cat /etc/resolv.conf");
        assert!(resolv.contains("nameserver 192.0.2.53") && resolv.contains("node.test"), "{resolv}");
    });
}
