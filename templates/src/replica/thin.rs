//! A copy above a base that has most of it: an overlay's upper layer gets only what differs.
//!
//! What comes is compared with the base, files byte by byte: times can be set back, and a template's are the same for
//! all. What is as there is left alone, what is not there any more is removed.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::entry::{Content, Meta, Op};
use super::error::ReplicaError;
use super::scan::meta;
use super::{PIECE, Replica, Sink};
use crate::archive::{names, open_root};

/// Takes one whole pass of a scan.
#[derive(Debug)]
pub struct Thin {
    over: Replica,
    merged: OwnedFd,
    base: OwnedFd,
    open: Option<Compared>,
    /// The names that came, of the directories that are not complete yet.
    came: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    /// Files that stay those of the base.
    kept: HashSet<Vec<u8>>,
}

/// A file that has been as in the base so far.
#[derive(Debug)]
struct Compared {
    path: Vec<u8>,
    file: OwnedFd,
    stat: Stat,
    /// Up to this byte.
    until: u64,
}

impl Thin {
    /// The overlay mounted at `merged`, which has nothing of its own yet, over the tree at `base`.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn new(merged: &Path, base: &Path) -> Result<Self, ReplicaError> {
        Ok(Self {
            over: Replica::new(merged)?,
            merged: open_root(merged)?,
            base: open_root(base)?,
            open: None,
            came: HashMap::from([(Vec::new(), HashSet::new())]),
            kept: HashSet::new(),
        })
    }

    fn note(&mut self, path: &[u8]) {
        let (dir, name) = split(path);
        self.came.entry(dir.to_vec()).or_default().insert(name.to_vec());
    }

    /// What the base has at a path; nothing where a link leads there.
    fn in_base(&self, path: &[u8]) -> Result<Option<Found>, ReplicaError> {
        find(self.base.as_fd(), path)
    }

    /// Whether the base has the same there, but for its content; `kind` and `device` as stat(2) has them.
    fn same(&self, path: &[u8], like: &Stat, meta_wanted: &Meta) -> Result<bool, ReplicaError> {
        let Some(found) = self.in_base(path)? else { return Ok(false) };
        let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
        if kind(&found.stat) != kind(like) || found.stat.st_rdev != like.st_rdev {
            return Ok(false);
        }
        Ok(alike(&found.meta(path)?, meta_wanted))
    }

    /// A directory of the base would be in the way of anything else.
    fn clear(&mut self, path: &[u8]) -> Result<(), ReplicaError> {
        let directory = |found: Found| FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory;
        if self.in_base(path)?.is_some_and(directory) {
            self.over.op(Op::Remove { path: path.to_vec() })?;
        }
        Ok(())
    }

    fn leave(&mut self, path: Vec<u8>, wanted: Meta) -> Result<(), ReplicaError> {
        let came = self.came.remove(&path).unwrap_or_default();
        if let Ok(dir) = open_dir(self.base.as_fd(), &path) {
            let had = names(dir.as_fd()).map_err(ReplicaError::at("getdents", &path))?;
            for name in had.into_iter().filter(|name| !came.contains(name.as_slice())) {
                self.over.op(Op::Remove { path: join(&path, &name) })?;
            }
        }
        let dir = open_dir(self.merged.as_fd(), &path).map_err(ReplicaError::at("openat2", &path))?;
        let stat = fs::fstat(&dir).map_err(ReplicaError::at("fstat", &path))?;
        if alike(&meta(dir.as_fd(), b".", &stat, &path)?, &wanted) {
            return Ok(());
        }
        self.over.op(Op::Leave { path, meta: wanted })
    }

    fn file(&mut self, path: Vec<u8>) -> Result<(), ReplicaError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let regular = self
            .in_base(&path)?
            .filter(|found| FileType::from_raw_mode(found.stat.st_mode) == FileType::RegularFile);
        match regular {
            Some(found) => {
                let file = fs::openat(&found.dir, found.name.as_slice(), flags, Mode::empty())
                    .map_err(ReplicaError::at("openat", &path))?;
                self.open = Some(Compared { path, file, stat: found.stat, until: 0 });
                Ok(())
            }
            None => {
                self.clear(&path)?;
                self.over.op(Op::File { path, content: Content::New })
            }
        }
    }

    /// The open file is another one from here on: what was the same comes from the base.
    fn diverge(&mut self) -> Result<(), ReplicaError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.over.op(Op::File { path: open.path.clone(), content: Content::New })?;
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < open.until {
            let want = usize::try_from(open.until - at).unwrap_or(PIECE).min(PIECE);
            let got = read(&open, at, &mut buffer[..want])?;
            if got == 0 {
                break;
            }
            if buffer[..got].iter().any(|byte| *byte != 0) {
                self.over.data(at, &buffer[..got])?;
            }
            at += got as u64;
        }
        Ok(())
    }

    fn close(&mut self, size: u64, wanted: Meta) -> Result<(), ReplicaError> {
        if let Some(open) = &self.open {
            let whole = open.stat.st_size == i64::try_from(size).unwrap_or(-1) && open.is_zero_until(size)?;
            let path = open.path.clone();
            let now = self.in_base(&path)?.map(|found| found.meta(&path)).transpose()?;
            if whole && now.as_ref().is_some_and(|now| alike(now, &wanted)) {
                self.kept.insert(path);
                self.open = None;
                return Ok(());
            }
            if whole && now.is_some_and(|now| now.xattrs == wanted.xattrs) {
                self.open = None;
                return self.over.op(Op::Meta { path, meta: wanted });
            }
            self.diverge()?;
        }
        self.over.op(Op::Close { size, meta: wanted })
    }

    fn hard_link(&mut self, path: Vec<u8>, target: Vec<u8>) -> Result<(), ReplicaError> {
        let inode = |found: Found| found.stat.st_ino;
        if self.kept.contains(&target) {
            let (ours, theirs) = (self.in_base(&path)?.map(inode), self.in_base(&target)?.map(inode));
            if ours.is_some() && ours == theirs {
                self.kept.insert(path);
                return Ok(());
            }
        }
        self.clear(&path)?;
        self.over.op(Op::HardLink { path, target })
    }
}

