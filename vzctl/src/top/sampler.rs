//! Looks at the VEs again and again: what changed between two looks are rates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use beancounters::{Beancounter, Counted, Counter, IoMeter, Resource};
use ve::accounts::Accounts;
use ve::vitals::Vitals;
use vzconf::units::UNLIMITED;
use vzconf::{Config, Ctid, Paths};

use super::host::Host;
use crate::check::Error;

/// A name given meanwhile shows after this.
const NAMES_LAST: Duration = Duration::from_secs(30);
/// Of a page in tables.
const PAGE: u64 = 4096;

/// All at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    /// The time of day.
    pub(super) at: String,
    /// The same for programs: RFC 3339, UTC.
    pub(super) stamp: String,
    pub(super) host: Host,
    /// Per cent of all its CPUs; `None` at the first look.
    pub(super) busy: Option<f64>,
    /// The youngest first.
    pub(super) rows: Vec<Row>,
}

/// A VE at one moment. Rates are those since the look before; `None` when there was none, or the kernel does not count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) ctid: Ctid,
    pub(super) name: String,
    pub(super) uptime: Duration,
    /// Whether there was no look at this life of it before.
    pub(super) new: bool,
    /// Per cent of one CPU.
    pub(super) cpu: Option<f64>,
    /// The most it can have, in the same unit.
    pub(super) cap: Option<f64>,
    /// Bytes.
    pub(super) ram: u64,
    pub(super) ram_limit: Option<u64>,
    pub(super) swap: u64,
    pub(super) procs: u64,
    pub(super) procs_limit: Option<u64>,
    /// Bytes a second.
    pub(super) read: Option<f64>,
    pub(super) written: Option<f64>,
    /// How often its limits have refused since its start.
    pub(super) fails: u64,
    /// Which have since the look before, and how often.
    pub(super) refused: Vec<(Resource, u64)>,
    pub(super) counters: Beancounter,
}

/// Looks, and remembers the look before.
#[derive(Debug)]
pub(super) struct Sampler {
    accounts: Accounts,
    global: Config,
    wanted: BTreeSet<Ctid>,
    io: IoMeter,
    names: BTreeMap<Ctid, (Instant, String)>,
    before: Option<(Instant, Host, BTreeMap<Ctid, Vitals>)>,
}

impl Sampler {
    /// Of these VEs; none means all.
    ///
    /// # Errors
    /// Those of the accounts.
    pub(super) fn new(paths: &Paths, wanted: BTreeSet<Ctid>) -> Result<Self, Error> {
        Ok(Self {
            accounts: Accounts::new(paths)?.keep_open(),
            global: Config::global(paths)?,
            wanted,
            io: IoMeter::default(),
            names: BTreeMap::new(),
            before: None,
        })
    }

    pub(super) fn look(&mut self) -> Snapshot {
        let mut vitals = self.accounts.vitals(&mut self.io);
        vitals.retain(|one| self.wanted.is_empty() || self.wanted.contains(&one.ctid));
        let (now, host) = (Instant::now(), Host::read());
        let before = self.before.take();
        let elapsed = before.as_ref().map_or(Duration::ZERO, |(at, ..)| now - *at);
        let rows = vitals.iter().map(|one| {
            let last = before.as_ref().and_then(|(_, _, all)| all.get(&one.ctid));
            Row::new(one, last.filter(|last| is_same_life(last, one)), elapsed, self.name(one.ctid, now))
        });
        let rows = rows.collect();
        let at = jiff::Zoned::now();
        let snapshot = Snapshot {
            at: at.strftime("%H:%M:%S").to_string(),
            stamp: at.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            busy: before.as_ref().and_then(|(_, last, _)| host.busy_since(last)),
            host: host.clone(),
            rows,
        };
        self.before = Some((now, host, vitals.into_iter().map(|one| (one.ctid, one)).collect()));
        snapshot
    }

    fn name(&mut self, ctid: Ctid, now: Instant) -> String {
        match self.names.get(&ctid) {
            Some((at, name)) if now - *at < NAMES_LAST => name.clone(),
            _ => {
                let config = self.global.for_ve(ctid).ok();
                let name = config.and_then(|config| config.name().map(str::to_owned)).unwrap_or_default();
                self.names.insert(ctid, (now, name.clone()));
                name
            }
        }
    }
}

fn is_same_life(before: &Vitals, now: &Vitals) -> bool {
    before.init == now.init
}

