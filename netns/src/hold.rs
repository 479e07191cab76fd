//! Packets to a VE that stands still are kept, for whoever has it afterwards.
//!
//! ```text
//!   hold       new connections to 10.0.0.1 ─▶ vzhold101 (TUN), whose queue is the store; all else goes on
//!   silence    10.0.0.1 ─▶ vzhold101; what the VE sends is dropped by the filter
//!   give_back  10.0.0.1 ─▶ venet101, and what was kept is sent there
//!   leave      the route and the proxies go; what was kept goes with the VE, and is sent by [`deliver`] there
//! ```
//! The host answers for the addresses all the time. Whoever is killed takes the device, the routes and the packets with
//! him; [`crate::attach()`] of the second half of the plan connects the VE again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType};
use vzconf::Ctid;
use vzsys::tun::Tun;

use crate::device::venet_name;
use crate::error::{Error, Subject};
use crate::link::Link;
use crate::plan::{NetPlan, Step};
use crate::{gate, live, neighbour, request};

/// The longest queue, in packets.
const QUEUE: u32 = 8192;
/// Bytes that are kept; what comes beyond is lost, and sent again by who waits for an answer.
const MOST: usize = 8 << 20;
/// The longest packet.
const LONGEST: usize = 65_535;

/// A VE whose packets are kept. Dropped, they are lost, and nothing is routed to it.
#[derive(Debug)]
pub struct Hold {
    tun: Tun,
    plan: NetPlan,
    addresses: Vec<IpAddr>,
    /// Why new connections go on coming.
    ungated: Option<Error>,
}

fn device(ctid: Ctid) -> String {
    format!("vzhold{ctid}")
}

/// Keeps packets that ask the VE for a new connection, from now on. Those on its bridge ports are lost: they are sent
/// again. Where the kernel has no such filter they go on coming, see [`Hold::ungated`].
///
/// # Errors
/// What was refused: nothing is kept then.
pub fn hold(plan: &NetPlan) -> Result<Hold, Error> {
    let addresses: Vec<IpAddr> =
        plan.steps.iter().filter_map(|s| if let Step::Route(a) = s { Some(*a) } else { None }).collect();
    let name = device(plan.ctid);
    let tun = Tun::new(&name).map_err(|source| Error::Hold { ctid: plan.ctid, source })?;
    let mut host = Link::host()?;
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    host.run(vec![
        request::quiet(&name, Subject::Venet, v6, false),
        request::queue(&name, QUEUE),
        request::up(&name, Subject::Venet),
    ])?;
    let Some(index) = host.index(&name)? else {
        return Err(Error::NoDevice { ctid: plan.ctid, device: name });
    };
    let mut hold = Hold { tun, plan: plan.clone(), addresses, ungated: None };
    hold.ungated = hold.shut(&mut host, index).err();
    Ok(hold)
}

/// The devices over which the VE is reached.
fn doors(plan: &NetPlan) -> Vec<String> {
    let ports = plan.steps.iter().filter_map(|step| match step {
        Step::Join { device, .. } => Some(device.clone()),
        _ => None,
    });
    std::iter::once(venet_name(plan.ctid)).chain(ports).collect()
}

/// Lets new connections to a VE in again, whoever held them back.
pub(crate) fn let_in(host: &mut Link, plan: &NetPlan) -> Result<(), Error> {
    for door in doors(plan) {
        if let Some(index) = host.index(&door)? {
            gate::open(host, &door, index)?;
        }
    }
    Ok(())
}

impl Hold {
    fn shut(&self, host: &mut Link, to: u32) -> Result<(), Error> {
        for door in doors(&self.plan) {
            if let Some(index) = host.index(&door)? {
                gate::shut(host, &door, index, to)?;
            }
        }
        Ok(())
    }

    /// Why new connections are not held back; `None` when they are.
    #[must_use]
    pub fn ungated(&self) -> Option<&Error> {
        self.ungated.as_ref()
    }

