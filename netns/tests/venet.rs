//! Routed addresses, from outside: root, a throw-away network namespace for each test.

#![allow(clippy::unwrap_used)]

mod world;

use netns::{Devices, Error, NetPlan, Owner, Probe};
use vzconf::{Ctid, Exit};
use world::{Host, Ve, assert_same, eventually, ip, pings, record};

#[test]
fn host_and_ves_talk_over_ipv4_and_ipv6() {
    let host = Host::new();
    host.forwards_ipv6_as_the_kernel_needs_it();
    let network = host.network();
    let a = host.start(101, &["10.0.0.1", "2001:db8::1"]);
    let b = host.start(102, &["10.0.0.2", "10.0.0.3", "2001:db8::2"]);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2"] {
        assert!(pings(address, &[]), "host to {address}");
    }
    for address in ["10.0.0.2", "10.0.0.3", "2001:db8::2", "192.0.2.1", "2001:db8:1::1"] {
        assert!(a.pings(address), "101 to {address}");
    }
    assert!(b.pings("10.0.0.1") && b.pings("2001:db8::1"));
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "0");
    // Neither side ever asked who has what.
    assert!(!ip("neigh show").contains("venet"));
    drop(network);
}

#[test]
fn a_host_without_any_network_reaches_its_ves() {
    let host = Host::new();
    ip("addr add 203.0.113.1/32 dev lo");
    let a = host.start(101, &["10.0.0.1"]);
    assert!(pings("10.0.0.1", &[]));
    assert!(a.pings("203.0.113.1"));
}

#[test]
fn a_ve_with_its_own_user_namespace_gets_its_network() {
    let host = Host::new();
    let _network = host.network();
    let ve = Ve::unprivileged(101);
    // The defaults of the VE's namespace must not matter.
    ve.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    host.attach(&ve, &["10.0.0.1", "2001:db8::1"]).unwrap().commit();
    assert!(pings("10.0.0.1", &[]) && pings("2001:db8::1", &[]));
    assert!(ve.pings("192.0.2.1") && ve.pings("2001:db8:1::1"));
    let mptcp = ve.inside(|| std::fs::read_to_string("/proc/sys/net/mptcp/enabled"));
    assert!(mptcp.is_err() || mptcp.unwrap().trim() == "0");
}

#[test]
fn the_network_around_reaches_a_ve_once_the_host_forwards() {
    let host = Host::new();
    let machine = host.network();
    let hint = netns::forwarding_hint().unwrap().unwrap();
    assert!(hint.contains("net.ipv4.conf.eth0.forwarding=1 net.ipv6.conf.all.forwarding=1"), "{hint}");
    for switch in ["ipv4/conf/eth0", "ipv6/conf/all"] {
        std::fs::write(format!("/proc/sys/net/{switch}/forwarding"), "1").unwrap();
    }
    assert_eq!(netns::forwarding_hint().unwrap(), None);
    let _a = host.start(101, &["192.0.2.101", "2001:db8:1::101"]);
    eventually("proxy ARP", || machine.pings("192.0.2.101"));
    eventually("proxy NDP", || machine.pings("2001:db8:1::101"));
}

/// How many echo requests the calling thread's network namespace has got, over IPv4 and IPv6.
fn echo_requests() -> (String, String) {
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let (snmp, snmp6) = (read("snmp"), read("snmp6"));
    let mut icmp = snmp.lines().filter(|line| line.starts_with("Icmp: ")).map(|line| line.split(' '));
    let (names, values) = (icmp.next().unwrap(), icmp.next().unwrap());
    let v4 = names.zip(values).find(|(name, _)| *name == "InEchos").unwrap().1;
    let v6 = snmp6.lines().find_map(|line| line.strip_prefix("Icmp6InEchos")).unwrap().trim();
    (v4.to_owned(), v6.to_owned())
}

