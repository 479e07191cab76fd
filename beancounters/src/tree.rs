//! Walking and removing a subtree that its owner, a VE, may shape as it likes.
//!
//! One descriptor at a time, going down by name and up by `..`: neither depth nor width costs more
//! than the names themselves. cgroups cannot be moved to another parent, so `..` leads back.
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Dir {
    /// Opens a directory that the host names; `None` when it is not there.
    pub(crate) fn open(path: &Path) -> Result<Option<Dir>, Errno> {
        gone(rustix::fs::open(path, DIRECTORY, Mode::empty()).map(Dir))
    }

    fn child(&self, name: &CString) -> Result<Option<Dir>, Errno> {
        gone(rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()).map(Dir))
    }

    /// A child that must be there.
    pub(crate) fn named(&self, name: &OsStr) -> Result<Dir, Errno> {
        rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()).map(Dir)
    }

    fn parent(&self) -> Result<Dir, Errno> {
        rustix::fs::openat(&self.0, c"..", DIRECTORY, Mode::empty()).map(Dir)
    }

    fn subdirectories(&self) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) => break, // the directory itself was removed meanwhile
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes a child; `false` when it is in use or has children.
    fn rmdir(&self, name: &CString) -> Result<bool, Errno> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn gone<T>(opened: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Calls `visit` for the directory and everything below it, parents first.
pub(crate) fn walk(top: Dir, mut visit: impl FnMut(&Dir) -> Result<(), Errno>) -> Result<(), Errno> {
    walk_named(top, |dir, _| visit(dir))
}

/// The same, with each one's path below the first.
pub(crate) fn walk_named(
    top: Dir,
    mut visit: impl FnMut(&Dir, &Path) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut path = PathBuf::new();
    visit(&top, &path)?;
    let mut pending = vec![top.subdirectories()?];
    let mut here = top;
    while let Some(names) = pending.last_mut() {
        if let Some(name) = names.pop() {
            if let Some(child) = here.child(&name)? {
                path.push(OsStr::from_bytes(name.as_bytes()));
                visit(&child, &path)?;
                pending.push(child.subdirectories()?);
                here = child;
            }
        } else {
            pending.pop();
            if !pending.is_empty() {
                here = here.parent()?;
                path.pop();
            }
        }
    }
    Ok(())
}

/// Removes all below `top`, deepest first. What is in use stays; the caller sees it when `top` itself
/// cannot be removed.
pub(crate) fn remove_below(top: Dir) -> Result<(), Errno> {
    struct Level {
        /// Name of this directory in its parent, to remove it when its children are gone.
        name: Option<CString>,
        stubborn: Vec<CString>,
    }
    // Childless ones, mostly all, go at once; only the others are descended into.
    let leaves_removed = |dir: &Dir| -> Result<Vec<CString>, Errno> {
        let mut stubborn = Vec::new();
        for name in dir.subdirectories()? {
            if !dir.rmdir(&name)? {
                stubborn.push(name);
            }
        }
        Ok(stubborn)
    };
    let mut levels = vec![Level { name: None, stubborn: leaves_removed(&top)? }];
    let mut here = top;
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.stubborn.pop() {
            if let Some(child) = here.child(&name)? {
                levels.push(Level { name: Some(name), stubborn: leaves_removed(&child)? });
                here = child;
            }
        } else if let Some(Level { name: Some(name), .. }) = levels.pop() {
            here = here.parent()?;
            here.rmdir(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn deep(base: &Path, depth: usize) {
        // Deeper than any path can name, as a hostile VE would.
        let mut dir = Dir::open(base).unwrap().unwrap();
        let name = c"deep-deep-deep-deep-deep-deep-deep".to_owned();
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
            dir = dir.child(&name).unwrap().unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_paths_and_descriptors_is_walked_and_removed() {
        // In memory where there is such a place: disks take seconds for this.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        deep(temp.path(), 2000);
        for i in 0..50 {
            fs::create_dir_all(temp.path().join(format!("w{i}/x\n y"))).unwrap();
        }
        let mut seen = 0;
        walk(Dir::open(temp.path()).unwrap().unwrap(), |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 1 + 2000 + 100);
        remove_below(Dir::open(temp.path()).unwrap().unwrap()).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_neither_followed_nor_removed_through() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("kept")).unwrap();
        std::os::unix::fs::symlink(outside.path(), temp.path().join("link")).unwrap();
        fs::create_dir(temp.path().join("own")).unwrap();
        remove_below(Dir::open(temp.path()).unwrap().unwrap()).unwrap();
        assert!(outside.path().join("kept").exists());
        assert!(!temp.path().join("own").exists());
    }

    #[test]
    fn what_is_in_use_stays() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("a/b")).unwrap();
        fs::write(temp.path().join("a/b/file"), "").unwrap();
        remove_below(Dir::open(temp.path()).unwrap().unwrap()).unwrap();
        assert!(temp.path().join("a/b/file").exists());
        assert!(Dir::open(&temp.path().join("absent")).unwrap().is_none());
    }
}
