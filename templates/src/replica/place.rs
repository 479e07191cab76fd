//! Takes the steps of a scan, beneath one root and nowhere else.
//!
//! A path is resolved below the root without following any link on the way: an honest scan walks real directories
//! only. Attributes are set through the descriptor of what was just made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    self, AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use vzsys::Call;
use vzsys::spawn::Beside;

use super::entry::{Content, Meta, NodeKind, Op, Xattr};
use super::error::ReplicaError;
use super::{PIECE, Sink};
use crate::archive::{attributes_of, may_be_lost, open_root};
use crate::removal;

/// Attributes may together not be larger than this, in bytes.
const XATTRS: usize = 1 << 20;

/// A copy in the making.
#[derive(Debug)]
pub struct Replica {
    root: OwnedFd,
    /// The directory of the last step: most have the same.
    parent: Option<(Vec<u8>, OwnedFd)>,
    open: Option<(Vec<u8>, OwnedFd)>,
    bytes: u64,
}

impl Replica {
    /// The copy at `root`, an existing directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(root: &Path) -> Result<Self, ReplicaError> {
        Ok(Self { root: open_root(root)?, parent: None, open: None, bytes: 0 })
    }

    /// Bytes of files that have come so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes sure that all of it is on the disk.
    ///
    /// # Errors
    /// The errno of syncfs(2).
    pub fn sync(&self) -> Result<(), ReplicaError> {
        Ok(fs::syncfs(&self.root).call("syncfs", || "")?)
    }

    /// The same, in a process of its own, whose exit code is 0 when it is. The caller must be single-threaded.
    ///
    /// # Errors
    /// The errno of clone3(2).
    pub fn sync_beside(&self) -> Result<Beside, ReplicaError> {
        let root = self.root.try_clone().call("dup", || "")?;
        Ok(Beside::start(vec![root], |fds| i32::from(fds.iter().any(|root| fs::syncfs(root).is_err())))?)
    }

    fn enter<'p>(&mut self, path: &'p [u8]) -> Result<&'p [u8], ReplicaError> {
        check(path)?;
        let (dir, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if self.parent.as_ref().is_none_or(|(open, _)| open != dir) {
            self.parent = Some((dir.to_vec(), self.open_dir(dir)?));
        }
        Ok(name)
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, ReplicaError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let below = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.root, below, flags, Mode::empty(), resolve)
            .map_err(ReplicaError::at("openat2", path))
    }

    /// Runs `make`; where something is in the way that is no directory, removes that and tries again.
    fn make<T>(
        &self,
        call: &'static str,
        path: &[u8],
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, ReplicaError> {
        match make(self.here()) {
            Err(Errno::EXIST) => {}
            done => return done.map_err(ReplicaError::at(call, path)),
        }
        fs::unlinkat(self.here(), name, AtFlags::empty()).map_err(ReplicaError::at("unlinkat", path))?;
        make(self.here()).map_err(ReplicaError::at(call, path))
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), ReplicaError> {
        let name = self.enter(path)?;
        match fs::mkdirat(self.here(), name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = fs::statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(ReplicaError::at("fstatat", path))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Ok(());
                }
                self.make("mkdirat", path, name, |dir| fs::mkdirat(dir, name, Mode::RWXU))
            }
            done => done.map_err(ReplicaError::at("mkdirat", path)),
        }
    }

    fn leave(&mut self, path: &[u8], meta: &Meta) -> Result<(), ReplicaError> {
        if !path.is_empty() {
            check(path)?;
        }
        let dir = self.open_dir(path)?;
        set_all(dir.as_fd(), path, meta)?;
        fs::futimens(&dir, &times(meta)).map_err(ReplicaError::at("utimensat", path))
    }

    fn file(&mut self, path: &[u8], content: Content) -> Result<(), ReplicaError> {
        let name = self.enter(path)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match content {
            Content::New => self.make("openat", path, name, |dir| {
                fs::openat(dir, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)
            })?,
            Content::Patched => {
                let file = fs::openat(self.here(), name, flags, Mode::empty())
                    .map_err(ReplicaError::at("openat", path))?;
                let stat = fs::fstat(&file).map_err(ReplicaError::at("fstat", path))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(ReplicaError::refused(format!("{} is no regular file", path.escape_ascii())));
                }
                file
            }
        };
        self.open = Some((path.to_vec(), file));
        Ok(())
    }

    fn opened(&self) -> Result<(&[u8], &OwnedFd), ReplicaError> {
        let open = self.open.as_ref().map(|(path, file)| (path.as_slice(), file));
        open.ok_or_else(|| ReplicaError::refused("content without a file"))
    }

    /// Frees the blocks; where the file system cannot, writes zeros.
    fn zero(&mut self, offset: u64, length: u64) -> Result<(), ReplicaError> {
        let (path, file) = self.opened()?;
        let end = within(offset, length)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fs::fallocate(file, flags, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; PIECE];
                for at in (offset..end).step_by(PIECE) {
                    let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                    write_at(file, path, at, &zeros[..piece])?;
                }
                Ok(())
            }
            done => done.map_err(ReplicaError::at("fallocate", path)),
        }
    }

    fn close(&mut self, size: u64, meta: &Meta) -> Result<(), ReplicaError> {
        within(size, 0)?;
        let Some((path, file)) = self.open.take() else {
            return Err(ReplicaError::refused("the end of no file"));
        };
        fs::ftruncate(&file, size).map_err(ReplicaError::at("ftruncate", &path))?;
        set_all(file.as_fd(), &path, meta)?;
        fs::futimens(&file, &times(meta)).map_err(ReplicaError::at("utimensat", &path))
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), ReplicaError> {
        check(target)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let (above, base) = match target.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&b"."[..], target),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = fs::openat2(&self.root, above, flags, Mode::empty(), resolve)
            .map_err(ReplicaError::at("openat2", target))?;
        let name = self.enter(path)?;
        let inode = |dir: BorrowedFd<'_>, name: &[u8]| {
            fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino)
        };
        if let (Ok(ours), Ok(theirs)) = (inode(self.here(), name), inode(from.as_fd(), base))
            && ours == theirs
        {
            return Ok(());
        }
        // No AT_SYMLINK_FOLLOW: a link to a symlink is one.
        self.make("linkat", path, name, |dir| fs::linkat(&from, base, dir, name, AtFlags::empty()))
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), ReplicaError> {
        let name = self.enter(path)?;
        self.make("symlinkat", path, name, |dir| fs::symlinkat(target, dir, name))?;
        self.attributes_of_name(path, name, meta)
    }

    fn node(
        &mut self,
        path: &[u8],
        kind: NodeKind,
        (major, minor): (u32, u32),
        meta: &Meta,
    ) -> Result<(), ReplicaError> {
        let name = self.enter(path)?;
        let device = fs::makedev(major, minor);
        self.make("mknodat", path, name, |dir| fs::mknodat(dir, name, kind.file_type(), Mode::RUSR, device))?;
        self.attributes_of_name(path, name, meta)
    }

    /// Of what cannot or shall not be opened, and of what is there already.
    fn attributes_of_name(&self, path: &[u8], name: &[u8], meta: &Meta) -> Result<(), ReplicaError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            fs::openat(self.here(), name, flags, Mode::empty()).map_err(ReplicaError::at("openat", path))?;
        let kind = fs::fstat(&fd).map_err(ReplicaError::at("fstat", path))?.st_mode;
        let kind = FileType::from_raw_mode(kind);
        let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        fs::chownat(&fd, "", owner.0, owner.1, AtFlags::EMPTY_PATH)
            .map_err(ReplicaError::at("fchownat", path))?;
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if kind != FileType::Symlink {
            fs::chmod(&*proc, Mode::from_raw_mode(meta.mode & 0o7777))
                .map_err(ReplicaError::at("chmod", path))?;
        }
        for (key, value) in checked(meta)? {
            // A path below /proc leads to the open file itself, and to a link only through its directory.
            let done = if kind == FileType::Symlink {
                let mut link = format!("/proc/self/fd/{}/", self.here().as_raw_fd()).into_bytes();
                link.extend_from_slice(name);
                fs::lsetxattr(link, key.as_slice(), value, XattrFlags::empty())
            } else {
                fs::setxattr(&*proc, key.as_slice(), value, XattrFlags::empty())
            };
            lost(key, done).map_err(ReplicaError::at("setxattr", path))?;
        }
        fs::utimensat(self.here(), name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ReplicaError::at("utimensat", path))
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), ReplicaError> {
        use std::os::unix::ffi::OsStrExt;
        let name = self.enter(path)?;
        removal::remove_at(self.here(), std::ffi::OsStr::from_bytes(name))?;
        // It may have been what is open.
        self.parent = None;
        Ok(())
    }
}

