//! Files on disk, beneath one root and nowhere else.
//!
//! No path of a backup goes through a symlink: each directory comes before what is in it and is opened beneath the
//! root without following any. Nothing is there twice: all is created anew. Attributes are set through the descriptor
//! of what was just made, after its data (a write takes capabilities away).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use vzsys::SysError;

use super::error::Fault;
use super::head::Head;
use super::item::{Entry, Kind, path_fits};
use crate::archive::{may_be_lost, names};

/// A file whose contents are being written.
#[derive(Debug)]
pub(super) struct Open {
    file: OwnedFd,
    at: u64,
    /// It ends with a hole, which no write has made.
    hole: bool,
}

/// Makes files below a root.
#[derive(Debug)]
pub(super) struct Placer {
    root: OwnedFd,
    /// The current directory, and its path.
    here: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their attributes last: a default ACL would be inherited, and each new name changes the time.
    late: Vec<Entry>,
    /// Paths of regular files, by the order in which they came.
    files: Vec<Vec<u8>>,
    /// The last file from which a chunk was taken.
    source: Option<(u32, OwnedFd)>,
    /// Directories with what was there before the stream began anew.
    old: Vec<Vec<u8>>,
}

impl Placer {
    /// An empty directory to be filled.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, here: None, late: Vec::new(), files: Vec::new(), source: None, old: Vec::new() }
    }

    /// Whether a directory has come already.
    pub(super) fn begun(&self) -> bool {
        self.here.is_some()
    }

    /// The path of a name in the current directory.
    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        match &self.here {
            Some((dir, _)) if !dir.is_empty() => [dir, b"/".as_slice(), name].concat(),
            _ => name.to_vec(),
        }
    }

    /// Makes a directory, and stays in it.
    pub(super) fn directory(&mut self, entry: Entry) -> Result<(), Fault> {
        let path = &entry.name;
        if path.is_empty() != self.here.is_none() {
            return Err(Fault::hostile(path, "a directory before or above the root"));
        }
        if !path.is_empty() {
            let (above, name) = split(path);
            let parent = self.open_dir(above)?;
            let made = fs::mkdirat(&parent, name, Mode::RWXU);
            made.map_err(|errno| in_the_way(path, "mkdirat", errno))?;
        }
        let fd = self.open_dir(path)?;
        self.here = Some((path.clone(), fd));
        self.late.push(entry);
        Ok(())
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.root.as_fd(), path, flags).map_err(named("openat2", path))
    }

    fn dir(&self, name: &[u8]) -> Result<BorrowedFd<'_>, Fault> {
        let here = self.here.as_ref().ok_or_else(|| Fault::hostile(name, "a file without a directory"))?;
        Ok(here.1.as_fd())
    }

    /// Begins a regular file; returns it with its number.
    pub(super) fn file(&mut self, entry: &Entry) -> Result<(u32, Open), Fault> {
        let name = entry.name.as_slice();
        let path = self.path(name);
        if !path_fits(path.len()) {
            return Err(Fault::hostile(&path, "a path that is too long"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.dir(name)?, name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|errno| in_the_way(&path, "openat", errno))?;
        let number = u32::try_from(self.files.len()).map_err(|_| Fault::hostile(&path, "too many files"))?;
        self.files.push(path);
        Ok((number, Open { file, at: 0, hole: false }))
    }

    /// Gives it its attributes.
    pub(super) fn close(&self, open: Open, entry: &Entry) -> Result<(), Fault> {
        if open.hole {
            fs::ftruncate(&open.file, open.at).map_err(named("ftruncate", &entry.name))?;
        }
        attributes(open.file.as_fd(), entry)?;
        fs::futimens(&open.file, &times(entry)).map_err(named("utimensat", &entry.name))
    }

    /// Bytes of a file that was closed or is being written.
    pub(super) fn read(&mut self, file: u32, at: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        let path = &self.files[file as usize];
        if self.source.as_ref().is_none_or(|(number, _)| *number != file) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = open_beneath(self.root.as_fd(), path, flags).map_err(named("openat2", path))?;
            self.source = Some((file, fd));
        }
        let Some((_, fd)) = &self.source else { return Ok(()) };
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(fd, &mut buffer[filled..], at + filled as u64) {
                Ok(0) => return Err(named("pread", path)(Errno::IO)),
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(named("pread", path)(errno)),
            }
        }
        Ok(())
    }

    /// Anything but directories and regular files.
    pub(super) fn node(&mut self, entry: &Entry) -> Result<(), Fault> {
        let name = entry.name.as_slice();
        let here = self.dir(name)?;
        let make = |kind, (major, minor)| {
            fs::mknodat(here, name, kind, Mode::RUSR, fs::makedev(major, minor)).map_err(|e| ("mknodat", e))
        };
        let made = match &entry.kind {
            Kind::Symlink(target) => {
                fs::symlinkat(target.as_slice(), here, name).map_err(|errno| ("symlinkat", errno))
            }
            Kind::Hard(target) => return self.hard_link(here, entry, target),
            Kind::Char(major, minor) => make(FileType::CharacterDevice, (*major, *minor)),
            Kind::Block(major, minor) => make(FileType::BlockDevice, (*major, *minor)),
            Kind::Socket => make(FileType::Socket, (0, 0)),
            _ => make(FileType::Fifo, (0, 0)),
        };
        made.map_err(|(call, errno)| in_the_way(&self.path(name), call, errno))?;
        // A descriptor that opens no device and waits for no writer.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(here, name, flags, Mode::empty()).map_err(named("openat", name))?;
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        fs::chownat(&fd, "", Some(uid(entry)), Some(gid(entry)), AtFlags::EMPTY_PATH)
            .map_err(named("fchownat", name))?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            fs::chmod(proc.as_str(), Mode::from_raw_mode(entry.mode)).map_err(named("chmod", name))?;
        }
        for (key, value) in wanted(entry) {
            match fs::setxattr(proc.as_str(), key.as_slice(), value, XattrFlags::empty()) {
                Err(errno) if !may_be_lost(key, errno) => return Err(named("setxattr", key)(errno)),
                _ => {}
            }
        }
        fs::utimensat(&fd, "", &times(entry), AtFlags::EMPTY_PATH).map_err(named("utimensat", name))
    }

    fn hard_link(&self, here: BorrowedFd<'_>, entry: &Entry, target: &[u8]) -> Result<(), Fault> {
        let (above, base) = split(target);
        let from = self.open_dir(above)?;
        // No AT_SYMLINK_FOLLOW: a link to a symlink is one.
        match fs::linkat(&from, base, here, entry.name.as_slice(), AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(Fault::hostile(target, "a hard link to what is not there")),
            Err(errno) => Err(in_the_way(&self.path(&entry.name), "linkat", errno)),
        }
    }

    /// What is there is out of date, but its chunks are needed: all of it goes into a directory.
    pub(super) fn anew(&mut self) -> Result<(), Fault> {
        if self.here.take().is_none() {
            return Ok(());
        }
        self.late.clear();
        self.source = None;
        let name = [b".vzrestore-".as_slice(), Head::new_id()?.as_bytes()].concat();
        let top = self.open_dir(b"")?;
        let within = names(top.as_fd()).map_err(named("getdents", b"."))?;
        fs::mkdirat(&top, name.as_slice(), Mode::RWXU).map_err(named("mkdirat", &name))?;
        let aside = self.open_dir(&name)?;
        for old in within {
            fs::renameat(&top, old.as_slice(), &aside, old.as_slice()).map_err(named("renameat", &old))?;
        }
        // Longer than a path may be: such a file cannot be read again, and says so.
        self.files.iter_mut().for_each(|path| *path = [&name, b"/".as_slice(), path].concat());
        self.old.push(name);
        Ok(())
    }

    /// Sets what had to wait. Everything is there now.
    pub(super) fn finish(mut self) -> Result<OwnedFd, Fault> {
        use std::os::unix::ffi::OsStrExt as _;
        (self.here, self.source) = (None, None);
        for name in std::mem::take(&mut self.old) {
            crate::removal::remove_at(self.root.as_fd(), std::ffi::OsStr::from_bytes(&name))?;
        }
        for entry in std::mem::take(&mut self.late) {
            let dir = self.open_dir(&entry.name)?;
            attributes(dir.as_fd(), &entry)?;
            fs::futimens(&dir, &times(&entry)).map_err(named("utimensat", &entry.name))?;
        }
        Ok(self.root)
    }
}

