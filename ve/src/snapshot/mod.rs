//! `vzctl snapshot` and its relatives.
//!
//! ```text
//! snapshot          lock ─▶ check ─▶ files (running: copy ─▶ freeze ─▶ what changed ─▶ thaw) ─▶ list (COMMIT)
//! snapshot-switch   lock ─▶ check ─▶ stop ─▶ mark ─▶ configuration ─▶ files (COMMIT) ─▶ list ─▶ unmark ─▶ layers that nobody needs apart
//! snapshot-delete   lock ─▶ check ─▶ list (COMMIT) ─▶ files ─▶ layers that nobody needs apart
//! ```
//! What each layout keeps, and how, is [`templates::snapshot`]'s.

mod freeze;
mod list;
mod pending;
mod shown;
mod switch;
mod take;
mod view;

use std::path::{Path, PathBuf};

use templates::layout::Layout;
pub use templates::snapshot::Id;
use templates::snapshot::{Area, SnapshotError, Snapshots};
use vzconf::Exit;

use crate::error::{Error, Result};
use crate::node::Ve;

pub use list::{Listed, list};
pub use shown::{mount, umount};
pub use switch::{Options as SwitchOptions, switch};
pub use take::{Options, snapshot};
pub use templates::snapshot::{BadId, Item};

pub(crate) use freeze::{Still, heir};
pub(crate) use pending::mend as mend_switch;
pub(crate) use shown::umount_all;
pub(crate) use switch::conf_before as conf_before_switch;
pub(crate) use take::frozen;
pub(crate) use view::view;

/// Where the snapshots of a VE are: the owned parts of an [`Area`].
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) private: PathBuf,
    pub(crate) layout: Layout,
    bases: PathBuf,
    trash: PathBuf,
    blanks: PathBuf,
}

impl Place {
    pub(crate) fn of(ve: &Ve<'_>) -> Result<Self> {
        let private = ve.existing_private()?;
        let layout = ve.layout(&private)?;
        Ok(Self::new(ve, &private, layout))
    }

    pub(crate) fn new(ve: &Ve<'_>, private: &Path, layout: Layout) -> Self {
        let (bases, trash) = (ve.node.bases(), ve.node.paths.vz().join("vztmp"));
        Self { private: private.to_owned(), layout, bases, trash, blanks: crate::disk::blanks(ve) }
    }

    pub(crate) fn area(&self, ve: &Ve<'_>) -> Area<'_> {
        Area {
            private: &self.private,
            layout: self.layout,
            ctid: ve.ctid,
            bases: &self.bases,
            trash: &self.trash,
            blanks: &self.blanks,
        }
    }
}

/// Gives a failure of the noun the exit code of its verb.
pub(crate) fn failed(exit: Exit) -> impl Fn(SnapshotError) -> Error {
    move |source| Error::Snapshot { source, exit }
}

/// Removes what a killed verb left of a snapshot that is in no list. The caller has the lock.
///
/// # Errors
/// 158.
pub(crate) fn mend(ve: &Ve<'_>) -> Result<()> {
    let place = Place::of(ve)?;
    Snapshots::open(place.area(ve)).map(drop).map_err(failed(Exit::DeleteSnapshot))
}

/// Deletes a snapshot. What grew out of it stays.
///
/// # Errors
/// 158.
pub fn delete(ve: &Ve<'_>, id: Id) -> Result<()> {
    let exit = Exit::DeleteSnapshot;
    let place = Place::of(ve)?;
    let mut all = Snapshots::open(place.area(ve)).map_err(failed(exit))?;
    known(&all, id, exit)?;
    if let Some(target) = shown::target(ve, id) {
        let message = format!("Snapshot {id} is mounted at {}", target.display());
        let hint = format!("Unmount it first: vzctl snapshot-umount {} --id {id}", ve.ctid);
        return Err(Error::advised(exit, message, hint));
    }
    ve.say(0, &format!("Deleting snapshot {id}"));
    all.remove(id).map_err(failed(exit))?;
    merge(ve, &all, exit)?;
    ve.say(0, &format!("Snapshot {id} has been successfully deleted"));
    Ok(())
}

/// Makes one of layers that need not be apart, if nobody uses them: else the next verb for the VE's snapshots does, when it
/// is stopped.
///
/// # Errors
/// `exit`.
pub(crate) fn merge(ve: &Ve<'_>, all: &Snapshots<'_>, exit: Exit) -> Result<()> {
    let is_mounted = |item: &Item| shown::target(ve, item.id).is_some();
    if ve.running().is_some() || ve.mounted() || all.tree().items().iter().any(is_mounted) {
        return Ok(());
    }
    // A backup of a VE that was stopped meanwhile goes on reading.
    let Ok(_alone) = crate::backup::alone(ve) else { return Ok(()) };
    match all.merge().map_err(failed(exit))? {
        0 => {}
        merged => ve.say(1, &format!("Layers that nobody needs apart: {merged} less")),
    }
    Ok(())
}

/// What `vzctl compact` can do for a VE without an image: the layers of its deleted snapshots.
///
/// # Errors
/// 166.
pub(crate) fn compact(ve: &Ve<'_>) -> Result<()> {
    const EXIT: Exit = Exit::CompactImage;
    let place = Place::of(ve)?;
    let all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    merge(ve, &all, EXIT)
}

/// Refuses an id that is none of the VE's snapshots.
fn known(all: &Snapshots<'_>, id: Id, exit: Exit) -> Result<()> {
    if all.tree().get(id).is_some() {
        return Ok(());
    }
    let ctid = all.area().ctid;
    let hint = format!("Its snapshots: vzctl snapshot-list {ctid}");
    Err(Error::advised(exit, format!("Container {ctid} has no snapshot {id}"), hint))
}
