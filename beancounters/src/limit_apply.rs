//! Writing limits to a VE's cgroup.
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use vzconf::Mask;
use vzconf::units::page_size;

use crate::error::{Error, Result};
use crate::hierarchy::{Controller, Generation};
use crate::knob;
use crate::limit_plan::{Facts, KnobWrite, LimitPlan, Role, Unenforced};
use crate::limit_undo::Undo;
use crate::limits::{Limits, Param, Selection};
use crate::ve_cgroup::VeCgroup;

/// How often memory is asked back before it counts as being in use.
const RECLAIMS: u32 = 8;

/// What became of limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// These hold now.
    pub params: Vec<Param>,
    /// These this host cannot hold.
    pub unenforced: Vec<Unenforced>,
    /// What was before, for a caller who fails later.
    pub undo: Undo,
}

impl Limits {
    /// Sets the limits on a VE, running or about to start. What this kernel has no file for is reported,
    /// not an error.
    ///
    /// # Errors
    /// [`Error::BadMask`], before anything is written; [`Error::Refused`] when the kernel does not
    /// take a value, or when the VE holds more memory than it shall have and does not get rid of it:
    /// all limits are then as they were.
    pub fn apply(&self, ve: &VeCgroup) -> Result<Applied> {
        let plan = LimitPlan::new(self, &Facts::gather(self, ve))?;
        let mut applied = Applied { unenforced: plan.unenforced, ..Applied::default() };
        let mut missing: Vec<Unenforced> = Vec::new();
        for step in &plan.writes {
            let wrote = match write(ve, step, &mut applied.undo) {
                Ok(wrote) => wrote,
                Err(refused) => {
                    // Of two failures the first is the one to tell.
                    let _ = applied.undo.undo();
                    return Err(refused);
                }
            };
            match wrote {
                None if !applied.params.contains(&step.param) && step.role != Role::Helping => {
                    applied.params.push(step.param);
                }
                Some(why) if step.role != Role::Helping => {
                    missing.push(Unenforced { param: step.param, why })
                }
                _ => {}
            }
        }
        // One of several alternatives is enough; a needed file that is missing is not made up for.
        for lost in missing {
            let alternative =
                plan.writes.iter().any(|w| w.param == lost.param && w.role == Role::Alternative);
            if alternative && applied.params.contains(&lost.param) {
                continue;
            }
            applied.params.retain(|param| *param != lost.param);
            if !applied.unenforced.iter().any(|u| u.param == lost.param) {
                applied.unenforced.push(lost);
            }
        }
        let gates = crate::gate::apply(self, ve).and_then(|mut lost| {
            lost.extend(crate::gate::hold_shmall(self, ve)?);
            Ok(lost)
        });
        match gates {
            Ok(lost) => applied.unenforced.extend(lost),
            Err(error) => {
                let _ = applied.undo.undo();
                return Err(error);
            }
        }
        Ok(applied)
    }
}

/// Writes one file; says why when there is nothing to write to.
fn write(ve: &VeCgroup, step: &KnobWrite, undo: &mut Undo) -> Result<Option<String>> {
    let dir = ve.v1_dir(step.controller).or_else(|| ve.v2_dir()).unwrap_or_default();
    let path = dir.join(step.file);
    undo.remember(step, &path);
    match make_room(&dir, step).and_then(|()| knob::write(&path, &step.value)) {
        Ok(()) => Ok(None),
        Err(Errno::NOENT) if dir.exists() => Ok(Some(format!("this kernel has no {}", step.file))),
        Err(Errno::NODEV) => Ok(Some(format!("{} does not take the disk of the private area", step.file))),
        Err(Errno::OPNOTSUPP) => Ok(Some(format!("{} is switched off in this kernel", step.file))),
        Err(Errno::BUSY) if let Some(held) = memory_held(&dir, step.file) => {
            let wanted = step.value.trim_end().to_owned();
            Err(Error::InUse { param: step.param, wanted, held })
        }
        Err(errno) => Err(Error::Refused {
            param: step.param,
            path,
            value: step.value.trim_end().to_owned(),
            source: errno.into(),
        }),
    }
}

