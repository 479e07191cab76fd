//! The packet filter that lets a VE send from its own addresses only: one static table, whatever
//! the number of VEs.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::error::Error;

/// The chain's name carries its version: a new text needs a new name.
const CHAIN: &str = "venet_1";
const RULES: u32 = 3;

const HOOK: &str = "type filter hook prerouting priority raw; policy accept;";

/// A packet from a VE whose source is not routed back to the very device it came from is dropped.
/// Unspecified sources (DHCP, duplicate address detection) make no sense on a point-to-point device,
/// and `fib` lets some of them pass.
const RULES_TEXT: &str = "\
iifname \"venet*\" ip saddr 0.0.0.0 drop
iifname \"venet*\" ip6 saddr :: drop
iifname \"venet*\" fib saddr . iif oif missing drop
";

/// Makes sure that the filter is in place; asks the kernel first, and starts `nft` only when the
/// chain is missing or was emptied.
///
/// # Errors
/// [`Error::Filter`].
pub fn ensure() -> Result<(), Error> {
    match installed_rules() {
        Some(RULES) => Ok(()),
        _ => feed(&script()),
    }
}

/// Takes the filter away, for uninstalling. Other chains of the table stay.
///
/// # Errors
/// [`Error::Filter`].
pub fn remove() -> Result<(), Error> {
    if installed_rules().is_none() {
        return Ok(());
    }
    feed(&format!("delete chain inet vz {CHAIN}\n"))
}

/// One transaction, so that there is no moment without rules, and the same result however often and by
/// however many at once it is run.
fn script() -> String {
    format!(
        "table inet vz {{\n\tchain {CHAIN} {{\n\t\t{HOOK}\n\t}}\n}}\nflush chain inet vz {CHAIN}\n{}",
        RULES_TEXT.lines().map(|rule| format!("add rule inet vz {CHAIN} {rule}\n")).collect::<String>()
    )
}

fn feed(text: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Filter { reason };
    let mut command = vzsys::spawn::command("nft")
        .map_err(|error| failed(format!("{error}; install the package nftables")))?;
    command.args(["-f", "-"]);
    let (status, _, complaint) =
        vzsys::spawn::feed(command, text.as_bytes()).map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(format!("nft: {}", complaint.trim()))) }
}

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;
const NFPROTO_INET: u8 = 1;
const NLM_F_REQUEST: u16 = 1;

/// How many rules our chain holds; `None` when there is no such chain, or no way to know.
fn installed_rules() -> Option<u32> {
    let mut socket = Socket::new(NETLINK_NETFILTER).ok()?;
    socket.bind_auto().ok()?;
    socket.send_to(&get_chain("vz", CHAIN), &SocketAddr::new(0, 0), 0).ok()?;
    let (answer, _) = socket.recv_from_full().ok()?;
    chain_use(&answer)
}

fn attribute(message: &mut Vec<u8>, kind: u16, text: &str) {
    let length = u16::try_from(4 + text.len() + 1).unwrap_or(4);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(text.as_bytes());
    message.push(0);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The request for one chain: nlmsghdr, nfgenmsg, two names.
fn get_chain(table: &str, chain: &str) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETCHAIN).to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend([NFPROTO_INET, 0, 0, 0]);
    attribute(&mut message, NFTA_CHAIN_TABLE, table);
    attribute(&mut message, NFTA_CHAIN_NAME, chain);
    let length = u32::try_from(message.len()).unwrap_or(0);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// The number of rules in the answer; `None` for any other message.
fn chain_use(answer: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if word(4)? != (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWCHAIN {
        return None;
    }
    let mut at = 20;
    loop {
        let (length, kind) = (usize::from(word(at)?), word(at + 2)? & 0x3fff);
        if kind == NFTA_CHAIN_USE {
            return Some(u32::from_be_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?));
        }
        if length < 4 {
            return None;
        }
        at += length.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_request_is_what_the_kernel_reads() {
        let message = get_chain("vz", "c");
        assert_eq!(message.len(), 16 + 4 + 8 + 8);
        assert_eq!(message[0], 36);
        assert_eq!(&message[20..28], &[7, 0, 1, 0, b'v', b'z', 0, 0]);
    }

    #[test]
    fn there_are_as_many_rules_as_are_asked_for() {
        assert_eq!(RULES_TEXT.lines().count(), RULES as usize);
        assert_eq!(script().matches("add rule").count(), RULES as usize);
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), ours: bool) {
            if ours && bytes.len() > 6 {
                bytes[4..6].copy_from_slice(&0x0a03u16.to_ne_bytes());
            }
            let _ = chain_use(&bytes);
        }
    }
}
