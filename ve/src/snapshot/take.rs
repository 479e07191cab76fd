//! `vzctl snapshot`.

use beancounters::VeCgroup;
use templates::changes;
use templates::snapshot::{Frozen, Id, Label, Live, Snapshots};
use vzconf::Exit;
use vzsys::fault;

use super::freeze::Still;
use super::{Place, failed};
use crate::cgroup;
use crate::dismantle;
use crate::error::{Doing, Error, Result};
use crate::node::Ve;

/// What to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `--id`; a new one otherwise.
    pub id: Option<Id>,
    /// `--name`.
    pub name: String,
    /// `--description`.
    pub description: String,
    /// When, `YYYY-MM-DD HH:MM:SS` in local time.
    pub date: String,
    /// Without the memory of a running VE.
    pub skip_suspend: bool,
    /// Without the configuration.
    pub skip_config: bool,
}

/// Keeps what the files and the configuration of a VE are now. A running VE stands still for a moment.
///
/// # Errors
/// 156; nothing is left of it.
pub fn snapshot(ve: &Ve<'_>, options: &Options) -> Result<Id> {
    const EXIT: Exit = Exit::CreateSnapshot;
    dismantle::mend(ve)?;
    let place = Place::of(ve)?;
    if ve.mounted() && ve.running().is_none() {
        let hint = format!("Unmount it first: vzctl umount {}", ve.ctid);
        return Err(Error::advised(
            EXIT,
            "Container is mounted: its files may change under a snapshot",
            hint,
        ));
    }
    let mut all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    let id = options.id.map_or_else(Id::random, Ok).doing(EXIT, || "cannot make a snapshot id".to_owned())?;
    let label = Label { id, name: &options.name, description: &options.description, date: &options.date };
    all.check(label).map_err(failed(EXIT))?;
    let conf = if options.skip_config { None } else { Some(configuration(ve)?) };
    ve.say(0, &format!("Creating snapshot {id}"));
    let done = if ve.running().is_some() {
        live(ve, &all, label, conf.as_deref())
            .and_then(|frozen| all.keep(frozen, label).map_err(failed(EXIT)))
    } else {
        super::merge(ve, &all, EXIT)?;
        all.take(label, conf.as_deref()).map_err(failed(EXIT))
    };
    if let Err(error) = done {
        let left = all.give_up().err().map(|error| crate::describe(&error));
        return Err(error.with_cleanup(left.into_iter().collect()));
    }
    if ve.running().is_some() && !options.skip_suspend {
        ve.say(1, "The snapshot has the container's files, and not its memory");
    }
    ve.say(0, &format!("Snapshot {id} has been successfully created"));
    Ok(id)
}

fn configuration(ve: &Ve<'_>) -> Result<Vec<u8>> {
    let path = ve.node.paths.ve_conf(ve.ctid);
    std::fs::read(&path).doing(Exit::CreateSnapshot, || format!("cannot read {}", path.display()))
}

/// Takes the files of a running VE.
fn live(ve: &Ve<'_>, all: &Snapshots<'_>, label: Label<'_>, conf: Option<&[u8]>) -> Result<Frozen> {
    let live = all.begin(label, conf).map_err(failed(Exit::CreateSnapshot))?;
    frozen(ve, live, Exit::CreateSnapshot)
}

/// Copies while the VE runs, then what changed while it stands still.
pub(crate) fn frozen(ve: &Ve<'_>, mut live: Live, exit: Exit) -> Result<Frozen> {
    let Some(cgroup) = cgroup::open(ve)? else {
        return Err(Error::refused(exit, format!("the cgroups of container {} are gone", ve.ctid)));
    };
    if let Some(why) = live.blind() {
        ve.say(1, &format!("Changes are not told here ({why}): the whole tree is compared in the freeze"));
    }
    let progress = |done: templates::mirror::Done| (ve.node.progress)("Copying files", done.bytes, 0);
    let mapped = |live: &Live| if live.copies() { mapped(&cgroup, exit) } else { Ok(Vec::new()) };
    live.settle(&mapped(&live)?, progress).map_err(failed(exit))?;
    fault::point("snapshot.settled");
    loop {
        let moment = Live::moment();
        let still = Still::begin(ve, &cgroup)?;
        let stopped = std::time::Instant::now();
        fault::point("snapshot.frozen");
        let point = live.freeze_point(&mapped(&live)?).map_err(failed(exit))?;
        let work = stopped.elapsed();
        let took = still.end()?;
        ve.say(
            1,
            &format!(
                "The container stood still for {:.1} ms: {:.1} ms until it did, {:.1} ms for {} changed files",
                took.as_secs_f64() * 1e3,
                (took - work.min(took)).as_secs_f64() * 1e3,
                point.took.as_secs_f64() * 1e3,
                point.entries,
            ),
        );
        if live.is_whole(moment).map_err(failed(exit))? {
            return Ok(live.frozen());
        }
        ve.say(1, &format!("Once more, by comparing: {}", live.blind().unwrap_or_default()));
    }
}

fn mapped(cgroup: &VeCgroup, exit: Exit) -> Result<Vec<std::path::PathBuf>> {
    changes::mapped(&cgroup.processes()?).doing(exit, || "cannot look at mapped files".to_owned())
}
