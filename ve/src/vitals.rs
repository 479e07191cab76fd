//! How running VEs are at one moment: what a live view and metrics are made of.

use std::time::Duration;

use beancounters::{Beancounter, CpuTime, Cpus, IoMeter, IoUsage};
use vzconf::Ctid;
use vzsys::process::ProcRef;

use crate::accounts::{Accounts, Depth};
use crate::state::State;

/// A running VE at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Vitals {
    /// Which.
    pub ctid: Ctid,
    /// Its init: another one is another life, whose counters begin anew.
    pub init: ProcRef,
    /// For how long it runs.
    pub uptime: Duration,
    /// Its counters; those that cost a walk through its processes are as they were counted last.
    pub counters: Beancounter,
    /// CPU time used.
    pub cpu: CpuTime,
    /// How many CPUs' time it may use in all; `None` without a limit.
    pub cpu_cap: Option<f64>,
    /// Traffic with disks, where the kernel counts it.
    pub io: Option<IoUsage>,
}

impl Accounts {
    /// All VEs that run: some fifteen small files each. One that ends meanwhile is left out.
    #[must_use]
    pub fn vitals(&self, io: &mut IoMeter) -> Vec<Vitals> {
        let vitals = |(ctid, state): (Ctid, State)| {
            self.measure(ctid, &state, |meter| {
                let cgroup = meter.cgroup();
                Vitals {
                    ctid,
                    counters: self.count_by(meter, Depth::Cheap),
                    cpu: CpuTime::of(cgroup),
                    cpu_cap: Cpus::cap(cgroup),
                    io: io.read(cgroup),
                    uptime: state.uptime(),
                    init: state.init,
                }
            })
        };
        self.running().into_iter().filter_map(vitals).collect()
    }
}