impl Row {
    fn new(now: &Vitals, before: Option<&Vitals>, elapsed: Duration, name: String) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let io = before.and_then(|before| Some((before.io?, now.io?))).filter(|_| seconds > 0.0);
        let used = |vitals: &Vitals| (vitals.cpu.user + vitals.cpu.system).as_secs_f64();
        let counters = &now.counters;
        let bytes = |resource| counters[resource].held.saturating_mul(PAGE);
        let limit = |resource| Some(counters[resource].limit).filter(|limit| *limit < UNLIMITED);
        Self {
            ctid: now.ctid,
            name,
            uptime: now.uptime,
            new: before.is_none(),
            cpu: before
                .filter(|_| seconds > 0.0)
                .map(|before| (used(now) - used(before)).max(0.0) * 100.0 / seconds),
            cap: now.cpu_cap.map(|cpus| cpus * 100.0),
            ram: bytes(Resource::Physpages),
            ram_limit: limit(Resource::Physpages).map(|pages| pages.saturating_mul(PAGE)),
            swap: bytes(Resource::Swappages),
            procs: counters[Resource::Numproc].held,
            procs_limit: limit(Resource::Numproc),
            read: io.map(|(before, now)| rate(before.read_bytes, now.read_bytes)),
            written: io.map(|(before, now)| rate(before.written_bytes, now.written_bytes)),
            fails: counters.iter().map(|(_, counter)| counter.failcnt).sum(),
            refused: before.map(|before| refused(&before.counters, counters)).unwrap_or_default(),
            counters: counters.clone(),
        }
    }
}

fn refused(before: &Beancounter, now: &Beancounter) -> Vec<(Resource, u64)> {
    let more = |(resource, counter): (Resource, &Counter)| {
        let more = counter.failcnt.saturating_sub(before[resource].failcnt);
        (more > 0).then_some((resource, more))
    };
    now.iter().filter_map(more).collect()
}

/// A counter's value in bytes, or pieces where it is counted in these.
pub(super) fn in_units(resource: Resource, value: u64) -> u64 {
    if resource.counted() == Counted::Pages { value.saturating_mul(PAGE) } else { value }
}

#[cfg(test)]
pub(crate) mod tests {
    use beancounters::{CpuTime, IoUsage};
    use vzsys::process::ProcRef;

    use super::*;

    /// A VE that uses nothing.
    pub(crate) fn idle(ctid: u32) -> Vitals {
        let ctid = Ctid::new(ctid).unwrap();
        Vitals {
            ctid,
            init: ProcRef { pid: 7, start_time: 1 },
            uptime: Duration::from_secs(60),
            counters: Beancounter::new(ctid.get()),
            cpu: CpuTime::default(),
            cpu_cap: None,
            io: Some(IoUsage::default()),
        }
    }

    /// As at the second look.
    pub(in super::super) fn row(now: &Vitals, name: &str) -> Row {
        Row::new(now, Some(&idle(now.ctid.get())), Duration::from_secs(2), name.to_owned())
    }

    #[test]
    fn rates_are_those_since_the_look_before() {
        let mut now = idle(101);
        now.cpu = CpuTime { user: Duration::from_millis(300), system: Duration::from_millis(200) };
        now.cpu_cap = Some(0.5);
        now.io = Some(IoUsage { read_bytes: 4096, written_bytes: 1000, reads: 1, writes: 2 });
        now.counters[Resource::Physpages] = Counter { held: 3, limit: 10, ..Counter::default() };
        now.counters[Resource::Numproc] = Counter { held: 7, failcnt: 5, ..Counter::default() };
        let seen = row(&now, "web");
        assert_eq!((seen.cpu, seen.cap, seen.new), (Some(25.0), Some(50.0), false));
        assert_eq!((seen.read, seen.written), (Some(2048.0), Some(500.0)));
        assert_eq!((seen.ram, seen.ram_limit, seen.procs, seen.procs_limit), (12288, Some(40960), 7, None));
        assert_eq!((seen.fails, seen.refused), (5, vec![(Resource::Numproc, 5)]));
    }

    #[test]
    fn of_the_first_look_there_are_no_rates_and_no_alarms() {
        let mut now = idle(101);
        now.counters[Resource::Numproc].failcnt = 5;
        let seen = Row::new(&now, None, Duration::ZERO, String::new());
        assert_eq!((seen.cpu, seen.read, seen.new, seen.fails), (None, None, true, 5));
        assert!(seen.refused.is_empty());
    }

    #[test]
    fn a_restart_is_another_life() {
        let (mut before, mut now) = (idle(101), idle(101));
        assert!(is_same_life(&before, &now));
        before.cpu.user = Duration::from_secs(100);
        now.init.pid += 1;
        assert!(!is_same_life(&before, &now));
    }
}
