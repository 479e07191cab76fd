//! Rules of the packet filter.
use std::os::fd::AsFd;

use vzsys::elsewhere::in_network;
use vzsys::netlink::{Family, Netlink};
use vzsys::process;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`
const GET_RULE: u16 = 10 << 8 | 7;

/// How many rules of nftables (iptables-nft makes such too) these network namespaces have. `None` when the kernel
/// has no nftables.
pub(super) fn count(networks: &[i32]) -> Option<u64> {
    networks.iter().filter_map(|pid| count_in(*pid)).reduce(|a, b| a + b)
}

fn count_in(pid: i32) -> Option<u64> {
    let netns = process::namespace(pid, "net").ok()?;
    let netlink = in_network(netns.as_fd(), || Netlink::open(Family::Netfilter)).ok()?;
    let mut rules = 0;
    // `struct nfgenmsg`: all families.
    netlink.dump(GET_RULE, &[0; 4], |_| rules += 1).ok()?;
    Some(rules)
}
