//! Questions to, and changes of, the network of a running VE; and its end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rustix::io::Errno;
use vzconf::{Ctid, NetIf, Paths};

use crate::attach::{self, NetGuard};
use crate::device::{VENET, venet_ctid, venet_name};
use crate::error::{Error, Owner, Subject};
use crate::link::{Link, Request, refused};
use crate::params::{NetParams, record_path};
use crate::plan::{NetPlan, Step};
use crate::{hold, neighbour, record, request};

/// Sends requests that take something away; what is not there is as well.
pub(crate) fn gone(link: &mut Link, requests: Vec<Request>) -> Result<(), Error> {
    let names: Vec<_> = requests.iter().map(|r| (r.what.clone(), r.subject)).collect();
    let mut first = None;
    for (answer, (what, subject)) in link.ask(requests)?.into_iter().zip(names) {
        match answer {
            Ok(_) | Err(Errno::NODEV | Errno::SRCH | Errno::NOENT | Errno::ADDRNOTAVAIL | Errno::NXIO) => {}
            Err(errno) => {
                first.get_or_insert_with(|| refused(what, subject, errno));
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Who on this host has an address, other than that VE itself.
pub(crate) fn owner(link: &mut Link, ctid: Ctid, address: IpAddr) -> Result<Option<Owner>, Error> {
    Ok(owners(link, ctid, &[address])?.pop().and_then(|(_, owner)| owner))
}

/// The same for many addresses at once.
pub(crate) fn owners(
    link: &mut Link,
    ctid: Ctid,
    addresses: &[IpAddr],
) -> Result<Vec<(IpAddr, Option<Owner>)>, Error> {
    let requests = addresses.iter().map(|a| request::route_of(*a)).collect();
    let mut found = Vec::new();
    for (answer, address) in link.ask(requests)?.into_iter().zip(addresses) {
        let route = answer.ok().and_then(|messages| {
            messages
                .into_iter()
                .find_map(|m| if let RouteNetlinkMessage::NewRoute(r) = m { Some(r) } else { None })
        });
        let owner = match route.filter(|r| is_taken(r, *address)) {
            Some(route) => Some(device_of(link, &route)?),
            None => None,
        };
        found.push((*address, owner.filter(|o| *o != Owner::Ve(ctid))));
    }
    Ok(found)
}

/// The host's own address, or a route to this very address.
fn is_taken(route: &RouteMessage, address: IpAddr) -> bool {
    let whole = route.header.destination_prefix_length == if address.is_ipv4() { 32 } else { 128 };
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => true,
        RouteType::Unicast => whole,
        _ => false,
    }
}

fn device_of(link: &mut Link, route: &RouteMessage) -> Result<Owner, Error> {
    let Some(index) = oif(route) else { return Ok(Owner::Device("unknown".into())) };
    let name = link.device(request::link_by_index(index))?.map(|d| d.name);
    let name = name.unwrap_or_else(|| format!("index {index}"));
    Ok(venet_ctid(&name).map_or(Owner::Device(name), Owner::Ve))
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None })
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

fn our_routes(link: &mut Link, device: Option<u32>) -> Result<Vec<(u32, IpAddr)>, Error> {
    let mut found = Vec::new();
    for message in link.dump([true, false].map(|v4| request::our_routes(v4, device)))? {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        // A kernel that does not filter sends more than was asked for.
        if route.header.protocol != request::PROTOCOL {
            continue;
        }
        if let (Some(index), Some(address)) = (oif(&route), destination(&route))
            && device.is_none_or(|d| d == index)
        {
            found.push((index, address));
        }
    }
    Ok(found)
}

/// Whether the VE has its venet device on this host now.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn exists(ctid: Ctid) -> Result<bool, Error> {
    Ok(Link::host()?.index(&venet_name(ctid))?.is_some())
}

/// The addresses routed to a VE now; none when it is not running.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn addresses(ctid: Ctid) -> Result<Vec<IpAddr>, Error> {
    let mut link = Link::host()?;
    let Some(index) = link.index(&venet_name(ctid))? else { return Ok(Vec::new()) };
    Ok(our_routes(&mut link, Some(index))?.into_iter().map(|(_, address)| address).collect())
}

/// The addresses routed to every VE now, with two questions for all of them.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn all_addresses() -> Result<BTreeMap<Ctid, Vec<IpAddr>>, Error> {
    let mut link = Link::host()?;
    let routes = our_routes(&mut link, None)?;
    let mut owners: BTreeMap<u32, Option<Ctid>> = BTreeMap::new();
    let mut found: BTreeMap<Ctid, Vec<IpAddr>> = BTreeMap::new();
    for (index, address) in routes {
        let owner = match owners.get(&index) {
            Some(owner) => *owner,
            None => {
                let device = link.device(request::link_by_index(index))?;
                let owner = device.and_then(|d| venet_ctid(&d.name));
                owners.insert(index, owner);
                owner
            }
        };
        if let Some(ctid) = owner {
            found.entry(ctid).or_default().push(address);
        }
    }
    Ok(found)
}

/// Gives a running VE one more address. `params` hold the addresses it has; `netns` is its namespace.
/// The guard is to be committed (and, if wanted, told to announce).
///
/// # Errors
/// As [`crate::attach`]; [`Error::NoDevice`] when the VE is not running.
pub fn add_address(params: &NetParams, address: IpAddr, netns: BorrowedFd<'_>) -> Result<NetGuard, Error> {
    let device = venet_name(params.ctid);
    if Link::host()?.index(&device)?.is_none() {
        return Err(Error::NoDevice { ctid: params.ctid, device });
    }
    attach::attach(&NetPlan::address(params, address), netns)
}

