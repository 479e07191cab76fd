//! Restoring a saved VE: the road of a start, whose last step is CRIU.
//!
//! ```text
//!  vzctl                                  vzmon                        criu
//!  checks images, ids, cgroups, lives
//!  mounts the root, makes cgroups, /dev
//!  ── RestorePlan, /dev ────────────────▶ views, console ── RESTORE ──▶ makes init and its namespaces
//!  ◀───────────── Cloned{pid} ─────────── ◀──── setup-namespaces ─────
//!  network inside; nothing reaches it yet
//!  ── Wired ────────────────────────────▶ ──────────── go on ────────▶ makes everything
//!  ◀───────────── Furnished ───────────── ◀──── post-restore ─────────  nothing has run
//!  limits, counters, state; the caller decides
//!  ── Release ──────────────────────────▶ ──────────── go on ────────▶ lets them run
//!  connects the network     ◀── Started ─
//! ```
//!
//! Whoever dies before the release: CRIU finds its socket closed and kills what it made, and the images are as before.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use beancounters::{Hierarchies, Record, VeCgroup};
use criu::Images;
use netns::NetPlan;
use serde::{Deserialize, Serialize};
use templates::replica::Digests;
use vzconf::{Ctid, Exit};
use vzsys::launch::LaunchError;
use vzsys::process::ProcRef;
use vzsys::{fault, process};

use crate::checkpoint;
use crate::error::{Doing, Error, Result, describe};
use crate::monitor::{Monitor, RestorePlan, Task};
use crate::mount::Scripts;
use crate::node::Ve;
use crate::saved::{self, Saved};
use crate::start::{self, Made};
use crate::state::{State, boottime};
use crate::{cgroup, dismantle, host_files, ids, life, net};

/// How a VE is restored.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The image directory.
    pub images: &'a Path,
    /// The hashes of its files that are known already: those are not read for it.
    pub known: Option<&'a Digests>,
    /// The disk is as it was when it was saved, whatever ran since: it was put back, or came with the images.
    pub disk_is_as_saved: bool,
    /// Leaves it off the networks: whoever calls connects it with [`connect`].
    pub disconnected: bool,
    /// Its processes are there, and stand still until their cgroup is thawed.
    pub frozen: bool,
    /// Use the root as it is mounted.
    pub skip_remount: bool,
}

/// What becomes of a VE that is restored and has not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// It runs. From here on there is no way back.
    Run,
    /// It is killed, and everything is as before.
    Abort,
}

/// Written before the life is counted that begins: a restore that is killed then has not begun it.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    life: u64,
}

const BEGUN: &str = "restore.json";

/// Restores a saved VE. `post_restore` is called when all of it is there and nothing has run, and decides. The images
/// stay where they are; once the VE runs they are of no use any more.
///
/// # Errors
/// 17 when it cannot be restored, 32 running, 43 no private area, 28 missing beancounters, 34/78 addresses, 79 scripts.
/// Images, disk and host are then as they were. An error of `post_restore` is returned as it is.
pub fn restore(
    ve: &Ve<'_>,
    options: Options<'_>,
    post_restore: &mut dyn FnMut(&State) -> Result<Go>,
) -> Result<State> {
    let program = checkpoint::program(Exit::Restore)?;
    ve.existing_private()?;
    if ve.running().is_some() {
        let message = "Unable to perform restore: container already running";
        return Err(Error::refused(Exit::VeRunning, message));
    }
    cgroup::check(ve)?;
    // It may have begun what now is the next life.
    dismantle::mend(ve)?;
    let known = |name: &str| options.known.and_then(|known| known.of(name));
    let (images, saved) = Images::open_known::<Saved>(options.images, &known).map_err(failed)?;
    let ids = ids::claim(&ve.config, ve.ctid)?;
    saved.check(ve.ctid, ids, options.images)?;
    let now = life::current(&ve.node.paths, ve.ctid);
    if !options.disk_is_as_saved && saved.life != now {
        let message = format!(
            "the dump {} cannot be restored: the container has run since, and its disk is not as it was",
            options.images.display()
        );
        return Err(Error::advised(Exit::Restore, message, "Remove it when it is of no use any more"));
    }
    let run_dir = ve.run_dir();
    std::fs::create_dir_all(&run_dir)
        .doing(Exit::System, || format!("cannot create {}", run_dir.display()))?;
    let job = Job { ve, options, saved: &saved, images: &images, criu: program.path };
    let restored = job.run(post_restore);
    if restored.is_err() {
        life::set(&ve.node.paths, ve.ctid, now)?;
        // Guards have undone what was made; this directory says that there is nothing to mend.
        let _ = std::fs::remove_dir_all(&run_dir);
    }
    restored
}

fn failed(source: criu::Error) -> Error {
    Error::Criu { source, exit: Exit::Restore }
}

fn launch_failed(error: LaunchError) -> Error {
    Error::refused(Exit::Restore, format!("cannot restore the container: {}", error.error))
}

struct Job<'j> {
    ve: &'j Ve<'j>,
    options: Options<'j>,
    saved: &'j Saved,
    images: &'j Images,
    criu: PathBuf,
}

