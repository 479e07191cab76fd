use proptest::prelude::*;

use super::*;

const HOST: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn ve() -> Ctid {
    Ctid::new(101).unwrap()
}

fn filled(text: &str) -> NetIf {
    text.parse::<NewNetIf>().unwrap().complete(ve(), HOST)
}

#[test]
fn only_a_name_generates_two_different_addresses_always_the_same() {
    let netif = filled("eth0");
    assert_eq!(netif.host_ifname.as_deref(), Some("veth101.0"));
    assert_ne!(netif.mac, netif.host_mac);
    for mac in [netif.mac, netif.host_mac] {
        let text = mac.unwrap().to_string();
        assert!(text.starts_with("00:18:51:") && text.len() == 17, "{text}");
    }
    assert_eq!(netif, filled("eth0"));
    assert_ne!(netif.mac, filled("eth1").mac);
    let elsewhere = "eth0".parse::<NewNetIf>().unwrap().complete(ve(), Mac([2, 0, 0, 0, 0, 1]));
    assert_ne!(netif.mac, elsewhere.mac);
}

#[test]
fn a_last_mac_is_for_both_ends_and_an_empty_field_is_generated() {
    let netif = filled("eth0,00:18:51:aa:bb:cc");
    assert_eq!(netif.mac.unwrap().to_string(), "00:18:51:AA:BB:CC");
    assert_eq!(netif.mac, netif.host_mac);
    let netif = filled("eth0,");
    assert_eq!((netif.mac, netif.host_mac), (filled("eth0").mac, filled("eth0").mac));
    assert_ne!(filled("eth0,,").mac, filled("eth0,,").host_mac);
    let netif = filled("eth2,,veth7,,br0");
    assert_eq!((netif.host_ifname.as_deref(), netif.bridge.as_deref()), (Some("veth7"), Some("br0")));
    assert_ne!(netif.mac, netif.host_mac);
    assert_eq!(filled("eth2,,,,br0").host_ifname.as_deref(), Some("veth101.2"));
    // As libvirt gives it.
    let netif = filled("eth0,52:54:00:aa:bb:cc,veth101.0.,52:54:00:aa:bb:cd,virbr0");
    assert_eq!(netif.host_ifname.as_deref(), Some("veth101.0."));
}

#[test]
fn default_host_names() {
    for (ifname, want) in
        [("eth0", "veth101.0"), ("net", "veth101.0"), ("e12x3", "veth101.12"), ("eth10", "veth101.10")]
    {
        assert_eq!(default_host_ifname(ve(), ifname), want);
    }
}

#[test]
fn bad_forms_are_refused() {
    for text in [
        "",
        ",",
        "sixteen-letters-",
        "a b",
        "eth/0",
        "eth0,zz",
        "eth0,01:00:00:00:00:00",
        "eth0,,a,,b,c",
        "a;b",
    ] {
        assert!(text.parse::<NewNetIf>().is_err(), "{text}");
    }
    for text in
        ["eth0", "bridge=br0", "ifname=", "ifname=a,mac=1", "ifname=a,speed=9", "ifname=a,mac_filter=yes"]
    {
        assert!(text.parse::<NetIf>().is_err(), "{text}");
    }
    for text in [
        "00:18:51:aa:bb",
        "00:18:51:aa:bb:cc:dd",
        "0:18:51:aa:bb:ccc",
        "00:00:00:00:00:00",
        "+1:18:51:aa:bb:cc",
    ] {
        assert!(text.parse::<Mac>().is_err(), "{text}");
    }
}

#[test]
fn config_form_is_in_the_fixed_order() {
    let text = "mac_filter=on,host_mac=00:18:51:00:00:02,host_ifname=veth101.0,mac=00:18:51:00:00:01,bridge=vmbr0,ifname=eth0";
    let list = NetIf::parse_list(&format!("{text};ifname=eth1;")).unwrap();
    assert_eq!(
        NetIf::format_list(&list),
        "ifname=eth0,bridge=vmbr0,mac=00:18:51:00:00:01,host_ifname=veth101.0,host_mac=00:18:51:00:00:02,mac_filter=on;ifname=eth1"
    );
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|mut m| {
        m[0] = (m[0] & 0xfe) | 2;
        Mac(m)
    })
}

prop_compose! {
    fn netif()(
        ifname in "[a-z][a-z0-9.]{0,14}",
        bridge in proptest::option::of("[a-z0-9]{1,15}"),
        mac_in in proptest::option::of(mac()),
        host_ifname in proptest::option::of("[a-z0-9.]{3,15}"),
        host_mac in proptest::option::of(mac()),
        mac_filter in any::<Option<bool>>(),
    ) -> NetIf {
        NetIf { ifname, bridge, mac: mac_in, host_ifname: host_ifname.filter(|n| n != "..."), host_mac, mac_filter }
    }
}

proptest! {
    #[test]
    fn list_round_trips(list in proptest::collection::vec(netif(), 0..5)) {
        prop_assert_eq!(NetIf::parse_list(&NetIf::format_list(&list)), Ok(list));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,60}") {
        let _ = text.parse::<NewNetIf>();
        let _ = NetIf::parse_list(&text);
    }
}