/// Takes an address from a running VE; one it does not have is as well.
///
/// # Errors
/// What was refused.
pub fn del_address(params: &NetParams, address: IpAddr, netns: BorrowedFd<'_>) -> Result<(), Error> {
    let mut host = Link::host()?;
    let device = venet_name(params.ctid);
    let Some(index) = host.index(&device)? else {
        return Err(Error::NoDevice { ctid: params.ctid, device });
    };
    let mut requests = vec![request::delete_route(&device, index, address)];
    for neighbour in neighbour::devices(&mut host)? {
        requests.push(request::delete_proxy(neighbour.index, address));
    }
    gone(&mut host, requests)?;
    let mut ve = Link::inside(netns, || Ok(()))?;
    if let Some(index) = ve.index(VENET)? {
        gone(&mut ve, vec![request::delete_address(VENET, index, address)])?;
    }
    let before = record::addresses(&params.record).unwrap_or_else(|| params.addresses.clone());
    let left: Vec<IpAddr> = before.into_iter().filter(|a| *a != address).collect();
    record::write(&params.record, &left)
}

/// Gives a running VE a veth device.
///
/// # Errors
/// As [`crate::attach`]; [`Error::NoBridge`].
pub fn netif_add(params: &NetParams, netif: &NetIf, netns: BorrowedFd<'_>) -> Result<NetGuard, Error> {
    attach::attach(&NetPlan::netif(params, netif)?, netns)
}

/// Takes a veth device from a VE, by its name on the host; one that is not there is as well.
///
/// # Errors
/// What was refused.
pub fn netif_del(host_ifname: &str) -> Result<(), Error> {
    gone(&mut Link::host()?, vec![request::delete_link(host_ifname, Subject::Veth)])
}

/// What [`detach`] does with a VE's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// Delete them now. The kernel takes some 25 ms to let a device go.
    Delete,
    /// Leave them to the end of the VE's namespace, which takes them with it in the background. For a
    /// VE whose last process is gone; a start that comes sooner replaces them.
    LeaveToNamespace,
}

/// Takes away all that a VE has on the host: routes, proxy entries, the record, and the devices.
/// What is gone already (with the VE's namespace, say) is no error; works without the record, too.
///
/// # Errors
/// What was refused.
pub fn detach(ctid: Ctid, paths: &Paths, devices: Devices) -> Result<(), Error> {
    let mut host = Link::host()?;
    let path = record_path(paths, ctid);
    let device = venet_name(ctid);
    let own = host.index(&device)?;
    let mut requests = Vec::new();
    if let Some(index) = own {
        let routes = our_routes(&mut host, own)?;
        requests.extend(routes.into_iter().map(|(_, a)| request::delete_route(&device, index, a)));
    }
    let proxies = proxies_of(&mut host, own, record::addresses(&path))?;
    requests.extend(proxies.into_iter().map(|(index, a)| request::delete_proxy(index, a)));
    if devices == Devices::Delete {
        requests.push(request::delete_links(ctid));
    }
    gone(&mut host, requests)?;
    record::remove(&path)
}

/// Takes a VE off the networks while it is frozen or saved: nothing reaches it, and nobody is told that it is gone. Its
/// devices stay. [`crate::attach()`] of the second half of its plan puts it back.
///
/// # Errors
/// What was refused; what is gone already is no error.
pub fn disconnect(plan: &NetPlan) -> Result<(), Error> {
    let mut host = Link::host()?;
    let device = venet_name(plan.ctid);
    let own = host.index(&device)?;
    let mut requests = Vec::new();
    if let Some(index) = own {
        let routes = our_routes(&mut host, own)?;
        requests.extend(routes.into_iter().map(|(_, a)| request::delete_route(&device, index, a)));
    }
    let proxies = proxies_of(&mut host, own, record::addresses(&plan.record))?;
    requests.extend(proxies.into_iter().map(|(index, a)| request::delete_proxy(index, a)));
    for step in &plan.steps {
        if let Step::Join { device, .. } = step {
            requests.push(request::join_bridge(device, "none", 0));
        }
    }
    gone(&mut host, requests)?;
    // Somebody may have been killed while he held connections back.
    hold::let_in(&mut host, plan)
}

/// The proxy entries of a VE. With a record they follow from it; without one they are those that no
/// route belongs to any more, and those of the addresses still routed to it.
fn proxies_of(
    host: &mut Link,
    own: Option<u32>,
    recorded: Option<Vec<IpAddr>>,
) -> Result<Vec<(u32, IpAddr)>, Error> {
    if let Some(addresses) = recorded {
        let mut proxies = Vec::new();
        if !addresses.is_empty() {
            for device in neighbour::devices(host)? {
                proxies.extend(addresses.iter().map(|a| (device.index, *a)));
            }
        }
        return Ok(proxies);
    }
    let others: Vec<IpAddr> =
        our_routes(host, None)?.into_iter().filter(|(i, _)| Some(*i) != own).map(|(_, a)| a).collect();
    Ok(neighbour::our_proxies(host)?.into_iter().filter(|(_, a)| !others.contains(a)).collect())
}