impl Job<'_> {
    fn run(&self, post_restore: &mut dyn FnMut(&State) -> Result<Go>) -> Result<State> {
        let (ve, ids) = (self.ve, self.saved.ids);
        let monitor = start::start_monitor(ve)?;
        let mount = start::Options { skip_remount: self.options.skip_remount, ..start::Options::default() };
        let root = start::mount_for_start(ve, mount, ids, Scripts::Run)?;
        fault::point("restore.mounted");
        let cgroup = cgroup::create(ve, ids)?;
        let mut made = Made { net: None, cgroup, root };
        self.saved.branches.make(&made.cgroup, ids.map_or(0, |ids| ids.base))?;
        fault::point("restore.cgroups");
        let plan = self.plan()?;
        std::fs::create_dir_all(&plan.place)
            .doing(Exit::Restore, || format!("cannot create {}", plan.place.display()))?;
        let dev = saved::dev_of(self.images.path(), ids, &plan.place)?;
        let task = Task::Restore(Box::new(plan));
        let (monitor, monitor_ref) = monitor.order_with(task, Some(dev.as_fd()))?;
        drop(dev);
        let (pid, _) = monitor.cloned().map_err(launch_failed)?;
        fault::point("restore.cloned");
        let (init, netns, outer) = self.wire(pid, &mut made)?;
        monitor.wired().map_err(launch_failed)?;
        monitor.furnished().map_err(launch_failed)?;
        fault::point("restore.restored");
        let state = self.settle(init, monitor_ref, &made.cgroup)?;
        if post_restore(&state)? == Go::Abort {
            return Err(Error::refused(Exit::Restore, "the restore was called off"));
        }
        self.commit(&monitor, &state)?;
        made.keep(ve);
        if !self.options.disconnected
            && let Err(error) = net::connect(ve, &outer, netns.as_fd())
        {
            ve.say(-1, &format!("WARNING: the container is not connected: {}", describe(&error)));
        }
        host_files::serve(ve.node);
        Ok(state)
    }

    fn plan(&self) -> Result<RestorePlan> {
        Ok(RestorePlan {
            criu: self.criu.clone(),
            images: self.images.path().to_owned(),
            root: self.ve.root()?,
            ids: self.saved.ids,
            externals: self.saved.externals.clone(),
            place: self.ve.run_dir().join("restore"),
            signals: beancounters::queueable(&self.ve.config),
            lockable: self.saved.confinement.lockable,
            frozen: self.options.frozen,
            log_level: criu::log_level(),
        })
    }

    /// Init is in its namespaces, and waits.
    fn wire(&self, pid: i32, made: &mut Made) -> Result<(ProcRef, OwnedFd, NetPlan)> {
        let what = || format!("cannot open the network of container {}", self.ve.ctid);
        let init = ProcRef::of(pid).doing(Exit::Restore, what)?;
        let netns = process::namespace(pid, "net").doing(Exit::Restore, what)?;
        let (net, outer) = net::attach_inside(self.ve, netns.as_fd())?;
        made.net = Some(net);
        fault::point("restore.network");
        Ok((init, netns, outer))
    }

    /// Everything is there, and nothing has run.
    fn settle(&self, init: ProcRef, monitor: ProcRef, cgroup: &VeCgroup) -> Result<State> {
        let (ve, saved) = (self.ve, self.saved);
        cgroup::limit_inside(ve, cgroup, init.pid)?;
        let run_dir = ve.run_dir();
        if let Some(record) = &saved.record {
            Record::resume(&run_dir, record)
                .doing(Exit::System, || format!("cannot write the counters in {}", run_dir.display()))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        Ok(State {
            version: 1,
            ctid: ve.ctid.get(),
            init,
            monitor,
            // As if it had never been away: its own clocks say so too.
            started_at_boottime: boottime() - saved.uptime,
            started_at: now - saved.uptime,
            ids: saved.ids,
            confinement: saved.confinement.clone(),
            root: ve.root()?,
            stop: saved.stop.clone(),
            tells_ready: saved.tells_ready,
        })
    }

    fn commit(&self, monitor: &Monitor, state: &State) -> Result<()> {
        let (ve, life) = (self.ve, self.saved.life);
        // Not before: until it is decided, nobody is to take it for one that runs.
        state.save(&ve.run_dir())?;
        fault::point("restore.saved");
        let path = ve.run_dir().join(BEGUN);
        let begun = serde_json::to_vec(&Begun { life: life::current(&ve.node.paths, ve.ctid) });
        std::fs::write(&path, begun.unwrap_or_default())
            .doing(Exit::System, || format!("cannot write {}", path.display()))?;
        life::set(&ve.node.paths, ve.ctid, life.max(life::current(&ve.node.paths, ve.ctid)) + 1)?;
        fault::point("restore.counted");
        // COMMIT: it runs.
        monitor.release().map_err(launch_failed)?;
        fault::point("restore.released");
        let _ = std::fs::remove_file(&path);
        Ok(())
    }
}

/// Connects a VE that was restored [off the networks][Options::disconnected].
///
/// # Errors
/// 34/78 addresses, 31 when it has ended.
pub fn connect(ve: &Ve<'_>, state: &State) -> Result<()> {
    net::reconnect(ve, state)
}

/// Freezes a VE whose processes are about to be let go; for its monitor.
///
/// # Errors
/// 3, the call that failed.
pub fn hold(ctid: u32) -> Result<()> {
    let cgroup = VeCgroup::open(&Hierarchies::detect()?, Ctid::new(ctid)?)?;
    Ok(cgroup.map_or(Ok(()), |cgroup| cgroup.hold())?)
}

/// A restore that was killed before it let the VE run has not begun a life. The caller knows that the VE does not run.
pub(crate) fn mend(ve: &Ve<'_>) -> Result<()> {
    let path = ve.run_dir().join(BEGUN);
    let begun = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Begun>(&bytes).ok());
    begun.map_or(Ok(()), |begun| life::set(&ve.node.paths, ve.ctid, begun.life))
}
