//! What a VE sees of itself in `/proc` and `/sys`, where the kernel would show the host.
//!
//! Everything is read from the host's side: cgroups, the host's own `/proc`, clocks. Nothing that the VE has mounted is
//! ever opened, and nothing waits for one of its processes.

mod cpu;
mod host;
mod memory;
mod processors;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use beancounters::{CpuTime, Cpus, Hierarchies, Memory, VeCgroup};
use vzconf::Ctid;

use self::cpu::Clock;
use self::host::HostFiles;
use crate::cgroup;
use crate::host_files;
use crate::inside::Counts;
use crate::monitor::Charge;
use crate::node::Ve;

pub use self::processors::{Part, Processors};

/// A file that a VE has in place of the kernel's, or of OpenVZ's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "proc(5) has them")]
pub enum View {
    Meminfo,
    Cpuinfo,
    Stat,
    Uptime,
    Loadavg,
    Diskstats,
    Swaps,
    Vmstat,
    /// `/sys/devices/system/cpu/online`, for containers that were saved when it was the only one of that directory.
    CpuOnline,
    /// The VE's own block of the table.
    UserBeancounters,
    /// The same in the other format.
    BcResources,
    /// Of `bc/CTID`.
    Resources,
}

impl View {
    /// Those that are put in the places of the kernel's.
    pub const ALL: [Self; 9] = [
        Self::Meminfo,
        Self::Cpuinfo,
        Self::Stat,
        Self::Uptime,
        Self::Loadavg,
        Self::Diskstats,
        Self::Swaps,
        Self::Vmstat,
        Self::CpuOnline,
    ];

    /// Its name among the others.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meminfo => "meminfo",
            Self::Cpuinfo => "cpuinfo",
            Self::Stat => "stat",
            Self::Uptime => "uptime",
            Self::Loadavg => "loadavg",
            Self::Diskstats => "diskstats",
            Self::Swaps => "swaps",
            Self::Vmstat => "vmstat",
            Self::CpuOnline => "cpu_online",
            Self::UserBeancounters => "user_beancounters",
            Self::BcResources | Self::Resources => "resources",
        }
    }

    /// The file of the kernel that it stands for; `None` for the one that has its place in [`PROCESSORS`].
    #[must_use]
    pub fn place(self) -> Option<String> {
        (self != Self::CpuOnline).then(|| format!("/proc/{}", self.name()))
    }

    /// Whether only root may read it.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::UserBeancounters | Self::BcResources | Self::Resources)
    }
}

/// The directory of [`Processors`], among the views.
pub const PROCESSORS: &str = "cpu";

/// Names of files, and of one directory, and the paths that they are put on.
#[must_use]
pub fn places() -> Vec<(String, PathBuf)> {
    let files = View::ALL.into_iter().filter_map(|view| Some((view.name().to_owned(), view.place()?.into())));
    files.chain([(PROCESSORS.to_owned(), "/sys/devices/system/cpu".into())]).collect()
}

/// Whoever serves a VE's views holds the lock on this, in its run-time directory. There is none when nobody is to.
pub const LOCK: &str = "views.lock";

/// Starts to serve them anew, if all who did were killed. Does not wait for that; without them nothing else fails.
pub(crate) fn mend(ve: &Ve<'_>) {
    if File::open(ve.run_dir().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
        ve.say(1, "Those who served the container's views died; starting new ones");
        cgroup::start_aside(ve.node, &["views", &ve.ctid.to_string()]);
    }
}

/// Whoever serves them, if anybody does, shows nothing again that was made before now. The time of their lock says so.
pub(crate) fn renew(ve: &Ve<'_>) {
    let locks = [ve.run_dir().join(LOCK), host_files::lock_path(&ve.node.paths)];
    for lock in locks.iter().filter_map(|path| File::open(path).ok()) {
        let _ = lock.set_modified(SystemTime::now());
    }
}

/// Makes the views of one VE, again and again.
#[derive(Debug)]
pub struct Views {
    cgroup: VeCgroup,
    counts: Counts,
    host: HostFiles,
    clock: Clock,
}

impl Views {
    /// Of this VE; `None` when its cgroups are gone.
    #[must_use]
    pub fn new(charge: &Charge) -> Option<Self> {
        let cgroup = VeCgroup::open(&Hierarchies::detect().ok()?, Ctid::new(charge.ctid).ok()?).ok()??;
        Some(Self {
            cgroup: cgroup.keep_open(),
            counts: Counts::new(charge),
            host: HostFiles::default(),
            clock: Clock::new(charge.init.pid),
        })
    }

    /// How long [`Views::tick`] can wait.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.counts.left()
    }

    /// Counts what is only known by counting regularly.
    pub fn tick(&mut self) {
        self.counts.tick();
    }

    /// What the file says now. Of a VE that is going away it says little.
    #[must_use]
    pub fn text(&mut self, view: View) -> String {
        match view {
            View::Meminfo => memory::meminfo(&self.memory(), &self.host.memory()),
            View::Swaps => memory::swaps(&self.memory(), &self.host.memory()),
            View::Vmstat => memory::vmstat(&self.memory(), &self.host.memory()),
            View::Cpuinfo => cpu::cpuinfo(self.host.cpuinfo(), Cpus::of(&self.cgroup).numbers()),
            View::CpuOnline => cpu::online(Cpus::of(&self.cgroup).numbers().len()),
            View::Stat => cpu::stat(&self.work(), &self.tasks()),
            View::Uptime => cpu::uptime(&self.work()),
            View::Loadavg => cpu::loadavg(&self.tasks(), self.counts.loads()),
            // The disks are the host's; a VE has none.
            View::Diskstats => String::new(),
            View::UserBeancounters => self.counts.table().unwrap_or_default(),
            View::BcResources => self.counts.resources().unwrap_or_default(),
            View::Resources => self.counts.own_resources().unwrap_or_default(),
        }
    }

    /// Its processors, as sysfs has them.
    #[must_use]
    pub fn processors(&self) -> Processors {
        Processors::new(Cpus::of(&self.cgroup).numbers())
    }

    fn memory(&self) -> Memory {
        Memory::read(&self.cgroup)
    }

    fn work(&mut self) -> cpu::Work {
        let CpuTime { user, system } = CpuTime::of(&self.cgroup);
        let cpus = Cpus::of(&self.cgroup).numbers().len();
        cpu::Work { cpus, user, system, uptime: self.clock.now() }
    }

    fn tasks(&self) -> cpu::Tasks {
        cpu::Tasks { threads: beancounters::Usage::numproc(&self.cgroup), running: self.counts.running() }
    }
}
