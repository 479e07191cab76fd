//! Files that are read again and again stay open: to open one costs more than to read it.
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::knob::{self, Length};

/// By the bytes of their paths, which take less time to compare than their parts do. One that is gone with its cgroup
/// reads as an error from then on.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<HashMap<OsString, OwnedFd>>);

impl Kept {
    /// The content without the last line break.
    ///
    /// # Errors
    /// The errno of open(2) or pread(2).
    pub(crate) fn read(&self, path: &Path, length: Length) -> Result<String, Errno> {
        let mut files = self.0.borrow_mut();
        if let Some(file) = files.get(path.as_os_str()) {
            return knob::read_open(file, length);
        }
        let file = knob::open(path)?;
        let text = knob::read_open(&file, length);
        files.insert(path.as_os_str().to_owned(), file);
        text
    }

    /// A directory, for a question about it.
    ///
    /// # Errors
    /// The errno of open(2).
    pub(crate) fn in_directory<T>(
        &self,
        path: &Path,
        ask: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Result<T, Errno> {
        let mut files = self.0.borrow_mut();
        if let Some(directory) = files.get(path.as_os_str()) {
            return Ok(ask(directory.as_fd()));
        }
        let directory = open_directory(path)?;
        let answer = ask(directory.as_fd());
        files.insert(path.as_os_str().to_owned(), directory);
        Ok(answer)
    }
}

/// # Errors
/// The errno of open(2).
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
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
        let names = |fd: BorrowedFd<'_>| rustix::fs::Dir::read_from(fd).unwrap().count();
        assert_eq!(kept.in_directory(dir.path(), names).unwrap(), 3);
        assert_eq!(kept.in_directory(&dir.path().join("none"), names), Err(Errno::NOENT));
    }
}
