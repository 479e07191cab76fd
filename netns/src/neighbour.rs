//! The host's networks: on their devices the host answers for the VEs' addresses.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkLayerType};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use vzconf::Mac;
use vzsys::packet::PacketSocket;

use crate::device::venet_ctid;
use crate::error::{Error, Owner};
use crate::frame;
use crate::link::{Device, Link, Request};
use crate::params::Neighbours;
use crate::request::{self, PROTOCOL};
use crate::sysctl;

const ETH_P_ARP: u16 = 0x0806;
/// How long a duplicate may take to answer.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// An address that the host answers for, with the index of the device where it does.
pub(crate) type ProxyEntry = (u32, IpAddr);

/// A device of the host that stands in a network of others.
#[derive(Debug, Clone)]
pub(crate) struct NeighbourDevice {
    pub(crate) index: u32,
    pub(crate) name: String,
    mac: Option<Mac>,
    networks: Vec<IpNet>,
}

impl NeighbourDevice {
    fn serves(&self, address: IpAddr, wanted: &Neighbours) -> bool {
        match wanted {
            Neighbours::All => true,
            Neighbours::Detect => self.networks.iter().any(|n| n.contains(&address)),
            Neighbours::List(names) => names.contains(&self.name),
        }
    }
}

/// Names that are never asked for neighbours: VEs' own devices, ours or made by others.
fn is_ve_device(name: &str) -> bool {
    let veth = name.strip_prefix("veth").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    veth || venet_ctid(name).is_some()
}

/// The global addresses of the namespace with the index of their device: loopback and the VEs'
/// devices have none, so this does not grow with the number of VEs.
fn global_addresses(link: &mut Link) -> Result<Vec<(u32, IpNet)>, Error> {
    let mut found = Vec::new();
    for message in link.dump([true, false].map(request::all_addresses))? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        if message.header.scope != AddressScope::Universe {
            continue;
        }
        let pick = |want_local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) if want_local => Some(*ip),
                AddressAttribute::Address(ip) if !want_local => Some(*ip),
                _ => None,
            })
        };
        if let Some(net) =
            pick(true).or_else(|| pick(false)).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok())
        {
            found.push((message.header.index, net));
        }
    }
    Ok(found)
}

/// The neighbour devices: up, with a global address, not loopback, not a port of something, with ARP.
pub(crate) fn devices(link: &mut Link) -> Result<Vec<NeighbourDevice>, Error> {
    let mut networks: Vec<(u32, Vec<IpNet>)> = Vec::new();
    for (index, net) in global_addresses(link)? {
        match networks.iter_mut().find(|(i, _)| *i == index) {
            Some((_, nets)) => nets.push(net),
            None => networks.push((index, vec![net])),
        }
    }
    let mut devices = Vec::new();
    for (index, networks) in networks {
        // A device may go between the two questions.
        let Ok(Some(device)) = link.device(request::link_by_index(index)) else { continue };
        if usable(&device) {
            let mac = if device.message.header.link_layer_type == LinkLayerType::Ether {
                device.mac()
            } else {
                None
            };
            devices.push(NeighbourDevice { index, name: device.name, mac, networks });
        }
    }
    Ok(devices)
}

fn usable(device: &Device) -> bool {
    let flags = device.message.header.flags;
    let bad = LinkFlags::Loopback | LinkFlags::Noarp;
    let slave =
        device.message.attributes.iter().any(
            |a| matches!(a, netlink_packet_route::link::LinkAttribute::Controller(index) if *index != 0),
        );
    flags.contains(LinkFlags::Up) && !flags.intersects(bad) && !slave && !is_ve_device(&device.name)
}

/// What makes the host answer for the addresses: the entries, for undoing, and the requests.
pub(crate) fn proxies(
    devices: &[NeighbourDevice],
    wanted: &Neighbours,
    addresses: &[IpAddr],
) -> Result<(Vec<ProxyEntry>, Vec<Request>), Error> {
    let mut requests = Vec::new();
    let mut entries = Vec::new();
    for device in devices {
        let mine: Vec<IpAddr> = addresses.iter().copied().filter(|a| device.serves(*a, wanted)).collect();
        if mine.iter().any(IpAddr::is_ipv6) {
            allow_ndp_proxy(&device.name)?;
        }
        for address in mine {
            requests.push(request::add_proxy(&device.name, device.index, address));
            entries.push((device.index, address));
        }
    }
    Ok((entries, requests))
}

/// The kernel looks at its proxy entries for IPv6 only with this switch, and only on a device that
/// forwards; it does nothing without entries, and is left on for the next VE.
fn allow_ndp_proxy(device: &str) -> Result<(), Error> {
    let switch = format!("ipv6/conf/{device}/proxy_ndp");
    let forwards = sysctl::is_on(&format!("ipv6/conf/{device}/forwarding")) == Some(true);
    if forwards && sysctl::is_on(&switch) == Some(false) {
        return sysctl::write(&switch, "1");
    }
    Ok(())
}

/// The devices on which the host answers for an address on our behalf.
pub(crate) fn our_proxies(link: &mut Link) -> Result<Vec<ProxyEntry>, Error> {
    let mut found = Vec::new();
    for message in link.dump([true, false].map(request::all_proxies))? {
        let RouteNetlinkMessage::NewNeighbour(message) = message else { continue };
        let ours = message.attributes.contains(&NeighbourAttribute::Protocol(PROTOCOL));
        let address = message.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
        if let (true, Some(address)) = (ours, address) {
            found.push((message.header.ifindex, address));
        }
    }
    Ok(found)
}