#[test]
fn a_ve_can_send_only_from_its_own_addresses() {
    let host = Host::new();
    host.forwards_ipv6_as_the_kernel_needs_it();
    ip("addr add 203.0.113.1/32 dev lo");
    ip("-6 addr add 2001:db8:9::1/128 dev lo");
    let a = host.start(101, &["10.0.0.1", "2001:db8::1"]);
    let b = host.start(102, &["10.0.0.2", "10.0.0.3", "2001:db8::2", "2001:db8::3"]);
    // Not all packets: the host's end of the pair sends multicast reports when it likes.
    let arrived = || b.inside(echo_requests);
    // What another VE has, what nobody has, what the host has.
    for (own, target, spoofed) in [
        ("10.0.0.1", "10.0.0.2", ["10.0.0.3", "10.9.9.9", "203.0.113.1"]),
        ("2001:db8::1", "2001:db8::2", ["2001:db8::3", "2001:db8:7::7", "2001:db8:9::1"]),
    ] {
        let before = arrived();
        assert!(a.inside(|| pings(target, &["-I", own])));
        assert_ne!(arrived(), before);
        for source in spoofed {
            let more = if source.contains(':') { " nodad" } else { "" };
            a.ip(&format!("addr add {source} dev venet0{more}"));
            let before = arrived();
            assert!(!a.inside(|| pings(target, &["-I", source])), "{source} got an answer");
            assert_eq!(arrived(), before, "a packet from {source} came through");
        }
    }
}

#[test]
fn the_filter_comes_back_after_a_flush() {
    let host = Host::new();
    let rules = || {
        String::from_utf8(
            std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout,
        )
        .unwrap()
    };
    let whole = rules();
    assert_eq!(whole.matches("drop").count(), 3, "{whole}");
    for damage in ["flush ruleset", "flush table inet vz", "flush chain inet vz venet_1"] {
        assert!(std::process::Command::new("nft").args(damage.split(' ')).status().unwrap().success());
        let _ve = host.start(101, &["10.0.0.1"]);
        assert_eq!(rules(), whole, "after {damage}");
    }
    // Several at once end with the same rules.
    netns::filter::remove().unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| netns::filter::ensure().unwrap());
        }
    });
    assert_eq!(rules(), whole);
    netns::filter::remove().unwrap();
    netns::filter::remove().unwrap();
    assert!(!rules().contains("chain"));
}

#[test]
fn an_address_in_use_is_refused_and_its_owner_told() {
    let host = Host::new();
    let _network = host.network();
    let _a = host.start(101, &["10.0.0.1", "2001:db8::1"]);
    let b = Ve::new(102);
    let before = host.snapshot();
    for (address, wanted) in [
        ("10.0.0.1", Owner::Ve(Ctid::new(101).unwrap())),
        ("2001:db8::1", Owner::Ve(Ctid::new(101).unwrap())),
        ("192.0.2.1", Owner::Device("eth0".into())),
        ("192.0.2.255", Owner::Device("eth0".into())),
        ("2001:db8:1::1", Owner::Device("eth0".into())),
    ] {
        match host.attach(&b, &["10.0.0.9", address]) {
            Err(error @ Error::InUse { .. }) => {
                assert_eq!(error.exit(), Exit::IpInUse);
                let Error::InUse { owner, .. } = error else { unreachable!() };
                // The kernel gives a local IPv6 route to lo on some versions.
                assert!(owner == wanted || owner == Owner::Device("lo".into()), "{address}: {owner:?}");
            }
            other => panic!("{address}: {other:?}"),
        }
        assert_same(&host.snapshot(), &before, address);
    }
}

#[test]
fn an_undone_guard_leaves_the_world_as_it_was() {
    let host = Host::new();
    let _network = host.network();
    let _other = host.start(7, &["10.7.7.7"]);
    for switch in ["ipv4/conf/eth0", "ipv6/conf/eth0"] {
        std::fs::write(format!("/proc/sys/net/{switch}/forwarding"), "1").unwrap();
    }
    std::fs::write("/proc/sys/net/ipv6/conf/eth0/proxy_ndp", "1").unwrap();
    ip("link add br0 type bridge");
    ip("link set br0 address 02:00:00:00:00:01 addrgenmode none");
    let ve = Ve::new(101);
    let mut params = host.params(101, &["10.0.0.1", "2001:db8::1"]);
    params.netifs = vzconf::NetIf::parse_list("ifname=eth0,bridge=br0").unwrap();
    let plan = NetPlan::new(&params).unwrap();
    let before = host.snapshot();
    let guard = netns::attach(&plan, ve.fd()).unwrap();
    assert_ne!(host.snapshot(), before);
    guard.undo().unwrap();
    assert_same(&host.snapshot(), &before, "afterwards");
    drop(netns::attach(&plan, ve.fd()).unwrap());
    assert_same(&host.snapshot(), &before, "afterwards");
    // Committed, it stays; detached, it is gone, twice.
    netns::attach(&plan, ve.fd()).unwrap().commit();
    assert!(netns::exists(plan.ctid()).unwrap());
    netns::detach(plan.ctid(), &host.paths, Devices::Delete).unwrap();
    assert_same(&host.snapshot(), &before, "afterwards");
    netns::detach(plan.ctid(), &host.paths, Devices::Delete).unwrap();
    assert_same(&host.snapshot(), &before, "afterwards");
}

