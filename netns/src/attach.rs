//! Carrying a plan out, and undoing it.

use std::mem::discriminant;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use netlink_packet_route::link::{InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo};
use rustix::io::Errno;
use vzconf::{Ctid, Mac};

use crate::device::{VENET, group, venet_name};
use crate::error::{Error, Subject};
use crate::link::{Device, Link, Request, refused};
use crate::neighbour::{self, NeighbourDevice};
use crate::params::Probe;
use crate::plan::{NetPlan, Pair, Step};
use crate::{filter, live, record, request, sysctl};

/// One thing to take back.
#[derive(Debug)]
enum Undo {
    Device(String),
    Route(IpAddr),
    /// Only for a VE that ran before: else the device goes, and its addresses with it.
    Address(IpAddr),
    Proxies(Vec<(u32, IpAddr)>),
    Record(Option<Vec<u8>>),
}

/// A VE's network that is not yet meant to stay: dropped, it is taken away again.
#[derive(Debug)]
#[must_use = "dropping it takes the network away; commit it"]
pub struct NetGuard {
    plan: NetPlan,
    undo: Vec<Undo>,
    netns: Option<OwnedFd>,
}

impl NetGuard {
    /// The VE.
    #[must_use]
    pub fn ctid(&self) -> Ctid {
        self.plan.ctid
    }

    /// The network stays. Gives the plan back, to [`announce`] it when nobody waits any more.
    pub fn commit(mut self) -> NetPlan {
        self.undo.clear();
        self.plan.clone()
    }

    /// Takes the network away now, and tells what could not be.
    ///
    /// # Errors
    /// Every failure; each step is tried.
    pub fn undo(mut self) -> Result<(), Vec<Error>> {
        let failures = self.unwind();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn unwind(&mut self) -> Vec<Error> {
        if self.undo.is_empty() {
            return Vec::new();
        }
        let inside = |netns: &OwnedFd| Link::inside(netns.as_fd(), || Ok(()));
        match (Link::host(), self.netns.as_ref().map(inside).transpose()) {
            (Ok(mut host), Ok(mut ve)) => undo_all(&self.plan, &mut self.undo, &mut host, ve.as_mut()),
            // The VE's side is gone with it; the host's must be cleaned in any case.
            (Ok(mut host), Err(_)) => undo_all(&self.plan, &mut self.undo, &mut host, None),
            (Err(error), _) => vec![error],
        }
    }
}

impl Drop for NetGuard {
    fn drop(&mut self) {
        // Those who want to know call `undo`.
        self.unwind();
    }
}

/// Gives a VE its network: `netns` is its network namespace, in which nothing is configured yet.
/// A leftover of an earlier start of the same VE is replaced.
///
/// Needs CAP_NET_ADMIN and CAP_SYS_ADMIN over both namespaces. Runs one thread, which has ended on return.
///
/// # Errors
/// What was refused; everything done before is undone, and what could not be is told as well.
pub fn attach(plan: &NetPlan, netns: BorrowedFd<'_>) -> Result<NetGuard, Error> {
    let mut work = Work::begin(plan, netns)?;
    match work.steps() {
        Ok(()) => Ok(work.keep()),
        Err(error) => Err(work.fail(error)),
    }
}

struct Work<'a> {
    plan: &'a NetPlan,
    netns: BorrowedFd<'a>,
    host: Link,
    ve: Option<Link>,
    undo: Vec<Undo>,
    neighbours: Vec<NeighbourDevice>,
    /// Whether the VE is being started: then what bears its names is a leftover.
    fresh: bool,
}

impl<'a> Work<'a> {
    fn begin(plan: &'a NetPlan, netns: BorrowedFd<'a>) -> Result<Self, Error> {
        let fresh = plan.steps.contains(&Step::Venet);
        Ok(Self {
            plan,
            netns,
            host: Link::host()?,
            ve: None,
            undo: Vec::new(),
            neighbours: Vec::new(),
            fresh,
        })
    }

    fn keep(mut self) -> NetGuard {
        let netns = if self.fresh { None } else { self.netns.try_clone_to_owned().ok() };
        NetGuard { plan: self.plan.clone(), undo: std::mem::take(&mut self.undo), netns }
    }

    fn fail(mut self, error: Error) -> Error {
        let error = self.explain(error);
        let failures = undo_all(self.plan, &mut self.undo, &mut self.host, self.ve.as_mut());
        error.after(failures)
    }

    /// A route that is there already is somebody's address: says whose.
    fn explain(&mut self, error: Error) -> Error {
        let exists = matches!(&error, Error::Refused { subject: Subject::Address, source, .. }
            if source.raw_os_error() == Some(Errno::EXIST.raw_os_error()));
        if exists {
            for step in &self.plan.steps {
                let Step::Route(address) = step else { continue };
                if let Ok(Some(owner)) = live::owner(&mut self.host, self.plan.ctid, *address) {
                    return Error::InUse { address: *address, owner };
                }
            }
        }
        error
    }