impl Sink for Thin {
    fn op(&mut self, op: Op) -> Result<(), ReplicaError> {
        match op {
            Op::Leave { path, meta } => self.leave(path, meta),
            Op::Directory { path } => {
                self.note(&path);
                self.came.insert(path.clone(), HashSet::new());
                if open_dir(self.base.as_fd(), &path).is_ok() {
                    return Ok(());
                }
                self.over.op(Op::Directory { path })
            }
            Op::File { path, .. } => {
                self.note(&path);
                self.file(path)
            }
            Op::Zero { offset, length } => {
                if self.open.as_ref().map(|open| open.is_zero_until(offset + length)).transpose()?
                    == Some(true)
                {
                    self.open.iter_mut().for_each(|open| open.until = offset + length);
                    return Ok(());
                }
                self.diverge()?;
                self.over.op(Op::Zero { offset, length })
            }
            Op::Close { size, meta } => self.close(size, meta),
            Op::HardLink { path, target } => {
                self.note(&path);
                self.hard_link(path, target)
            }
            Op::Symlink { path, target, meta } => {
                self.note(&path);
                let now = self.in_base(&path)?.and_then(|found| found.link());
                if now.is_some_and(|now| now == target) && self.same_link(&path, &meta)? {
                    self.kept.insert(path);
                    return Ok(());
                }
                self.clear(&path)?;
                self.over.op(Op::Symlink { path, target, meta })
            }
            Op::Node { path, kind, device, meta } => {
                self.note(&path);
                let mut like = fs::fstat(&self.base).map_err(ReplicaError::at("fstat", &path))?;
                like.st_mode = kind.file_type().as_raw_mode();
                like.st_rdev = fs::makedev(device.0, device.1);
                if self.same(&path, &like, &meta)? {
                    self.kept.insert(path);
                    return Ok(());
                }
                self.clear(&path)?;
                self.over.op(Op::Node { path, kind, device, meta })
            }
            op @ (Op::Meta { .. } | Op::Remove { .. }) => self.over.op(op),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        if let Some(open) = &mut self.open {
            if open.is_zero_until(offset)? && open.has(offset, bytes)? {
                open.until = offset + bytes.len() as u64;
                return Ok(());
            }
            self.diverge()?;
        }
        self.over.data(offset, bytes)
    }
}

impl Thin {
    fn same_link(&self, path: &[u8], wanted: &Meta) -> Result<bool, ReplicaError> {
        let Some(found) = self.in_base(path)? else { return Ok(false) };
        Ok(alike(&found.meta(path)?, wanted))
    }
}

impl Compared {
    /// Whether there is nothing but zeros between what was compared and this byte.
    fn is_zero_until(&self, end: u64) -> Result<bool, ReplicaError> {
        let mut buffer = vec![0; PIECE];
        let mut at = self.until;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let got = read(self, at, &mut buffer[..want])?;
            if got == 0 || buffer[..got].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += got as u64;
        }
        Ok(true)
    }

    fn has(&self, offset: u64, bytes: &[u8]) -> Result<bool, ReplicaError> {
        let mut buffer = vec![0; bytes.len()];
        let mut done = 0;
        while done < bytes.len() {
            let got = read(self, offset + done as u64, &mut buffer[done..])?;
            if got == 0 {
                return Ok(false);
            }
            done += got;
        }
        Ok(buffer == bytes)
    }
}

fn read(open: &Compared, at: u64, buffer: &mut [u8]) -> Result<usize, ReplicaError> {
    loop {
        match rustix::io::pread(&open.file, &mut *buffer, at) {
            Err(Errno::INTR) => {}
            done => return done.map_err(ReplicaError::at("pread", &open.path)),
        }
    }
}

/// An entry of the base.
struct Found {
    dir: OwnedFd,
    name: Vec<u8>,
    stat: Stat,
}

impl Found {
    fn meta(&self, path: &[u8]) -> Result<Meta, ReplicaError> {
        meta(self.dir.as_fd(), &self.name, &self.stat, path)
    }

    fn link(&self) -> Option<Vec<u8>> {
        fs::readlinkat(&self.dir, self.name.as_slice(), Vec::new()).ok().map(std::ffi::CString::into_bytes)
    }
}

fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Found>, ReplicaError> {
    let (dir, name) = split(path);
    let dir = match open_dir(root, dir) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(ReplicaError::at("openat2", path)(errno)),
    };
    match fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Found { dir, name: name.to_vec(), stat })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(ReplicaError::at("fstatat", path)(errno)),
    }
}

fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let below = if path.is_empty() { b"." } else { path };
    fs::openat2(root, below, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Everything but when it was looked at.
fn alike(one: &Meta, other: &Meta) -> bool {
    Meta { accessed: (0, 0), ..one.clone() } == Meta { accessed: (0, 0), ..other.clone() }
}
