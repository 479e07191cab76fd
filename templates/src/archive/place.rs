//! Puts members on disk, beneath one root and nowhere else.
//!
//! A member's directory is resolved by openat2(2) with the destination as its `/`: symlinks and absolute names
//! lead about inside, never out. The last component is never followed. Attributes are set through the
//! descriptor of what was just made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::acl::{self, Acl};
use super::error::Fault;
use super::made::Made;
use super::names::Names;
use super::path::{Place, split};
use super::reader::{Kind, Member};
use super::stream::{Stream, padding};

/// As many symlinks as the kernel follows.
const LINKS: u32 = 40;

/// Creates members below a root.
#[derive(Debug)]
pub(super) struct Placer {
    root: OwnedFd,
    /// Who owns what we create before any chown.
    me: (u32, u32),
    /// The directory of the last member: most have the same.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Attributes to be set at the end: a default ACL would be inherited by what comes later, and every new
    /// entry changes the time.
    late: Vec<(Place, Member)>,
    /// Of a layer: what it has made so far.
    made: Option<Made>,
}

impl Placer {
    pub(super) fn new(root: OwnedFd) -> Self {
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { root, me, parent: None, late: Vec::new(), made: None }
    }

    /// For a layer of an image: what it brings replaces what is there, whole directories among it, and it may
    /// hide what the layers below brought.
    pub(super) fn over(root: OwnedFd) -> Self {
        Self { made: Some(Made::default()), ..Self::new(root) }
    }

    /// Hides one name in `dir`, unless this layer brought it.
    pub(super) fn hide(&mut self, dir: &[u8], name: &[u8]) -> Result<(), Fault> {
        self.enter(dir)?;
        match &self.made {
            Some(made) => made.hide(self.here(), name),
            None => Ok(()),
        }
    }