/// What counts against a limit of memory, in bytes.
fn memory_held(dir: &Path, file: &str) -> Option<u64> {
    let usage = match file {
        "memory.max" => "memory.current",
        "memory.limit_in_bytes" => "memory.usage_in_bytes",
        "memory.memsw.limit_in_bytes" => "memory.memsw.usage_in_bytes",
        _ => return None,
    };
    knob::number(&dir.join(usage))
}

/// On v2 less RAM than is in use is taken from the VE by killing its processes. Like v1, we rather refuse
/// what reclaim cannot make room for.
fn make_room(dir: &Path, step: &KnobWrite) -> std::result::Result<(), Errno> {
    let wanted = step.value.parse::<u64>().ok().filter(|_| step.file == "memory.max");
    let Some(wanted) = wanted else { return Ok(()) };
    let too_much = || {
        let held = knob::number(&dir.join("memory.current")).unwrap_or(0);
        held.checked_sub(wanted).filter(|n| *n > 0)
    };
    for _ in 0..RECLAIMS {
        let Some(excess) = too_much() else { return Ok(()) };
        match knob::write(&dir.join("memory.reclaim"), &excess.to_string()) {
            // EAGAIN: some of it. The VE itself may have freed the rest meanwhile.
            Ok(()) | Err(Errno::AGAIN) => {}
            // Before 5.19. Lowering this one reclaims as well, and kills nobody.
            Err(Errno::NOENT) => {
                let high = dir.join("memory.high");
                knob::write(&high, &step.value)?;
                knob::write(&high, "max")?;
            }
            Err(errno) => return Err(errno),
        }
    }
    too_much().map_or(Ok(()), |_| Err(Errno::BUSY))
}

impl Facts {
    /// Asks only what the limits depend on.
    fn gather(limits: &Limits, ve: &VeCgroup) -> Facts {
        let hierarchies = ve.hierarchies();
        let memory = hierarchies.generation(Controller::Memory);
        let memory_now = match ve.v1_dir(Controller::Memory) {
            Some(dir) if limits.physpages.is_some() || limits.swappages.is_some() => {
                let read = |file| knob::number(&dir.join(file));
                (read("memory.limit_in_bytes").unwrap_or(u64::MAX), read("memory.memsw.limit_in_bytes"))
            }
            _ => (u64::MAX, None),
        };
        let cpu = limits.cpu_percent().and_then(|_| ve.v1_dir(Controller::Cpu).or_else(|| ve.v2_dir()));
        let burst = |dir: PathBuf| {
            let files = ["cpu.max.burst", "cpu.cfs_burst_us"];
            files.iter().find_map(|file| knob::number(&dir.join(file)))
        };
        let masks = limits.cpumask.is_some() || limits.nodemask.is_some();
        let parent = |file: &str| if masks { parent_mask(ve, file) } else { None };
        Facts {
            cpu: hierarchies.generation(Controller::Cpu),
            cpuset: hierarchies.generation(Controller::Cpuset),
            memory,
            pids: hierarchies.generation(Controller::Pids),
            io: hierarchies.generation(Controller::Io),
            page_size: page_size(),
            memory_now,
            burst_now: cpu.and_then(burst).unwrap_or(0),
            cpus: parent("cpus"),
            nodes: parent("mems"),
            node_cpus: match (&limits.cpumask, &limits.nodemask) {
                (Some(Selection::Auto), Some(Selection::Only(nodes))) => cpus_of(nodes),
                _ => None,
            },
        }
    }
}

/// The CPUs or nodes that the parent of all VEs may use.
fn parent_mask(ve: &VeCgroup, kind: &str) -> Option<Mask> {
    let (dir, file) = match ve.hierarchies().generation(Controller::Cpuset)? {
        Generation::V1 => (ve.v1_dir(Controller::Cpuset)?, format!("cpuset.{kind}")),
        Generation::V2 => (ve.v2_dir()?, format!("cpuset.{kind}.effective")),
    };
    knob::read(&dir.parent()?.join(file)).ok()?.parse().ok()
}

fn cpus_of(nodes: &Mask) -> Option<Mask> {
    let list =
        |node: u32| -> PathBuf { Path::new("/sys/devices/system/node").join(format!("node{node}/cpulist")) };
    let lists: Vec<String> =
        nodes.iter().filter_map(|node| knob::read(&list(node)).ok()).filter(|l| !l.is_empty()).collect();
    lists.join(",").parse().ok()
}
