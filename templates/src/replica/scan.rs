//! Reads a tree that belongs to a hostile VE and may be in use, and tells what a copy needs.
//!
//! Directories are entered by descriptor, no link is followed, a FIFO is never opened. A file that changes while it
//! is read is sent as it was met; the next pass sends it again.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use vzsys::Call;

use super::entry::{Content, Meta, NodeKind, Op, Xattr};
use super::error::ReplicaError;
use super::known::{BLOCK, Below, Hash, Known, LARGE, hash};
use super::measure::{Measure, measure};
use super::{PIECE, Sink};
use crate::archive::{attributes, attributes_of, names, open_root, proc_path};
use crate::holes::next_data;

/// Bytes of a path: what is deeper has no name for the kernel, and no end for us.
pub(super) const DEEPEST: usize = 4095;
/// Handles of files of the host on which they were made.
const OF_THIS_HOST: &[u8] = b"trusted.overlay.origin";

/// Whether another pass will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Yes: large files are remembered by blocks.
    ToCome,
    /// No.
    Nothing,
}

/// What a pass sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Names that were looked at.
    pub seen: u64,
    /// Steps.
    pub ops: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// A tree about to be copied. Needs root, to read everything and to see `trusted.*`.
#[derive(Debug)]
pub struct Scan {
    pub(super) root: OwnedFd,
    pub(super) device: u64,
    hollow: Vec<Vec<u8>>,
    pub(super) known: Below,
    top: Option<Known>,
    pub(super) pass: u32,
    /// What has not changed since this second is as it was sent.
    settled: i64,
}

impl Scan {
    /// The tree at `root`; other file systems below it are left out.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(root: &Path) -> Result<Self, ReplicaError> {
        let fd = open_root(root)?;
        let device = fs::fstat(&fd).call("fstat", || root.display().to_string())?.st_dev;
        let (hollow, known) = (Vec::new(), Below::new());
        Ok(Self { root: fd, device, hollow, known, top: None, pass: 0, settled: 0 })
    }

    /// Keeps these directories but leaves out what is in them.
    #[must_use]
    pub fn hollow(mut self, paths: &[&str]) -> Self {
        self.hollow.extend(paths.iter().map(|path| path.as_bytes().to_vec()));
        self
    }

    /// Counts what a first pass will send.
    ///
    /// # Errors
    /// The call that failed.
    pub fn measure(&self) -> Result<Measure, ReplicaError> {
        measure(self)
    }

    /// Sends what has changed since the last pass; the first one sends everything. What is dirty is written to the
    /// disk first, because only then the next change of a mapped page leaves a mark.
    ///
    /// # Errors
    /// The call that failed, here or at the sink. What was sent until then counts as sent.
    pub fn pass(&mut self, more: More, sink: &mut dyn Sink) -> Result<Passed, ReplicaError> {
        self.walk(more, sink, |walk, root, known| {
            let stat = fs::fstat(root).call("fstat", || "")?;
            let touched = walk.directory(root, known)?;
            let new = walk.scan.top.as_ref().is_none_or(|top| !top.unchanged(&stat, walk.settled));
            if touched || new {
                let meta = meta(root, b".", &stat, &[])?;
                walk.sink.op(Op::Leave { path: Vec::new(), meta })?;
            }
            walk.scan.top = Some(Known::new(walk.scan.pass, &stat));
            Ok(())
        })
    }

    /// One pass, whatever it looks at.
    pub(super) fn walk(
        &mut self,
        more: More,
        sink: &mut dyn Sink,
        work: impl FnOnce(&mut Walk<'_>, BorrowedFd<'_>, &mut Below) -> Result<(), ReplicaError>,
    ) -> Result<Passed, ReplicaError> {
        let settled = self.settled;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if more == More::ToCome {
            fs::syncfs(&self.root).call("syncfs", || "")?;
        }
        self.pass += 1;
        let root = self.root.try_clone().call("dup", || "")?;
        let mut known = std::mem::take(&mut self.known);
        let mut walk = Walk {
            scan: self,
            sink,
            more,
            settled,
            links: HashMap::new(),
            passed: Passed::default(),
            path: Vec::new(),
            buffer: vec![0; BLOCK as usize],
        };
        let done = work(&mut walk, root.as_fd(), &mut known);
        let passed = walk.passed;
        self.known = known;
        done?;
        // A second less: the clock of files lags behind.
        self.settled = i64::try_from(now).unwrap_or(0) - 1;
        Ok(passed)
    }

    pub(super) fn is_hollow(&self, path: &[u8]) -> bool {
        self.hollow.iter().any(|hollow| hollow == path)
    }
}

