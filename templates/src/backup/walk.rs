//! A tree becomes a stream.
//!
//! The tree may belong to a hostile VE, and may be in use: directories are opened beneath the root without following
//! a link, one at a time, however deep they lie; a FIFO is never opened. A file that the index knows by inode and
//! ctime is not read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::error::Fault;
use super::head::Totals;
use super::index::{Index, Piece};
use super::item::{Chunk, Entry, Item, Kind, Time, path_fits};
use super::press::Press;
use super::record::Record;
use super::{OVERLAYS_OWN, Progress, chunk};
use crate::archive::{
    attributes, attributes_of, names, proc_path, segments, shift_acl, shift_capability, shifted,
};

/// Read at once.
const BUFFER: usize = 4 << 20;
/// How often progress is told, in bytes.
const TELL: u64 = 4 << 20;
/// The kernel's clock for files stands still between two ticks: what was changed so short a time before may change once
/// more and look the same.
pub(super) const TICK_NANOS: i128 = 50_000_000;

/// Walks one tree.
pub(super) struct Walk<'a, W> {
    pub(super) root: OwnedFd,
    shift: u32,
    device: u64,
    pub(super) press: Press<W>,
    index: &'a mut Index,
    /// What was seen, where the tree is in use and is gone through again: then only what is read goes into the stream.
    pub(super) record: Option<Record>,
    seen: HashMap<u64, Vec<u8>>,
    /// Files that changed after this may change again within one tick.
    pub(super) settled: i128,
    buffer: Vec<u8>,
    pub(super) totals: Totals,
    /// Files that changed while they were read, the first few by name.
    pub(super) torn: Torn,
    told: u64,
    progress: &'a mut dyn FnMut(Progress),
}

