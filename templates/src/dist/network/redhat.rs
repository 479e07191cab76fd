//! Red Hat's initscripts. `ifup-eth` adds only addresses that are not there.

use super::{Addresses, DEVICE, OURS};
use crate::dist::text;
use crate::dist::work::{Missing, Work};

const DIRECTORY: &str = "/etc/sysconfig/network-scripts";
const NETWORK: &str = "/etc/sysconfig/network";

pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses) {
    // Aliases that the original vzctl made would come up with old addresses.
    for name in work.root.list(DIRECTORY) {
        if name.starts_with("ifcfg-venet0:") {
            work.remove(&format!("{DIRECTORY}/{name}"));
        }
    }
    work.put(&format!("{DIRECTORY}/ifcfg-{DEVICE}"), &interface(addresses));
    let route = format!("{DIRECTORY}/route-{DEVICE}");
    let route6 = format!("{DIRECTORY}/route6-{DEVICE}");
    for (path, list, line) in [
        (&route, &addresses.v4, "default dev venet0 scope link"),
        (&route6, &addresses.v6, "default dev venet0"),
    ] {
        if list.is_empty() {
            work.remove(path);
        } else {
            work.put(path, &format!("{OURS}{line}\n"));
        }
    }
    work.edit(NETWORK, Missing::Create(0o644), |old| {
        let new = text::assign(old, "NETWORKING", "yes");
        if addresses.v6.is_empty() { new } else { text::assign(&new, "NETWORKING_IPV6", "yes") }
    });
}

fn interface(addresses: &Addresses) -> String {
    let mut content = format!(
        "{OURS}DEVICE={DEVICE}\nBOOTPROTO=static\nONBOOT=yes\nNM_CONTROLLED=no\nARPCHECK=no\nIPV6_AUTOCONF=no\n"
    );
    for (number, ip) in addresses.v4.iter().enumerate() {
        let suffix = if number == 0 { String::new() } else { number.to_string() };
        content
            .push_str(&format!("IPADDR{suffix}={ip}\nNETMASK{suffix}=255.255.255.255\nPREFIX{suffix}=32\n"));
    }
    if let Some((first, others)) = addresses.v6.split_first() {
        content.push_str(&format!("IPV6INIT=yes\nIPV6ADDR={first}/128\n"));
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|ip| format!("{ip}/128")).collect();
            content.push_str(&format!("IPV6ADDR_SECONDARIES=\"{}\"\n", others.join(" ")));
        }
    }
    content
}
