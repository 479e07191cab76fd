//! `vzctl suspend` (`chkpnt`) and `vzctl resume` (`restore`), whole or step by step.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beancounters::{Hierarchies, VeCgroup};
use vzconf::Exit;
use vzsys::fault;

use crate::checkpoint::{self, After, Held};
use crate::error::{Error, Result};
use crate::node::Ve;
use crate::restore::{self, Go};
use crate::state::State;
use crate::{net, obstacles};

/// How long a VE may take to stand still.
const STILL: Duration = Duration::from_secs(10);

/// Which part of a suspend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All: freeze, dump, kill.
    All,
    /// Freeze alone.
    Suspend,
    /// Dump a frozen one, which stays frozen.
    Dump,
    /// Kill a frozen one.
    Kill,
    /// Let a frozen one go on.
    Resume,
}

/// Which part of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestorePart {
    /// All: undump, and run.
    All,
    /// Restore it, frozen.
    Undump,
    /// Let it run.
    Resume,
    /// Kill it.
    Kill,
}

/// Suspends a VE.
///
/// # Errors
/// 31 not running; 20 when `--dump` has no file; 16: the VE runs on (or stays frozen, if it was), and of the dump only
/// `DUMP.fail` with CRIU's log is left.
pub fn suspend(ve: &Ve<'_>, part: Part, dumpfile: Option<&Path>) -> Result<()> {
    let Some(state) = ve.running() else {
        let message = "Unable to setup checkpointing: container is not running";
        return Err(Error::refused(Exit::VeNotRunning, message));
    };
    match part {
        Part::All => whole(ve, &state, &target(ve, dumpfile)?),
        Part::Suspend => announced(ve, || {
            ve.say(0, "\tsuspend...");
            freeze(ve, &state)
        }),
        Part::Dump => announced(ve, || {
            let target = dumpfile.ok_or_else(no_dumpfile)?;
            frozen(ve, Exit::Chkpnt)?;
            ve.say(0, "\tdump...");
            dump(ve, &state, target, After::Keep)
        }),
        Part::Kill => kill(ve, Exit::Chkpnt),
        Part::Resume => go_on(ve, &state, Exit::Chkpnt),
    }
}

fn no_dumpfile() -> Error {
    Error::refused(Exit::InvalidSyntax, "Error: dumpfile is not specified")
}

fn target(ve: &Ve<'_>, dumpfile: Option<&Path>) -> Result<PathBuf> {
    let target = dumpfile.map(Path::to_owned).or_else(|| ve.config.dump_file());
    target.ok_or_else(|| Error::refused(Exit::Chkpnt, "there is no place for the dump: DUMPDIR is not set"))
}

/// The lines around a checkpoint.
fn announced(ve: &Ve<'_>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    ve.say(0, "Setting up checkpoint...");
    let done = work();
    match &done {
        Ok(()) => ve.say(0, "Checkpointing completed successfully"),
        Err(_) => ve.say(-1, "Checkpointing failed"),
    }
    done
}

fn whole(ve: &Ve<'_>, state: &State, target: &Path) -> Result<()> {
    announced(ve, || {
        obstacles::refuse(ve, state)?;
        ve.say(0, "\tsuspend...");
        dump(ve, state, target, After::Kill)?;
        ve.say(0, "\tkill...");
        fault::point("chkpnt.gone");
        // Whatever stays behind of it is mended by the next verb: it is suspended.
        if let Err(error) = checkpoint::clear(ve) {
            ve.say(-1, &format!("WARNING: {}", crate::describe(&error)));
        }
        Ok(())
    })
}

fn dump(ve: &Ve<'_>, state: &State, target: &Path, after: After) -> Result<()> {
    let absolute = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    crate::mount::shut(ve, &absolute)?;
    let options = checkpoint::Options {
        target: &absolute,
        disconnect: true,
        hold: false,
        keeper: None,
        frozen: after == After::Keep,
    };
    let done = checkpoint::checkpoint(ve, state, &options, &mut |held: Held<'_>| {
        if after == After::Kill {
            ve.say(0, "\tdump...");
        }
        held.images.list(held.saved).and_then(|()| held.images.publish()).map_err(failed)?;
        fault::point("chkpnt.published");
        Ok(after)
    })?;
    ve.say(1, &format!("The container stood still for {} ms", done.frozen.as_millis()));
    Ok(())
}

fn failed(source: criu::Error) -> Error {
    Error::Criu { source, exit: Exit::Chkpnt }
}

fn cgroup(ve: &Ve<'_>, exit: Exit) -> Result<VeCgroup> {
    VeCgroup::open(&Hierarchies::detect()?, ve.ctid)?
        .ok_or_else(|| Error::refused(exit, "the container's cgroups are gone"))
}

