//! Who is at work on a running VE that he has frozen: `RUN_DIR/checkpoint.json`, and what happens when he dies.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use beancounters::{Hierarchies, VeCgroup};
use serde::{Deserialize, Serialize};
use vzconf::Exit;
use vzsys::process::ProcRef;

use crate::checkpoint::Options;
use crate::error::{Doing, Error, Result, describe};
use crate::net;
use crate::node::Ve;
use crate::state::State;

/// Its name in the VE's run directory.
pub const FILE: &str = "checkpoint.json";
/// How long a CRIU whose caller died may take to undo what it did.
const UNDONE: Duration = Duration::from_secs(30);

/// A checkpoint that is at work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Whoever began it.
    holder: ProcRef,
    /// His CRIU.
    criu: Option<ProcRef>,
    /// Where the images are to be.
    target: PathBuf,
    /// As long as this file exists it is not ours to mend.
    keeper: Option<PathBuf>,
}

impl Marker {
    pub(crate) fn set(ve: &Ve<'_>, criu: i32, options: &Options<'_>) -> Result<()> {
        let path = ve.run_dir().join(FILE);
        let what = || format!("cannot write {}", path.display());
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let marker = Marker {
            holder: ProcRef::of(me).doing(Exit::System, what)?,
            criu: ProcRef::of(criu).ok(),
            target: options.target.to_owned(),
            keeper: options.keeper.clone(),
        };
        let temp = path.with_extension("tmp");
        let text = serde_json::to_vec(&marker).unwrap_or_default();
        std::fs::write(&temp, text).and_then(|()| std::fs::rename(&temp, &path)).doing(Exit::System, what)
    }

    pub(crate) fn remove(ve: &Ve<'_>) {
        let _ = std::fs::remove_file(ve.run_dir().join(FILE));
    }

    fn load(ve: &Ve<'_>) -> Option<Marker> {
        serde_json::from_slice(&std::fs::read(ve.run_dir().join(FILE)).ok()?).ok()
    }
}

/// Who made a mark, by its text.
#[must_use]
pub fn holder_of(text: &[u8]) -> Option<ProcRef> {
    serde_json::from_slice::<Marker>(text).ok().map(|marker| marker.holder)
}

/// Whether somebody who froze the VE is gone, and left it so. Costs one look-up for a VE that nobody saves.
#[must_use]
pub fn is_left_frozen(ve: &Ve<'_>) -> bool {
    Marker::load(ve).is_some_and(|marker| is_abandoned(&marker))
}

fn is_abandoned(marker: &Marker) -> bool {
    !marker.holder.alive() && !marker.keeper.as_ref().is_some_and(|keeper| keeper.exists())
}

/// Ends what a killed checkpoint began: a VE whose first process was killed is saved, any other runs on. The caller has
/// the lock.
///
/// # Errors
/// 3, naming what could not be done; the next verb tries again.
pub fn mend(ve: &Ve<'_>) -> Result<()> {
    match Marker::load(ve).filter(is_abandoned) {
        Some(marker) => undo(ve, &marker),
        None => Ok(()),
    }
}

/// The same by the word of whoever decides about the VE as long as his file exists.
///
/// # Errors
/// As [`mend`].
pub fn take_over(ve: &Ve<'_>) -> Result<()> {
    match Marker::load(ve).filter(|marker| !marker.holder.alive()) {
        Some(marker) => undo(ve, &marker),
        None => Ok(()),
    }
}

/// Ends a VE that stands still because it is elsewhere now. One that nobody has frozen is left as it is.
///
/// # Errors
/// 3, naming what could not be done; the next verb tries again.
pub fn give_up(ve: &Ve<'_>) -> Result<()> {
    let Some(marker) = Marker::load(ve).filter(|marker| !marker.holder.alive()) else { return Ok(()) };
    let Some(state) = ve.running() else { return Ok(()) };
    wait_for_criu(&marker)?;
    crate::depart::let_go(ve)?;
    if let Some(cgroup) = VeCgroup::open(&Hierarchies::detect()?, ve.ctid)? {
        cgroup.kill_frozen(state.init.pid)?;
        cgroup.kill_all()?;
        cgroup.wait_empty(Instant::now() + UNDONE)?;
    }
    let failed = |source| Error::Criu { source, exit: Exit::System };
    criu::remove(&criu::temporary(&marker.target)).map_err(failed)?;
    crate::checkpoint::clear(ve)
}

fn undo(ve: &Ve<'_>, marker: &Marker) -> Result<()> {
    let Some(state) = ve.running() else {
        // It was killed, and the rest is the next verb's.
        return Ok(());
    };
    ve.say(0, "A checkpoint of the container was interrupted");
    crate::depart::let_go(ve)?;
    let Some(cgroup) = VeCgroup::open(&Hierarchies::detect()?, ve.ctid)? else { return Ok(()) };
    if state.init.is_doomed() {
        cgroup.kill_all()?;
        cgroup.wait_empty(Instant::now() + UNDONE)?;
        return crate::checkpoint::clear(ve);
    }
    wait_for_criu(marker)?;
    take_back(ve, &state, &cgroup, marker)
}

/// It finds its caller gone, and lets the tasks go.
fn wait_for_criu(marker: &Marker) -> Result<()> {
    let what = || "cannot wait for CRIU".to_owned();
    let Some(criu) = &marker.criu else { return Ok(()) };
    let Some(process) = criu.open().doing(Exit::System, what)? else { return Ok(()) };
    if !process.wait_ended(Some(UNDONE)).doing(Exit::System, what)? {
        process.signal(rustix::process::Signal::KILL).doing(Exit::System, what)?;
        process.wait_ended(Some(UNDONE)).doing(Exit::System, what)?;
    }
    Ok(())
}

fn take_back(ve: &Ve<'_>, state: &State, cgroup: &VeCgroup, marker: &Marker) -> Result<()> {
    // First the images: who sees them takes the VE for suspended when it has ended.
    for path in [criu::temporary(&marker.target), marker.target.clone()] {
        if is_of_this_life(ve, &path)
            && let Err(error) = criu::set_aside(&path, &marker.target)
        {
            ve.say(-1, &format!("WARNING: {}", describe(&error)));
        }
    }
    cgroup.thaw()?;
    net::reconnect(ve, state)?;
    Marker::remove(ve);
    ve.say(0, "It runs on");
    Ok(())
}

/// An unfinished directory says nothing of itself, and is nobody else's.
fn is_of_this_life(ve: &Ve<'_>, path: &std::path::Path) -> bool {
    path.is_dir()
        && criu::Images::peek::<crate::saved::Saved>(path).map_or(
            path.extension().is_some_and(|e| e == "tmp"),
            |saved| {
                saved.ctid == ve.ctid.get() && saved.life == crate::life::current(&ve.node.paths, ve.ctid)
            },
        )
}
