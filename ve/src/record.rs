//! State files of ours that must outlive a power cut: small, JSON, one for each VE.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vzconf::Exit;

use crate::error::{Doing, Error, Result};

/// Reads a record; `None` where there is none.
///
/// # Errors
/// Exit 3, also for one that is damaged.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(Exit::System, || format!("cannot read {}", path.display())),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Error::refused(Exit::System, format!("{} is damaged: {error}", path.display()))),
    }
}

/// Whole or not at all, and on the disk when this returns.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).unwrap_or_default();
    store(path, &json)
}

/// As a record is written: whole or not at all, and on the disk when this returns.
pub(crate) fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let put = || {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let mut temp = tempfile::NamedTempFile::new_in(parent)?;
        temp.write_all(bytes)?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|error| error.error)?;
        File::open(parent)?.sync_all()
    };
    put().doing(Exit::System, || format!("cannot write {}", path.display()))
}

/// Forgets a record, for good; none is as well.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let gone = || match fs::remove_file(path) {
        Ok(()) => File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    gone().doing(Exit::System, || format!("cannot remove {}", path.display()))
}
