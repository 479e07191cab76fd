//! systemd-networkd, of any family.

use super::{Addresses, DEVICE, OURS};
use crate::dist::work::Work;

const FILE: &str = "/etc/systemd/network/00-venet0.network";

/// `KeepConfiguration=` (systemd 243) leaves what the host set; the addresses are stated for older
/// ones, and so that the link counts as configured. Default routes have no gateway.
pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses) {
    let mut content = format!(
        "{OURS}[Match]\nName={DEVICE}\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n\
         LLDP=no\nKeepConfiguration=yes\n"
    );
    for address in addresses.with_prefix() {
        content.push_str(&format!("Address={address}\n"));
    }
    if !addresses.v4.is_empty() {
        content.push_str("\n[Route]\nDestination=0.0.0.0/0\nScope=link\n");
    }
    if !addresses.v6.is_empty() {
        content.push_str("\n[Route]\nDestination=::/0\n");
    }
    work.put(FILE, &content);
}