/// Files that were changing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Torn {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl<'a, W: Write> Walk<'a, W> {
    pub(super) fn new(
        root: OwnedFd,
        shift: u32,
        press: Press<W>,
        index: &'a mut Index,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, Fault> {
        let device = fs::fstat(&root).call("fstat", || "root")?.st_dev;
        let settled = settled(TICK_NANOS);
        Ok(Self {
            root,
            shift,
            device,
            press,
            index,
            record: None,
            seen: HashMap::new(),
            settled,
            buffer: vec![0; BUFFER],
            totals: Totals::default(),
            torn: Torn::default(),
            told: 0,
            progress,
        })
    }

    /// Everything. Hands the stream back.
    pub(super) fn run(mut self) -> Result<(Press<W>, Totals, Torn), Fault> {
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let below = self.directory(&path)?;
            waiting.extend(below.into_iter().rev());
        }
        self.tell();
        Ok((self.press, self.totals, self.torn))
    }

    /// A directory and what is in it; returns the directories in it.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let failed = |call, errno| Fault::System(SysError::new(call, path.escape_ascii(), errno));
        let Some(dir) = open_dir(&self.root, path)? else { return Ok(Vec::new()) };
        let stat = fs::fstat(&dir).map_err(|errno| failed("fstat", errno))?;
        let xattrs = attributes_of(dir.as_fd()).map_err(|errno| failed("fgetxattr", errno))?;
        let xattrs = self.kept(xattrs);
        let entry = self.entry(&stat, path, Kind::Dir, xattrs);
        self.note(&Item::Entry(entry))?;
        // Another file system: its place is saved, not what is in it.
        if stat.st_dev != self.device {
            return Ok(Vec::new());
        }
        let mut below = Vec::new();
        for name in names(dir.as_fd()).map_err(|errno| failed("getdents", errno))? {
            let full = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            if !path_fits(full.len()) {
                let path = full.escape_ascii().to_string();
                return Err(Fault::Unfit { path, reason: "its path is longer than 4095 bytes" });
            }
            if self.one(dir.as_fd(), &name, &full)? == FileType::Directory {
                below.push(full);
            }
        }
        Ok(below)
    }

    /// One name in a directory; of a directory nothing but that it is one.
    fn one(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<FileType, Fault> {
        let failed = |call, errno| Fault::System(SysError::new(call, path.escape_ascii(), errno));
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(FileType::Unknown),
            Err(errno) => return Err(failed("fstatat", errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return Ok(kind);
        }
        // (What is recorded tells hard links in the end, when it knows of all.)
        if stat.st_nlink > 1
            && self.record.is_none()
            && let Some(first) = self.seen.get(&stat.st_ino)
        {
            let link = Kind::Hard(first.clone());
            let entry = self.entry(&stat, name, link, Vec::new());
            self.note(&Item::Entry(entry))?;
            return Ok(kind);
        }
        let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let node = match kind {
            FileType::RegularFile => {
                if self.file(dir, name, path, &stat)? {
                    self.saw(&stat, path);
                }
                return Ok(kind);
            }
            FileType::Symlink => match fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => Kind::Symlink(target.into_bytes()),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(FileType::Unknown),
                Err(errno) => return Err(failed("readlinkat", errno)),
            },
            FileType::CharacterDevice => Kind::Char(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Socket => Kind::Socket,
            _ => Kind::Fifo,
        };
        let xattrs = attributes(&proc_path(dir, name)).map_err(|errno| failed("lgetxattr", errno))?;
        let xattrs = self.kept(xattrs);
        let entry = self.entry(&stat, name, node, xattrs);
        self.note(&Item::Entry(entry))?;
        self.saw(&stat, path);
        Ok(kind)
    }

    /// What may have other names is remembered.
    fn saw(&mut self, stat: &Stat, path: &[u8]) {
        match &mut self.record {
            Some(record) => record.link(stat.st_ino, stat.st_nlink),
            None if stat.st_nlink > 1 => drop(self.seen.insert(stat.st_ino, path.to_vec())),
            None => {}
        }
    }

    /// A regular file. Returns whether it was there still.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<bool, Fault> {
        let failed = |call, errno| Fault::System(SysError::new(call, path.escape_ascii(), errno));
        let numbers = (size(stat), mtime(stat));
        let is_told = self.record.as_ref().is_some_and(|record| record.is_told(name));
        if !is_told && self.record.as_mut().is_some_and(|record| record.keep(name, stat.st_ino, ctime(stat)))
        {
            return Ok(true);
        }
        let known = self.index.file(stat.st_ino, ctime(stat)).filter(|_| !is_told);
        let known = known.filter(|known| (known.size, known.mtime) == numbers);
        let known =
            known.map(|known| (known.partial, known.xattrs.clone(), self.index.pieces(known).to_vec()));
        let mut pieces = Vec::new();
        if let Some((partial, xattrs, all)) = known {
            pieces = all;
            if !partial {
                let entry = self.entry(stat, name, Kind::File, xattrs);
                self.note(&Item::Entry(entry))?;
                self.totals.unread += 1;
                self.pieces(&pieces, Self::note)?;
                return self.note(&Item::Close { trusted: true }).map(|()| true);
            }
        }
        // Not blocking, in case it has become a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(failed("openat", errno)),
        };
        let now = fs::fstat(&file).map_err(|errno| failed("fstat", errno))?;
        if now.st_ino != stat.st_ino || FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        if ctime(&now) != ctime(stat) {
            pieces.clear();
        }
        let xattrs = attributes_of(file.as_fd()).map_err(|errno| failed("fgetxattr", errno))?;
        let xattrs = self.kept(xattrs);
        let entry = self.entry(&now, name, Kind::File, xattrs);
        self.announce()?;
        self.item(&Item::Entry(entry))?;
        let begun = self.pieces(&pieces, Self::item)?;
        self.contents(&file, begun, size(&now), sparse(&now)).map_err(|fault| match fault {
            Failed::Read(call, errno) => failed(call, errno),
            Failed::Write(error) => written(&error),
            Failed::Told(fault) => fault,
        })?;
        let after = fs::fstat(&file).map_err(|errno| failed("fstat", errno))?;
        let whole = (size(&after), mtime(&after), ctime(&after)) == (size(&now), mtime(&now), ctime(&now));
        if !whole && self.record.is_none() {
            self.torn.count += 1;
            if self.torn.first.len() < 5 {
                self.torn.first.push(path.escape_ascii().to_string());
            }
        }
        self.item(&Item::Close { trusted: whole && nanos(ctime(&now)) < self.settled })?;
        self.record.iter_mut().for_each(|record| record.was_read(now.st_ino));
        Ok(true)
    }

    /// What goes into the stream; where there is a record, into that as well.
    fn item(&mut self, item: &Item) -> Result<(), Fault> {
        self.record.iter_mut().for_each(|record| record.add(item));
        self.press.item(item).map_err(|error| written(&error))
    }

    /// What goes into the stream unless there is a record, which is written in the end.
    fn note(&mut self, item: &Item) -> Result<(), Fault> {
        match &mut self.record {
            Some(record) => {
                record.add(item);
                Ok(())
            }
            None => self.press.item(item).map_err(|error| written(&error)),
        }
    }

    /// The directory of a file that is about to be read, and those above, into the stream, unless they are there.
    fn announce(&mut self) -> Result<(), Fault> {
        let Some(record) = &mut self.record else { return Ok(()) };
        for item in record.announced() {
            self.press.item(&item).map_err(|error| written(&error))?;
        }
        Ok(())
    }

    /// Pieces that are known; returns how many bytes they stand for.
    fn pieces(
        &mut self,
        pieces: &[Piece],
        put: fn(&mut Self, &Item) -> Result<(), Fault>,
    ) -> Result<u64, Fault> {
        let mut length = 0;
        for piece in pieces {
            let item = match *piece {
                Piece::Chunk(chunk, bytes) => {
                    length += u64::from(bytes);
                    self.count(bytes.into());
                    Item::Ref { chunk, length: bytes }
                }
                Piece::Hole(bytes) => {
                    length += bytes;
                    Item::Hole(bytes)
                }
            };
            put(self, &item)?;
        }
        Ok(length)
    }

    /// The bytes of a file from `from` on.
    fn contents(&mut self, file: &OwnedFd, from: u64, size: u64, sparse: bool) -> Result<(), Failed> {
        let map =
            if sparse { segments(file, size).map_err(|errno| Failed::Read("lseek", errno))? } else { None };
        let Some(map) = map else { return self.data(file, from, size).map(drop) };
        let mut at = from;
        for (offset, length) in map.segments {
            let end = offset + length;
            if end <= at {
                continue;
            }
            if offset > at {
                self.item(&Item::Hole(offset - at))?;
                at = offset;
            }
            // Shorter than it was: what follows would be in the wrong place.
            let read = self.data(file, at, end)?;
            at += read;
            if at < end {
                return Ok(());
            }
        }
        if at < size { Ok(self.item(&Item::Hole(size - at))?) } else { Ok(()) }
    }

    /// A range without holes, in chunks; returns how much there was of it.
    fn data(&mut self, file: &OwnedFd, from: u64, end: u64) -> Result<u64, Failed> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut at, mut held) = (from, 0);
        let done = loop {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len() - held);
            let read = match fill(file, &mut buffer[held..held + room], at) {
                Ok(read) => read,
                Err(errno) => break Err(Failed::Read("pread", errno)),
            };
            at += read as u64;
            held += read;
            let last = read < room || at == end;
            match self.chunks(&buffer[..held], last) {
                Ok(used) => {
                    buffer.copy_within(used..held, 0);
                    held -= used;
                }
                Err(error) => break Err(error),
            }
            if last {
                break Ok(at - from);
            }
        };
        self.buffer = buffer;
        done
    }

    /// Saves the chunks that are whole, or all of the last bytes; returns how many bytes that were.
    fn chunks(&mut self, bytes: &[u8], last: bool) -> Result<usize, Failed> {
        let mut at = 0;
        while at < bytes.len() && (last || bytes.len() - at >= chunk::MAX) {
            let length = chunk::cut(&bytes[at..]);
            let piece = &bytes[at..at + length];
            let hash = *blake3::hash(piece).as_bytes();
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            match self.index.chunk(&hash) {
                Some(chunk) => self.item(&Item::Ref { chunk, length: bytes })?,
                None => {
                    let chunk = Chunk { generation: 0, number: self.press.chunk(hash, piece)? };
                    self.record.iter_mut().for_each(|record| record.add(&Item::Ref { chunk, length: bytes }));
                    self.index.add(hash, chunk);
                    self.totals.new += length as u64;
                }
            }
            self.count(length as u64);
            at += length;
        }
        Ok(at)
    }

    fn entry(&mut self, stat: &Stat, name: &[u8], kind: Kind, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
        self.totals.entries += 1;
        let size = if kind == Kind::File { size(stat) } else { 0 };
        Entry {
            name: name.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: shifted(stat.st_uid, self.shift),
            gid: shifted(stat.st_gid, self.shift),
            mtime: mtime(stat),
            inode: stat.st_ino,
            ctime: ctime(stat),
            size,
            xattrs,
        }
    }

    /// Attributes with the ids of the disk, but for those that overlayfs keeps for itself.
    fn kept(&self, mut xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
        xattrs.retain(|(key, _)| !key.starts_with(OVERLAYS_OWN));
        if self.shift > 0 {
            for (key, value) in &mut xattrs {
                match key.as_slice() {
                    b"security.capability" => shift_capability(value, self.shift),
                    key if key.starts_with(b"system.posix_acl_") => shift_acl(value, self.shift),
                    _ => {}
                }
            }
        }
        xattrs
    }

    fn count(&mut self, bytes: u64) {
        self.totals.bytes += bytes;
        if self.totals.bytes - self.told >= TELL {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told = self.totals.bytes;
        let (done, total) = (self.totals.bytes, self.index.bytes);
        (self.progress)(Progress { done, total, stream: self.press.at });
    }
}

