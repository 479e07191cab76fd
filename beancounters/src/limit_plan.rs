//! From limits to the files they are written to, as data.
use std::collections::BTreeSet;

use vzconf::Mask;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::hierarchy::{Controller, Generation};
use crate::limits::{Limits, Param, Selection, finite};

/// CPU time is dealt out in periods of this many microseconds.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota.
const LEAST_QUOTA: u64 = 1_000;
/// CFQ weights that IOPRIO 0..7 stood for, of 500 by default.
const IO_WEIGHTS: [u32; 8] = [320, 365, 410, 460, 500, 550, 600, 640];

/// Whether a limit is lost when one file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is.
    Needed,
    /// One of several files of which kernels have some.
    Alternative,
    /// Only helps.
    Helping,
}

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnobWrite {
    pub(crate) param: Param,
    pub(crate) controller: Controller,
    pub(crate) file: &'static str,
    pub(crate) value: String,
    pub(crate) role: Role,
}

/// A limit that this host cannot hold; it is stored all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unenforced {
    /// Which.
    pub param: Param,
    /// Why not.
    pub why: String,
}

/// What a plan depends on.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) cpu: Option<Generation>,
    pub(crate) cpuset: Option<Generation>,
    pub(crate) memory: Option<Generation>,
    pub(crate) pids: Option<Generation>,
    pub(crate) io: Option<Generation>,
    pub(crate) page_size: u64,
    /// v1: the limits of RAM and of RAM with swap as they are, in bytes.
    pub(crate) memory_now: (u64, Option<u64>),
    /// Microseconds that may be saved up as it is.
    pub(crate) burst_now: u64,
    pub(crate) cpus: Option<Mask>,
    pub(crate) nodes: Option<Mask>,
    /// CPUs of the nodes in NODEMASK, for `auto`.
    pub(crate) node_cpus: Option<Mask>,
}

/// Files to write in this order, and what has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitPlan {
    pub(crate) writes: Vec<KnobWrite>,
    pub(crate) unenforced: Vec<Unenforced>,
}

impl LimitPlan {
    /// Plans all limits that are set.
    ///
    /// # Errors
    /// [`Error::BadMask`].
    pub(crate) fn new(limits: &Limits, facts: &Facts) -> Result<LimitPlan> {
        let mut plan = LimitPlan::default();
        plan.memory(limits, facts);
        plan.numproc(limits, facts);
        plan.cpu(limits, facts);
        plan.masks(limits, facts)?;
        plan.io_limits(limits, facts);
        plan.ioprio(limits, facts);
        Ok(plan)
    }

    fn write(&mut self, param: Param, controller: Controller, file: &'static str, value: impl ToString) {
        self.write_as(Role::Needed, param, controller, file, value);
    }

    fn write_as(
        &mut self,
        role: Role,
        param: Param,
        controller: Controller,
        file: &'static str,
        value: impl ToString,
    ) {
        self.writes.push(KnobWrite { param, controller, file, value: value.to_string(), role });
    }

    fn unenforced(&mut self, param: Param, why: impl Into<String>) {
        self.unenforced.push(Unenforced { param, why: why.into() });
    }

    /// Notes each set parameter as unenforced when the host has no such controller.
    fn available(
        &mut self,
        generation: Option<Generation>,
        params: &[(Param, bool)],
        name: &str,
    ) -> Option<Generation> {
        for (param, _) in params.iter().filter(|(_, set)| *set && generation.is_none()) {
            self.unenforced(*param, format!("the host has no {name} controller"));
        }
        generation.filter(|_| params.iter().any(|(_, set)| *set))
    }

    fn memory(&mut self, limits: &Limits, facts: &Facts) {
        let set =
            [(Param::Physpages, limits.physpages.is_some()), (Param::Swappages, limits.swappages.is_some())];
        let Some(generation) = self.available(facts.memory, &set, "memory") else { return };
        let bytes = |pages: u64| pages.saturating_mul(facts.page_size);
        let ram = limits.physpages.map(|pair| finite(pair).map(bytes));
        let swap = limits.swappages.map(|pair| finite(pair).map(bytes));
        if generation == Generation::V2 {
            let text = |n: Option<u64>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
            // Swap first: RAM that shrinks needs somewhere to go.
            if let Some(swap) = swap {
                self.write(Param::Swappages, Controller::Memory, "memory.swap.max", text(swap));
            }
            if let Some(ram) = ram {
                self.write(Param::Physpages, Controller::Memory, "memory.max", text(ram));
            }
            return;
        }
        self.memory_v1(ram, swap, facts.memory_now);
    }

