//! What is to be done to a VE's network, as data.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use vzconf::{Ctid, Mac, NetIf};

use crate::device::{VENET, venet_mac, venet_name};
use crate::error::{Error, Subject};
use crate::params::{Neighbours, NetParams, Probe, veth_pair};

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
}

/// A pair of devices, one on the host, one in the VE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The host's end.
    pub host: End,
    /// The VE's end.
    pub ve: End,
}

impl Pair {
    fn venet(ctid: Ctid) -> Self {
        let mac = venet_mac(ctid);
        Self { host: End { name: venet_name(ctid), mac }, ve: End { name: VENET.to_string(), mac } }
    }

    /// Whether it is the venet device or a veth device.
    pub(crate) fn subject(&self) -> Subject {
        if self.ve.name == VENET { Subject::Venet } else { Subject::Veth }
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Make sure that the packet filter which pins VEs to their addresses is there.
    Filter,
    /// Refuse the address when the host or another VE has it.
    Free(IpAddr),
    /// Create a pair.
    Create(Pair),
    /// Configure both ends of the venet device and bring them and the VE's `lo` up.
    Venet,
    /// Give the VE the address, and its default route.
    Address(IpAddr),
    /// Route the address to the VE.
    Route(IpAddr),
    /// Bring up the host's end of a veth device.
    Up(String),
    /// Make the host's end a port of a bridge.
    Join {
        /// The port.
        device: String,
        /// The bridge.
        bridge: String,
    },
    /// Let the bridge port take frames of one address only.
    MacFilter {
        /// The port.
        device: String,
        /// The address.
        mac: Mac,
        /// Whether it was asked for in words (then it must work) or is the default.
        asked: bool,
    },
    /// Answer for the address on the host's networks, and announce it there.
    Announce(IpAddr),
    /// Record the addresses.
    Record(Vec<IpAddr>),
}

impl Step {
    /// The address it is about.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Free(a) | Self::Address(a) | Self::Route(a) | Self::Announce(a) => Some(*a),
            _ => None,
        }
    }
}

/// Everything `attach` does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetPlan {
    pub(crate) ctid: Ctid,
    pub(crate) steps: Vec<Step>,
    pub(crate) neighbours: Neighbours,
    pub(crate) probe: Probe,
    pub(crate) source_device: Option<String>,
    pub(crate) record: PathBuf,
}

impl NetPlan {
    /// The network of a VE that starts.
    ///
    /// # Errors
    /// None today; a config that cannot be carried out is refused here.
    pub fn new(params: &NetParams) -> Result<Self, Error> {
        let mut plan = Self::empty(params);
        plan.steps.push(Step::Filter);
        plan.steps.extend(params.addresses.iter().copied().map(Step::Free));
        plan.steps.push(Step::Create(Pair::venet(params.ctid)));
        plan.steps.push(Step::Venet);
        plan.steps.extend(params.addresses.iter().copied().map(Step::Address));
        plan.steps.extend(params.addresses.iter().copied().map(Step::Route));
        for netif in &params.netifs {
            plan.veth(netif)?;
        }
        plan.steps.extend(params.addresses.iter().copied().map(Step::Announce));
        plan.steps.push(Step::Record(params.addresses.clone()));
        Ok(plan)
    }

    /// One more address for a running VE; `params` are those before it.
    #[must_use]
    pub(crate) fn address(params: &NetParams, address: IpAddr) -> Self {
        let mut plan = Self::empty(params);
        let mut all: Vec<IpAddr> = params.addresses.iter().copied().filter(|a| *a != address).collect();
        all.push(address);
        plan.steps = vec![
            Step::Filter,
            Step::Free(address),
            Step::Address(address),
            Step::Route(address),
            Step::Announce(address),
            Step::Record(all),
        ];
        plan
    }

    /// One more veth device for a running VE.
    pub(crate) fn netif(params: &NetParams, netif: &NetIf) -> Result<Self, Error> {
        let mut plan = Self::empty(params);
        plan.veth(netif)?;
        Ok(plan)
    }

    /// The same in two halves, for a VE that is restored: first what its sockets need, so that nothing reaches them while
    /// they are half made; then what connects it with the networks.
    #[must_use]
    pub fn split(self) -> (Self, Self) {
        let outside = |step: &Step| {
            matches!(step, Step::Route(_) | Step::Announce(_) | Step::Join { .. } | Step::MacFilter { .. })
        };
        let (mut inner, mut outer) = (self.clone(), self);
        inner.steps.retain(|step| !outside(step));
        // Which networks are around is found out by the look for owners.
        outer.steps.retain(|step| outside(step) || matches!(step, Step::Free(_)));
        (inner, outer)
    }

    /// Of it, what makes devices ports of their bridges.
    #[must_use]
    pub fn ports(mut self) -> Self {
        self.steps.retain(|step| matches!(step, Step::Join { .. } | Step::MacFilter { .. }));
        self
    }