#[test]
fn detach_needs_no_record_and_spares_others() {
    let host = Host::new();
    let _network = host.network();
    let _other = host.start(7, &["10.7.7.7"]);
    let before = host.snapshot();
    let mut a = host.start(101, &["10.0.0.1", "2001:db8::1"]);
    std::fs::remove_file(record(&host.paths, 101)).unwrap();
    netns::detach(a.ctid, &host.paths, Devices::Delete).unwrap();
    assert_same(&host.snapshot(), &before, "afterwards");
    host.attach(&a, &["10.0.0.1"]).unwrap().commit();
    std::fs::remove_file(record(&host.paths, 101)).unwrap();
    let ctid = a.ctid;
    a.die();
    eventually("the pair goes with the namespace", || !netns::exists(ctid).unwrap());
    netns::detach(ctid, &host.paths, Devices::Delete).unwrap();
    assert_same(&host.snapshot(), &before, "afterwards");
}

#[test]
fn a_fast_detach_frees_the_address_at_once_and_the_rest_goes_with_the_namespace() {
    let host = Host::new();
    let _network = host.network();
    let _other = host.start(7, &["10.7.7.7"]);
    let before = host.snapshot();
    let mut a = host.start(101, &["10.0.0.1", "2001:db8::1"]);
    netns::detach(a.ctid, &host.paths, Devices::LeaveToNamespace).unwrap();
    assert!(netns::exists(a.ctid).unwrap());
    let b = host.start(102, &["10.0.0.1", "2001:db8::1"]);
    assert!(pings("10.0.0.1", &[]));
    netns::detach(b.ctid, &host.paths, Devices::Delete).unwrap();
    let ctid = a.ctid;
    a.die();
    eventually("the pair goes with the namespace", || !netns::exists(ctid).unwrap());
    assert_same(&host.snapshot(), &before, "afterwards");
}

#[test]
fn a_leftover_of_a_killed_start_is_replaced() {
    let host = Host::new();
    let _first = host.start(101, &["10.0.0.1"]);
    let second = host.start(101, &["10.0.0.1"]);
    assert!(pings_host(&host) && second.pings("203.0.113.1"));
    let pairs = ip("-br link show type veth");
    assert_eq!(pairs.lines().count(), 1, "{pairs}");
}

fn pings_host(_host: &Host) -> bool {
    ip("addr add 203.0.113.1/32 dev lo");
    pings("10.0.0.1", &[])
}

#[test]
fn addresses_come_and_go_on_a_running_ve() {
    let host = Host::new();
    let machine = host.network();
    let a = host.start(101, &[]);
    assert_eq!(netns::addresses(a.ctid).unwrap(), Vec::<std::net::IpAddr>::new());
    let one: std::net::IpAddr = "10.0.0.1".parse().unwrap();
    let two: std::net::IpAddr = "2001:db8::2".parse().unwrap();
    let bare = host.snapshot();
    netns::add_address(&host.params(101, &[]), one, a.fd()).unwrap().commit();
    assert!(a.pings("192.0.2.1") && pings("10.0.0.1", &[]));
    let with_one = host.snapshot();
    let ve_with_one = a.ip("addr show dev venet0");
    drop(netns::add_address(&host.params(101, &["10.0.0.1"]), two, a.fd()).unwrap());
    assert_same(&host.snapshot(), &with_one, "afterwards");
    assert_eq!(a.ip("addr show dev venet0"), ve_with_one);
    netns::add_address(&host.params(101, &["10.0.0.1"]), two, a.fd()).unwrap().commit();
    assert!(pings("2001:db8::2", &[]) && a.pings("2001:db8:1::1"));
    let mut live = netns::addresses(a.ctid).unwrap();
    live.sort();
    assert_eq!(live, [one, two]);
    assert_eq!(netns::all_addresses().unwrap()[&a.ctid].len(), 2);
    assert_eq!(std::fs::read_to_string(record(&host.paths, 101)).unwrap(), "10.0.0.1 2001:db8::2\n");
    for _ in 0..2 {
        netns::del_address(&host.params(101, &["10.0.0.1", "2001:db8::2"]), two, a.fd()).unwrap();
        netns::del_address(&host.params(101, &["10.0.0.1", "2001:db8::2"]), one, a.fd()).unwrap();
    }
    assert!(!a.ip("addr show dev venet0").contains("inet"));
    assert_same(&host.snapshot(), &bare, "all taken away");
    drop(machine);
    let gone = netns::add_address(&host.params(555, &[]), one, a.fd()).unwrap_err();
    assert_eq!(gone.exit(), Exit::VeNotRunning);
}

