//! Which of its lives a VE is in: `/var/lib/vzctl/lives/CTID` counts its starts and restores.
//!
//! What was saved in one life must not be restored over the disk of a later one.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use vzconf::{Ctid, Exit, Paths};

use crate::error::{Doing, Result};

/// How often the directory is made anew.
const MAKE: u32 = 10;

fn path(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("lives").join(ctid.to_string())
}

/// The number of its present or last life; 0 for a VE that never ran.
pub(crate) fn current(paths: &Paths, ctid: Ctid) -> u64 {
    fs::read_to_string(path(paths, ctid)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A life begins. The number is not synced: what a power cut takes away with it is a VE that had just begun to run.
///
/// # Errors
/// The call that failed, exit 3.
pub(crate) fn begin(paths: &Paths, ctid: Ctid) -> Result<u64> {
    let life = current(paths, ctid) + 1;
    set(paths, ctid, life)?;
    Ok(life)
}

/// Sets the number, for a VE that comes from elsewhere.
///
/// # Errors
/// The call that failed, exit 3.
pub(crate) fn set(paths: &Paths, ctid: Ctid, life: u64) -> Result<()> {
    let path = path(paths, ctid);
    let what = || format!("cannot record the start of container {ctid} in {}", path.display());
    let temp = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temp)?;
        writeln!(file, "{life}")?;
        fs::rename(&temp, &path)
    };
    let mut written = write();
    // Whoever destroys the last VE takes the directory away.
    for _ in 0..MAKE {
        if !written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            break;
        }
        written = fs::create_dir_all(path.parent().unwrap_or(&path)).and_then(|()| write());
    }
    written.doing(Exit::System, what)
}

/// A VE is no more.
pub(crate) fn forget(paths: &Paths, ctid: Ctid) {
    let path = path(paths, ctid);
    let _ = fs::remove_file(&path);
    // Only when it was the last.
    let _ = path.parent().map(fs::remove_dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_counted_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, ctid) = (Paths::under(dir.path()), Ctid::new(101).unwrap());
        assert_eq!(current(&paths, ctid), 0);
        assert_eq!((begin(&paths, ctid).unwrap(), begin(&paths, ctid).unwrap()), (1, 2));
        set(&paths, ctid, 9).unwrap();
        assert_eq!(current(&paths, ctid), 9);
        forget(&paths, ctid);
        assert_eq!(current(&paths, ctid), 0);
    }
}