    /// Hides all that the layers below brought into `dir`.
    pub(super) fn hide_all(&mut self, dir: &[u8]) -> Result<(), Fault> {
        self.enter(dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = fs::openat(self.here(), ".", flags, Mode::empty()).map_err(named("openat", dir))?;
        match &self.made {
            Some(made) => made.hide_all(open.as_fd()),
            None => Ok(()),
        }
    }

    fn remove_tree(&self, name: &[u8]) -> Result<(), Fault> {
        Ok(crate::removal::remove_at(self.here(), std::ffi::OsStr::from_bytes(name))?)
    }

    /// Creates one member and takes its data from the stream.
    pub(super) fn put(&mut self, member: Member, stream: &mut Stream) -> Result<(), Fault> {
        let place = Place::of(&member.path)?;
        let Some((dir, name)) = place.split() else {
            return match member.kind {
                Kind::Directory => {
                    self.late.push((place, member));
                    Ok(())
                }
                _ => Err(Fault::hostile("the root is no directory")),
            };
        };
        self.enter(dir)?;
        if let Some(made) = &mut self.made {
            made.note(name);
        }
        match &member.kind {
            Kind::Directory => {
                self.directory(name)?;
                self.late.push((place, member));
            }
            Kind::File => {
                self.file(name, &member, stream)?;
                if self.needs_names(&member) {
                    self.late.push((place, member));
                }
            }
            Kind::HardLink(target) => self.hard_link(&place, name, target)?,
            Kind::Symlink(target) => self.symlink(name, target, &member)?,
            Kind::Fifo => self.node(name, FileType::Fifo, (0, 0), &member)?,
            Kind::Char(major, minor) => {
                self.node(name, FileType::CharacterDevice, (*major, *minor), &member)?
            }
            Kind::Block(major, minor) => self.node(name, FileType::BlockDevice, (*major, *minor), &member)?,
        }
        Ok(())
    }

    /// Sets what had to wait; everything is there now.
    pub(super) fn finish(mut self) -> Result<OwnedFd, (Vec<u8>, Fault)> {
        self.parent = None;
        let mut names = Names::default();
        for (place, member) in std::mem::take(&mut self.late) {
            self.set_late(&place, &member, &mut names).map_err(|fault| (member.path, fault))?;
        }
        Ok(self.root)
    }

    fn set_late(&self, place: &Place, member: &Member, names: &mut Names) -> Result<(), Fault> {
        let directory = member.kind == Kind::Directory;
        let kind = if directory { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        let path = if place.bytes().is_empty() { b"." } else { place.bytes() };
        let fd = match open_in(self.root.as_fd(), path, flags) {
            Ok(fd) => fd,
            // A later member took its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(named("openat2", path)(errno)),
        };
        let binary = |acl: &Option<Acl>, names: &mut Names| {
            acl.as_ref()
                .map(|acl| acl.binary(|tag, name| names.find(self.root.as_fd(), tag, name)))
                .transpose()
        };
        if directory {
            if self.made.is_some() {
                // The layer's directory stands for itself, whatever one below had.
                clear_xattrs(fd.as_fd());
            }
            self.attributes(fd.as_fd(), path, member)?;
            if let Some(value) = binary(&member.default, names)? {
                set_xattr(fd.as_fd(), acl::DEFAULT, &value)?;
            }
        }
        if let Some(value) = binary(&member.access, names)? {
            set_xattr(fd.as_fd(), acl::ACCESS, &value)?;
        }
        fs::futimens(&fd, &times(member)).map_err(named("utimensat", path))
    }

    fn needs_names(&self, member: &Member) -> bool {
        member.access.as_ref().is_some_and(Acl::has_names)
    }

    /// Makes `dir` the current directory.
    fn enter(&mut self, dir: &[u8]) -> Result<(), Fault> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != dir) {
            let fd = self.open_dir(dir, LINKS)?;
            if let Some(made) = &mut self.made {
                made.enter(fs::fstat(&fd).map_err(named("fstat", dir))?.st_ino);
            }
            self.parent = Some((dir.to_vec(), fd));
        }
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Opens a directory and makes it if it is missing, also where a symlink points to nothing yet.
    fn open_dir(&self, dir: &[u8], links: u32) -> Result<OwnedFd, Fault> {
        let path = if dir.is_empty() { b"." } else { dir };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open_in(self.root.as_fd(), path, flags) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(named("openat2", dir)(errno)),
        }
        let (above, name) = split(dir);
        let parent = self.open_dir(above, links)?;
        match fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) if links > 0 => {
                let target = fs::readlinkat(&parent, name, Vec::new()).map_err(named("readlinkat", dir))?;
                let target = target.to_bytes();
                let aim =
                    if target.starts_with(b"/") { target.to_vec() } else { [above, b"/", target].concat() };
                self.open_dir(&aim, links - 1)?;
            }
            Err(errno) => return Err(named("mkdirat", dir)(errno)),
        }
        open_in(self.root.as_fd(), path, flags).map_err(named("openat2", dir))
    }

    /// Clears the way for a new entry.
    fn remove(&mut self, name: &[u8]) -> Result<(), Fault> {
        let result = match fs::unlinkat(self.here(), name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(self.here(), name, AtFlags::REMOVEDIR),
            other => other,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY) if self.made.is_some() => self.remove_tree(name),
            Err(Errno::NOTEMPTY) => Err(Fault::corrupt("it would replace a directory that is not empty")),
            Err(errno) => Err(named("unlinkat", name)(errno)),
        }
    }

    /// Runs `make`; where something is in the way, removes that and tries again.
    fn make<T>(
        &mut self,
        call: &'static str,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Fault> {
        match make(self.here()) {
            Ok(made) => return Ok(made),
            Err(Errno::EXIST) => self.remove(name)?,
            Err(errno) => return Err(named(call, name)(errno)),
        }
        make(self.here()).map_err(named(call, name))
    }

    fn directory(&mut self, name: &[u8]) -> Result<(), Fault> {
        let mkdir = |dir: BorrowedFd<'_>| fs::mkdirat(dir, name, Mode::RWXU);
        match mkdir(self.here()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = fs::statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW);
                let stat = stat.map_err(named("fstatat", name))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Ok(());
                }
                self.make("mkdirat", name, mkdir)
            }
            Err(errno) => Err(named("mkdirat", name)(errno)),
        }
    }

    fn file(&mut self, name: &[u8], member: &Member, stream: &mut Stream) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.make("openat", name, |dir| fs::openat(dir, name, flags, mode))?;
        match &member.sparse {
            None => stream.each(member.stored, |bytes| write_all(&file, name, bytes, None))?,
            Some(map) => {
                for &(offset, length) in &map.segments {
                    let mut at = offset;
                    stream.each(length, |bytes| {
                        write_all(&file, name, bytes, Some(at))?;
                        at += bytes.len() as u64;
                        Ok(())
                    })?;
                }
                fs::ftruncate(&file, map.size).map_err(named("ftruncate", name))?;
            }
        }
        stream.skip(padding(member.stored))?;
        self.attributes(file.as_fd(), name, member)?;
        if let Some(acl) = member.access.as_ref().filter(|acl| !acl.has_names()) {
            set_xattr(file.as_fd(), acl::ACCESS, &acl.binary(|_, _| None)?)?;
        }
        fs::futimens(&file, &times(member)).map_err(named("utimensat", name))
    }

    /// Owner, then mode (chown takes setuid away), then attributes (chown and write take capabilities away).
    fn attributes(&self, fd: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<(), Fault> {
        if (member.uid, member.gid) != self.me {
            fs::fchown(fd, Some(uid(member)), Some(gid(member))).map_err(named("fchown", name))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(member.mode)).map_err(named("fchmod", name))?;
        member.xattrs.iter().try_for_each(|(key, value)| set_xattr(fd, key, value))
    }

    fn hard_link(&mut self, place: &Place, name: &[u8], target: &[u8]) -> Result<(), Fault> {
        let aim = Place::of(target)?;
        if aim == *place {
            return Err(Fault::hostile("a hard link to itself"));
        }
        let Some((dir, base)) = aim.split() else {
            return Err(Fault::hostile("a hard link to the root"));
        };
        let missing =
            || Fault::corrupt(format!("a hard link to '{}', which is not there", target.escape_ascii()));
        let from = if self.parent.as_ref().is_some_and(|(path, _)| path == dir) {
            None
        } else {
            let dir = if dir.is_empty() { b"." } else { dir };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match open_in(self.root.as_fd(), dir, flags) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT) => return Err(missing()),
                Err(errno) => return Err(named("openat2", dir)(errno)),
            }
        };
        // No AT_SYMLINK_FOLLOW: a link to a symlink is one.
        let link = |here: BorrowedFd<'_>| {
            fs::linkat(from.as_ref().map_or(here, |fd| fd.as_fd()), base, here, name, AtFlags::empty())
        };
        match self.make("linkat", name, link) {
            Err(Fault::System(error)) if error.errno() == Errno::NOENT => Err(missing()),
            other => other,
        }
    }

    fn symlink(&mut self, name: &[u8], target: &[u8], member: &Member) -> Result<(), Fault> {
        self.make("symlinkat", name, |dir| fs::symlinkat(target, dir, name))?;
        let here = self.here();
        if (member.uid, member.gid) != self.me {
            fs::chownat(here, name, Some(uid(member)), Some(gid(member)), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(named("fchownat", name))?;
        }
        if !member.xattrs.is_empty() {
            let fd = handle(here, name)?;
            member.xattrs.iter().try_for_each(|(key, value)| set_xattr_by_path(&fd, key, value))?;
        }
        fs::utimensat(here, name, &times(member), AtFlags::SYMLINK_NOFOLLOW).map_err(named("utimensat", name))
    }

    fn node(
        &mut self,
        name: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
        member: &Member,
    ) -> Result<(), Fault> {
        let device = fs::makedev(major, minor);
        self.make("mknodat", name, |dir| fs::mknodat(dir, name, kind, Mode::RUSR, device))?;
        // A descriptor that opens no device and waits for no writer.
        let fd = handle(self.here(), name)?;
        fs::chownat(&fd, "", Some(uid(member)), Some(gid(member)), AtFlags::EMPTY_PATH)
            .map_err(named("fchownat", name))?;
        fs::chmod(proc_path(&fd), Mode::from_raw_mode(member.mode)).map_err(named("chmod", name))?;
        member.xattrs.iter().try_for_each(|(key, value)| set_xattr_by_path(&fd, key, value))?;
        if let Some(acl) = &member.access {
            let value = acl.binary(|tag, name| Names::default().find(self.root.as_fd(), tag, name))?;
            set_xattr_by_path(&fd, acl::ACCESS, &value)?;
        }
        fs::utimensat(&fd, "", &times(member), AtFlags::EMPTY_PATH).map_err(named("utimensat", name))
    }
}

