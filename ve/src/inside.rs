//! What a VE is told of itself, by its supervisor and in its files.

use std::time::Duration;

use beancounters::{Beancounter, Cpus, Hierarchies, Record, Resource, VeCgroup};
use vzconf::Ctid;
use vzsys::process;

use crate::accounts::{Depth, Meter};
use crate::load::Load;
use crate::monitor::Charge;

const PAGE: u64 = 4096;

fn cgroup(ctid: u32) -> Option<VeCgroup> {
    VeCgroup::open(&Hierarchies::detect().ok()?, Ctid::new(ctid).ok()?).ok()?
}

/// Counts of one VE.
#[derive(Debug)]
pub struct Counts {
    ctid: u32,
    init: i32,
    meter: Option<Meter>,
    load: Option<(VeCgroup, Load)>,
}

/// The numbers of sysinfo(2), amounts in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Seconds since the VE's start.
    pub uptime: u64,
    /// Load averages in 65536ths.
    pub loads: [u64; 3],
    /// Memory that it may use.
    pub ram: u64,
    /// Of that, not in use.
    pub ram_free: u64,
    /// Swap space that it may use.
    pub swap: u64,
    /// Of that, not in use.
    pub swap_free: u64,
    /// Threads.
    pub processes: u16,
}

impl Counts {
    /// Of this VE.
    #[must_use]
    pub fn new(charge: &Charge) -> Self {
        let meter = Meter::of(charge.ctid, &charge.run_dir, charge.init.pid);
        let load = if charge.load { cgroup(charge.ctid).map(|cgroup| (cgroup, Load::new())) } else { None };
        Self { ctid: charge.ctid, init: charge.init.pid, meter, load }
    }

    /// How long [`Counts::tick`] can wait.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.load.as_ref().map(|(_, load)| load.left())
    }

    /// Counts what is only known by counting regularly.
    pub fn tick(&mut self) {
        if let Some((cgroup, load)) = &mut self.load {
            load.count(cgroup);
        }
    }

    fn count(&self, depth: Depth) -> Option<Beancounter> {
        // A VE's record is made before its init runs.
        let new = || Record::new(&Beancounter::new(self.ctid));
        Some(self.meter.as_ref()?.sample(depth, new).beancounter(self.ctid))
    }

    /// Its block of the table; `None` when its cgroups are gone.
    #[must_use]
    pub fn table(&self) -> Option<String> {
        self.count(Depth::Full).map(|own| beancounters::text::user_beancounters(&[own]))
    }

    /// The same as `bc/resources` has it.
    #[must_use]
    pub fn resources(&self) -> Option<String> {
        self.count(Depth::Full).map(|own| beancounters::text::bc_resources(&[own]))
    }

    /// The same as `bc/CTID/resources` has it.
    #[must_use]
    pub fn own_resources(&self) -> Option<String> {
        self.count(Depth::Full).map(|own| beancounters::text::resources_of(&own))
    }

    /// Load averages in 65536ths.
    #[must_use]
    pub fn loads(&self) -> [u64; 3] {
        self.load.as_ref().map_or([0; 3], |(_, load)| load.fixed())
    }

    /// How many processes ran when they were counted last.
    #[must_use]
    pub fn running(&self) -> usize {
        self.load.as_ref().map_or(0, |(_, load)| load.active())
    }

    /// How many CPUs it has, as `/proc/cpuinfo` says; `None` when its cgroups are gone.
    #[must_use]
    pub fn cpus(&self) -> Option<usize> {
        let count = Cpus::of(self.meter.as_ref()?.cgroup()).numbers().len();
        (count > 0).then_some(count)
    }

    /// Its numbers for sysinfo(2).
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        let own = self.count(Depth::Cheap)?;
        let host = rustix::system::sysinfo();
        #[allow(clippy::useless_conversion)] // other words on other machines
        let of_host = |amount: u64| amount.saturating_mul(host.mem_unit.into());
        let amount = |resource: Resource, most: u64| {
            let total = own[resource].limit.saturating_mul(PAGE).min(most);
            (total, total.saturating_sub(own[resource].held.saturating_mul(PAGE)))
        };
        let (ram, ram_free) = amount(Resource::Physpages, of_host(host.totalram));
        let (swap, swap_free) = amount(Resource::Swappages, of_host(host.totalswap));
        Some(Figures {
            uptime: self.uptime(),
            loads: self.loads(),
            ram,
            // What the host has not, nobody has.
            ram_free: ram_free.min(of_host(host.freeram)),
            swap,
            swap_free,
            processes: u16::try_from(own[Resource::Numproc].held).unwrap_or(u16::MAX),
        })
    }

    fn uptime(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec.unsigned_abs();
        let ticks = rustix::param::clock_ticks_per_second();
        process::start_time(self.init).map_or(0, |start| now.saturating_sub(start / ticks))
    }
}