/// A directory below the root; `None` when there is none of that name any more.
pub(super) fn open_dir(root: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
    let name = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, name, flags, Mode::empty(), how) {
        Ok(dir) => Ok(Some(dir)),
        // It went away meanwhile, or became something else.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => Ok(None),
        Err(errno) => Err(Fault::System(SysError::new("openat2", path.escape_ascii(), errno))),
    }
}

/// The moment before which a change shows: what changes later has another ctime.
pub(super) fn settled(margin: i128) -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    nanos((now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))) - margin
}

/// What went wrong between a file and the stream.
enum Failed {
    Read(&'static str, Errno),
    Write(io::Error),
    Told(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Told(fault)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// The stream cannot be written.
pub(super) fn written(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(_) => Fault::System(SysError::from_io("write", "the backup", error)),
        None => Fault::Remote(error.to_string()),
    }
}

fn fill(file: &OwnedFd, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn sparse(stat: &Stat) -> bool {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size(stat)
}

#[allow(clippy::unnecessary_cast)] // its type differs between kernels' headers
fn mtime(stat: &Stat) -> Time {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec as u64).unwrap_or(0))
}

#[allow(clippy::unnecessary_cast)]
pub(super) fn ctime(stat: &Stat) -> Time {
    (stat.st_ctime, u32::try_from(stat.st_ctime_nsec as u64).unwrap_or(0))
}

pub(super) fn nanos((seconds, nanos): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}
