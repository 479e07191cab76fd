//! The limits of a VE that cgroups enforce, as configured.
use std::fmt;

use vzconf::units::UNLIMITED;
use vzconf::{Config, Exit, Mask, Pair};

use crate::disk::Disk;
use crate::error::{Error, Result};

/// A parameter of a VE that this crate applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // they are the names in the config file
pub enum Param {
    Physpages,
    Swappages,
    Numproc,
    Numtcpsock,
    Numothersock,
    Numfile,
    Numpty,
    Numsiginfo,
    Shmpages,
    Lockedpages,
    Cpuunits,
    Cpulimit,
    Cpuburst,
    Cpus,
    Cpumask,
    Nodemask,
    Ioprio,
    Iolimit,
    Iopslimit,
    Devices,
}

impl Param {
    /// What [`Limits`] change on a running VE, in the order in which that is told. Devices have rules of their own,
    /// and signals a limit that a VE gets when it starts.
    pub const CHANGED_WHILE_RUNNING: [Param; 18] = [
        Param::Physpages,
        Param::Swappages,
        Param::Numproc,
        Param::Numtcpsock,
        Param::Numothersock,
        Param::Numfile,
        Param::Numpty,
        Param::Shmpages,
        Param::Lockedpages,
        Param::Cpuunits,
        Param::Cpulimit,
        Param::Cpuburst,
        Param::Cpus,
        Param::Cpumask,
        Param::Nodemask,
        Param::Ioprio,
        Param::Iolimit,
        Param::Iopslimit,
    ];

    /// Whether files of a cgroup hold it, which also tell what it was before.
    #[must_use]
    pub fn is_in_a_file(self) -> bool {
        Limits::default().pairs().into_iter().all(|(param, _)| param != self)
    }

    /// The key in the config file.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Param::Physpages => "PHYSPAGES",
            Param::Swappages => "SWAPPAGES",
            Param::Numproc => "NUMPROC",
            Param::Numtcpsock => "NUMTCPSOCK",
            Param::Numothersock => "NUMOTHERSOCK",
            Param::Numfile => "NUMFILE",
            Param::Numpty => "NUMPTY",
            Param::Numsiginfo => "NUMSIGINFO",
            Param::Shmpages => "SHMPAGES",
            Param::Lockedpages => "LOCKEDPAGES",
            Param::Cpuunits => "CPUUNITS",
            Param::Cpulimit => "CPULIMIT",
            Param::Cpuburst => "CPUBURST",
            Param::Cpus => "CPUS",
            Param::Cpumask => "CPUMASK",
            Param::Nodemask => "NODEMASK",
            Param::Ioprio => "IOPRIO",
            Param::Iolimit => "IOLIMIT",
            Param::Iopslimit => "IOPSLIMIT",
            Param::Devices => "DEVICES",
        }
    }

    /// The exit code of a command that could not apply it.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Param::Physpages
            | Param::Swappages
            | Param::Numproc
            | Param::Numtcpsock
            | Param::Numothersock
            | Param::Numfile
            | Param::Numpty
            | Param::Numsiginfo
            | Param::Shmpages
            | Param::Lockedpages => Exit::SetUbc,
            Param::Cpuunits
            | Param::Cpulimit
            | Param::Cpuburst
            | Param::Cpus
            | Param::Cpumask
            | Param::Nodemask => Exit::SetFshd,
            Param::Ioprio | Param::Iolimit | Param::Iopslimit => Exit::SetIo,
            Param::Devices => Exit::SetDevices,
        }
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The value of CPUMASK or NODEMASK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Whatever the host has.
    All,
    /// CPUMASK only: the CPUs of the nodes in NODEMASK.
    Auto,
    /// These.
    Only(Mask),
}

impl Selection {
    fn parse(param: Param, text: &str) -> Result<Selection> {
        Ok(match text {
            "all" => Selection::All,
            "auto" if param == Param::Cpumask => Selection::Auto,
            list => Selection::Only(list.parse().map_err(|_| Error::BadMask {
                param,
                value: list.to_owned(),
                available: "numbers up to 4095".to_owned(),
            })?),
        })
    }
}

