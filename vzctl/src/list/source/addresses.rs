//! The addresses running VEs really have: those the host routes to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vzconf::{Ctid, Paths};

/// What the kernel says of all VEs, asked once.
#[derive(Debug)]
pub(super) struct Routed(BTreeMap<Ctid, Vec<IpAddr>>);

impl Routed {
    /// Asks about these VEs. A kernel that cannot be asked says nothing.
    pub(super) fn ask(paths: &Paths, ctids: &[Ctid]) -> Self {
        if !super::is_host(paths) {
            return Self(BTreeMap::new());
        }
        let answer = match ctids {
            [one] => netns::addresses(*one).map(|addresses| BTreeMap::from([(*one, addresses)])),
            _ => netns::all_addresses(),
        };
        Self(answer.unwrap_or_default())
    }

    /// The addresses of a running VE, in the order they were given to it; none when neither the kernel nor
    /// the record of its last verb knows, and the config has to be believed.
    pub(super) fn of(&self, paths: &Paths, ctid: Ctid, configured: &[String]) -> Option<Vec<String>> {
        let recorded = recorded(paths, ctid);
        match self.0.get(&ctid).filter(|routed| !routed.is_empty()) {
            None => recorded,
            Some(routed) => Some(in_order(routed, &recorded.unwrap_or_default(), configured)),
        }
    }
}

fn recorded(paths: &Paths, ctid: Ctid) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(paths.state_dir().join("veip").join(ctid.to_string())).ok()?;
    Some(text.split_whitespace().map(|word| address(word).to_owned()).collect())
}

fn address(word: &str) -> &str {
    word.split('/').next().unwrap_or(word)
}

/// The kernel sorts its routes; people want to see the VE's first address first.
fn in_order(routed: &[IpAddr], recorded: &[String], configured: &[String]) -> Vec<String> {
    let known: Vec<&str> = recorded.iter().chain(configured).map(|word| address(word)).collect();
    let mut words: Vec<String> = routed.iter().map(ToString::to_string).collect();
    words.sort_by_key(|word| known.iter().position(|known| known == word).unwrap_or(usize::MAX));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routed_addresses_keep_the_order_they_were_given_in() {
        let ips = |text: &str| text.split(' ').map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let routed = ips("192.0.2.1 192.0.2.5 192.0.2.9 2001:db8::1");
        let shown = in_order(&routed, &words("192.0.2.9"), &words("192.0.2.9/24 2001:db8::1/64 192.0.2.77"));
        assert_eq!(shown, words("192.0.2.9 2001:db8::1 192.0.2.1 192.0.2.5"));
    }
}
