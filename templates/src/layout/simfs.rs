//! A plain directory. The name is OpenVZ's; its kernel had a pseudo file system of that name.

use vzsys::idmap::IdRange;
use vzsys::mount::Detached;

use super::{Empty, Kind, LayoutError, Mapping, New, Place};
use crate::archive::{Durability, Progress, Unpack};
use crate::cache::CacheError;

/// The layout `simfs`.
#[derive(Debug)]
pub(super) struct Simfs;

impl Kind for Simfs {
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
        new.make_dir()?;
        let unpacked = Unpack::new(&new.template.path)
            .needed(new.template.unpacked())
            .durability(Durability::Lazy)
            .progress(progress)
            .into_dir(new.area);
        unpacked.map(drop).map_err(|error| CacheError::from(error).into())
    }

    fn prepare(&self, empty: &Empty<'_>) -> Result<(), LayoutError> {
        empty.make_dir()
    }

    fn mount(&self, at: Place<'_>, ids: Option<IdRange>) -> Result<Detached, LayoutError> {
        Mapping::of(ids, at.private)?.layer(at.private)
    }
}
