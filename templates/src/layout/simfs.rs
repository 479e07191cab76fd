//! A plain directory. The name is OpenVZ's; its kernel had a pseudo file system of that name.

use std::path::Path;

use vzsys::idmap::IdRange;
use vzsys::mount::Detached;

use super::{LayoutError, Mapping};

pub(super) fn mount(private: &Path, ids: Option<IdRange>) -> Result<Detached, LayoutError> {
    Mapping::of(ids, private)?.layer(private)
}
