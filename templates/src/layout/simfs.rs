//! A plain directory. The name is OpenVZ's; its kernel had a pseudo file system of that name.

use std::io::Write;
use std::path::Path;

use rustix::fs::ioctl_ficlone;
use vzconf::Exit;
use vzsys::idmap::IdRange;
use vzsys::mount::Detached;

use super::{Empty, Kind, LayoutError, Mapping, New, Place};
use crate::archive::{Durability, Progress, Unpack};
use crate::cache::CacheError;
use crate::mirror::Mirror;

/// The layout `simfs`.
#[derive(Debug)]
pub(super) struct Simfs;

impl Kind for Simfs {
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
        new.make_dir()?;
        if shares(&new.cache.bases(), new.area) {
            let base = new.cache.base(new.template, progress)?;
            return fill(&base.path, new.area).map_err(LayoutError::call(
                format!("cannot copy {} to {}", base.path.display(), new.area.display()),
                Exit::FsNewVePrvt,
            ));
        }
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

/// Whether files below one directory can share their blocks with files below another (`FICLONE`: btrfs, xfs): tried out.
fn shares(from: &Path, to: &Path) -> bool {
    let tried = || -> std::io::Result<()> {
        // (The first template makes `base`.)
        let mut file = tempfile::tempfile_in(from.parent().unwrap_or(from))?;
        file.write_all(&[1; 4096])?;
        Ok(ioctl_ficlone(tempfile::tempfile_in(to)?, &file)?)
    };
    tried().is_ok()
}

/// Fills a new area with a template whose blocks it shares.
fn fill(base: &Path, area: &Path) -> vzsys::Result<()> {
    let mut mirror = Mirror::filling(base, area)?;
    mirror.compare(|_| {})?;
    mirror.finish()?;
    mirror.seal().map(drop)
}
