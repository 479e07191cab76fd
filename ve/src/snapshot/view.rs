//! What a running VE's files are at one moment, for somebody who reads them for long: a snapshot that nobody lists.

use templates::snapshot::{Id, Snapshots, View};
use vzconf::Exit;

use super::take::frozen;
use super::{Place, failed};
use crate::error::{Doing, Result};
use crate::node::Ve;

/// Takes a view of a running VE, which stands still for the moment that it takes. `None` where its layout would need a
/// copy for that: a copy's inodes are new, and whoever reads the files once a day would read all of them each time. The
/// caller has the VE's lock, and need not keep it.
///
/// # Errors
/// 156; nothing is left of it.
pub(crate) fn view(ve: &Ve<'_>) -> Result<Option<View>> {
    const EXIT: Exit = Exit::CreateSnapshot;
    let place = Place::of(ve)?;
    let all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    let id = Id::random().doing(EXIT, || "cannot make a snapshot id".to_owned())?;
    let Some(live) = all.begin_view(id).map_err(failed(EXIT))? else { return Ok(None) };
    let done = frozen(ve, live, EXIT).and_then(|frozen| all.finish_view(frozen, id).map_err(failed(EXIT)));
    done.map(Some).map_err(|error| {
        let left = all.give_up().err().map(|error| crate::describe(&error));
        error.with_cleanup(left.into_iter().collect())
    })
}
