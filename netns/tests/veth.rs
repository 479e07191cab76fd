//! Veth devices on a bridge, from outside.
#![allow(clippy::unwrap_used)]

mod world;

use netns::{Devices, Error};
use vzconf::{Exit, NetIf};
use world::{Host, Ve, assert_same, eventually, ip, pings};

const DEVICE: &str = "ifname=eth0,bridge=br0,mac=00:18:51:00:00:01,host_mac=00:18:51:00:00:02";

fn bridge() {
    ip("link add br0 type bridge");
    ip("link set br0 address 02:00:00:00:00:01 addrgenmode none");
    ip("addr add 198.51.100.1/24 dev br0");
    ip("link set br0 up");
}

fn netif(text: &str) -> NetIf {
    text.parse().unwrap()
}

fn configure(ve: &Ve, address: &str) {
    ve.ip(&format!("addr add {address}/24 dev eth0"));
    ve.ip("link set eth0 up");
}

#[test]
fn a_veth_device_joins_its_bridge_and_leaves_no_trace() {
    let host = Host::new();
    bridge();
    let ve = host.start(101, &[]);
    // The first carrier gives a bridge its multicast route, for good.
    netns::netif_add(&host.params(101, &[]), &netif(DEVICE), ve.fd()).unwrap().commit();
    configure(&ve, "198.51.100.2");
    eventually("the first carrier", || ip("link show br0").contains("LOWER_UP"));
    netns::netif_del("veth101.0").unwrap();
    eventually("the bridge is quiet", || !ip("link show br0").contains("LOWER_UP"));
    let before = host.snapshot();
    netns::netif_add(&host.params(101, &[]), &netif(DEVICE), ve.fd()).unwrap().commit();
    let shown = ip("link show veth101.0");
    assert!(shown.contains("master br0") && shown.contains("00:18:51:00:00:02"), "{shown}");
    assert!(ve.ip("link show eth0").contains("00:18:51:00:00:01"));
    configure(&ve, "198.51.100.2");
    eventually("the VE answers on the bridge", || pings("198.51.100.2", &[]));
    for _ in 0..2 {
        netns::netif_del("veth101.0").unwrap();
    }
    ip("neigh flush all");
    eventually("the bridge is as it was", || !ip("link show br0").contains("LOWER_UP"));
    assert_same(&host.snapshot(), &before, "after netif_del");
    drop(netns::netif_add(&host.params(101, &[]), &netif(DEVICE), ve.fd()).unwrap());
    assert_same(&host.snapshot(), &before, "after a dropped guard");
    // A taken name is an error and touches nothing of the other.
    netns::netif_add(&host.params(101, &[]), &netif(DEVICE), ve.fd()).unwrap().commit();
    let taken = netns::netif_add(&host.params(101, &[]), &netif(DEVICE), ve.fd()).unwrap_err();
    assert_eq!(taken.exit(), Exit::Veth);
    assert!(ip("link show veth101.0").contains("master br0"));
    // Detach finds it without being told.
    netns::detach(ve.ctid, &host.paths, Devices::Delete).unwrap();
    assert!(!ip("-br link").contains("veth101.0"));
}

#[test]
fn a_missing_bridge_is_named_and_nothing_stays() {
    let host = Host::new();
    ip("link add nobridge type veth peer name other");
    let ve = Ve::new(101);
    let before = host.snapshot();
    for bridge in ["br7", "nobridge"] {
        let mut params = host.params(101, &["10.0.0.1"]);
        params.netifs = vec![netif(&format!("ifname=eth0,bridge={bridge}"))];
        let error = netns::attach(&netns::NetPlan::new(&params).unwrap(), ve.fd()).unwrap_err();
        assert!(matches!(&error, Error::NoBridge { .. }), "{error:?}");
        assert_eq!(error.exit(), Exit::Veth);
        assert!(error.to_string().contains(&format!("bridge {bridge} for veth101.0 not found")), "{error}");
        assert_same(&host.snapshot(), &before, bridge);
    }
}

#[test]
fn the_mac_filter_holds_a_device_to_its_address() {
    let host = Host::new();
    bridge();
    let ve = host.start(101, &[]);
    for (filter, may_change) in [("", false), (",mac_filter=on", false), (",mac_filter=off", true)] {
        netns::netif_add(&host.params(101, &[]), &netif(&format!("{DEVICE}{filter}")), ve.fd())
            .unwrap()
            .commit();
        configure(&ve, "198.51.100.2");
        eventually("with its own address", || ve.pings("198.51.100.1"));
        ve.ip("link set eth0 down");
        ve.ip("link set eth0 address 00:18:51:00:00:99");
        configure_again(&ve);
        ip("neigh flush all");
        assert_eq!(ve.pings("198.51.100.1") || ve.pings("198.51.100.1"), may_change, "filter {filter:?}");
        netns::netif_del("veth101.0").unwrap();
    }
}

fn configure_again(ve: &Ve) {
    ve.ip("link set eth0 up");
    eventually("carrier", || ve.ip("link show eth0").contains("LOWER_UP"));
}
