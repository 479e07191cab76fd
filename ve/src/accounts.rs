//! The beancounters of running VEs, and of the host.
//!
//! Whoever asks counts anew and adds what was seen to the VE's [`Record`]. What costs a walk through the VE's own
//! processes is counted by its monitor every few seconds, and when one VE is asked for; a table of all VEs shows that
//! as it was counted last.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use beancounters::{Beancounter, Hierarchies, Reading, Record, RecordFile, Resource, VeCgroup, configured};
use templates::quota::Report;
use vzconf::change::Changed;
use vzconf::{Config, Ctid, Paths};

use crate::error::Result;
use crate::known::Known;
use crate::state::State;

/// How much is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// A few files, whatever the VE does.
    Cheap,
    /// The VE's processes and sockets too.
    Full,
}

/// Counts for one VE, again and again.
#[derive(Debug)]
pub struct Meter {
    cgroup: VeCgroup,
    run_dir: PathBuf,
    /// The same, for whoever looks again and again.
    record: Option<RecordFile>,
    init: i32,
}

impl Meter {
    /// For a VE that runs; `None` when its cgroups are gone.
    #[must_use]
    pub fn new(hierarchies: &Hierarchies, ctid: Ctid, run_dir: &Path, init: i32) -> Option<Self> {
        let cgroup = VeCgroup::open(hierarchies, ctid).ok()??;
        Some(Self { cgroup, run_dir: run_dir.to_owned(), record: None, init })
    }

    /// For whoever looks again and again: what it reads stays open.
    fn keep_open(self) -> Self {
        let record = RecordFile::open(&self.run_dir).ok();
        Self { cgroup: self.cgroup.keep_open(), record, ..self }
    }

    /// Whose it is.
    pub(crate) fn cgroup(&self) -> &VeCgroup {
        &self.cgroup
    }

    /// The same by number alone, for a monitor: it reads no configuration.
    #[must_use]
    pub fn of(ctid: u32, run_dir: &Path, init: i32) -> Option<Self> {
        Self::new(&Hierarchies::detect().ok()?, Ctid::new(ctid).ok()?, run_dir, init)
    }

    /// Counts in full, for the record, and looks after its disk limits.
    pub fn keep(&self) {
        beancounters::resync(self.init, &self.cgroup);
        crate::quota::tend(self.cgroup.ctid());
        self.sample(Depth::Full, || Record::new(&Beancounter::new(self.cgroup.ctid().get())));
    }

    /// Counts, and returns what the record then says. A record that cannot be written (a full `/run`) is one
    /// that forgets: the answer is the same.
    pub fn sample(&self, depth: Depth, new: impl FnOnce() -> Record) -> Record {
        let reading = self.read(depth);
        let (in_full, absorb) = (depth == Depth::Full, |record: &mut Record| record.absorb(&reading));
        match &self.record {
            Some(file) => file.update(new, in_full, absorb).0,
            None => Record::update(&self.run_dir, new, in_full, absorb).0,
        }
    }

    fn read(&self, depth: Depth) -> Reading {
        let mut reading = Reading::of_cgroup(&self.cgroup);
        reading.take(&match depth {
            Depth::Cheap => Reading::of_init(self.init, &self.cgroup),
            Depth::Full => Reading::of_all(self.init, &self.cgroup),
        });
        reading
    }

    /// How many of its processes the kernel has killed for want of memory, since its cgroups were made.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        Reading::of_memory(&self.cgroup).count(Resource::Oomguarpages).failed.unwrap_or(0)
    }

    /// The host's pid of its init.
    #[must_use]
    pub fn init(&self) -> i32 {
        self.init
    }
}

/// The counters of the whole host.
#[derive(Debug)]
pub struct Accounts {
    paths: Paths,
    global: Config,
    hierarchies: Hierarchies,
    /// Where they are asked again and again.
    known: Option<RefCell<Known>>,
}

impl Accounts {
    /// Finds where cgroups are.
    ///
    /// # Errors
    /// Exit 10 without a readable `vz.conf`, 5 without cgroups.
    pub fn new(paths: &Paths) -> Result<Self> {
        let global = Config::global(paths)?;
        Ok(Self { paths: paths.clone(), global, hierarchies: Hierarchies::detect()?, known: None })
    }

    /// For whoever asks again and again: what was opened for one table stays open for the next, some 20 descriptors for
    /// each VE, as far as this process may have so many. Raises its limit of them as far as that goes.
    #[must_use]
    pub fn keep_open(self) -> Self {
        Self { known: Some(RefCell::new(Known::new())), ..self }
    }

    /// Looks at `vz.conf` and the host's cgroups again.
    ///
    /// # Errors
    /// As [`Accounts::new`].
    pub fn renew(&mut self) -> Result<()> {
        self.global = Config::global(&self.paths)?;
        let hierarchies = Hierarchies::detect()?;
        if hierarchies != self.hierarchies {
            self.hierarchies = hierarchies;
            self.close();
        }
        Ok(())
    }

    /// Closes what was kept open.
    pub fn close(&self) {
        if let Some(known) = &self.known {
            known.borrow_mut().clear();
        }
    }

    /// One VE, counted in full; `None` when it does not run.
    #[must_use]
    pub fn of(&self, ctid: Ctid) -> Option<Beancounter> {
        let state = State::load(&self.paths.run_dir(ctid)).filter(State::alive)?;
        self.count(ctid, &state, Depth::Full)
    }

    /// All VEs that run, the youngest first, and the host last.
    #[must_use]
    pub fn all(&self) -> Vec<Beancounter> {
        let mut all: Vec<Beancounter> = self
            .running()
            .into_iter()
            .filter_map(|(ctid, state)| self.count(ctid, &state, Depth::Cheap))
            .collect();
        all.push(crate::host_accounts::count(&self.paths, &all));
        all
    }

