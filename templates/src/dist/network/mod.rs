//! The guest's own network configuration for `venet0`.
//!
//! The host gives `venet0` its addresses before init runs, so these files have only to agree: they do
//! not fail where an address is there already, keep it, give it back after the guest restarted its
//! network, and ask nobody on the wire. Each installed tool gets its own file; nothing else is touched.

mod gentoo;
mod ifupdown;
mod networkd;
mod redhat;
mod suse;

use std::net::IpAddr;

use super::error::DistError;
use super::guest::Guest;
use super::root::GuestRoot;
use super::work::{Changes, Work};

/// The interface inside.
pub(super) const DEVICE: &str = "venet0";

/// The first line of files that are all ours.
pub(super) const OURS: &str = "# Written by the host at each start (vzctl set --ipadd), do not edit\n";

/// All addresses of the guest, split.
pub(super) struct Addresses {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl Addresses {
    /// In the form `10.0.0.1/32`, IPv4 first.
    fn with_prefix(&self) -> Vec<String> {
        let v4 = self.v4.iter().map(|ip| format!("{ip}/32"));
        v4.chain(self.v6.iter().map(|ip| format!("{ip}/128"))).collect()
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Makes the guest's files agree with `addresses`: all that it has now, not only new ones. To be
/// called at each start and after each change; an empty list removes stale ones. `nics` are the VE's
/// interfaces besides `venet0`: what the template says about others is out of force as long as they are missing.
///
/// # Errors
/// The files that could not be written; the others are.
pub fn set_addresses(
    root: &GuestRoot,
    guest: &Guest,
    addresses: &[IpAddr],
    nics: &[String],
) -> Result<Changes, DistError> {
    let (v4, v6) = addresses.iter().partition(|ip| ip.is_ipv4());
    let addresses = Addresses { v4, v6 };
    let mut work = Work::new(root);
    if guest.net.ifupdown {
        ifupdown::write(&mut work, &addresses, nics);
    }
    if guest.net.networkd {
        networkd::write(&mut work, &addresses);
    }
    if guest.net.network_manager {
        let content = format!("{OURS}[keyfile]\nunmanaged-devices+=interface-name:{DEVICE}\n");
        work.put("/etc/NetworkManager/conf.d/00-vz-venet0.conf", &content);
    }
    if guest.net.initscripts {
        redhat::write(&mut work, &addresses, nics);
    }
    if guest.net.suse {
        suse::write(&mut work, &addresses);
    }
    if guest.net.netifrc {
        gentoo::write(&mut work, &addresses);
    }
    work.finish()
}

/// Whether `device` (or the alias `device:N`) is a network card that the VE does not have. Bridges and
/// the like are made by the guest itself.
fn is_absent(device: &str, nics: &[String]) -> bool {
    let card = device.split([':', '.']).next().unwrap_or(device);
    let numbered =
        card.strip_prefix("eth").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let predictable = ["eno", "enp", "ens", "enx"].iter().any(|prefix| card.starts_with(prefix));
    (numbered || predictable) && !nics.iter().any(|nic| nic == card)
}
