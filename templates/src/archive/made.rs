//! What a layer has made, so that it hides only what the layers below brought.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::Fault;
use super::place::named;

/// What a layer has made: names in directories, the latter by inode, so that it does not matter by which links
/// they were reached. The hash is keyed at random: an image cannot aim at collisions.
#[derive(Debug, Default)]
pub(super) struct Made {
    names: HashSet<(u64, u64)>,
    key: RandomState,
    /// The directory we are in.
    dir: u64,
}

impl Made {
    /// A tree that is hidden in parts may not be deeper.
    const DEEP: u32 = 256;

    pub(super) fn note(&mut self, name: &[u8]) {
        self.names.insert((self.dir, self.key.hash_one(name)));
    }

    fn knows(&self, dir: u64, name: &[u8]) -> bool {
        self.names.contains(&(dir, self.key.hash_one(name)))
    }

    pub(super) fn enter(&mut self, dir: u64) {
        self.dir = dir;
    }

    /// Hides one name in the current directory, unless this layer made it.
    pub(super) fn hide(&self, here: BorrowedFd<'_>, name: &[u8]) -> Result<(), Fault> {
        if self.knows(self.dir, name) { Ok(()) } else { self.sweep(here, name, 0) }
    }

    /// Hides all that this layer did not make.
    pub(super) fn hide_all(&self, dir: BorrowedFd<'_>) -> Result<(), Fault> {
        self.purge(dir, 0)
    }

    /// Removes all in a directory but what this layer made, and the directories on the way to it.
    fn purge(&self, dir: BorrowedFd<'_>, depth: u32) -> Result<(), Fault> {
        if depth > Self::DEEP {
            return Err(Fault::hostile("it hides parts of a very deep directory"));
        }
        let here = fs::fstat(dir).map_err(named("fstat", b"."))?.st_ino;
        for name in super::pack::names(dir).map_err(named("getdents", b"."))? {
            if !self.knows(here, &name) {
                self.sweep(dir, &name, depth)?;
            } else if let Some(below) = directory_at(dir, &name) {
                self.purge(below.as_fd(), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Removes a name that this layer did not make.
    fn sweep(&self, dir: BorrowedFd<'_>, name: &[u8], depth: u32) -> Result<(), Fault> {
        if !self.names.is_empty()
            && let Some(below) = directory_at(dir, name)
        {
            self.purge(below.as_fd(), depth + 1)?;
            return match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                // Something of this layer is in it.
                Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
                Err(errno) => Err(named("unlinkat", name)(errno)),
            };
        }
        Ok(crate::removal::remove_at(dir, std::ffi::OsStr::from_bytes(name))?)
    }
}

fn directory_at(dir: BorrowedFd<'_>, name: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).ok()
}
