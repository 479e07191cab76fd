//! What a VE uses now.
use std::time::Duration;

use vzconf::units::page_size;

use crate::hierarchy::Controller;
use crate::knob::{self, Length};
use crate::ve_cgroup::VeCgroup;

/// CPU time used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl CpuTime {
    /// What the VE has used since its start: one file, or two.
    #[must_use]
    pub fn of(ve: &VeCgroup) -> CpuTime {
        // v2 counts this without any controller, in microseconds: best on hybrid hosts too.
        if let Some(text) = ve.v2_dir().and_then(|dir| ve.read(&dir.join("cpu.stat"), Length::Short).ok()) {
            let micros = |key| Duration::from_micros(knob::keyed(&text, key).unwrap_or(0));
            return CpuTime { user: micros("user_usec"), system: micros("system_usec") };
        }
        let nanos = |file| {
            let file = ve.v1_dir(Controller::Cpuacct).map(|dir| dir.join(file));
            Duration::from_nanos(file.and_then(|file| ve.number(&file)).unwrap_or(0))
        };
        CpuTime { user: nanos("cpuacct.usage_user"), system: nanos("cpuacct.usage_sys") }
    }
}

/// What a VE holds at one moment; zero or `None` where this kernel does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tasks, threads included.
    pub numproc: u64,
    /// The most there were.
    pub numproc_peak: Option<u64>,
    /// RAM in pages: page cache and the kernel's own memory for the VE included.
    pub physpages: u64,
    /// The most there were.
    pub physpages_peak: Option<u64>,
    /// Swap in pages.
    pub swappages: Option<u64>,
    /// CPU time.
    pub cpu: CpuTime,
}

impl Usage {
    /// Reads all: about six files. A VE that is going away reads as zero.
    #[must_use]
    pub fn read(ve: &VeCgroup) -> Usage {
        let (physpages, physpages_peak, swappages) = memory(ve);
        Usage {
            numproc: Usage::numproc(ve),
            numproc_peak: number(ve, Controller::Pids, "pids.peak", "pids.peak"),
            physpages,
            physpages_peak,
            swappages,
            cpu: CpuTime::of(ve),
        }
    }

    /// Only the number of tasks: one file, for lists.
    #[must_use]
    pub fn numproc(ve: &VeCgroup) -> u64 {
        match number(ve, Controller::Pids, "pids.current", "pids.current") {
            Some(tasks) => tasks,
            // Without the controller, processes are the best there is.
            None => ve.processes().map_or(0, |pids| pids.len() as u64),
        }
    }
}

fn number(ve: &VeCgroup, controller: Controller, v1: &str, v2: &str) -> Option<u64> {
    ve.number(&ve.file(controller, v1, v2)?)
}

/// Held, peak, swap; in pages.
fn memory(ve: &VeCgroup) -> (u64, Option<u64>, Option<u64>) {
    let bytes = |v1, v2| number(ve, Controller::Memory, v1, v2);
    let pages = |bytes: u64| bytes / page_size();
    let held = bytes("memory.usage_in_bytes", "memory.current").unwrap_or(0);
    let peak = bytes("memory.max_usage_in_bytes", "memory.peak").map(pages);
    let swap = bytes("memory.memsw.usage_in_bytes", "memory.swap.current").map(|n| {
        // v1 counts RAM and swap together, and at another moment than RAM alone.
        pages(if ve.v1_dir(Controller::Memory).is_some() { n.saturating_sub(held) } else { n })
    });
    (pages(held), peak, swap)
}