    fn steps(&mut self) -> Result<(), Error> {
        let plan = self.plan;
        // Steps of one kind that follow one another go out together.
        for group in plan.steps.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
            let addresses: Vec<IpAddr> = group.iter().filter_map(Step::address).collect();
            match &group[0] {
                Step::Address(_) => self.addresses(&addresses)?,
                Step::Route(_) => self.routes(&addresses)?,
                Step::Announce(_) => self.proxies(&addresses)?,
                Step::Free(_) => self.check_free(&addresses)?,
                _ => group.iter().try_for_each(|step| self.single(step))?,
            }
        }
        Ok(())
    }

    fn single(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Filter => filter::ensure(),
            Step::Create(pair) => self.create(pair),
            Step::Venet => self.venet(),
            Step::Up(device) => self.host.run(vec![request::up(device, Subject::Veth)]),
            Step::Join { device, bridge } => self.join(device, bridge),
            Step::MacFilter { device, mac, asked } => self.mac_filter(device, *mac, *asked),
            Step::Record(list) => {
                self.undo.push(Undo::Record(record::read(&self.plan.record)));
                record::write(&self.plan.record, list)
            }
            Step::Address(_) | Step::Route(_) | Step::Announce(_) | Step::Free(_) => Ok(()),
        }
    }

    fn check_free(&mut self, wanted: &[IpAddr]) -> Result<(), Error> {
        let plan = self.plan;
        for (address, owner) in live::owners(&mut self.host, plan.ctid, wanted)? {
            if let Some(owner) = owner {
                return Err(Error::InUse { address, owner });
            }
        }
        self.neighbours = neighbour::devices(&mut self.host)?;
        if plan.probe == Probe::Refuse {
            let found = neighbour::probe(&self.neighbours, &plan.neighbours, wanted)?;
            if let Some((address, owner)) = found.into_iter().next() {
                return Err(Error::InUse { address, owner });
            }
        }
        Ok(())
    }

    fn create(&mut self, pair: &Pair) -> Result<(), Error> {
        let make = |work: &mut Self| work.host.get(request::new_pair(work.plan.ctid, pair, work.netns));
        let mut answer = make(self)?;
        if answer == Err(Errno::EXIST) && self.fresh && self.is_leftover(&pair.host.name)? {
            // It may go by itself meanwhile: then this finds nothing, which is as well.
            let _ = self.host.get(request::delete_link(&pair.host.name, pair.subject()))?;
            answer = make(self)?;
        }
        match answer {
            Ok(_) => {
                self.undo.push(Undo::Device(pair.host.name.clone()));
                Ok(())
            }
            Err(errno) => {
                let what = format!("ip link add {} type veth peer name {}", pair.host.name, pair.ve.name);
                Err(refused(what, pair.subject(), errno))
            }
        }
    }

    fn is_leftover(&mut self, name: &str) -> Result<bool, Error> {
        let ours = LinkAttribute::Group(group(self.plan.ctid));
        let found = self.host.device(request::link_by_name(name))?;
        Ok(found.is_some_and(|d| d.message.attributes.contains(&ours)))
    }

    fn ve(&mut self) -> Result<&mut Link, Error> {
        if self.ve.is_none() {
            let v6 = self.plan.steps.iter().any(|s| matches!(s, Step::Address(a) if a.is_ipv6()));
            let fresh = self.fresh;
            self.ve = Some(Link::inside(self.netns, move || prepare_inside(fresh, v6))?);
        }
        self.ve.as_mut().ok_or(Error::Socket {
            namespace: "the container",
            source: std::io::ErrorKind::NotConnected.into(),
        })
    }

    fn venet(&mut self) -> Result<(), Error> {
        let v6 = has_ipv6();
        let device = venet_name(self.plan.ctid);
        self.ve()?.run(vec![
            request::up("lo", Subject::Venet),
            request::quiet(VENET, Subject::Venet, v6, false),
            request::up(VENET, Subject::Venet),
        ])?;
        self.host.run(vec![
            request::quiet(&device, Subject::Venet, v6, true),
            request::up(&device, Subject::Venet),
        ])?;
        // 6.17; before it IPv6 is forwarded only when the whole host forwards.
        sysctl::write(&format!("ipv6/conf/{device}/force_forwarding"), "1")
    }

    fn addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let (ctid, fresh) = (self.plan.ctid, self.fresh);
        if !fresh {
            self.undo.extend(addresses.iter().copied().map(Undo::Address));
        }
        let ve = self.ve()?;
        let Some(index) = ve.index(VENET)? else {
            return Err(Error::NoDevice { ctid, device: venet_name(ctid) });
        };
        let mut requests: Vec<Request> =
            addresses.iter().map(|a| request::add_address(VENET, index, *a)).collect();
        for v4 in [true, false] {
            if let Some(one) = addresses.iter().find(|a| a.is_ipv4() == v4) {
                requests.push(request::default_route(VENET, index, *one));
            }
        }
        ve.run(requests)
    }

    fn routes(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let ctid = self.plan.ctid;
        let device = venet_name(ctid);
        let Some(index) = self.host.index(&device)? else { return Err(Error::NoDevice { ctid, device }) };
        let source = match &self.plan.source_device {
            Some(name) => neighbour::source_of(&mut self.host, name)?,
            None => None,
        };
        if !self.fresh {
            self.undo.extend(addresses.iter().copied().map(Undo::Route));
        }
        let requests = addresses
            .iter()
            .map(|a| request::add_route(&device, index, *a, source.filter(|s| s.is_ipv4() == a.is_ipv4())))
            .collect();
        self.host.run(requests)
    }

    fn proxies(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let plan = self.plan;
        let (proxies, requests) = neighbour::proxies(&self.neighbours, &plan.neighbours, addresses)?;
        self.undo.push(Undo::Proxies(proxies));
        self.host.run(requests)
    }

    fn join(&mut self, device: &str, bridge: &str) -> Result<(), Error> {
        let found = self.host.device(request::link_by_name(bridge))?.filter(is_bridge);
        let Some(found) = found else {
            return Err(Error::NoBridge { bridge: bridge.to_string(), device: device.to_string() });
        };
        self.host.run(vec![request::join_bridge(device, bridge, found.index)])
    }

    fn mac_filter(&mut self, device: &str, mac: Mac, asked: bool) -> Result<(), Error> {
        let Some(index) = self.host.index(device)? else {
            return Err(Error::NoDevice { ctid: self.plan.ctid, device: device.to_string() });
        };
        self.host.run(vec![request::lock_port(device), request::port_address(device, index, mac)])?;
        // Older kernels take the request and leave the unknown part out.
        let locked = self.host.device(request::link_by_index(index))?.is_some_and(|d| is_locked(&d));
        if asked && !locked {
            return Err(Error::NoMacFilter { device: device.to_string() });
        }
        Ok(())
    }
}

