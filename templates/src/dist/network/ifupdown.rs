//! `/etc/network/interfaces`: Debian's ifupdown, busybox's, ifupdown-ng.
//!
//! A block of ours at the end; with `interfaces.template` that is what stands before it, with `.head`
//! and `.tail` these stand around our stanzas. The method is `manual` and each command may fail, so
//! that addresses which are there do no harm.

use super::{Addresses, DEVICE, is_absent};
use crate::dist::text;
use crate::dist::work::{Missing, Work};

const FILE: &str = "/etc/network/interfaces";

pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses, nics: &[String]) {
    let part = |suffix: &str| {
        let path = format!("{FILE}.{suffix}");
        work.root.is_file(&path).then(|| work.root.text(&path))
    };
    let (template, head, tail) = (part("template"), part("head"), part("tail"));
    work.edit(FILE, Missing::Create(0o644), |old| {
        let outside = text::without_block(template.as_deref().unwrap_or(old));
        let outside = without_absent(&without_venet(&outside), nics);
        let mut body = head.unwrap_or_default();
        end_line(&mut body);
        let has_loopback = |text: &str| text.lines().any(|line| line.trim_start().starts_with("iface lo "));
        if !has_loopback(&outside) && !has_loopback(&body) {
            body.push_str("auto lo\niface lo inet loopback\n\n");
        }
        body.push_str(&stanzas(addresses));
        body.push_str(&tail.unwrap_or_default());
        end_line(&mut body);
        text::with_block(&outside, &body)
    });
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

fn stanzas(addresses: &Addresses) -> String {
    if addresses.is_empty() {
        return String::new();
    }
    let mut stanzas = format!("auto {DEVICE}\n");
    for (method, option, list, bits) in
        [("inet", "", &addresses.v4, 32), ("inet6", " -6", &addresses.v6, 128)]
    {
        if list.is_empty() {
            continue;
        }
        stanzas.push_str(&format!("iface {DEVICE} {method} manual\n"));
        stanzas.push_str(&format!("\tup ip link set dev {DEVICE} up || true\n"));
        for ip in list {
            stanzas.push_str(&format!("\tup ip{option} addr replace {ip}/{bits} dev {DEVICE} || true\n"));
        }
        stanzas.push_str(&format!("\tup ip{option} route replace default dev {DEVICE} || true\n"));
    }
    stanzas
}

/// The words that begin a stanza of interfaces(5).
const BEGINNINGS: [&str; 7] =
    ["iface", "auto", "mapping", "source", "source-directory", "rename", "no-auto-down"];

/// Removes what the original vzctl wrote about `venet0` and its aliases.
fn without_venet(text: &str) -> String {
    let is_venet = |word: &str| word == DEVICE || word.starts_with("venet0:");
    let mut inside = false;
    let mut kept: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let begins = BEGINNINGS.contains(&first) || first.starts_with("allow-");
        if first == "iface" {
            inside = words.next().is_some_and(is_venet);
        } else if begins {
            inside = false;
            let lists = first == "auto" || first.starts_with("allow-");
            if lists && words.clone().any(is_venet) {
                let others: Vec<&str> = words.filter(|word| !is_venet(word)).collect();
                if !others.is_empty() {
                    kept.push(format!("{first} {}", others.join(" ")));
                }
                continue;
            }
        }
        // An empty line or comment may belong to what comes next.
        if !inside || first.is_empty() || first.starts_with('#') {
            kept.push(line.to_owned());
        }
    }
    text::join(kept.iter().map(String::as_str))
}

/// Takes `auto` lines of missing cards out of force (they would fail, or wait for DHCP), and puts those
/// of cards that have come back into force.
fn without_absent(text: &str, nics: &[String]) -> String {
    let lines = text.lines().map(|line| {
        let bare = line.strip_prefix(text::OFF).filter(|bare| is_auto(bare)).unwrap_or(line);
        let absent = is_auto(bare) && bare.split_whitespace().skip(1).any(|word| is_absent(word, nics));
        if absent { format!("{}{bare}", text::OFF) } else { bare.to_owned() }
    });
    let lines: Vec<String> = lines.collect();
    text::join(lines.iter().map(String::as_str))
}

fn is_auto(line: &str) -> bool {
    line.starts_with("auto ") || line.starts_with("allow-auto ") || line.starts_with("allow-hotplug ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_come_and_go() {
        let with = "auto lo\nauto eth0\niface eth0 inet dhcp\nallow-hotplug ens3\nauto br0\n";
        let without = "auto lo\n#vz: auto eth0\niface eth0 inet dhcp\n#vz: allow-hotplug ens3\nauto br0\n";
        assert_eq!(without_absent(with, &[]), without);
        assert_eq!(without_absent(without, &[]), without);
        assert_eq!(without_absent(without, &["eth0".to_owned(), "ens3".to_owned()]), with);
    }

    #[test]
    fn old_stanzas_of_venet_go_others_stay() {
        let old = "auto lo venet0\niface lo inet loopback\n\nauto venet0:0\niface venet0:0 inet static\n\taddress 1.2.3.4\n\
                   # mine\nallow-hotplug eth0\niface eth0 inet dhcp\n\tmetric 1\niface venet0 inet6 manual\n\tup x\n";
        let want = "auto lo\niface lo inet loopback\n\n# mine\nallow-hotplug eth0\niface eth0 inet dhcp\n\tmetric 1\n";
        assert_eq!(without_venet(old), want);
    }
}
