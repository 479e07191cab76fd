//! Who reads a VE's files for long without keeping its lock: `LOCKDIR/CTID.reading`.
//!
//! Readers share the file's flock(2), so that `start`, `stop` and `exec` go on meanwhile; what takes the files away
//! takes it alone. The last one removes the file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use vzconf::Exit;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;

/// The right to read, or to be alone; given back on drop.
#[derive(Debug)]
pub struct Reading {
    file: File,
    path: PathBuf,
}

/// Says that the files of a VE are being read.
///
/// # Errors
/// 9 while they are taken away, 3 when the lock cannot be made.
pub fn hold(ve: &Ve<'_>) -> Result<Reading> {
    let busy = "Container already locked\nIt is just being destroyed or converted";
    take(ve, File::try_lock_shared, busy)
}

/// Says that nobody may read them.
///
/// # Errors
/// 9 while somebody does, 3 when the lock cannot be made.
pub fn alone(ve: &Ve<'_>) -> Result<Reading> {
    let busy = "Container already locked\nA backup of it is being made";
    take(ve, File::try_lock, busy)
}

fn take(
    ve: &Ve<'_>,
    lock: impl Fn(&File) -> std::result::Result<(), TryLockError>,
    busy: &str,
) -> Result<Reading> {
    let dir = ve.node.global.lock_dir();
    let path = dir.join(format!("{}.reading", ve.ctid));
    let what = || format!("cannot lock {}", path.display());
    fs::create_dir_all(&dir).doing(Exit::System, what)?;
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(&path);
        let file = file.doing(Exit::System, what)?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::refused(Exit::Locked, busy)),
            Err(TryLockError::Error(error)) => return Err(error).doing(Exit::System, what),
        }
        // The last one before may have removed it meanwhile.
        let ours = file.metadata().doing(Exit::System, what)?;
        if fs::symlink_metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
            return Ok(Reading { file, path });
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Whoever gets it alone is the last one. If that fails the file stays, and says nothing.
        if self.file.try_lock().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
