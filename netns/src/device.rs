//! The names of a VE's devices, and the group that marks them as ours.

use vzconf::{Ctid, Mac};

/// The device inside the VE.
pub(crate) const VENET: &str = "venet0";

/// The host end of a VE's venet device: at most 15 characters for any CTID.
#[must_use]
pub fn venet_name(ctid: Ctid) -> String {
    format!("venet{ctid}")
}

/// The VE whose host end of that name it is.
#[must_use]
pub fn venet_ctid(name: &str) -> Option<Ctid> {
    let digits = name.strip_prefix("venet")?;
    let ctid: Ctid = digits.parse().ok()?;
    // "venet0" and "venet007" are nobody's.
    (!ctid.is_host() && ctid.to_string() == digits).then_some(ctid)
}

/// Both ends of a VE's venet device have this address: locally administered, the same on every node.
///
/// A device without ARP takes its own address for that of every neighbour, so with one address at
/// both ends each frame arrives as one for the receiver: a point-to-point link.
#[must_use]
pub fn venet_mac(ctid: Ctid) -> Mac {
    let [a, b, c, d] = ctid.get().to_be_bytes();
    Mac([0x02, 0x76, a, b, c, d])
}

/// Every host end of a VE is in this device group, so that one request finds and deletes them all
/// without any record. The top bit keeps away from the groups of admins.
pub(crate) fn group(ctid: Ctid) -> u32 {
    0x8000_0000 | ctid.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ctid(id: u32) -> Ctid {
        Ctid::new(id).unwrap()
    }

    #[test]
    fn venet_names_fit_and_lead_back_to_their_ve() {
        for id in [1, 101, Ctid::MAX] {
            let name = venet_name(ctid(id));
            assert!(vzconf::netif::is_ifname(&name));
            assert_eq!(venet_ctid(&name), Some(ctid(id)));
        }
        for name in ["venet", "venet0", "venet0101", "venet1x", "veth101.0", "eth0"] {
            assert_eq!(venet_ctid(name), None, "{name}");
        }
    }

    #[test]
    fn a_venet_address_is_unicast_local_and_the_ves_own() {
        assert_eq!(venet_mac(ctid(101)).0[0] & 3, 2);
        assert_ne!(venet_mac(ctid(101)), venet_mac(ctid(102)));
    }
}
