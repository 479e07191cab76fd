//! SUSE: sysconfig's `ifup` and wicked read the same files.

use super::{Addresses, DEVICE, OURS};
use crate::dist::work::Work;

const DIRECTORY: &str = "/etc/sysconfig/network";

pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses) {
    let mut content = format!("{OURS}STARTMODE='auto'\nBOOTPROTO='static'\nCHECK_DUPLICATE_IP='no'\n");
    for (number, address) in addresses.with_prefix().into_iter().enumerate() {
        let suffix = if number == 0 { String::new() } else { format!("_{number}") };
        content.push_str(&format!("IPADDR{suffix}='{address}'\n"));
    }
    work.put(&format!("{DIRECTORY}/ifcfg-{DEVICE}"), &content);
    let route = format!("{DIRECTORY}/ifroute-{DEVICE}");
    if addresses.is_empty() {
        work.remove(&route);
        return;
    }
    let mut content = OURS.to_owned();
    if !addresses.v4.is_empty() {
        content.push_str("default - - venet0\n");
    }
    if !addresses.v6.is_empty() {
        content.push_str("::/0 - - venet0\n");
    }
    work.put(&route, &content);
}
