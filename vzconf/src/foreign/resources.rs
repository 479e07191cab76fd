//! Limits as others count them.

use super::{Fate, Foreign};

/// The largest weight of a cgroup v2.
const WEIGHTS: u64 = 10_000;

/// A cgroup v2 weight (100 is usual) as CPU units (1000 are usual).
pub(super) fn weight(foreign: &mut Foreign, line: &str, value: &str) {
    match value.parse::<u64>() {
        Ok(weight) if (1..=WEIGHTS).contains(&weight) => {
            foreign.option(line, "cpuunits", (weight * 10).clamp(8, 500_000).to_string());
        }
        _ => foreign.note(line, Fate::Missing, "no weight between 1 and 10000"),
    }
}

/// Shares of cgroup v1 (1024 are usual).
pub(super) fn shares(foreign: &mut Foreign, line: &str, value: &str) {
    match value.parse::<u64>() {
        Ok(shares) if shares > 0 && shares <= 1 << 20 => {
            foreign.option(line, "cpuunits", (shares * 1000 / 1024).clamp(8, 500_000).to_string());
        }
        _ => foreign.note(line, Fate::Missing, "no number of shares"),
    }
}

/// A limit of bytes: `512M`, `1073741824`, `max`.
pub(super) fn bytes(value: &str) -> Option<Option<u64>> {
    let value = value.trim();
    if value == "max" || value == "-1" {
        return Some(None);
    }
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value[digits.len()..].to_ascii_uppercase().trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(unit).filter(|bytes| *bytes < 1 << 60).map(Some)
}

/// A limit of memory or swap.
pub(super) fn memory(foreign: &mut Foreign, line: &str, option: &str, bytes: Option<Option<u64>>) {
    match bytes {
        Some(Some(bytes)) => foreign.option(line, option, format!("{bytes}B")),
        Some(None) => foreign.note(line, Fate::Left, "there is no limit"),
        None => foreign.note(line, Fate::Missing, "no size"),
    }
}

/// An address with or without a prefix, if it is one.
pub(super) fn address(word: &str) -> Option<std::net::IpAddr> {
    word.split('/').next()?.trim().parse().ok()
}

/// Comma or blank separated name servers or domains.
pub(super) fn list(foreign: &mut Foreign, line: &str, option: &str, value: &str) {
    for word in value.split([',', ' ', ';']).filter(|word| !word.is_empty()) {
        foreign.option(line, option, word);
    }
}
