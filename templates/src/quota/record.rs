//! `/var/lib/vzctl/quota/CTID`: which limits are in force, and since when a barrier is exceeded.
//!
//! The limits themselves are in the file system. This outlives a restart of the host because the time of a
//! barrier does.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vzconf::Exit;
use vzsys::Call;

use super::QuotaError;
use super::limits::{Limits, Timing};

/// A real one is below 1 KiB.
const LARGEST: u64 = 64 << 10;

/// The limits in force for one VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The tree that is limited.
    pub tree: PathBuf,
    /// Its limits.
    pub limits: Limits,
    /// Who counts the time.
    pub timing: Timing,
    /// Since when the barrier of space is exceeded, seconds since 1970.
    pub space_since: Option<u64>,
    /// The same of inodes.
    pub inodes_since: Option<u64>,
}

impl Record {
    pub(super) fn new(tree: &Path, limits: Limits, timing: Timing) -> Self {
        Self { version: 1, tree: tree.to_owned(), limits, timing, space_since: None, inodes_since: None }
    }

    /// Reads one; a damaged one counts as none: the next start has its limits hold anew.
    pub(super) fn load(file: &Path) -> Option<Self> {
        let mut text = Vec::new();
        fs::File::open(file).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|record: &Self| record.version == 1)
    }

    /// Writes it: whole or not at all. What a start would not find out again, since when a barrier is exceeded, is on
    /// the disk then.
    pub(super) fn save(&self, file: &Path) -> Result<(), QuotaError> {
        let failed = || QuotaError::call(Exit::DqSet, format!("cannot write {}", file.display()));
        let temp = file.with_extension("tmp");
        let name = || temp.display().to_string();
        let write = || -> vzsys::Result<()> {
            let dir = file.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .call("mkdir", || dir.display().to_string())?;
            let mut new = fs::File::create(&temp).call("open", name)?;
            new.write_all(&serde_json::to_vec(self).unwrap_or_default()).call("write", name)?;
            if self.space_since.is_some() || self.inodes_since.is_some() {
                new.sync_data().call("fsync", name)?;
            }
            fs::rename(&temp, file).call("rename", name)
        };
        write().map_err(failed())
    }

    /// Removes it; there may be none.
    pub(super) fn remove(file: &Path) -> Result<(), QuotaError> {
        match fs::remove_file(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done
                .call("unlink", || file.display().to_string())
                .map_err(QuotaError::call(Exit::DqOff, format!("cannot remove {}", file.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::limits::Bounds;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quota/101");
        assert_eq!(Record::load(&file), None);
        let limits = Limits { space: Bounds { barrier: 1, limit: 2 }, inodes: Bounds::NONE, grace: 3 };
        let record = Record {
            space_since: Some(7),
            ..Record::new(Path::new("/vz/private/101"), limits, Timing::Ours)
        };
        record.save(&file).unwrap();
        assert_eq!(Record::load(&file), Some(record));
        fs::write(&file, "{").unwrap();
        assert_eq!(Record::load(&file), None);
        Record::remove(&file).unwrap();
        Record::remove(&file).unwrap();
    }
}