    /// v1 limits RAM, and RAM with swap, which may at no moment be less than RAM.
    fn memory_v1(&mut self, ram: Option<Option<u64>>, swap: Option<Option<u64>>, now: (u64, Option<u64>)) {
        // The kernel rounds "no limit" down to a page below this.
        let endless = |bytes: u64| bytes >= i64::MAX as u64 - (1 << 16);
        let current_ram = Some(now.0).filter(|n| !endless(*n));
        let new_ram = ram.unwrap_or(current_ram);
        let sum = match (new_ram, swap) {
            (Some(ram), Some(Some(swap))) => Some(ram.saturating_add(swap)),
            // Swap left as it was: the same distance above RAM.
            (Some(ram), None) => {
                now.1.filter(|n| !endless(*n)).map(|n| ram + n.saturating_sub(current_ram.unwrap_or(n)))
            }
            _ => None,
        };
        let text = |n: Option<u64>| n.map_or_else(|| "-1".to_owned(), |n| n.to_string());
        let order = |n: Option<u64>| n.unwrap_or(u64::MAX);
        let growing = order(sum) >= order(now.1.filter(|n| !endless(*n)));
        let writes_ram = |plan: &mut LimitPlan| {
            if ram.is_some() {
                plan.write(Param::Physpages, Controller::Memory, "memory.limit_in_bytes", text(new_ram));
            }
        };
        if !growing {
            writes_ram(self);
        }
        // Without swap set this only makes room for RAM, where the kernel counts swap at all.
        let (param, role) =
            if swap.is_some() { (Param::Swappages, Role::Needed) } else { (Param::Physpages, Role::Helping) };
        self.write_as(role, param, Controller::Memory, "memory.memsw.limit_in_bytes", text(sum));
        if growing {
            writes_ram(self);
        }
    }

    fn numproc(&mut self, limits: &Limits, facts: &Facts) {
        let Some(numproc) = limits.numproc else { return };
        if self.available(facts.pids, &[(Param::Numproc, true)], "pids").is_some() {
            // The file takes no more than the kernel's own maximum of pids.
            let value =
                finite(numproc).filter(|n| *n <= 4 << 20).map_or_else(|| "max".to_owned(), |n| n.to_string());
            self.write(Param::Numproc, Controller::Pids, "pids.max", value);
        }
    }

    fn cpu(&mut self, limits: &Limits, facts: &Facts) {
        let percent = limits.cpu_percent();
        let param = if limits.cpulimit.is_some() { Param::Cpulimit } else { Param::Cpus };
        let set = [(Param::Cpuunits, limits.cpuunits.is_some()), (param, percent.is_some())];
        let Some(generation) = self.available(facts.cpu, &set, "cpu") else { return };
        let burst_file = match generation {
            Generation::V2 => "cpu.max.burst",
            Generation::V1 => "cpu.cfs_burst_us",
        };
        if percent.is_some() && facts.burst_now > 0 {
            // No quota below it is taken.
            self.write_as(Role::Helping, Param::Cpuburst, Controller::Cpu, burst_file, 0);
        }
        let quota = percent.map(|n| if n == 0 { None } else { Some((n * PERIOD / 100).max(LEAST_QUOTA)) });
        match generation {
            Generation::V2 => {
                if let Some(units) = limits.cpuunits {
                    self.write(Param::Cpuunits, Controller::Cpu, "cpu.weight", weight(units));
                }
                if let Some(quota) = quota {
                    let quota = quota.map_or_else(|| "max".to_owned(), |n| n.to_string());
                    self.write(param, Controller::Cpu, "cpu.max", format!("{quota} {PERIOD}"));
                }
            }
            Generation::V1 => {
                if let Some(units) = limits.cpuunits {
                    self.write(Param::Cpuunits, Controller::Cpu, "cpu.shares", shares(units));
                }
                if let Some(quota) = quota {
                    self.write_as(Role::Helping, param, Controller::Cpu, "cpu.cfs_period_us", PERIOD);
                    let quota = quota.map_or_else(|| "-1".to_owned(), |n| n.to_string());
                    self.write(param, Controller::Cpu, "cpu.cfs_quota_us", quota);
                }
            }
        }
        // What is not capped has nothing to save up.
        if let (Some(burst), Some(Some(quota))) = (limits.cpuburst, quota) {
            let micros = (u64::from(burst) * PERIOD / 100).min(quota);
            if micros > 0 {
                self.write(Param::Cpuburst, Controller::Cpu, burst_file, micros);
            }
        }
    }