impl Sink for Replica {
    fn op(&mut self, op: Op) -> Result<(), ReplicaError> {
        if self.open.is_some() && !matches!(op, Op::Zero { .. } | Op::Close { .. }) {
            return Err(ReplicaError::refused("a file that does not end"));
        }
        match op {
            Op::Directory { path } => self.directory(&path),
            Op::Leave { path, meta } => self.leave(&path, &meta),
            Op::File { path, content } => self.file(&path, content),
            Op::Zero { offset, length } => self.zero(offset, length),
            Op::Close { size, meta } => self.close(size, &meta),
            Op::HardLink { path, target } => self.hard_link(&path, &target),
            Op::Symlink { path, target, meta } => self.symlink(&path, &target, &meta),
            Op::Node { path, kind, device, meta } => self.node(&path, kind, device, &meta),
            Op::Meta { path, meta } => {
                let name = self.enter(&path)?;
                self.attributes_of_name(&path, name, &meta)
            }
            Op::Remove { path } => self.remove(&path),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        within(offset, bytes.len() as u64)?;
        let (path, file) = self.opened()?;
        write_at(file, path, offset, bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// A name in the tree: relative, and nothing that leads elsewhere.
fn check(path: &[u8]) -> Result<(), ReplicaError> {
    let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if path.len() > 4095 || path.split(|&b| b == b'/').any(bad) {
        return Err(ReplicaError::refused(format!("the path '{}'", path.escape_ascii())));
    }
    Ok(())
}

/// The end of a part of a file, which no file system has beyond 8 EiB.
fn within(offset: u64, length: u64) -> Result<u64, ReplicaError> {
    let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
    end.ok_or_else(|| ReplicaError::refused("content beyond the end of any file"))
}

fn checked(meta: &Meta) -> Result<&[Xattr], ReplicaError> {
    if meta.xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > XATTRS {
        return Err(ReplicaError::refused("extended attributes of more than 1 MiB"));
    }
    Ok(&meta.xattrs)
}

/// Owner, then mode (chown takes set-id bits away), then attributes (chown and write take capabilities away; what
/// an ACL says of the group is in the mode too). Attributes that it shall not have go first: one may be inherited.
fn set_all(fd: BorrowedFd<'_>, path: &[u8], meta: &Meta) -> Result<(), ReplicaError> {
    let wanted = checked(meta)?;
    fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
        .map_err(ReplicaError::at("fchown", path))?;
    let there = attributes_of(fd).map_err(ReplicaError::at("flistxattr", path))?;
    for (key, _) in &there {
        if !wanted.iter().any(|(name, _)| name == key) {
            match fs::fremovexattr(fd, key.as_slice()) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                // A label that the host itself gives.
                Err(_) if key.starts_with(b"security.") && key != b"security.capability" => {}
                Err(errno) => return Err(ReplicaError::at("fremovexattr", path)(errno)),
            }
        }
    }
    fs::fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777)).map_err(ReplicaError::at("fchmod", path))?;
    for (key, value) in wanted {
        if !there.iter().any(|(name, old)| name == key && old == value) {
            let done = fs::fsetxattr(fd, key.as_slice(), value, XattrFlags::empty());
            lost(key, done).map_err(ReplicaError::at("fsetxattr", path))?;
        }
    }
    Ok(())
}

fn lost(key: &[u8], done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(errno) if may_be_lost(key, errno) => Ok(()),
        done => done,
    }
}

fn times(meta: &Meta) -> Timestamps {
    let time = |(seconds, nanos): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time(meta.accessed), last_modification: time(meta.modified) }
}

fn write_at(file: &OwnedFd, path: &[u8], mut offset: u64, mut bytes: &[u8]) -> Result<(), ReplicaError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ReplicaError::at("pwrite", path)(errno)),
        }
    }
    Ok(())
}