    /// The VEs that run, the youngest first.
    #[must_use]
    pub fn running(&self) -> Vec<(Ctid, State)> {
        let names = self.named();
        if let Some(known) = &self.known {
            let mut known = known.borrow_mut();
            known.forget_ended();
            known.keep_only(|ctid| names.contains(&ctid));
        }
        let state = |ctid: &Ctid| self.state(*ctid).map(|state| (*ctid, state));
        let mut running: Vec<(Ctid, State)> = names.iter().filter_map(state).collect();
        running.sort_by(|(_, a), (_, b)| b.started_at_boottime.total_cmp(&a.started_at_boottime));
        running
    }

    /// The VEs that have a run-time directory.
    fn named(&self) -> BTreeSet<Ctid> {
        let Ok(entries) = std::fs::read_dir(self.paths.run_root()) else { return BTreeSet::new() };
        let named = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.ok()?.file_name();
            let ctid: Ctid = name.to_str()?.parse().ok()?;
            // `0101` is nobody's directory: a VE's own name has no leading zero.
            (!ctid.is_host() && name.to_str() == Some(ctid.to_string().as_str())).then_some(ctid)
        };
        entries.filter_map(named).collect()
    }

    /// Of a VE that runs. One that is known was found running a moment ago.
    fn state(&self, ctid: Ctid) -> Option<State> {
        let known = self.known.as_ref().map(RefCell::borrow_mut);
        if let Some(life) = known.as_ref().and_then(|known| known.get(ctid)) {
            return Some(life.state.clone());
        }
        let state = State::load(&self.paths.run_dir(ctid)).filter(State::alive)?;
        if let Some(mut known) = known {
            known.add(ctid, &state, || self.meter(ctid, &state).map(Meter::keep_open));
        }
        Some(state)
    }

    fn meter(&self, ctid: Ctid, state: &State) -> Option<Meter> {
        Meter::new(&self.hierarchies, ctid, &self.paths.run_dir(ctid), state.init.pid)
    }

    /// Asks the meter of a VE that runs.
    pub(crate) fn measure<T>(&self, ctid: Ctid, state: &State, ask: impl FnOnce(&Meter) -> T) -> Option<T> {
        let known = self.known.as_ref().map(RefCell::borrow);
        match known.as_ref().and_then(|known| known.get(ctid)) {
            Some(life) if life.state.init == state.init => Some(ask(&life.meter)),
            _ => Some(ask(&self.meter(ctid, state)?)),
        }
    }

    /// The cgroup of a VE that runs.
    pub(crate) fn cgroup(&self, ctid: Ctid) -> Option<VeCgroup> {
        VeCgroup::open(&self.hierarchies, ctid).ok()?
    }

    /// Its routed addresses, as configured.
    pub(crate) fn addresses(&self, ctid: Ctid) -> Vec<IpAddr> {
        let config = if ctid.is_host() { None } else { self.global.for_ve(ctid).ok() };
        config.map(|config| config.ip_addresses().iter().map(|ip| ip.addr).collect()).unwrap_or_default()
    }

    /// Its disk limits in force, with the tree they are those of.
    pub(crate) fn quota(&self, ctid: Ctid) -> Option<(PathBuf, Report)> {
        crate::quota::in_force(&self.paths, ctid)
    }

    /// Its I/O priority; `None` when it does not run.
    pub(crate) fn ioprio(&self, ctid: Ctid) -> Option<u8> {
        /// Of a VE whose configuration does not say.
        const USUAL: u8 = 4;
        self.cgroup(ctid)?;
        Some(self.global.for_ve(ctid).ok().and_then(|config| config.ioprio()).unwrap_or(USUAL))
    }

    fn count(&self, ctid: Ctid, state: &State, depth: Depth) -> Option<Beancounter> {
        self.measure(ctid, state, |meter| self.count_by(meter, depth))
    }

    /// What the meter of a VE says.
    pub(crate) fn count_by(&self, meter: &Meter, depth: Depth) -> Beancounter {
        let ctid = meter.cgroup.ctid();
        // Of a VE that was started before there were records.
        let new = || {
            let limits = self.global.for_ve(ctid).map(|config| configured(&config, ctid.get()));
            Record::new(&limits.unwrap_or_else(|_| Beancounter::new(ctid.get())))
        };
        meter.sample(depth, new).beancounter(ctid.get())
    }
}

/// A VE is about to run: nothing used, the limits as configured. Without a record its counters begin when somebody
/// first asks.
pub(crate) fn begin(config: &Config, ctid: Ctid, run_dir: &Path) {
    let new = || Record::new(&configured(config, ctid.get()));
    let _ = Record::update(run_dir, new, true, |_| {});
}

/// Limits of a running VE were changed: the table shows the new ones, saved or not.
pub(crate) fn changed(config: &Config, ctid: Ctid, run_dir: &Path, changed: &[Changed]) {
    let is_changed = |key: &str| changed.iter().any(|change| change.key.eq_ignore_ascii_case(key));
    let memory = ["physpages", "swappages", "vm_overcommit"].into_iter().any(is_changed);
    let follows = |resource| {
        use Resource::{Lockedpages, Oomguarpages, Privvmpages, Vmguarpages};
        memory && matches!(resource, Lockedpages | Oomguarpages | Privvmpages | Vmguarpages)
    };
    let limits = configured(config, ctid.get());
    let new = || Record::new(&limits);
    let _ = Record::update(run_dir, new, true, |record| {
        for (resource, counter) in limits.iter() {
            if is_changed(resource.name()) || follows(resource) {
                record.limit(resource, vzconf::Pair { barrier: counter.barrier, limit: counter.limit });
            }
        }
    });
}