fn is_bridge(device: &Device) -> bool {
    use netlink_packet_route::link::InfoKind;
    device.message.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}

fn is_locked(device: &Device) -> bool {
    device.message.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|i| match i {
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                port.contains(&InfoBridgePort::Locked(true))
            }
            _ => false,
        }),
        _ => false,
    })
}

/// Whether this kernel speaks IPv6 at all (`ipv6.disable=1` takes these files away).
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Settings of the VE's own namespace; runs in it.
fn prepare_inside(fresh: bool, v6: bool) -> Result<(), Error> {
    if fresh {
        // Sockets of MPTCP cannot be checkpointed.
        sysctl::write("mptcp/enabled", "0")?;
    }
    if v6 {
        sysctl::write(&format!("ipv6/conf/{VENET}/disable_ipv6"), "0")?;
    }
    Ok(())
}

fn undo_all(plan: &NetPlan, undo: &mut Vec<Undo>, host: &mut Link, mut ve: Option<&mut Link>) -> Vec<Error> {
    let mut failures = Vec::new();
    while let Some(step) = undo.pop() {
        if let Err(error) = undo_one(plan, step, host, ve.as_deref_mut()) {
            failures.push(error);
        }
    }
    failures
}

fn undo_one(plan: &NetPlan, step: Undo, host: &mut Link, ve: Option<&mut Link>) -> Result<(), Error> {
    match step {
        Undo::Device(name) => live::gone(host, vec![request::delete_link(&name, Subject::Venet)]),
        Undo::Route(address) => {
            let device = venet_name(plan.ctid);
            let Some(index) = host.index(&device)? else { return Ok(()) };
            live::gone(host, vec![request::delete_route(&device, index, address)])
        }
        Undo::Address(address) => {
            let Some(ve) = ve else { return Ok(()) };
            let Some(index) = ve.index(VENET)? else { return Ok(()) };
            live::gone(ve, vec![request::delete_address(VENET, index, address)])
        }
        Undo::Proxies(list) => {
            let requests = list.into_iter().map(|(index, a)| request::delete_proxy(index, a)).collect();
            live::gone(host, requests)
        }
        Undo::Record(before) => record::restore(&plan.record, before),
    }
}

/// Looks for machines around that have an address of a plan of which [`attach`] did not look
/// ([`Probe::Warn`]). Takes a second when there is a network to ask, so call it when nobody waits.
///
/// # Errors
/// [`Error::Packet`], or when the kernel cannot be asked.
pub fn probe(plan: &NetPlan) -> Result<Vec<(IpAddr, crate::Owner)>, Error> {
    if plan.probe != Probe::Warn || plan.announced().is_empty() {
        return Ok(Vec::new());
    }
    let devices = neighbour::devices(&mut Link::host()?)?;
    neighbour::probe(&devices, &plan.neighbours, &plan.announced())
}

/// Tells the networks around that the addresses of the plan are here now (gratuitous ARP,
/// unsolicited neighbour advertisements). Takes some 10 ms per neighbour device, most of it for
/// closing a socket, so call it when nobody waits: the host answers for the addresses in any case.
///
/// # Errors
/// [`Error::Packet`], or when the kernel cannot be asked.
pub fn announce(plan: &NetPlan) -> Result<(), Error> {
    if plan.announced().is_empty() {
        return Ok(());
    }
    let devices = neighbour::devices(&mut Link::host()?)?;
    neighbour::announce(&devices, &plan.neighbours, &plan.announced())
}