pub(super) struct Walk<'a> {
    pub(super) scan: &'a mut Scan,
    pub(super) sink: &'a mut dyn Sink,
    more: More,
    settled: i64,
    /// The first name of each inode with several, in this pass. The layers of an overlay have devices of their own.
    pub(super) links: HashMap<(u64, u64), Vec<u8>>,
    pub(super) passed: Passed,
    pub(super) path: Vec<u8>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// All in a directory; whether the copy of it was touched, so that its times are not right any more.
    pub(super) fn directory(&mut self, dir: BorrowedFd<'_>, known: &mut Below) -> Result<bool, ReplicaError> {
        let length = self.path.len();
        let mut touched = false;
        let list = names(dir).map_err(|errno| self.failed("getdents", errno))?;
        for name in list {
            descend(&mut self.path, &name);
            if self.path.len() > DEEPEST {
                return Err(self.failed("openat", Errno::NAMETOOLONG));
            }
            touched |= self.one(dir, &name, known)?;
            self.path.truncate(length);
        }
        let pass = self.scan.pass;
        let gone: Vec<Box<[u8]>> =
            known.iter().filter(|(_, known)| known.pass != pass).map(|(name, _)| name.clone()).collect();
        for name in gone {
            known.remove(&name);
            descend(&mut self.path, &name);
            self.tell(Op::Remove { path: self.path.clone() })?;
            self.path.truncate(length);
            touched = true;
        }
        Ok(touched)
    }

    fn one(&mut self, dir: BorrowedFd<'_>, name: &[u8], known: &mut Below) -> Result<bool, ReplicaError> {
        self.passed.seen += 1;
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away meanwhile, and counts as gone.
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.failed("fstatat", errno)),
        };
        let before = known.remove(name);
        self.entry(dir, name, &stat, before, known)
    }

    /// What has this name, as it is now and as it was sent.
    pub(super) fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        before: Option<Known>,
        known: &mut Below,
    ) -> Result<bool, ReplicaError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let fresh = Known::new(self.scan.pass, stat);
        let (sent, now) = match kind {
            FileType::Directory => self.below(dir, name, stat, before, fresh)?,
            _ => self.leaf(dir, name, stat, before, fresh)?,
        };
        if let Some(now) = now {
            known.insert(name.into(), now);
        }
        Ok(sent)
    }

    fn below(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        before: Option<Known>,
        mut now: Known,
    ) -> Result<(bool, Option<Known>), ReplicaError> {
        let was_directory = before.as_ref().is_some_and(|known| known.kind == FileType::Directory);
        let unchanged = before.as_ref().is_some_and(|known| known.unchanged(stat, self.settled));
        let fd = match open_dir(dir, name) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok((false, before)),
            Err(errno) => return Err(self.failed("openat", errno)),
        };
        if before.is_some() && !was_directory {
            self.tell(Op::Remove { path: self.path.clone() })?;
        }
        if !was_directory {
            self.tell(Op::Directory { path: self.path.clone() })?;
        }
        let mut touched = false;
        if stat.st_dev == self.scan.device && !self.scan.is_hollow(&self.path) {
            now.below = before.map(|known| known.below).unwrap_or_default();
            touched = self.directory(fd.as_fd(), &mut now.below)?;
        }
        if touched || !was_directory || !unchanged {
            let meta = meta(fd.as_fd(), b".", stat, &self.path)?;
            self.tell(Op::Leave { path: self.path.clone(), meta })?;
        }
        Ok((!was_directory, Some(now)))
    }

    /// What is no directory.
    fn leaf(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        before: Option<Known>,
        mut now: Known,
    ) -> Result<(bool, Option<Known>), ReplicaError> {
        let linked = stat.st_nlink > 1;
        if before.as_ref().is_some_and(|known| known.unchanged(stat, self.settled)) {
            if linked {
                self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| self.path.clone());
            }
            now.blocks = before.and_then(|known| known.blocks);
            return Ok((false, Some(now)));
        }
        if before.as_ref().is_some_and(|known| known.kind == FileType::Directory) {
            self.tell(Op::Remove { path: self.path.clone() })?;
        }
        if linked && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
            if first == self.path {
                // Sent in this pass.
                now.blocks = before.and_then(|known| known.blocks);
                return Ok((false, Some(now)));
            }
            self.tell(Op::HardLink { path: self.path.clone(), target: first })?;
            return Ok((true, Some(now)));
        }
        let same = before.as_ref().filter(|known| known.same_file(stat));
        let there = match now.kind {
            FileType::RegularFile => {
                let sent = same.map(|known| known.blocks.as_deref());
                self.file(dir, name, stat, sent, &mut now)?
            }
            FileType::Symlink if same.is_none() => self.symlink(dir, name, stat)?,
            kind if same.is_none() => self.node(dir, name, stat, kind)?,
            // Neither a device nor a link can become another one without becoming another inode.
            _ => {
                let meta = meta(dir, name, stat, &self.path)?;
                self.tell(Op::Meta { path: self.path.clone(), meta })?;
                true
            }
        };
        // Only now: a name that went away meanwhile cannot be linked to.
        if linked && there {
            self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        Ok((true, there.then_some(now)))
    }

    fn symlink(&mut self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<bool, ReplicaError> {
        let target = match fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(self.failed("readlinkat", errno)),
        };
        let meta = meta(dir, name, stat, &self.path)?;
        self.tell(Op::Symlink { path: self.path.clone(), target, meta }).map(|()| true)
    }

    fn node(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        kind: FileType,
    ) -> Result<bool, ReplicaError> {
        let Some(kind) = NodeKind::of(kind) else { return Ok(false) };
        let device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let meta = meta(dir, name, stat, &self.path)?;
        self.tell(Op::Node { path: self.path.clone(), kind, device, meta }).map(|()| true)
    }

    /// A regular file. `sent` is the file as it was sent before, by blocks if it was large.
    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        sent: Option<Option<&[Hash]>>,
        now: &mut Known,
    ) -> Result<bool, ReplicaError> {
        let file = match open_file(dir, name) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(self.failed("openat", errno)),
        };
        let current = fs::fstat(&file).map_err(|errno| self.failed("fstat", errno))?;
        if current.st_ino != stat.st_ino || current.st_dev != stat.st_dev {
            return Ok(false);
        }
        let size = u64::try_from(current.st_size).unwrap_or(0);
        let blocks = sent.flatten();
        let content = if blocks.is_some() { Content::Patched } else { Content::New };
        self.tell(Op::File { path: self.path.clone(), content })?;
        if blocks.is_some() || size >= LARGE && self.more == More::ToCome {
            now.blocks = Some(self.by_blocks(&file, size, blocks.unwrap_or_default())?);
        } else {
            self.by_segments(&file, size)?;
        }
        // Read by its descriptor: the name may be another file's by now.
        let meta = meta_of_fd(&file, &current, &self.path)?;
        self.tell(Op::Close { size, meta })?;
        Ok(true)
    }

    /// What has data, holes left out.
    fn by_segments(&mut self, file: &OwnedFd, size: u64) -> Result<(), ReplicaError> {
        let mut at = 0;
        while let Some((data, end)) =
            next_data(file, at, size).map_err(|errno| self.failed("lseek", errno))?
        {
            at = data;
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let read = self.read(file, at, want)?;
                if read == 0 {
                    // It has shrunk; the rest reads as zeros.
                    return Ok(());
                }
                self.send(at, 0, read)?;
                at += read as u64;
            }
        }
        Ok(())
    }

    /// The blocks that are not those that were sent; returns what they all are now.
    fn by_blocks(&mut self, file: &OwnedFd, size: u64, sent: &[Hash]) -> Result<Vec<Hash>, ReplicaError> {
        let zeros = hash(&vec![0; BLOCK as usize]);
        let mut blocks = Vec::new();
        let mut data = (0, 0);
        for number in 0..size.div_ceil(BLOCK) {
            let (start, end) = (number * BLOCK, ((number + 1) * BLOCK).min(size));
            if start >= data.1 {
                let next = next_data(file, start, size).map_err(|errno| self.failed("lseek", errno))?;
                data = next.unwrap_or((size, u64::MAX));
            }
            let before = usize::try_from(number).ok().and_then(|number| sent.get(number)).copied();
            if data.0 >= end {
                // A hole; a new file has it already.
                if before.is_some_and(|before| before != zeros) {
                    self.tell(Op::Zero { offset: start, length: end - start })?;
                }
                blocks.push(zeros);
                continue;
            }
            let length = usize::try_from(end - start).unwrap_or(0);
            self.fill(file, start, length)?;
            self.buffer[length..].fill(0);
            let this = hash(&self.buffer);
            if before != Some(this) && !(before.is_none() && this == zeros) {
                for at in (0..length).step_by(PIECE) {
                    self.send(start + at as u64, at, PIECE.min(length - at))?;
                }
            }
            blocks.push(this);
        }
        Ok(blocks)
    }

    /// Has `want` bytes of the file in the buffer.
    fn fill(&mut self, file: &OwnedFd, offset: u64, want: usize) -> Result<(), ReplicaError> {
        let mut filled = 0;
        while filled < want {
            let read = loop {
                match rustix::io::pread(file, &mut self.buffer[filled..want], offset + filled as u64) {
                    Err(Errno::INTR) => {}
                    done => break done.map_err(|errno| self.failed("pread", errno))?,
                }
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        // What is missing reads as zeros: it was there when its size was asked.
        self.buffer[filled..want].fill(0);
        Ok(())
    }

    fn read(&mut self, file: &OwnedFd, offset: u64, want: usize) -> Result<usize, ReplicaError> {
        loop {
            match rustix::io::pread(file, &mut self.buffer[..want], offset) {
                Err(Errno::INTR) => {}
                done => return done.map_err(|errno| self.failed("pread", errno)),
            }
        }
    }

    fn send(&mut self, offset: u64, from: usize, length: usize) -> Result<(), ReplicaError> {
        self.passed.bytes += length as u64;
        self.sink.data(offset, &self.buffer[from..from + length])
    }

    pub(super) fn tell(&mut self, op: Op) -> Result<(), ReplicaError> {
        self.passed.ops += 1;
        self.sink.op(op)
    }

    pub(super) fn failed(&self, call: &'static str, errno: Errno) -> ReplicaError {
        ReplicaError::at(call, &self.path)(errno)
    }
}

pub(super) fn descend(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Not blocking, in case it has become a FIFO.
fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty())
}

pub(super) fn meta(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat, path: &[u8]) -> Result<Meta, ReplicaError> {
    let list = attributes(&proc_path(dir, name)).map_err(ReplicaError::at("lgetxattr", path))?;
    Ok(Meta::of(stat, of_the_file(list)))
}

fn meta_of_fd(file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<Meta, ReplicaError> {
    let list = attributes_of(file.as_fd()).map_err(ReplicaError::at("fgetxattr", path))?;
    Ok(Meta::of(stat, of_the_file(list)))
}

/// Without what means nothing elsewhere.
fn of_the_file(mut list: Vec<Xattr>) -> Vec<Xattr> {
    list.retain(|(name, _)| name != OF_THIS_HOST);
    list
}
