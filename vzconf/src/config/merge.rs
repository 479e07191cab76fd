//! One file's entries to one valid value a key.
use std::collections::BTreeMap;
use std::path::Path;

use crate::params::{Kind, Origin, by_key};
use crate::{ConfFile, NetIf, Pair, VeIp};

/// Keys of vz.conf that are no parameters of a VE but are checked all the same.
const NODE_KEYS: [(&str, Kind); 10] = [
    ("LOGGING", Kind::YesNo),
    ("IPV6", Kind::YesNo),
    ("SKIP_ARPDETECT", Kind::YesNo),
    ("ERROR_ON_ARPFAIL", Kind::YesNo),
    ("VALIDATE_MODE", Kind::OneOf(&["none", "warning", "error", "fix"])),
    ("TEMPLATE", Kind::Path),
    ("LOCKDIR", Kind::Path),
    ("DUMPDIR", Kind::Path),
    ("BACKUP_DIR", Kind::Path),
    ("LOGFILE", Kind::Path),
];

fn kind_of(key: &str) -> Option<Kind> {
    let node = || NODE_KEYS.iter().find(|(k, _)| *k == key).map(|(_, kind)| *kind);
    by_key(key).map(|param| param.kind).or_else(node)
}

/// The file as a map. Duplicates: the first counts, of beancounters the last, addresses accumulate. Invalid values are
/// left out with a warning; unknown keys are taken as they are.
pub(super) fn merge(path: &Path, file: &ConfFile, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let file_name = path.display();
    for line in file.stray_lines() {
        warnings.push(format!("{file_name}:{line}: not a KEY=value line, ignored"));
    }
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (key, raw) in file.entries() {
        let kind = kind_of(key);
        let mut say = |text: String| warnings.push(format!("{file_name}: {text}"));
        let Some(value) = valid(key, kind, raw, &mut say) else { continue };
        match map.get_mut(key) {
            None => {
                map.insert(key.to_string(), value);
            }
            Some(old) if key == "IP_ADDRESS" => *old = format!("{old} {value}").trim().to_string(),
            Some(old) if matches!(kind, Some(Kind::Ubc(_))) => *old = value,
            Some(_) => say(format!("duplicate for {key}, the first is used")),
        }
    }
    map
}

/// The value to use, or `None` after saying why there is none.
fn valid(key: &str, kind: Option<Kind>, raw: &str, say: &mut impl FnMut(String)) -> Option<String> {
    let Some(kind) = kind else { return Some(raw.to_string()) };
    if raw.is_empty() {
        return Some(String::new());
    }
    if kind.is_list() {
        return Some(valid_words(key, kind, raw, say));
    }
    if kind == Kind::NetifAdd {
        return Some(valid_netifs(raw, say));
    }
    if let Kind::Ubc(unit) = kind
        && let Ok((_, true)) = Pair::parse_clamped(raw, unit)
    {
        say(format!("value of {key} is too large: {raw}, taken as unlimited"));
    }
    match kind.canonical(raw, Origin::File) {
        Ok(value) => Some(value),
        Err(allowed) => {
            say(format!("invalid value for {key}: {raw} (expected {allowed}), skipped"));
            None
        }
    }
}

fn valid_words(key: &str, kind: Kind, raw: &str, say: &mut impl FnMut(String)) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in kind.split(raw).filter(|w| !w.is_empty()) {
        match kind.element(word) {
            // It stands alone: what follows is a comment that grammar makes part of the value.
            Some(word) if word == "inherit" && words.is_empty() => return word,
            Some(word) if is_unspecified(kind, &word) => {}
            Some(word) => words.push(word),
            None => say(format!("invalid value in {key}: {word} (expected {}), skipped", kind.allowed())),
        }
    }
    words.join(" ")
}

/// `0.0.0.0` and `::` have always stood for "no address".
fn is_unspecified(kind: Kind, word: &str) -> bool {
    kind == Kind::IpAdd && word.parse::<VeIp>().is_ok_and(|ip| ip.addr.is_unspecified())
}

fn valid_netifs(raw: &str, say: &mut impl FnMut(String)) -> String {
    let mut list: Vec<NetIf> = Vec::new();
    for device in raw.split(';').map(str::trim).filter(|d| !d.is_empty()) {
        match device.parse::<NetIf>() {
            Ok(netif) if list.iter().any(|n| n.ifname == netif.ifname) => {
                say(format!("duplicate device {} in NETIF, skipped", netif.ifname));
            }
            Ok(netif) => list.push(netif),
            Err(error) => say(format!("invalid device in NETIF: {device}: {error}, skipped")),
        }
    }
    NetIf::format_list(&list)
}