    /// Keeps all that comes for the addresses of the VE, and lets nothing out. Its bridge ports leave their bridges:
    /// frames to them are lost.
    ///
    /// # Errors
    /// What was refused: the VE may be off its networks.
    pub fn silence(&self) -> Result<(), Error> {
        let name = device(self.plan.ctid);
        let mut host = Link::host()?;
        let Some(index) = host.index(&name)? else {
            return Err(Error::NoDevice { ctid: self.plan.ctid, device: name });
        };
        host.run(self.addresses.iter().map(|a| request::replace_route(&name, index, *a, None)).collect())?;
        let ports = self.plan.steps.iter().filter_map(|step| match step {
            Step::Join { device, .. } => Some(request::join_bridge(device, "none", 0)),
            _ => None,
        });
        live::gone(&mut host, ports.collect())
    }

    /// What has come, in order.
    fn kept(&self) -> Vec<Vec<u8>> {
        let (mut packets, mut bytes) = (Vec::new(), 0);
        let mut buffer = vec![0; LONGEST];
        while let Ok(Some(length)) = self.tun.next(&mut buffer) {
            let ours = target(&buffer[..length]).is_some_and(|to| self.addresses.contains(&to));
            if ours && bytes + length <= MOST {
                bytes += length;
                packets.push(buffer[..length].to_vec());
            }
        }
        packets
    }

    /// The VE goes on here: it is connected as it was, and gets what was kept.
    ///
    /// # Errors
    /// What was refused; then it is not connected.
    pub fn give_back(self) -> Result<(), Error> {
        let ctid = self.plan.ctid;
        let device = venet_name(ctid);
        let mut host = Link::host()?;
        let Some(index) = host.index(&device)? else { return Err(Error::NoDevice { ctid, device }) };
        let source = match &self.plan.source_device {
            Some(name) => neighbour::source_of(&mut host, name)?,
            None => None,
        };
        let source = |a: &IpAddr| source.filter(|source| source.is_ipv4() == a.is_ipv4());
        let routes = self.addresses.iter().map(|a| request::replace_route(&device, index, *a, source(a)));
        host.run(routes.collect())?;
        let_in(&mut host, &self.plan)?;
        deliver(&self.kept(), &self.addresses);
        Ok(())
    }

    /// The VE is elsewhere: nothing here answers for it any more. Gives what was kept, which is to go there.
    ///
    /// # Errors
    /// What was refused.
    pub fn leave(self) -> Result<Vec<Vec<u8>>, Error> {
        let mut packets = self.kept();
        let name = device(self.plan.ctid);
        let mut host = Link::host()?;
        if let Some(index) = host.index(&name)? {
            let routes = self.addresses.iter().map(|a| request::delete_route(&name, index, *a));
            live::gone(&mut host, routes.collect())?;
        }
        live::disconnect(&self.plan)?;
        packets.extend(self.kept());
        Ok(packets)
    }
}

/// Where a packet goes.
fn target(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        }
        6 => {
            let bytes: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Sends packets that were kept to a VE that is connected again; those to other addresses than these are left out.
/// What is refused is lost.
pub fn deliver(packets: &[Vec<u8>], addresses: &[IpAddr]) {
    let open = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The headers are theirs.
        rustix::net::socket_with(family, SocketType::RAW, flags, Some(Protocol::from_raw(RAW))).ok()
    };
    let wanted = |packet: &[u8]| target(packet).filter(|to| addresses.contains(to));
    let sockets = [AddressFamily::INET, AddressFamily::INET6].map(|family| {
        let any = packets
            .iter()
            .any(|packet| wanted(packet).is_some_and(|to| to.is_ipv4() == (family == AddressFamily::INET)));
        if any { open(family) } else { None }
    });
    for packet in packets {
        let Some(to) = wanted(packet) else { continue };
        let Some(socket) = &sockets[usize::from(to.is_ipv6())] else { continue };
        let to = SocketAddr::new(to, 0);
        while rustix::net::sendto(socket, packet, SendFlags::empty(), &to) == Err(Errno::INTR) {}
    }
}

/// `IPPROTO_RAW`
const RAW: rustix::net::RawProtocol = match rustix::net::RawProtocol::new(255) {
    Some(number) => number,
    None => unreachable!(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_where_it_goes() {
        let mut packet = vec![0x45; 20];
        packet[16..20].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(target(&packet), Some("10.0.0.1".parse().unwrap()));
        let mut packet = vec![0x60; 40];
        packet[24..40].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        assert_eq!(target(&packet), Some("::1".parse().unwrap()));
        assert_eq!((target(&[]), target(&[0x45; 8]), target(&[0; 40])), (None, None, None));
    }
}
