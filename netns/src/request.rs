//! Every request we make of rtnetlink, built as data. Each is told of in the words of `ip`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::device;
use crate::error::Subject;
use crate::link::{CHANGE, DUMP, LOOKUP, Request};
use crate::plan::Pair;
use vzconf::{Ctid, Mac};

/// Our routes and proxy entries carry this protocol number, so that they can be told from others.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(86);

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn link(what: String, subject: Subject, message: LinkMessage, flags: u16) -> Request {
    Request { what, subject, message: RouteNetlinkMessage::SetLink(message), flags }
}

/// One device by its name.
pub(crate) fn link_by_name(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    Request {
        what: format!("ip link show {name}"),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::GetLink(message),
        flags: LOOKUP,
    }
}

/// One device by its index.
pub(crate) fn link_by_index(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request {
        what: format!("ip link show (index {index})"),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::GetLink(message),
        flags: LOOKUP,
    }
}

/// Every device; for rare questions only, its cost grows with the host.
pub(crate) fn all_links() -> Request {
    Request {
        what: "ip link show".into(),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::GetLink(LinkMessage::default()),
        flags: DUMP,
    }
}

fn end(name: &str, mac: Mac, noarp: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    if noarp {
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
    }
    message
}

/// A veth pair whose one end is born in the VE's namespace.
pub(crate) fn new_pair(ctid: Ctid, pair: &Pair, netns: BorrowedFd<'_>) -> Request {
    let noarp = pair.subject() == Subject::Venet;
    let mut peer = end(&pair.ve.name, pair.ve.mac, noarp);
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut message = end(&pair.host.name, pair.host.mac, noarp);
    message.attributes.push(LinkAttribute::Group(device::group(ctid)));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request {
        what: format!("ip link add {} type veth peer name {}", pair.host.name, pair.ve.name),
        subject: pair.subject(),
        message: RouteNetlinkMessage::NewLink(message),
        flags: CHANGE | NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Deletes one device by name.
pub(crate) fn delete_link(name: &str, subject: Subject) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    Request {
        what: format!("ip link del {name}"),
        subject,
        message: RouteNetlinkMessage::DelLink(message),
        flags: CHANGE,
    }
}

/// Deletes every device of a VE.
pub(crate) fn delete_links(ctid: Ctid) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(device::group(ctid)));
    Request {
        what: format!("ip link del group {}", device::group(ctid)),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::DelLink(message),
        flags: CHANGE,
    }
}

/// No address of its own accord (and thus no router solicitation, no DAD); on the host's end also
/// per-device forwarding, and the kernel's reverse path filter as a second lock for IPv4.
pub(crate) fn quiet(name: &str, subject: Subject, v6: bool, forward: bool) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    let mut families = Vec::new();
    if v6 {
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
    }
    if forward {
        let mut conf = InetDevConf::default();
        conf.forwarding = 1;
        conf.rp_filter = 1;
        families.push(AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]));
    }
    message.attributes.push(LinkAttribute::AfSpecUnspec(families));
    link(format!("ip link set {name} addrgenmode none"), subject, message, CHANGE)
}

/// Brings a device up.
pub(crate) fn up(name: &str, subject: Subject) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    link(format!("ip link set {name} up"), subject, message, CHANGE)
}

/// How many packets wait in a device at most.
pub(crate) fn queue(name: &str, packets: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.push(LinkAttribute::TxQueueLen(packets));
    link(format!("ip link set {name} txqueuelen {packets}"), Subject::Venet, message, CHANGE)
}

/// Makes a device a port of a bridge.
pub(crate) fn join_bridge(name: &str, bridge: &str, bridge_index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.push(LinkAttribute::Controller(bridge_index));
    link(format!("ip link set {name} master {bridge}"), Subject::Veth, message, CHANGE)
}

/// A port that takes frames only from addresses it has been told: no learning, and locked (5.18).
pub(crate) fn lock_port(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::Locked(true),
        ])),
    ]));
    let what = format!("ip link set {name} type bridge_slave learning off locked on");
    Request { what, subject: Subject::Veth, message: RouteNetlinkMessage::NewLink(message), flags: CHANGE }
}

/// The one hardware address a locked port takes frames from.
pub(crate) fn port_address(name: &str, index: u32, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request {
        what: format!("bridge fdb replace {mac} dev {name} master static"),
        subject: Subject::Veth,
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: CHANGE | NLM_F_CREATE | NLM_F_REPLACE,
    }
}

