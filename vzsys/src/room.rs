//! Room on disks.

use std::path::{Path, PathBuf};

use crate::error::{Call, Result};

/// Bytes that may still be written to the file system of a directory; what it reserves for root is not counted.
///
/// # Errors
/// The errno of statvfs(3).
pub fn free(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).call("statvfs", || dir.display().to_string())?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The closest directory above an absolute path, which need not exist.
#[must_use]
pub fn above(path: &Path) -> PathBuf {
    path.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_asked_where_something_is_to_be() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(above(&dir.path().join("not/there/yet")), dir.path());
        assert_eq!(above(Path::new("/")), Path::new("/"));
        assert!(free(dir.path()).is_ok());
        assert!(free(&dir.path().join("none")).is_err());
    }
}
