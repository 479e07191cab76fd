//! Files that are read again and again stay open: to open one costs more than to read it.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::knob::{self, Length};

/// By their paths. One that is gone with its cgroup reads as an error from then on.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<BTreeMap<PathBuf, OwnedFd>>);

impl Kept {
    /// The content without the last line break.
    ///
    /// # Errors
    /// The errno of open(2) or pread(2).
    pub(crate) fn read(&self, path: &Path, length: Length) -> Result<String, Errno> {
        let mut files = self.0.borrow_mut();
        if let Some(file) = files.get(path) {
            return knob::read_open(file, length);
        }
        let file = knob::open(path)?;
        let text = knob::read_open(&file, length);
        files.insert(path.to_owned(), file);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("knob"), Kept::default());
        assert_eq!(kept.read(&path, Length::Short), Err(Errno::NOENT));
        for value in ["1", "22", "3"] {
            std::fs::write(&path, format!("{value}\n")).unwrap();
            assert_eq!(kept.read(&path, Length::Short).unwrap(), value);
        }
        assert_eq!(kept.0.borrow().len(), 1);
    }
}
