//! Red Hat's initscripts. `ifup-eth` adds only addresses that are not there.

use super::{Addresses, DEVICE, OURS, is_absent};
use crate::dist::text;
use crate::dist::work::{Missing, Work};

const DIRECTORY: &str = "/etc/sysconfig/network-scripts";
const NETWORK: &str = "/etc/sysconfig/network";

pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses, nics: &[String]) {
    for name in work.root.list(DIRECTORY) {
        let path = format!("{DIRECTORY}/{name}");
        match name.strip_prefix("ifcfg-") {
            // Aliases that the original vzctl made would come up with old addresses.
            Some(device) if device.starts_with("venet0:") => work.remove(&path),
            Some(device) => work.edit(&path, Missing::Skip, |old| on_boot(old, is_absent(device, nics))),
            None => {}
        }
    }
    work.put(&format!("{DIRECTORY}/ifcfg-{DEVICE}"), &interface(addresses));
    let route6 = format!("{DIRECTORY}/route6-{DEVICE}");
    if addresses.v6.is_empty() {
        work.remove(&route6);
    } else {
        work.put(&route6, &format!("{OURS}default dev {DEVICE}\n"));
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
    if !addresses.v4.is_empty() {
        // With this ifup replaces the default route; by a route file it would add it, and complain.
        content.push_str(&format!("GATEWAYDEV={DEVICE}\n"));
    }
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

const OFF: &str = "ONBOOT=no # vz: yes";

/// A card that the VE does not have must not be brought up: the network service would fail.
fn on_boot(old: &str, absent: bool) -> String {
    let (from, to) = if absent { (ON, OFF) } else { (&[OFF][..], "ONBOOT=yes") };
    let lines = old.lines().map(|line| if from.contains(&line.trim()) { to } else { line });
    text::join(lines)
}

const ON: &[&str] = &["ONBOOT=yes", "ONBOOT=\"yes\"", "ONBOOT='yes'"];