impl Open {
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn write(&mut self, name: &[u8], mut bytes: &[u8]) -> Result<(), Fault> {
        self.hole = false;
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, self.at) {
                Ok(n) => {
                    bytes = &bytes[n..];
                    self.at += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(named("write", name)(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn hole(&mut self, name: &[u8], length: u64) -> Result<(), Fault> {
        self.hole = true;
        let end = self.at.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        self.at = end.ok_or_else(|| Fault::hostile(name, "a file that is too long"))?;
        Ok(())
    }
}

fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(root, if path.is_empty() { b"." } else { path }, flags, Mode::empty(), how)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Owner, then mode (chown takes setuid away), then attributes.
fn attributes(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Fault> {
    fs::fchown(fd, Some(uid(entry)), Some(gid(entry))).map_err(named("fchown", &entry.name))?;
    fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(named("fchmod", &entry.name))?;
    for (key, value) in wanted(entry) {
        match fs::fsetxattr(fd, key.as_slice(), value, XattrFlags::empty()) {
            Err(errno) if !may_be_lost(key, errno) => return Err(named("fsetxattr", key)(errno)),
            _ => {}
        }
    }
    Ok(())
}

/// Attributes to be set: what overlayfs keeps for itself would make layers of what are none.
fn wanted(entry: &Entry) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
    entry.xattrs.iter().filter(|(key, _)| !key.starts_with(super::OVERLAYS_OWN))
}

fn in_the_way(path: &[u8], call: &'static str, errno: Errno) -> Fault {
    match errno {
        Errno::EXIST => Fault::hostile(path, "it is there twice"),
        errno => named(call, path)(errno),
    }
}

fn named(call: &'static str, name: &[u8]) -> impl FnOnce(Errno) -> Fault {
    let name = name.escape_ascii().to_string();
    move |errno| Fault::System(SysError::new(call, name, errno))
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanos) = entry.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}