#[test]
fn coming_addresses_are_announced_and_duplicates_found() {
    let host = Host::new();
    let machine = host.network();
    machine.ip("addr add 192.0.2.55/24 dev peer0");
    let mut params = host.params(101, &["192.0.2.101", "2001:db8:1::101", "192.0.2.55"]);
    let ve = Ve::new(101);
    let plan = NetPlan::new(&params).unwrap();
    let found = netns::probe(&plan).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0.to_string(), "192.0.2.55");
    assert!(matches!(&found[0].1, Owner::Neighbour { device, .. } if device == "eth0"));
    params.probe = Probe::Refuse;
    let refused = netns::attach(&NetPlan::new(&params).unwrap(), ve.fd()).unwrap_err();
    assert_eq!(refused.exit(), Exit::IpInUse);
    // The neighbour listens: every ARP request and every advertisement.
    let listener =
        machine.inside(|| vzsys::packet::PacketSocket::open(index_of("peer0"), Some(0x0003)).unwrap());
    let guard = host.attach(&ve, &["192.0.2.101", "2001:db8:1::101"]).unwrap();
    let plan = guard.commit();
    let begun = std::time::Instant::now();
    netns::announce(&plan).unwrap();
    eprintln!("announce: {:?}", begun.elapsed());
    let (mut arp, mut advertisement) = (false, false);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let mut frame = [0u8; 128];
    while !(arp && advertisement) {
        let Some(length) = listener.receive(&mut frame, deadline).unwrap() else { break };
        let frame = &frame[..length];
        arp |= frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[28..32] == [192, 0, 2, 101]
            && frame[38..42] == [192, 0, 2, 101];
        advertisement |= frame.len() >= 86 && frame[12..14] == [0x86, 0xdd] && frame[54] == 136;
    }
    assert!(arp && advertisement, "arp {arp}, advertisement {advertisement}");
}

fn index_of(device: &str) -> u32 {
    let text = ip(&format!("-o link show {device}"));
    text.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn many_ves_start_as_fast_as_one_and_leave_no_thread() {
    let host = Host::new();
    let mut ves = Vec::new();
    let mut times = Vec::new();
    for n in 1..=60u32 {
        let ve = Ve::new(n);
        let address = format!("10.1.{}.{}", n / 200, n % 200 + 1);
        let begun = std::time::Instant::now();
        host.attach(&ve, &[&address]).unwrap().commit();
        times.push(begun.elapsed());
        ves.push(ve);
    }
    let median = |t: &[std::time::Duration]| {
        let mut t = t.to_vec();
        t.sort();
        t[t.len() / 2]
    };
    let (first, last) = (median(&times[..20]), median(&times[40..]));
    eprintln!("attach: first 20 {first:?}, last 20 {last:?}");
    assert!(last < first * 2 + std::time::Duration::from_millis(2), "{first:?} {last:?}");
    // The harness has its own two; ours are all gone.
    assert!(vzsys::process::threads() <= 2);
    let begun = std::time::Instant::now();
    netns::detach(ves[0].ctid, &host.paths, Devices::Delete).unwrap();
    eprintln!("detach with its devices: {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    netns::detach(ves[1].ctid, &host.paths, Devices::LeaveToNamespace).unwrap();
    eprintln!("detach without: {:?}", begun.elapsed());
}