fn address_message(device: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = host_length(address);
    message.header.index = device;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// Gives a device in the VE an address.
pub(crate) fn add_address(name: &str, device: u32, address: IpAddr) -> Request {
    Request {
        what: format!("ip addr add {address}/{} dev {name}", host_length(address)),
        subject: Subject::Address,
        message: RouteNetlinkMessage::NewAddress(address_message(device, address)),
        flags: CHANGE | NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Takes it away.
pub(crate) fn delete_address(name: &str, device: u32, address: IpAddr) -> Request {
    Request {
        what: format!("ip addr del {address}/{} dev {name}", host_length(address)),
        subject: Subject::Address,
        message: RouteNetlinkMessage::DelAddress(address_message(device, address)),
        flags: CHANGE,
    }
}

/// Every address of one family.
pub(crate) fn all_addresses(v4: bool) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Request {
        what: "ip addr show".into(),
        subject: Subject::Address,
        message: RouteNetlinkMessage::GetAddress(message),
        flags: DUMP,
    }
}

fn route_message(address: IpAddr, length: u8, device: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.scope = if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    if length > 0 {
        message.attributes.push(RouteAttribute::Destination(address.into()));
    }
    message.attributes.push(RouteAttribute::Oif(device));
    message
}

/// The route to one address of a VE.
pub(crate) fn add_route(name: &str, device: u32, address: IpAddr, source: Option<IpAddr>) -> Request {
    let mut message = route_message(address, host_length(address), device);
    let mut what = format!("ip route add {address} dev {name}");
    if let Some(source) = source {
        what = format!("{what} src {source}");
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    Request {
        what,
        subject: Subject::Address,
        message: RouteNetlinkMessage::NewRoute(message),
        flags: CHANGE | NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// The same in place of the one that is there.
pub(crate) fn replace_route(name: &str, device: u32, address: IpAddr, source: Option<IpAddr>) -> Request {
    let mut request = add_route(name, device, address, source);
    request.what = request.what.replacen("route add", "route replace", 1);
    request.flags = CHANGE | NLM_F_CREATE | NLM_F_REPLACE;
    request
}

/// Takes it away.
pub(crate) fn delete_route(name: &str, device: u32, address: IpAddr) -> Request {
    Request {
        what: format!("ip route del {address} dev {name}"),
        subject: Subject::Address,
        message: RouteNetlinkMessage::DelRoute(route_message(address, host_length(address), device)),
        flags: CHANGE,
    }
}

/// The VE's way to everything, for the family of that address. The kernel takes the first address of
/// the device as source, also after an address went, so none is fixed here.
pub(crate) fn default_route(name: &str, device: u32, like: IpAddr) -> Request {
    Request {
        what: format!("ip {} route replace default dev {name}", if like.is_ipv4() { "-4" } else { "-6" }),
        subject: Subject::Address,
        message: RouteNetlinkMessage::NewRoute(route_message(like, 0, device)),
        flags: CHANGE | NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Which entry of the routing table covers an address.
pub(crate) fn route_of(address: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = host_length(address);
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(address.into()));
    Request {
        what: format!("ip route get fibmatch {address}"),
        subject: Subject::Address,
        message: RouteNetlinkMessage::GetRoute(message),
        flags: LOOKUP,
    }
}

/// Our routes of one family, of one device or of all.
pub(crate) fn our_routes(v4: bool, device: Option<u32>) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.protocol = PROTOCOL;
    if let Some(device) = device {
        message.attributes.push(RouteAttribute::Oif(device));
    }
    Request {
        what: "ip route show".into(),
        subject: Subject::Address,
        message: RouteNetlinkMessage::GetRoute(message),
        flags: DUMP,
    }
}

fn proxy_message(device: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = device;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    message
}

/// Lets the host answer for an address on a device of its network.
pub(crate) fn add_proxy(name: &str, device: u32, address: IpAddr) -> Request {
    let mut message = proxy_message(device, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
    Request {
        what: format!("ip neigh add proxy {address} dev {name}"),
        subject: Subject::Address,
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: CHANGE | NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Takes it away.
pub(crate) fn delete_proxy(device: u32, address: IpAddr) -> Request {
    Request {
        what: format!("ip neigh del proxy {address} dev (index {device})"),
        subject: Subject::Address,
        message: RouteNetlinkMessage::DelNeighbour(proxy_message(device, address)),
        flags: CHANGE,
    }
}

/// Every address the host answers for.
pub(crate) fn all_proxies(v4: bool) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.flags = NeighbourFlags::Proxy;
    Request {
        what: "ip neigh show proxy".into(),
        subject: Subject::Address,
        message: RouteNetlinkMessage::GetNeighbour(message),
        flags: DUMP,
    }
}
