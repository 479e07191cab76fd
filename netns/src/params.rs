//! The network's slice of a VE's config, checked.

use std::net::IpAddr;
use std::path::PathBuf;

use vzconf::{Config, Ctid, Mac, NetIf, Paths};

use crate::error::Error;
use crate::plan::{End, Pair};

/// Which devices of the host announce a VE's addresses (NEIGHBOUR_DEVS).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Neighbours {
    /// Every one that is up and has a global address.
    #[default]
    All,
    /// Of those, the ones in whose network the address lies.
    Detect,
    /// Of those, the named ones.
    List(Vec<String>),
}

impl Neighbours {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "detect" => Self::Detect,
            text => match text.strip_prefix("list:") {
                Some(list) => Self::List(list.split_whitespace().map(str::to_string).collect()),
                None => Self::All,
            },
        }
    }
}

/// Whether to look for another machine with the address first (SKIP_ARPDETECT, ERROR_ON_ARPFAIL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probe {
    /// Do not look.
    Skip,
    /// Look when asked with [`crate::probe`]; [`crate::attach`] does not wait for it.
    #[default]
    Warn,
    /// [`crate::attach`] looks, and refuses an address that somebody answers for.
    Refuse,
}

/// What a VE's network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetParams {
    /// The VE.
    pub ctid: Ctid,
    /// Its addresses, in order; masks mean nothing on a routed device.
    pub addresses: Vec<IpAddr>,
    /// Its veth devices.
    pub netifs: Vec<NetIf>,
    /// Where the host announces the addresses.
    pub neighbours: Neighbours,
    /// Whether to probe for duplicates.
    pub probe: Probe,
    /// VE_ROUTE_SRC_DEV: the host talks to the VE from this device's first address.
    pub source_device: Option<String>,
    /// The file that records the addresses: `/var/lib/vzctl/veip/<CTID>`.
    pub record: PathBuf,
}

/// `/var/lib/vzctl/veip/<CTID>`.
pub(crate) fn record_path(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("veip").join(ctid.to_string())
}

impl NetParams {
    /// No address, no veth device, the node's defaults.
    #[must_use]
    pub fn new(ctid: Ctid, paths: &Paths) -> Self {
        Self {
            ctid,
            addresses: Vec::new(),
            netifs: Vec::new(),
            neighbours: Neighbours::All,
            probe: Probe::Warn,
            source_device: None,
            record: record_path(paths, ctid),
        }
    }

    /// From the config of a VE.
    #[must_use]
    pub fn from_config(ctid: Ctid, config: &Config) -> Self {
        let mut params = Self::new(ctid, config.paths());
        params.addresses = unique(config.ip_addresses().iter().map(|ip| ip.addr));
        params.netifs = config.netif();
        params.neighbours = config.node("NEIGHBOUR_DEVS").map(Neighbours::parse).unwrap_or_default();
        let is_yes = |key| config.node(key) == Some("yes");
        params.probe = match (is_yes("SKIP_ARPDETECT"), is_yes("ERROR_ON_ARPFAIL")) {
            (true, _) => Probe::Skip,
            (false, true) => Probe::Refuse,
            (false, false) => Probe::Warn,
        };
        params.source_device =
            config.node("VE_ROUTE_SRC_DEV").map(str::trim).filter(|d| !d.is_empty()).map(str::to_string);
        params
    }
}

/// The addresses without repetition and without the unspecified ones, in order.
fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !address.is_unspecified() && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// The pair of a veth device. A device whose addresses the config does not give gets local ones that
/// follow from its names.
pub(crate) fn veth_pair(ctid: Ctid, netif: &NetIf) -> Result<Pair, Error> {
    let host_name =
        netif.host_ifname.clone().unwrap_or_else(|| vzconf::netif::default_host_ifname(ctid, &netif.ifname));
    let any = Mac([0x02, 0, 0, 0, 0, 0]);
    let host_mac = netif.host_mac.unwrap_or_else(|| Mac::generate(&host_name, ctid, any));
    let mac = netif.mac.unwrap_or_else(|| Mac::generate(&netif.ifname, ctid, any));
    Ok(Pair { host: End { name: host_name, mac: host_mac }, ve: End { name: netif.ifname.clone(), mac } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbour_devices_read_as_in_vz_conf() {
        assert_eq!(Neighbours::parse(""), Neighbours::All);
        assert_eq!(Neighbours::parse("all"), Neighbours::All);
        assert_eq!(Neighbours::parse("detect"), Neighbours::Detect);
        assert_eq!(Neighbours::parse("list:eth0 eth1"), Neighbours::List(vec!["eth0".into(), "eth1".into()]));
    }

    #[test]
    fn addresses_lose_repetitions_and_zeros() {
        let list = ["10.0.0.1", "0.0.0.0", "::", "10.0.0.1", "::1"].map(|a| a.parse().unwrap());
        assert_eq!(unique(list.into_iter()), ["10.0.0.1", "::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    }
}