/// Opens beneath `root` as if that were `/`.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).map_err(named("openat", name))
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(super) fn named(call: &'static str, name: &[u8]) -> impl FnOnce(Errno) -> Fault {
    let name = name.escape_ascii().to_string();
    move |errno| Fault::System(SysError::new(call, name, errno))
}

fn uid(member: &Member) -> Uid {
    Uid::from_raw(member.uid)
}

fn gid(member: &Member) -> Gid {
    Gid::from_raw(member.gid)
}

fn times(member: &Member) -> Timestamps {
    let (seconds, nanos) = member.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

fn write_all(file: &OwnedFd, name: &[u8], mut bytes: &[u8], mut at: Option<u64>) -> Result<(), Fault> {
    while !bytes.is_empty() {
        let result = match at {
            None => rustix::io::write(file, bytes),
            Some(offset) => rustix::io::pwrite(file, bytes, offset),
        };
        match result {
            Ok(n) => {
                bytes = &bytes[n..];
                at = at.map(|offset| offset + n as u64);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(named("write", name)(errno)),
        }
    }
    Ok(())
}

/// Labels mean nothing to a host without their security module; everything else must not be lost.
pub(crate) fn may_be_lost(key: &[u8], errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP) && (key == b"security.selinux" || key == b"security.ima")
}

fn set_xattr(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    match fs::fsetxattr(fd, key, value, XattrFlags::empty()) {
        Err(errno) if !may_be_lost(key, errno) => Err(named("fsetxattr", key)(errno)),
        _ => Ok(()),
    }
}

/// Takes off all that can be taken off; what cannot is the file system's own.
fn clear_xattrs(fd: BorrowedFd<'_>) {
    let mut list = [0u8; 64 << 10];
    let size = fs::flistxattr(fd, &mut list[..]).unwrap_or(0);
    for name in list[..size].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let _ = fs::fremovexattr(fd, name);
    }
}

/// For what cannot be opened: symlinks, devices, FIFOs.
fn set_xattr_by_path(fd: &OwnedFd, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    match fs::setxattr(proc_path(fd), key, value, XattrFlags::empty()) {
        Err(errno) if !may_be_lost(key, errno) => Err(named("setxattr", key)(errno)),
        _ => Ok(()),
    }
}

/// The root of an unpack: an existing directory.
pub(crate) fn open_root(path: &std::path::Path) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).call("open", || path.display().to_string())
}
