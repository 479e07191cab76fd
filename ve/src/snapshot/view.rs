//! What a VE's files are at one moment, for somebody who reads them for long: a snapshot that nobody lists.

use templates::snapshot::{Id, Label, Snapshots};
use vzconf::{Exit, Lock};
use vzsys::mount::Detached;

use super::take::frozen;
use super::{Place, failed};
use crate::dismantle;
use crate::error::{Doing, Result};
use crate::node::Ve;

/// The files of a VE at one moment, to be read only, with the ids of the disk. The VE goes on. While the value lives
/// nobody works on the VE's snapshots; its end throws away what it needed.
#[derive(Debug)]
pub struct View {
    mount: Option<Detached>,
    tidy: Option<Tidy>,
}

/// What a copy needs to be thrown away again.
#[derive(Debug)]
struct Tidy {
    place: Place,
    ctid: vzconf::Ctid,
    _lock: Option<Lock>,
}

impl View {
    /// The mounted root.
    #[must_use]
    pub fn mount(&self) -> Option<&Detached> {
        self.mount.as_ref()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The mount ends first: nobody uses the files then.
        self.mount = None;
        if let Some(tidy) = self.tidy.take() {
            // What cannot be removed now is by the next verb.
            let _ = Snapshots::open(tidy.place.area_of(tidy.ctid));
        }
    }
}

/// Takes a view of a VE, running or stopped. `lock` is the VE's, which the view keeps; `None` when the caller has it for
/// as long as the view lives.
///
/// # Errors
/// 156.
pub fn view(ve: &Ve<'_>, lock: Option<Lock>) -> Result<View> {
    const EXIT: Exit = Exit::CreateSnapshot;
    dismantle::mend(ve)?;
    let place = Place::of(ve)?;
    let mut all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    if ve.running().is_none() {
        let mount = crate::tree::of_stopped(ve)?;
        return Ok(View { mount: Some(mount), tidy: Some(Tidy { ctid: ve.ctid, _lock: lock, place }) });
    }
    let id = Id::random().doing(EXIT, || "cannot make a snapshot id".to_owned())?;
    let label = Label { id, name: "", description: "", date: "" };
    let live = all.begin(label, None).map_err(failed(EXIT))?;
    let done = frozen(ve, live, EXIT)
        .and_then(|frozen| all.keep_unlisted(frozen, id).map_err(failed(EXIT)))
        .and_then(|()| all.mount_unlisted(id).map_err(failed(EXIT)));
    match done {
        Ok(mount) => Ok(View { mount: Some(mount), tidy: Some(Tidy { ctid: ve.ctid, _lock: lock, place }) }),
        Err(error) => {
            let left = all.give_up().err().map(|error| crate::describe(&error));
            Err(error.with_cleanup(left.into_iter().collect()))
        }
    }
}