/// Its cgroup, when it is frozen.
fn frozen(ve: &Ve<'_>, exit: Exit) -> Result<VeCgroup> {
    let cgroup = cgroup(ve, exit)?;
    if cgroup.is_frozen() {
        return Ok(cgroup);
    }
    let hint = format!("Freeze it with: vzctl suspend {} --suspend", ve.ctid);
    Err(Error::advised(exit, "The container is not frozen", hint))
}

fn freeze(ve: &Ve<'_>, state: &State) -> Result<()> {
    net::disconnect(ve)?;
    let frozen = cgroup(ve, Exit::Chkpnt).and_then(|cgroup| Ok(cgroup.freeze(Instant::now() + STILL)?));
    if let Err(error) = frozen {
        let left = net::reconnect(ve, state).err().map(|error| crate::describe(&error));
        return Err(error.with_cleanup(left.into_iter().collect()));
    }
    Ok(())
}

fn kill(ve: &Ve<'_>, exit: Exit) -> Result<()> {
    let cgroup = frozen(ve, exit)?;
    ve.say(0, "Killing...");
    cgroup.kill_all()?;
    if !cgroup.wait_empty(Instant::now() + STILL)? {
        return Err(Error::refused(exit, "The container's processes do not end"));
    }
    checkpoint::clear(ve)
}

fn go_on(ve: &Ve<'_>, state: &State, exit: Exit) -> Result<()> {
    let cgroup = frozen(ve, exit)?;
    ve.say(0, "Resuming...");
    net::reconnect(ve, state)?;
    Ok(cgroup.thaw()?)
}

/// Resumes a suspended VE.
///
/// # Errors
/// 32 running; 20 when `--undump` has no file; 17: dump, disk and host are as before.
pub fn resume(ve: &Ve<'_>, part: RestorePart, dumpfile: Option<&Path>) -> Result<()> {
    match part {
        RestorePart::All | RestorePart::Undump => {
            if part == RestorePart::Undump && dumpfile.is_none() {
                return Err(no_dumpfile());
            }
            let dump = target(ve, dumpfile)?;
            let dump = std::path::absolute(&dump).unwrap_or(dump);
            undump(ve, &dump, part == RestorePart::Undump)
        }
        RestorePart::Resume => {
            let state = ve.must_run()?;
            go_on(ve, &state, Exit::Restore)
        }
        RestorePart::Kill => {
            ve.must_run()?;
            kill(ve, Exit::Restore)
        }
    }
}

fn undump(ve: &Ve<'_>, dump: &Path, stay_frozen: bool) -> Result<()> {
    if ve.running().is_some() {
        let message = "Unable to perform restore: container already running";
        return Err(Error::refused(Exit::VeRunning, message));
    }
    if !dump.exists() {
        let message = format!("There is no dump {}", dump.display());
        let hint = format!("A running container is saved with: vzctl suspend {}", ve.ctid);
        return Err(Error::advised(Exit::Restore, message, hint));
    }
    ve.say(0, "Restoring container ...");
    ve.say(0, "\tundump...");
    let begun = Instant::now();
    let options = restore::Options {
        images: dump,
        known: None,
        disk_is_as_saved: false,
        disconnected: stay_frozen,
        frozen: stay_frozen,
        skip_remount: false,
    };
    let restored = restore::restore(ve, options, &mut |_| {
        if !stay_frozen {
            ve.say(0, "\tresume...");
        }
        Ok(Go::Run)
    });
    if restored.is_err() {
        ve.say(-1, "Restoring failed");
        return restored.map(drop);
    }
    fault::point("restore.done");
    if !stay_frozen {
        criu::remove(dump).map_err(|source| Error::Criu { source, exit: Exit::System })?;
        ve.say(0, "Container start in progress...");
    }
    ve.say(1, &format!("The container was restored in {} ms", begun.elapsed().as_millis()));
    ve.say(0, "Restoring completed successfully");
    Ok(())
}

/// `start` of a VE that has a dump: restored from it, if that can be done. Returns whether it was; else the dump is set
/// aside.
pub(crate) fn resume_at_start(ve: &Ve<'_>) -> Result<bool> {
    let Some(dump) = ve.config.dump_file().filter(|path| path.exists()) else { return Ok(false) };
    ve.say(0, &format!("Dump file {} exists, trying to restore from it", dump.display()));
    match undump(ve, &dump, false) {
        Ok(()) => Ok(true),
        // Its lock, its configuration, its scripts, its addresses: a start fails as well.
        Err(error) if error.exit() != Exit::Restore => Err(error),
        Err(error) => {
            ve.say(-1, &format!("WARNING: {}", crate::describe(&error)));
            let aside = dump.with_extension(format!("{}.stale", ve.ctid));
            let failed = |source| Error::Criu { source, exit: Exit::System };
            criu::remove(&aside).map_err(failed)?;
            criu::rename(&dump, &aside).map_err(failed)?;
            ve.say(-1, &format!("It starts from its disk; the dump is now {}", aside.display()));
            Ok(false)
        }
    }
}
