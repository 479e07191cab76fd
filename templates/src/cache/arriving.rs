//! A base that comes from another host, where its template is.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use vzsys::Call;

use super::base::{appear, lock, lock_path, make_filled};
use super::{Cache, CacheError, check_name};
use crate::removal;

/// A base in the making; gone when dropped, unless finished. Who else wants it waits.
#[derive(Debug)]
pub struct Arriving {
    temp: PathBuf,
    base: PathBuf,
    lock_path: PathBuf,
    finished: bool,
    _lock: File,
}

impl Cache {
    /// Whether the unpacked tree of this name is here.
    #[must_use]
    pub fn has_base(&self, id: &str) -> bool {
        check_name(id).is_ok() && self.bases().join(id).is_dir()
    }

    /// A place for the tree of a base that is not here; `None` when it is. What a killed one left is removed.
    ///
    /// # Errors
    /// [`CacheError::BadName`], [`CacheError::System`].
    pub fn arriving(&self, id: &str) -> Result<Option<Arriving>, CacheError> {
        check_name(id)?;
        let bases = self.bases();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&bases);
        made.call("mkdir", || bases.display().to_string())?;
        let _lock = lock(&bases, id, FlockOperation::LockExclusive)?;
        let base = bases.join(id);
        if base.is_dir() {
            return Ok(None);
        }
        let temp = make_filled(&base)?;
        Ok(Some(Arriving { temp, base, lock_path: lock_path(&bases, id), finished: false, _lock }))
    }
}

impl Arriving {
    /// The directory that the tree goes into.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// The tree is whole, and on the disk.
    ///
    /// # Errors
    /// [`CacheError::System`].
    pub fn finish(mut self) -> Result<(), CacheError> {
        appear(&self.temp, &self.base)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is removed by the next one.
            let _ = removal::remove(&self.temp);
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}
