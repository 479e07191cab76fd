//! A pass over what is known to have changed, and nothing else: its cost does not grow with the tree.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Sink;
use super::entry::Op;
use super::error::ReplicaError;
use super::known::{Below, Known, names_of};
use super::scan::{DEEPEST, More, Passed, Scan, Walk, meta, open_dir};
use crate::changes::{Change, Open};

/// How a path is looked at.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// With all below it.
    deep: bool,
    /// It has changed, whatever its times say: a long write gives it one when it begins.
    sure: bool,
}

impl Scan {
    /// Sends what has changed since the last pass, where that is known: `changes` are all that were told since, and `open`
    /// the files whose changes may not have been told, because somebody can write to them. Paths are below the root.
    ///
    /// # Errors
    /// As [`Scan::pass`].
    pub fn pass_over(
        &mut self,
        changes: &[Change],
        open: &[Open],
        more: More,
        sink: &mut dyn Sink,
    ) -> Result<Passed, ReplicaError> {
        self.walk(more, sink, |walk, root, known| walk.over(root, known, changes, open))
    }
}

impl Walk<'_> {
    fn over(
        &mut self,
        root: BorrowedFd<'_>,
        known: &mut Below,
        changes: &[Change],
        open: &[Open],
    ) -> Result<(), ReplicaError> {
        let mut touched = BTreeSet::new();
        let (nameless, named): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.unnamed.is_some());
        for change in named {
            let look = Look { deep: change.deep, sure: true };
            self.visit(root, known, change.path.as_os_str().as_bytes(), look, &mut touched)?;
        }
        let nameless: HashSet<u64> = nameless.iter().filter_map(|change| change.unnamed).collect();
        for path in names_of(known, &nameless) {
            self.visit(root, known, &path, Look { deep: false, sure: true }, &mut touched)?;
        }
        // Files that are open have perhaps other names than they were opened by; and whatever was sent above has to be
        // the same file under all of its names.
        let mut inodes: HashSet<u64> = self.links.keys().map(|(_, inode)| *inode).collect();
        inodes.extend(open.iter().map(|open| open.inode));
        let paths = open.iter().map(|open| open.path.as_os_str().as_bytes().to_vec());
        let paths: BTreeSet<Vec<u8>> = paths.chain(names_of(known, &inodes)).collect();
        for path in paths {
            self.visit(root, known, &path, Look { deep: false, sure: false }, &mut touched)?;
        }
        for path in touched {
            self.leave(root, &path)?;
        }
        Ok(())
    }

    /// A path, wherever its directory is now.
    fn visit(
        &mut self,
        root: BorrowedFd<'_>,
        known: &mut Below,
        path: &[u8],
        look: Look,
        touched: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), ReplicaError> {
        if path.len() > DEEPEST {
            return Err(ReplicaError::at("openat", path)(Errno::NAMETOOLONG));
        }
        let Some((dir, name, new)) = self.place(known, path) else {
            touched.extend(path.is_empty().then(Vec::new));
            return Ok(());
        };
        let look = if new { Look { deep: true, sure: true } } else { look };
        // A directory that is gone was told by itself, and so was what took its place.
        let Some(fd) = open_below(root, &dir)? else { return Ok(()) };
        let Some(below) = below_of(known, &dir) else { return Ok(()) };
        self.path = if dir.is_empty() { name.clone() } else { [&dir, &b"/"[..], &name].concat() };
        let sent = self.changed(std::os::fd::AsFd::as_fd(&fd), &name, below, look);
        self.path.clear();
        // What came and went between two passes, or took the place of another, has changed the times of its directory.
        if sent? || look.sure {
            touched.insert(dir);
        }
        Ok(())
    }

    /// Directory and name that are to be looked at for a path, and whether that is a directory above it, which is not
    /// known yet. `None` for the root, and for what is left out.
    fn place(&self, known: &Below, path: &[u8]) -> Option<(Vec<u8>, Vec<u8>, bool)> {
        let (mut below, mut dir) = (known, Vec::new());
        let mut parts = path.split(|&b| b == b'/').peekable();
        while let Some(part) = parts.next() {
            if part.is_empty() || self.scan.is_hollow(&dir) {
                return None;
            }
            if parts.peek().is_none() {
                return Some((dir, part.to_vec(), false));
            }
            match below.get(part) {
                Some(known) if known.kind == FileType::Directory => below = &known.below,
                _ => return Some((dir, part.to_vec(), true)),
            }
            super::scan::descend(&mut dir, part);
        }
        None
    }

    /// Whether the copy of the directory was touched.
    fn changed(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        known: &mut Below,
        look: Look,
    ) -> Result<bool, ReplicaError> {
        self.passed.seen += 1;
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                let was = known.remove(name).is_some();
                if was {
                    self.tell(Op::Remove { path: self.path.clone() })?;
                }
                return Ok(was);
            }
            Err(errno) => return Err(self.failed("fstatat", errno)),
        };
        let mut before = known.remove(name);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory
            && !look.deep
            && let Some(same) = before.take_if(|known| known.same_file(&stat))
        {
            // What is in it is told by itself.
            let mut now = Known::new(self.scan.pass, &stat);
            now.below = same.below;
            known.insert(name.into(), now);
            if let Ok(fd) = open_dir(dir, name) {
                let meta = meta(std::os::fd::AsFd::as_fd(&fd), b".", &stat, &self.path)?;
                self.tell(Op::Leave { path: self.path.clone(), meta })?;
            }
            return Ok(false);
        }
        if look.sure
            && let Some(before) = &mut before
        {
            before.doubt();
        }
        self.entry(dir, name, &stat, before, known)
    }

    /// A directory whose copy was touched gets its times.
    fn leave(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<(), ReplicaError> {
        let Some(fd) = open_below(root, path)? else { return Ok(()) };
        let stat = fs::fstat(&fd).map_err(ReplicaError::at("fstat", path))?;
        let meta = meta(std::os::fd::AsFd::as_fd(&fd), b".", &stat, path)?;
        self.tell(Op::Leave { path: path.to_vec(), meta })
    }
}

/// A directory of the tree; `None` when there is none any more.
fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, ReplicaError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let below = if path.is_empty() { b"." } else { path };
    loop {
        return match fs::openat2(root, below, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            // The tree moved meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => Err(ReplicaError::at("openat2", path)(errno)),
        };
    }
}

fn below_of<'k>(known: &'k mut Below, dir: &[u8]) -> Option<&'k mut Below> {
    let mut below = known;
    for part in dir.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        below = &mut below.get_mut(part)?.below;
    }
    Some(below)
}