/// Tells the host's networks that the addresses are here now.
pub(crate) fn announce(
    devices: &[NeighbourDevice],
    wanted: &Neighbours,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    let failed = |source| Error::Packet { source };
    for device in devices {
        let Some(mac) = device.mac else { continue };
        let mut mine = addresses.iter().filter(|a| device.serves(**a, wanted)).peekable();
        if mine.peek().is_none() {
            continue;
        }
        let socket = PacketSocket::open(device.index, None).map_err(failed)?;
        for address in mine {
            socket.send(&frame::announcement(mac, *address)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Asks the host's networks for machines that have one of the (IPv4) addresses; waits a second when
/// there is a device to ask on, and not at all otherwise.
pub(crate) fn probe(
    devices: &[NeighbourDevice],
    wanted: &Neighbours,
    addresses: &[IpAddr],
) -> Result<Vec<(IpAddr, Owner)>, Error> {
    let failed = |source| Error::Packet { source };
    let mut asked = Vec::new();
    for device in devices {
        let Some(mac) = device.mac else { continue };
        let mine: Vec<_> = addresses
            .iter()
            .filter(|a| device.serves(**a, wanted))
            .filter_map(|a| if let IpAddr::V4(v4) = a { Some(*v4) } else { None })
            .collect();
        if mine.is_empty() {
            continue;
        }
        let socket = PacketSocket::open(device.index, Some(ETH_P_ARP)).map_err(failed)?;
        for address in &mine {
            socket.send(&frame::probe(mac, *address)).map_err(failed)?;
        }
        asked.push((device, socket, mine));
    }
    // The kernel collects on all sockets meanwhile, so one second is enough for all.
    let deadline = Instant::now() + PROBE_TIME;
    let mut found: Vec<(IpAddr, Owner)> = Vec::new();
    let mut buffer = [0u8; 64];
    for (device, socket, mine) in &asked {
        while let Some(length) = socket.receive(&mut buffer, deadline).map_err(failed)? {
            for address in mine {
                let Some(mac) = frame::answer(&buffer[..length], *address) else { continue };
                // Our own answers on another device of the same segment are no duplicate.
                let ours = devices.iter().any(|d| d.mac == Some(mac));
                if !ours && !found.iter().any(|(a, _)| a == address) {
                    found.push(((*address).into(), Owner::Neighbour { mac, device: device.name.clone() }));
                }
            }
        }
    }
    Ok(found)
}

/// What an admin has to switch on so that VEs reach, and are reached from, beyond the host.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn forwarding_hint() -> Result<Option<String>, Error> {
    let mut link = Link::host()?;
    let mut wanted: Vec<String> = Vec::new();
    for device in devices(&mut link)? {
        let forwards = |family: &str| sysctl::is_on(&format!("{family}/conf/{}/forwarding", device.name));
        let has = |v4: bool| device.networks.iter().any(|n| n.addr().is_ipv4() == v4);
        if has(true) && forwards("ipv4") == Some(false) {
            wanted.push(format!("net.ipv4.conf.{}.forwarding=1", device.name.replace('.', "/")));
        }
        // IPv6 is forwarded for all devices or, from 6.17 on, for those with this switch.
        let whole = sysctl::is_on("ipv6/conf/all/forwarding") == Some(true);
        let forced = sysctl::is_on(&format!("ipv6/conf/{}/force_forwarding", device.name)) == Some(true);
        if has(false) && (forwards("ipv6") == Some(false) || !(whole || forced)) {
            wanted.push("net.ipv6.conf.all.forwarding=1".to_string());
        }
    }
    wanted.sort();
    wanted.dedup();
    Ok((!wanted.is_empty()).then(|| {
        format!(
            "containers reach this host but not beyond it; to change that: sysctl -w {}",
            wanted.join(" ")
        )
    }))
}

/// The first address of a device that can be the source of the host's packets to VEs.
pub(crate) fn source_of(link: &mut Link, device: &str) -> Result<Option<IpAddr>, Error> {
    let Some(index) = link.index(device)? else { return Ok(None) };
    let addresses = global_addresses(link)?;
    Ok(addresses.iter().find(|(i, net)| *i == index && net.addr().is_ipv4()).map(|(_, net)| net.addr()))
}

/// The hardware address of the host's first Ethernet device, from which those of VEs are generated.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn host_mac() -> Result<Option<Mac>, Error> {
    let mut link = Link::host()?;
    let devices = link.dump([request::all_links()])?.into_iter().filter_map(Device::from_message);
    Ok(devices
        .filter(|d| d.message.header.link_layer_type == LinkLayerType::Ether && !is_ve_device(&d.name))
        .filter_map(|d| Some((d.index, d.mac()?)))
        .filter(|(_, mac)| mac.0 != [0; 6])
        .min_by_key(|(index, _)| *index)
        .map(|(_, mac)| mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ve_devices_are_no_neighbours() {
        for (name, ve) in [("veth101.0", true), ("venet101", true), ("vethernet", false), ("eth0", false)] {
            assert_eq!(is_ve_device(name), ve, "{name}");
        }
    }

    #[test]
    fn a_device_serves_as_told() {
        let device = NeighbourDevice {
            index: 2,
            name: "eth0".into(),
            mac: None,
            networks: vec!["10.0.0.1/24".parse().unwrap()],
        };
        let [near, far]: [IpAddr; 2] = ["10.0.0.9", "10.0.1.9"].map(|a| a.parse().unwrap());
        assert!(device.serves(far, &Neighbours::All));
        assert!(device.serves(near, &Neighbours::Detect) && !device.serves(far, &Neighbours::Detect));
        assert!(device.serves(far, &Neighbours::List(vec!["eth0".into()])));
        assert!(!device.serves(near, &Neighbours::List(vec!["eth1".into()])));
    }
}