    fn empty(params: &NetParams) -> Self {
        Self {
            ctid: params.ctid,
            steps: Vec::new(),
            neighbours: params.neighbours.clone(),
            probe: params.probe,
            source_device: params.source_device.clone(),
            record: params.record.clone(),
        }
    }

    fn veth(&mut self, netif: &NetIf) -> Result<(), Error> {
        let pair = veth_pair(self.ctid, netif)?;
        let device = pair.host.name.clone();
        let mac = pair.ve.mac;
        self.steps.push(Step::Create(pair));
        if let Some(bridge) = &netif.bridge {
            self.steps.push(Step::Join { device: device.clone(), bridge: bridge.clone() });
            if netif.mac_filter != Some(false) {
                let asked = netif.mac_filter.is_some();
                self.steps.push(Step::MacFilter { device: device.clone(), mac, asked });
            }
        }
        self.steps.push(Step::Up(device));
        Ok(())
    }

    /// The VE.
    #[must_use]
    pub fn ctid(&self) -> Ctid {
        self.ctid
    }

    /// The operations, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The addresses to be announced.
    pub(crate) fn announced(&self) -> Vec<IpAddr> {
        self.steps.iter().filter_map(|s| if let Step::Announce(a) = s { Some(*a) } else { None }).collect()
    }
}

impl fmt::Display for NetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = venet_name(self.ctid);
        for step in &self.steps {
            match step {
                Step::Filter => writeln!(f, "make sure of nftables table inet vz"),
                Step::Free(a) => writeln!(f, "make sure that nobody here has {a}"),
                Step::Create(p) => writeln!(
                    f,
                    "ip link add {} address {} type veth peer name {} address {} netns {}",
                    p.host.name, p.host.mac, p.ve.name, p.ve.mac, self.ctid
                ),
                Step::Venet => writeln!(
                    f,
                    "ip link set {host} arp off addrgenmode none up; in the container: lo up, {VENET} the same"
                ),
                Step::Address(a) => {
                    writeln!(f, "in the container: ip addr add {a} dev {VENET}; default route")
                }
                Step::Route(a) => writeln!(f, "ip route add {a} dev {host}"),
                Step::Up(d) => writeln!(f, "ip link set {d} up"),
                Step::Join { device, bridge } => writeln!(f, "ip link set {device} master {bridge}"),
                Step::MacFilter { device, mac, .. } => writeln!(f, "lock bridge port {device} to {mac}"),
                Step::Announce(a) => writeln!(f, "answer for {a} on neighbour devices, and announce it"),
                Step::Record(_) => writeln!(f, "write {}", self.record.display()),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_what_it_does() {
        let ctid = Ctid::new(101).unwrap();
        let mut params = NetParams::new(ctid, &vzconf::Paths::host());
        params.addresses = vec!["10.0.0.1".parse().unwrap()];
        params.netifs =
            NetIf::parse_list("ifname=eth0,bridge=br0,mac=00:18:51:00:00:01,host_mac=00:18:51:00:00:02")
                .unwrap();
        let text = NetPlan::new(&params).unwrap().to_string();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "make sure of nftables table inet vz",
                "make sure that nobody here has 10.0.0.1",
                "ip link add venet101 address 02:76:00:00:00:65 type veth peer name venet0 address 02:76:00:00:00:65 netns 101",
                "ip link set venet101 arp off addrgenmode none up; in the container: lo up, venet0 the same",
                "in the container: ip addr add 10.0.0.1 dev venet0; default route",
                "ip route add 10.0.0.1 dev venet101",
                "ip link add veth101.0 address 00:18:51:00:00:02 type veth peer name eth0 address 00:18:51:00:00:01 netns 101",
                "ip link set veth101.0 master br0",
                "lock bridge port veth101.0 to 00:18:51:00:00:01",
                "ip link set veth101.0 up",
                "answer for 10.0.0.1 on neighbour devices, and announce it",
                "write /var/lib/vzctl/veip/101",
            ]
        );
    }

    #[test]
    fn the_halves_of_a_plan_are_all_of_it_and_only_the_second_is_seen_outside() {
        let mut params = NetParams::new(Ctid::new(101).unwrap(), &vzconf::Paths::host());
        params.addresses = vec!["10.0.0.1".parse().unwrap()];
        params.netifs = NetIf::parse_list("ifname=eth0,bridge=br0").unwrap();
        let plan = NetPlan::new(&params).unwrap();
        let (inner, outer) = plan.clone().split();
        assert!(plan.steps.iter().all(|step| inner.steps.contains(step) || outer.steps.contains(step)));
        let seen =
            |plan: &NetPlan| plan.to_string().contains("ip route add") || plan.to_string().contains("master");
        assert!(!seen(&inner) && seen(&outer));
    }

    #[test]
    fn an_address_given_again_moves_to_the_end_of_the_record() {
        let mut params = NetParams::new(Ctid::new(1).unwrap(), &vzconf::Paths::host());
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|t| t.parse().unwrap());
        params.addresses = vec![a, b];
        let plan = NetPlan::address(&params, a);
        assert_eq!(plan.steps.last(), Some(&Step::Record(vec![b, a])));
    }
}
