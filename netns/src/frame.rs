//! Ethernet frames that tell or ask who has an address (RFC 826, 4861, 5227).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vzconf::Mac;

const BROADCAST: Mac = Mac([0xff; 6]);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REPLY: u8 = 2;
const ICMPV6: u8 = 58;

fn ethernet(to: Mac, from: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(90);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind);
    frame
}

fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// Tells everybody on the segment that `address` is at `mac`.
pub(crate) fn announcement(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(mac, v4, v4),
        IpAddr::V6(v6) => neighbour_advertisement(mac, v6),
    }
}

/// Asks who has `address`, claiming none.
pub(crate) fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// Who answers for `address` in this frame; `None` when it is no such answer.
pub(crate) fn answer(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let body = frame.get(14..42)?;
    let is_reply = frame[12..14] == ARP && body[7] == ARP_REPLY && body[14..18] == address.octets();
    if is_reply { body[8..14].try_into().ok().map(Mac) } else { None }
}

/// Unsolicited, to all nodes, with the override flag: "the address is here now".
fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let to: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(address.octets());
    body.extend([2, 1]);
    body.extend(mac.0);
    let sum = checksum(address, to, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, IPV6);
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(to.octets());
    frame.extend(body);
    frame
}

/// The Internet checksum over the IPv6 pseudo header and the body, which has even length.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0))).sum()
    };
    let length = u32::try_from(body.len()).unwrap_or(0);
    let mut sum = words(&from.octets()) + words(&to.octets()) + length + u32::from(ICMPV6) + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_gratuitous_arp_asks_for_its_own_address() {
        let frame = announcement(MAC, "10.0.0.1".parse().unwrap());
        assert_eq!(
            frame,
            [
                &[0xff; 6][..],
                &MAC.0,
                &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
                &MAC.0,
                &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]
            ]
            .concat()
        );
    }

    #[test]
    fn only_a_reply_for_the_address_counts_as_answer() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let mut frame = announcement(MAC, address.into());
        assert_eq!(answer(&frame, address), None);
        frame[21] = ARP_REPLY;
        assert_eq!(answer(&frame, address), Some(MAC));
        assert_eq!(answer(&frame, Ipv4Addr::new(10, 0, 0, 2)), None);
        assert_eq!(answer(&frame[..41], address), None);
    }

    #[test]
    fn the_checksum_verifies_to_zero() {
        let from: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let frame = announcement(MAC, from.into());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(checksum(from, to, &frame[54..]), 0);
    }

    proptest! {
        #[test]
        fn no_frame_breaks_the_reader(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = answer(&frame, Ipv4Addr::LOCALHOST);
        }
    }
}
