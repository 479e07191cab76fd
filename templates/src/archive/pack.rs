//! Packs a tree with everything in it.
//!
//! The tree may belong to a hostile VE, and it may be in use: directories are entered by descriptor and no link
//! is followed; a FIFO is never opened; a file that changes meanwhile yields whatever was read, at its first size.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::error::{ArchiveError, Fault};
use super::format::Compression;
use super::place::open_root;
use super::sparse::Map;
use super::writer::{Entry, EntryKind, Writer};
use super::{Progress, Summary};
use crate::holes::next_data;

const BUFFER: usize = 256 << 10;
/// How often progress is told, in bytes.
const TELL: u64 = 4 << 20;
/// Ids of one VE.
const RANGE: u32 = 65536;
const NOBODY: u32 = 65534;

/// A tree about to be packed. Needs root, to read everything and to see `trusted.*`.
pub struct Pack<'a> {
    shift: u32,
    exclude: Vec<Vec<u8>>,
    hollow: Vec<Vec<u8>>,
    blank: Vec<Vec<u8>>,
    extra: Vec<(String, Vec<u8>)>,
    progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Default for Pack<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Pack<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pack")
            .field("shift", &self.shift)
            .field("exclude", &self.exclude)
            .finish_non_exhaustive()
    }
}

impl Pack<'_> {
    /// Everything, as it is.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shift: 0,
            exclude: Vec::new(),
            hollow: Vec::new(),
            blank: Vec::new(),
            extra: Vec::new(),
            progress: None,
        }
    }

    /// Takes `base` off every id: for a root mounted with the ids of its VE.
    #[must_use]
    pub fn shift(mut self, base: u32) -> Self {
        self.shift = base;
        self
    }

    /// Leaves out these paths (a `*` at the end stands for anything).
    #[must_use]
    pub fn exclude(mut self, paths: &[&str]) -> Self {
        self.exclude.extend(paths.iter().map(|path| path.as_bytes().to_vec()));
        self
    }

    /// Keeps these directories but leaves out what is in them.
    #[must_use]
    pub fn hollow(mut self, paths: &[&str]) -> Self {
        self.hollow.extend(paths.iter().map(|path| path.as_bytes().to_vec()));
        self
    }

    /// Keeps these files but not their contents.
    #[must_use]
    pub fn blank(mut self, paths: &[&str]) -> Self {
        self.blank.extend(paths.iter().map(|path| path.as_bytes().to_vec()));
        self
    }

    /// Adds a file that is not in the tree, before everything that is; readable by its owner alone.
    #[must_use]
    pub fn extra(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.extra.push((path.to_owned(), bytes));
        self
    }

    /// Whom to tell how far it is.
    #[must_use]
    pub fn progress<'b>(self, progress: &'b mut dyn FnMut(Progress)) -> Pack<'b> {
        let Self { shift, exclude, hollow, blank, extra, progress: _ } = self;
        Pack { shift, exclude, hollow, blank, extra, progress: Some(progress) }
    }

    /// Packs the tree at `root` into the new file `archive`, other file systems below it left out.
    ///
    /// # Errors
    /// [`ArchiveError`]; the file is removed then.
    pub fn into(
        self,
        root: &Path,
        archive: &Path,
        compression: Compression,
    ) -> Result<Summary, ArchiveError> {
        let writer = Writer::create(archive, compression)?;
        let result = Walk::new(self, writer, root)
            .map_err(|fault| fault.at(archive, None))
            .and_then(|walk| walk.run(archive));
        if result.is_err() {
            let _ = std::fs::remove_file(archive);
        }
        result
    }

    /// Packs the tree at `root` into an open file or pipe, which errors call `name`.
    ///
    /// # Errors
    /// [`ArchiveError`]; what was written stays written.
    pub fn to_file(
        self,
        root: &Path,
        (file, name): (File, &Path),
        compression: Compression,
    ) -> Result<Summary, ArchiveError> {
        let writer = Writer::over(file, name, compression)?;
        Walk::new(self, writer, root).map_err(|fault| fault.at(name, None)).and_then(|walk| walk.run(name))
    }
}

