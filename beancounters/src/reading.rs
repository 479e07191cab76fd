//! What is counted for the table at one moment.
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::hierarchy::Controller;
use crate::knob::{self, Length};
use crate::resource::Resource;
use crate::tree::{self, Dir};
use crate::ve_cgroup::VeCgroup;

/// What the kernel says of one resource; `None` where it does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// In use now.
    pub held: Option<u64>,
    /// The most there was.
    pub peak: Option<u64>,
    /// How often the limit refused, since the counter began.
    pub failed: Option<u64>,
}

/// What is known of all resources of a VE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading([Count; Resource::ALL.len()]);

/// A page of the table, whatever the kernel's own are.
const PAGE: u64 = 4096;

impl Reading {
    /// What the VE's cgroups count: about ten files. One that is going away reads as nothing.
    #[must_use]
    pub fn of_cgroup(ve: &VeCgroup) -> Reading {
        let mut reading = Reading::of_memory(ve);
        reading.processes(ve);
        reading
    }

    /// The same of memory alone.
    #[must_use]
    pub fn of_memory(ve: &VeCgroup) -> Reading {
        let mut reading = Reading::default();
        match ve.v1_dir(Controller::Memory) {
            Some(_) => reading.memory_v1(ve),
            None => reading.memory_v2(ve),
        }
        reading
    }

    /// What is known of one resource.
    #[must_use]
    pub fn count(&self, resource: Resource) -> Count {
        self.0[resource as usize]
    }

    /// Notes what is in use.
    pub fn hold(&mut self, resource: Resource, held: u64) {
        self.0[resource as usize].held = Some(held);
    }

    /// Notes the most that was in use.
    pub fn reach(&mut self, resource: Resource, peak: u64) {
        self.0[resource as usize].peak = Some(peak);
    }

    /// Notes how often a limit refused.
    pub fn fail(&mut self, resource: Resource, failed: u64) {
        self.0[resource as usize].failed = Some(failed);
    }

    /// Takes over what `other` knows.
    pub fn take(&mut self, other: &Reading) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.held = theirs.held.or(mine.held);
            mine.peak = theirs.peak.or(mine.peak);
            mine.failed = theirs.failed.or(mine.failed);
        }
    }

    fn note(&mut self, resource: Resource, held: Option<u64>, peak: Option<u64>, failed: Option<u64>) {
        self.0[resource as usize] = Count { held, peak, failed };
    }

    fn processes(&mut self, ve: &VeCgroup) {
        let file = |name: &str| ve.file(Controller::Pids, name, name);
        let number = |name: &str| ve.number(&file(name)?);
        self.note(Resource::Numproc, number("pids.current"), number("pids.peak"), refused_forks(ve));
    }

    fn memory_v2(&mut self, ve: &VeCgroup) {
        let Some(dir) = ve.v2_dir() else { return };
        let number = |file: &str| ve.number(&dir.join(file));
        let pages = |file| number(file).map(|bytes| bytes / PAGE);
        let events = ve.text(&dir.join("memory.events"), Length::Short);
        let (oom, killed) = (knob::keyed(&events, "oom"), knob::keyed(&events, "oom_kill"));
        let (ram, swap) = (pages("memory.current"), pages("memory.swap.current"));
        self.note(Resource::Physpages, ram, pages("memory.peak"), oom);
        self.note(Resource::Swappages, swap, pages("memory.swap.peak"), oom);
        // The sum of two peaks of different moments would be more than there ever was.
        self.note(Resource::Oomguarpages, ram.map(|ram| ram + swap.unwrap_or(0)), None, killed);
        let stat = ve.text(&dir.join("memory.stat"), Length::Any);
        let bytes = |key| knob::keyed(&stat, key);
        // Since 5.18 there is a sum; before, its parts.
        let parts = ["kernel_stack", "pagetables", "percpu", "slab"];
        let kernel = bytes("kernel").or_else(|| parts.into_iter().filter_map(bytes).reduce(|a, b| a + b));
        self.note(Resource::Kmemsize, kernel, None, None);
        self.note(Resource::Dcachesize, bytes("slab_reclaimable"), None, None);
        self.note(Resource::Shmpages, bytes("shmem").map(|n| n / PAGE), None, None);
        self.note(Resource::Lockedpages, bytes("unevictable").map(|n| n / PAGE), None, None);
    }

    fn memory_v1(&mut self, ve: &VeCgroup) {
        let Some(dir) = ve.v1_dir(Controller::Memory) else { return };
        let number = |file: &str| ve.number(&dir.join(file));
        let pages = |file| number(file).map(|bytes| bytes / PAGE);
        // This generation does not count allocations that failed after reclaim, only what came of them.
        let killed = knob::keyed(&ve.text(&dir.join("memory.oom_control"), Length::Short), "oom_kill");
        let ram = pages("memory.usage_in_bytes");
        let both = pages("memory.memsw.usage_in_bytes");
        // Counted together with RAM, and at another moment than RAM alone.
        let swap = both.map(|both| both.saturating_sub(ram.unwrap_or(0)));
        self.note(Resource::Physpages, ram, pages("memory.max_usage_in_bytes"), killed);
        self.note(Resource::Swappages, swap, None, killed);
        self.note(Resource::Oomguarpages, both.or(ram), pages("memory.memsw.max_usage_in_bytes"), killed);
        let kmem = |what| number(what);
        self.note(
            Resource::Kmemsize,
            kmem("memory.kmem.usage_in_bytes"),
            kmem("memory.kmem.max_usage_in_bytes"),
            kmem("memory.kmem.failcnt"),
        );
        let stat = ve.text(&dir.join("memory.stat"), Length::Any);
        let bytes = |key| knob::keyed(&stat, key);
        self.note(Resource::Shmpages, bytes("total_shmem").map(|n| n / PAGE), None, None);
        self.note(Resource::Lockedpages, bytes("total_unevictable").map(|n| n / PAGE), None, None);
    }
}

/// How often a fork was refused.
fn refused_forks(ve: &VeCgroup) -> Option<u64> {
    let max = |path: &Path| knob::keyed(&ve.read(path, Length::Short).ok()?, "max");
    if let Some(dir) = ve.v1_dir(Controller::Pids) {
        return max(&dir.join("pids.events"));
    }
    let dir = ve.v2_dir()?;
    if ve.read(&dir.join("pids.events.local"), Length::Short).is_ok() {
        return max(&dir.join("pids.events"));
    }
    // Before 6.11 a refusal is counted where the process was, not where the limit is.
    let mut sum = 0;
    tree::walk(Dir::open(&dir).ok()??, |dir| {
        sum += events_in(dir).unwrap_or(0);
        Ok(())
    })
    .ok()?;
    Some(sum)
}

fn events_in(dir: &Dir) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir.as_fd(), "pids.events", flags, Mode::empty())?;
    let mut buffer = [0u8; 256];
    let n = rustix::io::read(&file, &mut buffer)?;
    Ok(knob::keyed(&String::from_utf8_lossy(&buffer[..n]), "max").unwrap_or(0))
}