    fn masks(&mut self, limits: &Limits, facts: &Facts) -> Result<()> {
        let set = [(Param::Cpumask, limits.cpumask.is_some()), (Param::Nodemask, limits.nodemask.is_some())];
        let Some(generation) = self.available(facts.cpuset, &set, "cpuset") else { return Ok(()) };
        let chosen = [
            (Param::Nodemask, &limits.nodemask, "cpuset.mems", &facts.nodes),
            (Param::Cpumask, &limits.cpumask, "cpuset.cpus", &facts.cpus),
        ];
        for (param, selection, file, available) in chosen {
            let wanted = match selection {
                None => continue,
                Some(Selection::Only(mask)) => Some(mask),
                Some(Selection::Auto) => facts.node_cpus.as_ref(),
                Some(Selection::All) => None,
            };
            let value = match (wanted, available) {
                (Some(wanted), Some(available)) => Some(common(param, wanted, available)?),
                (Some(wanted), None) => Some(wanted.clone()),
                (None, available) => available.clone(),
            };
            let text = match (wanted, generation) {
                // An empty line on v2: whatever the parent has, now and later.
                (None, Generation::V2) => "\n".to_owned(),
                _ => value.map_or_else(String::new, |mask| mask.to_string()),
            };
            self.write(param, Controller::Cpuset, file, text);
        }
        Ok(())
    }

    fn io_limits(&mut self, limits: &Limits, facts: &Facts) {
        let set = [(Param::Iolimit, limits.iolimit), (Param::Iopslimit, limits.iopslimit)];
        let Some(generation) = self.available(facts.io, &set.map(|(p, v)| (p, v.is_some())), "io") else {
            return;
        };
        for (param, value) in set {
            let Some(value) = value else { continue };
            let Some(disk) = limits.disk else {
                if value != 0 {
                    self.unenforced(param, "the private area is not on one disk of its own");
                }
                continue;
            };
            self.io_limit(param, value, disk, generation);
        }
    }

    /// The full limit for reads and for writes each, as Virtuozzo has it.
    fn io_limit(&mut self, param: Param, value: u64, disk: Disk, generation: Generation) {
        let per_second = if param == Param::Iolimit { "bps" } else { "iops" };
        match generation {
            Generation::V2 => {
                let value = if value == 0 { "max".to_owned() } else { value.to_string() };
                let text = format!("{disk} r{per_second}={value} w{per_second}={value}");
                self.write(param, Controller::Io, "io.max", text);
            }
            Generation::V1 => {
                let files = match param {
                    Param::Iolimit => ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"],
                    _ => ["blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"],
                };
                for file in files {
                    self.write(param, Controller::Io, file, format!("{disk} {value}"));
                }
            }
        }
    }

    fn ioprio(&mut self, limits: &Limits, facts: &Facts) {
        let Some(ioprio) = limits.ioprio else { return };
        let Some(generation) = self.available(facts.io, &[(Param::Ioprio, true)], "io") else { return };
        let cfq = IO_WEIGHTS[usize::from(ioprio.min(7))];
        let modern = cfq / 5; // of 100 by default
        let files: &[(&'static str, u32)] = match generation {
            Generation::V2 => &[("io.weight", modern), ("io.bfq.weight", modern)],
            Generation::V1 => &[("blkio.bfq.weight", modern), ("blkio.weight", cfq)],
        };
        for (file, value) in files {
            self.write_as(Role::Alternative, Param::Ioprio, Controller::Io, file, value);
        }
    }
}

/// v2: 1000 units are the default weight of 100.
fn weight(units: u32) -> u32 {
    units.saturating_add(5).checked_div(10).unwrap_or(1).clamp(1, 10_000)
}

/// v1: 1000 units are the default of 1024 shares.
fn shares(units: u32) -> u64 {
    (u64::from(units) * 1024 / 1000).clamp(2, 262_144)
}

/// What is in both; a VE cannot run on none.
fn common(param: Param, wanted: &Mask, available: &Mask) -> Result<Mask> {
    let have: BTreeSet<u32> = available.iter().collect();
    let list: Vec<String> = wanted.iter().filter(|n| have.contains(n)).map(|n| n.to_string()).collect();
    list.join(",").parse().map_err(|_| Error::BadMask {
        param,
        value: wanted.to_string(),
        available: available.to_string(),
    })
}

#[cfg(test)]
#[path = "limit_plan_tests.rs"]
mod tests;