/// What a VE may use. `None` leaves a limit as it is: the kernel's default in a fresh cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// RAM in pages (the limit counts).
    pub physpages: Option<Pair>,
    /// Swap in pages (the limit counts).
    pub swappages: Option<Pair>,
    /// Tasks, threads included (the limit counts).
    pub numproc: Option<Pair>,
    /// TCP sockets of IPv4 and IPv6 (the limit counts).
    pub numtcpsock: Option<Pair>,
    /// Their other sockets (the limit counts).
    pub numothersock: Option<Pair>,
    /// Open files (the limit counts); set when it runs.
    pub numfile: Option<Pair>,
    /// Pseudo-terminals (the limit counts); set inside.
    pub numpty: Option<Pair>,
    /// System V shared memory in pages (the limit counts); set inside.
    pub shmpages: Option<Pair>,
    /// Locked memory of a process in pages (the limit counts); set inside.
    pub lockedpages: Option<Pair>,
    /// Weight, 8..500000; 1000 is usual.
    pub cpuunits: Option<u32>,
    /// Percent of one CPU; 0 is none.
    pub cpulimit: Option<u32>,
    /// Unused time it may save up under a cap, in percent of one CPU; 0 is none.
    pub cpuburst: Option<u32>,
    /// How many CPUs it sees, which caps `cpulimit`; 0 is all.
    pub cpus: Option<u32>,
    /// CPUs it may run on.
    pub cpumask: Option<Selection>,
    /// NUMA nodes it may take memory from.
    pub nodemask: Option<Selection>,
    /// 0..7, larger is more.
    pub ioprio: Option<u8>,
    /// Bytes per second, for reads and for writes; 0 is none.
    pub iolimit: Option<u64>,
    /// Operations per second, for reads and for writes; 0 is none.
    pub iopslimit: Option<u64>,
    /// The disk that I/O limits are about.
    pub disk: Option<Disk>,
}

impl Limits {
    /// All limits of a config; `disk` is that of the VE's private area.
    ///
    /// # Errors
    /// [`Error::BadMask`].
    pub fn from_config(config: &Config, disk: Option<Disk>) -> Result<Limits> {
        let selection = |param: Param, text: Option<&str>| {
            text.filter(|t| !t.is_empty()).map(|t| Selection::parse(param, t)).transpose()
        };
        Ok(Limits {
            physpages: config.ubc("physpages"),
            swappages: config.ubc("swappages"),
            numproc: config.ubc("numproc"),
            numtcpsock: config.ubc("numtcpsock"),
            numothersock: config.ubc("numothersock"),
            numfile: config.ubc("numfile"),
            numpty: config.ubc("numpty"),
            shmpages: config.ubc("shmpages"),
            lockedpages: config.ubc("lockedpages"),
            cpuunits: config.cpuunits(),
            cpulimit: config.cpulimit(),
            cpuburst: config.cpuburst(),
            cpus: config.cpus(),
            cpumask: selection(Param::Cpumask, config.cpumask())?,
            nodemask: selection(Param::Nodemask, config.nodemask())?,
            ioprio: config.ioprio(),
            iolimit: config.iolimit(),
            iopslimit: config.iopslimit(),
            disk,
        })
    }

    /// Only those that the given parameters are about, for a change while the VE runs. What acts together
    /// stays together: `CPULIMIT` with `CPUS` and `CPUBURST`, RAM with swap, `CPUMASK` with `NODEMASK`.
    #[must_use]
    pub fn only(mut self, params: &[Param]) -> Limits {
        let has = |any: &[Param]| any.iter().any(|p| params.contains(p));
        if !has(&[Param::Physpages, Param::Swappages]) {
            (self.physpages, self.swappages) = (None, None);
        }
        if !has(&[Param::Numproc]) {
            self.numproc = None;
        }
        for (param, pair) in self.pairs() {
            if !has(&[param]) {
                *pair = None;
            }
        }
        if !has(&[Param::Cpuunits]) {
            self.cpuunits = None;
        }
        if !has(&[Param::Cpulimit, Param::Cpuburst, Param::Cpus]) {
            (self.cpulimit, self.cpuburst, self.cpus) = (None, None, None);
        }
        if !has(&[Param::Cpumask, Param::Nodemask]) {
            (self.cpumask, self.nodemask) = (None, None);
        }
        if !has(&[Param::Ioprio]) {
            self.ioprio = None;
        }
        if !has(&[Param::Iolimit]) {
            self.iolimit = None;
        }
        if !has(&[Param::Iopslimit]) {
            self.iopslimit = None;
        }
        self
    }

