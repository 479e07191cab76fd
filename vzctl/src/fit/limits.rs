//! The limits of a configuration: beancounters and disk space, each a barrier and a limit.

use std::collections::BTreeMap;

use vzconf::params::{Kind, PARAMS, Param};
use vzconf::units::UNLIMITED;
use vzconf::{ConfFile, Config, Error, Pair, canonical_key};

/// What "no limit" is in configurations from 32-bit nodes.
const UNLIMITED_32: u64 = i32::MAX as u64;

/// Limits by the names of their options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits(BTreeMap<&'static str, Pair>);

/// The parameters that are limits.
fn known() -> impl Iterator<Item = &'static Param> {
    PARAMS.iter().filter(|param| matches!(param.kind, Kind::Ubc(_) | Kind::Disk(_)))
}

/// The parameter of a key if it is a limit.
pub(super) fn of_key(key: &str) -> Option<&'static Param> {
    known().find(|param| param.key == Some(canonical_key(key)))
}

impl Limits {
    /// All that a configuration says, `vz.conf` counted.
    pub(super) fn of(config: &Config) -> Self {
        let value = |param: &'static Param| match param.option {
            "diskspace" => config.diskspace(),
            "diskinodes" => config.diskinodes(),
            name => config.ubc(name),
        };
        Self(known().filter_map(|param| Some((param.option, value(param)?.map(word)))).collect())
    }

    /// What is set.
    pub(super) fn get(&self, name: &str) -> Option<Pair> {
        self.0.get(name).copied()
    }

    /// The barrier, none where nothing is set.
    pub(super) fn barrier(&self, name: &str) -> u64 {
        self.get(name).unwrap_or(Pair::UNLIMITED).barrier
    }

    /// The limit, none where nothing is set.
    pub(super) fn limit(&self, name: &str) -> u64 {
        self.get(name).unwrap_or(Pair::UNLIMITED).limit
    }

    /// Sets one.
    pub(super) fn set(&mut self, name: &'static str, pair: Pair) {
        self.0.insert(name, pair);
    }

    /// Every limit in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, Pair)> {
        self.0.iter().map(|(name, pair)| (*name, *pair))
    }

    /// Whether RAM and swap are what is limited, and not each kind of memory by itself.
    pub(super) fn is_vswap(&self) -> bool {
        self.get("physpages").is_some_and(|pages| pages.limit < UNLIMITED)
    }

    /// Writes what differs from `before`.
    ///
    /// # Errors
    /// Never for numbers; [`ConfFile::set`] could.
    pub(super) fn write(&self, before: &Limits, file: &mut ConfFile) -> Result<(), Error> {
        for param in known() {
            let (Some(key), Some(pair)) = (param.key, self.get(param.option)) else { continue };
            if before.get(param.option) != Some(pair) {
                file.set(key, &stored(param, pair))?;
            }
        }
        Ok(())
    }
}

/// As `vzctl set` would store it.
fn stored(param: &Param, pair: Pair) -> String {
    match param.kind {
        // Always both: libvirt reads no DISKSPACE without a colon.
        Kind::Disk(_) => format!("{}:{}", pair.barrier, pair.limit),
        _ => pair.to_string(),
    }
}

trait Map {
    fn map(self, word: impl Fn(u64) -> u64) -> Self;
}

impl Map for Pair {
    fn map(self, word: impl Fn(u64) -> u64) -> Pair {
        Pair { barrier: word(self.barrier), limit: word(self.limit) }
    }
}

fn word(value: u64) -> u64 {
    if value == UNLIMITED_32 { UNLIMITED } else { value }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{limits, sample};
    use super::*;

    #[test]
    fn limits_have_the_units_of_their_options() {
        let read = limits("KMEMSIZE=1M:2M\nPHYSPAGES=\"0:2147483647\"\nDISKSPACE=1G:2G\nDCACHE=7\nNAME=x\n");
        assert_eq!(read.get("kmemsize"), Some(Pair { barrier: 1 << 20, limit: 2 << 20 }));
        assert_eq!(read.get("physpages"), Some(Pair { barrier: 0, limit: UNLIMITED }));
        assert_eq!(read.get("diskspace"), Some(Pair { barrier: 1 << 20, limit: 2 << 20 }));
        assert_eq!(read.get("dcachesize"), Some(Pair::both(7)));
        assert_eq!((read.get("numproc"), read.iter().count()), (None, 4));
        assert!(!read.is_vswap());
        assert!(limits(sample("vswap-1g")).is_vswap() && !limits(sample("basic")).is_vswap());
    }

    #[test]
    fn only_what_differs_is_written() {
        let text = "# mine\nKMEMSIZE=1M:2M # roomy\nFOO=bar\nDISKSPACE=1G:2G\nNUMPROC=5\n";
        let before = limits(text);
        let (mut after, mut file) = (before.clone(), ConfFile::parse(text));
        after.set("numproc", Pair::both(7));
        after.set("diskspace", Pair::both(9));
        after.set("shmpages", Pair { barrier: 0, limit: UNLIMITED });
        after.write(&before, &mut file).unwrap();
        assert_eq!(
            file.to_string(),
            "# mine\nKMEMSIZE=1M:2M # roomy\nFOO=bar\nDISKSPACE=\"9:9\"\nNUMPROC=\"7\"\nSHMPAGES=\"0:unlimited\"\n"
        );
    }
}