struct Walk<'a> {
    how: Pack<'a>,
    writer: Writer,
    root: OwnedFd,
    device: u64,
    /// The first name of each inode with several.
    seen: HashMap<(u64, u64), Vec<u8>>,
    summary: Summary,
    told: u64,
    path: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(how: Pack<'a>, writer: Writer, root: &Path) -> Result<Self, Fault> {
        let root_fd = open_root(root)?;
        let device = fs::fstat(&root_fd).call("fstat", || root.display().to_string())?.st_dev;
        Ok(Self {
            how,
            writer,
            root: root_fd,
            device,
            seen: HashMap::new(),
            summary: Summary::default(),
            told: 0,
            path: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    fn run(mut self, archive: &Path) -> Result<Summary, ArchiveError> {
        let whole = |this: &mut Self| {
            let root = this.root.try_clone().call("dup", || "root")?;
            let stat = fs::fstat(&root).call("fstat", || "root")?;
            let entry = this.entry(&stat, EntryKind::Directory, proc_path(root.as_fd(), b"."))?;
            this.writer.begin(&entry, 0, None, this.how.shift)?;
            this.extra(stat.st_mtime)?;
            this.directory(root.as_fd())
        };
        if let Err(fault) = whole(&mut self) {
            return Err(fault.at(archive, Some(&self.path)));
        }
        self.writer.finish()?;
        Ok(self.summary)
    }

    fn extra(&mut self, time: i64) -> Result<(), Fault> {
        for (path, bytes) in std::mem::take(&mut self.how.extra) {
            let mut entry = Entry::new(&path, EntryKind::File, 0o600);
            entry.mtime = (time, 0);
            self.writer.begin(&entry, bytes.len() as u64, None, 0)?;
            self.writer.write(&bytes)?;
            self.writer.end()?;
        }
        Ok(())
    }

    /// Everything in a directory, sorted, so that the same tree gives the same archive.
    fn directory(&mut self, dir: BorrowedFd<'_>) -> Result<(), Fault> {
        let length = self.path.len();
        for name in names(dir).map_err(|errno| self.failed("getdents", errno))? {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if !matches_any(&self.how.exclude, &self.path) {
                self.one(dir, &name)?;
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn one(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Fault> {
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed("fstatat", errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            return Ok(());
        }
        self.summary.entries += 1;
        self.summary.disk += 512;
        let key = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.seen.get(&key)
        {
            let mut entry = Entry::new("", EntryKind::HardLink(first.clone()), stat.st_mode & 0o7777);
            entry.path.clone_from(&self.path);
            entry.mtime = (stat.st_mtime, 0);
            return self.writer.begin(&entry, 0, None, self.how.shift);
        }
        let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let entry_kind = match kind {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new());
                EntryKind::Symlink(target.map_err(|errno| self.failed("readlinkat", errno))?.into_bytes())
            }
            FileType::CharacterDevice => EntryKind::Char(major, minor),
            FileType::BlockDevice => EntryKind::Block(major, minor),
            _ => EntryKind::Fifo,
        };
        let entry = self.entry(&stat, entry_kind, proc_path(dir, name))?;
        match kind {
            FileType::RegularFile => self.file(dir, name, entry, &stat)?,
            FileType::Directory => self.below(dir, name, &entry, &stat)?,
            _ => self.writer.begin(&entry, 0, None, self.how.shift)?,
        }
        // Only now: a name that went away meanwhile cannot be linked to.
        if kind != FileType::Directory && stat.st_nlink > 1 {
            self.seen.insert(key, self.path.clone());
        }
        Ok(())
    }

    fn below(&mut self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry, stat: &Stat) -> Result<(), Fault> {
        self.summary.disk += 4096;
        self.writer.begin(entry, 0, None, self.how.shift)?;
        if stat.st_dev != self.device || matches_any(&self.how.hollow, &self.path) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.directory(fd.as_fd()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(self.failed("openat", errno)),
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], entry: Entry, stat: &Stat) -> Result<(), Fault> {
        if matches_any(&self.how.blank, &self.path) {
            return self.writer.begin(&entry, 0, None, self.how.shift);
        }
        // Not blocking, in case it has become a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(self.failed("openat", errno)),
        };
        let now = fs::fstat(&file).map_err(|errno| self.failed("fstat", errno))?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        let size = u64::try_from(now.st_size).unwrap_or(0);
        let sparse = u64::try_from(now.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        let map =
            if sparse { segments(&file, size).map_err(|errno| self.failed("lseek", errno))? } else { None };
        let stored = map.as_ref().map_or(size, |map| map.segments.iter().map(|(_, length)| length).sum());
        self.writer.begin(&entry, stored, map.as_ref(), self.how.shift)?;
        match &map {
            None => self.copy(&file, 0, size)?,
            Some(map) => {
                for &(offset, length) in &map.segments {
                    self.copy(&file, offset, length)?;
                }
            }
        }
        self.summary.bytes += stored;
        self.summary.disk += stored.next_multiple_of(4096);
        self.writer.end()
    }

    fn copy(&mut self, file: &OwnedFd, mut offset: u64, mut length: u64) -> Result<(), Fault> {
        while length > 0 {
            let want = usize::try_from(length).unwrap_or(usize::MAX).min(BUFFER);
            let n = match rustix::io::pread(file, &mut self.buffer[..want], offset) {
                // It shrank: the rest reads as zeros.
                Ok(0) => 0,
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.failed("pread", errno)),
            };
            let piece = if n == 0 {
                self.buffer[..want].fill(0);
                want
            } else {
                n
            };
            self.writer.write(&self.buffer[..piece])?;
            offset += piece as u64;
            length -= piece as u64;
            self.told += piece as u64;
            if self.told >= TELL {
                self.told = 0;
                if let Some(tell) = &mut self.how.progress {
                    let bytes = self.summary.bytes;
                    tell(Progress { read: bytes, total: 0, unpacked: bytes });
                }
            }
        }
        Ok(())
    }

    fn entry(&self, stat: &Stat, kind: EntryKind, proc: Vec<u8>) -> Result<Entry, Fault> {
        let shift = self.how.shift;
        let mut xattrs = attributes(&proc).map_err(|errno| self.failed("lgetxattr", errno))?;
        if shift > 0 {
            for (name, value) in &mut xattrs {
                if name == b"security.capability" {
                    shift_capability(value, shift);
                }
            }
        }
        #[allow(clippy::unnecessary_cast)] // its type differs between kernels' headers
        let nanos = u32::try_from(stat.st_mtime_nsec as u64).unwrap_or(0);
        Ok(Entry {
            path: self.path.clone(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: shifted(stat.st_uid, shift),
            gid: shifted(stat.st_gid, shift),
            mtime: (stat.st_mtime, nanos),
            xattrs,
        })
    }

    fn failed(&self, call: &'static str, errno: Errno) -> Fault {
        Fault::System(SysError::new(call, self.path.escape_ascii(), errno))
    }
}

pub(crate) fn shifted(id: u32, shift: u32) -> u32 {
    match id.checked_sub(shift) {
        Some(id) if shift == 0 || id < RANGE => id,
        _ => NOBODY,
    }
}

/// Version 3 capabilities name the root they are for; without a shift that is the plain version 2.
pub(crate) fn shift_capability(value: &mut Vec<u8>, shift: u32) {
    const VERSION: u32 = 0xff00_0000;
    if value.len() != 24 {
        return;
    }
    let word = |at: usize| u32::from_le_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
    let (magic, root) = (word(0), word(20));
    if magic & VERSION == 0x0300_0000 && root == shift {
        value.truncate(20);
        value[..4].copy_from_slice(&(0x0200_0000 | magic & !VERSION).to_le_bytes());
    }
}

/// A path whose directory is ours by descriptor; the `l…xattr` calls do not follow its last component.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// All extended attributes of `path`, sorted. None where the file system has none.
pub(crate) fn attributes(path: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    collect_attributes(|list| fs::llistxattr(path, list), |name, value| fs::lgetxattr(path, name, value))
}

/// The same of an open file.
pub(crate) fn attributes_of(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    collect_attributes(|list| fs::flistxattr(file, list), |name, value| fs::fgetxattr(file, name, value))
}

fn collect_attributes(
    list_into: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get_into: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = [0u8; 64 << 10];
    let size = match list_into(&mut list[..]) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP | Errno::NOENT) => 0,
        Err(errno) => return Err(errno),
    };
    let mut attributes = Vec::new();
    for name in list[..size].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        match get_into(name, &mut value[..]) {
            Ok(size) => value.truncate(size),
            // Gone meanwhile, or one that only its owner may see.
            Err(Errno::NODATA | Errno::NOENT | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(errno),
        }
        value.shrink_to_fit();
        attributes.push((name.to_vec(), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Where a file has data; `None` if all of it.
pub(crate) fn segments(file: &OwnedFd, size: u64) -> rustix::io::Result<Option<Map>> {
    let mut segments = Vec::new();
    let mut at = 0;
    while let Some((data, hole)) = next_data(file, at, size)? {
        segments.push((data, hole - data));
        at = hole;
    }
    if segments == [(0, size)] {
        return Ok(None);
    }
    Ok(Some(Map { segments, size }))
}

fn matches_any(patterns: &[Vec<u8>], path: &[u8]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix(b"*") {
        Some(start) => path.starts_with(start) && !path[start.len()..].contains(&b'/'),
        None => pattern == path,
    })
}

/// The tree's file as [`File`], for readers elsewhere in this room.
pub(crate) fn open_beneath(root: &Path, path: &Path) -> std::io::Result<File> {
    let root =
        open_root(root).map_err(|error| std::io::Error::from_raw_os_error(error.errno().raw_os_error()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = super::place::open_in(root.as_fd(), path.as_os_str().as_bytes(), flags)?;
    let file = File::from(fd);
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
}