    /// Those of the given parameters that this configuration does not have are lifted: a change that had set them is
    /// taken back. Locked memory is not: what it was is not known.
    #[must_use]
    pub fn or_unlimited(mut self, params: &[Param]) -> Limits {
        let ours = |param| param != Param::Lockedpages && params.contains(&param);
        for (_, pair) in self.pairs().into_iter().filter(|(param, _)| ours(*param)) {
            pair.get_or_insert(Pair::both(UNLIMITED));
        }
        self
    }

    /// Those that stay where no cgroup file has them.
    fn pairs(&mut self) -> [(Param, &mut Option<Pair>); 6] {
        [
            (Param::Numtcpsock, &mut self.numtcpsock),
            (Param::Numothersock, &mut self.numothersock),
            (Param::Numfile, &mut self.numfile),
            (Param::Numpty, &mut self.numpty),
            (Param::Shmpages, &mut self.shmpages),
            (Param::Lockedpages, &mut self.lockedpages),
        ]
    }

    /// The cap in percent of one CPU; `Some(0)` lifts it.
    pub(crate) fn cpu_percent(&self) -> Option<u64> {
        if self.cpulimit.is_none() && self.cpus.is_none() {
            return None;
        }
        let limit = self.cpulimit.filter(|n| *n > 0).map(u64::from);
        let cpus = self.cpus.filter(|n| *n > 0).map(|n| u64::from(n) * 100);
        Some(limit.into_iter().chain(cpus).min().unwrap_or(0))
    }
}

/// The enforced side of a pair, as a finite number.
pub(crate) fn finite(pair: Pair) -> Option<u64> {
    // 2^31-1 is how 32-bit configs spell it.
    (pair.limit < UNLIMITED && pair.limit != i32::MAX as u64).then_some(pair.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_cap_the_cpulimit() {
        for (cpulimit, cpus, want) in [
            (None, None, None),
            (Some(50), None, Some(50)),
            (Some(0), None, Some(0)),
            (Some(300), Some(2), Some(200)),
            (Some(150), Some(2), Some(150)),
            (Some(0), Some(1), Some(100)),
            (None, Some(0), Some(0)),
        ] {
            let limits = Limits { cpulimit, cpus, ..Limits::default() };
            assert_eq!(limits.cpu_percent(), want, "{cpulimit:?} {cpus:?}");
        }
    }

    #[test]
    fn a_change_that_is_taken_back_lifts_what_it_had_set() {
        let old = Limits { numpty: Some(Pair::both(7)), ..Limits::default() };
        let back = old.or_unlimited(&[Param::Numpty, Param::Numtcpsock, Param::Lockedpages]);
        assert_eq!((back.numpty, back.numtcpsock), (Some(Pair::both(7)), Some(Pair::both(UNLIMITED))));
        assert_eq!((back.shmpages, back.lockedpages), (None, None));
    }

    #[test]
    fn a_change_keeps_what_acts_together() {
        let all = Limits {
            physpages: Some(Pair::both(1)),
            swappages: Some(Pair::both(2)),
            cpuunits: Some(1000),
            cpulimit: Some(10),
            cpus: Some(1),
            ..Limits::default()
        };
        let some = all.only(&[Param::Swappages, Param::Cpus]);
        assert_eq!((some.physpages, some.cpulimit, some.cpuunits), (Some(Pair::both(1)), Some(10), None));
    }

    #[test]
    fn what_no_file_holds_is_known_by_one_list() {
        let unfiled: Vec<Param> =
            Param::CHANGED_WHILE_RUNNING.into_iter().filter(|param| !param.is_in_a_file()).collect();
        let of_limits: Vec<Param> = Limits::default().pairs().into_iter().map(|(param, _)| param).collect();
        assert_eq!(unfiled, of_limits);
        assert!(Param::Numproc.is_in_a_file());
    }

    #[test]
    fn selections() {
        assert_eq!(Selection::parse(Param::Cpumask, "auto").unwrap(), Selection::Auto);
        assert!(Selection::parse(Param::Nodemask, "auto").is_err());
        assert!(Selection::parse(Param::Cpumask, "0-").is_err());
        assert_eq!(Selection::parse(Param::Nodemask, "all").unwrap(), Selection::All);
    }

    #[test]
    fn unlimited_has_two_spellings() {
        assert_eq!(finite(Pair::UNLIMITED), None);
        assert_eq!(finite(Pair::both(2_147_483_647)), None);
        assert_eq!(finite(Pair { barrier: 0, limit: 65536 }), Some(65536));
    }
}
