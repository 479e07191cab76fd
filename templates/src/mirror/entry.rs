//! One name: what it is in the tree, and how the copy gets the same.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fstat,
    ftruncate, linkat, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::file::{READ, fill};
use super::xattr::{Which, copy_xattrs, path_in};
use super::{Mirror, Seen, Trust, gone_or, stat_in};

/// What a name turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// Nothing, any more.
    Gone,
    /// A directory, made in the copy; what is in it is another matter.
    Directory,
    /// Anything else, as it is in the tree now.
    Other,
}

/// Overlayfs' mark of a name that is deleted: nobody sees it and it has nothing that could change, so one node may
/// stand under all such names.
const WHITEOUT: &str = "whiteout";

fn is_whiteout(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind == FileType::CharacterDevice && stat.st_rdev == 0 && stat.st_mode & 0o7777 == 0
}

/// A file with several names.
fn is_group(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl Mirror {
    /// Brings one name of a directory up to date.
    pub(super) fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
        trust: Trust,
    ) -> vzsys::Result<Is> {
        let Some(stat) = stat_in(from, name, path)? else {
            self.clear(to, name, path)?;
            return Ok(Is::Gone);
        };
        let seen = Seen::of(&stat);
        let before = self.seen.get(path).copied();
        if is_dir(&stat) {
            self.directory(to, name, path)?;
            self.seen.insert(path.to_owned(), seen);
            if before.is_none_or(|before| !before.is_still(&stat)) || trust == Trust::Nothing {
                self.touched.insert(path.to_owned());
            }
            return Ok(Is::Directory);
        }
        if trust == Trust::Times && before.is_some_and(|before| before.is_still(&stat) && !before.racy) {
            return Ok(Is::Other);
        }
        let what = |errno| SysError::new("copy", path.display(), errno);
        let made = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if is_group(&stat) => self.linked(from, to, name, path, &stat)?,
            FileType::RegularFile => self.regular(from, to, name, path, &stat)?,
            FileType::Symlink => {
                self.clear(to, name, path)?;
                symlink(from, to, name).map_err(what)?
            }
            _ => {
                self.clear(to, name, path)?;
                self.node(to, name, &stat).map_err(what)?;
                true
            }
        };
        // (What went, or became something else, just now is told yet.)
        if !made {
            return Ok(Is::Gone);
        }
        if !is_whiteout(&stat) && !is_group(&stat) {
            dress(from, name, to, name, &stat)?;
        }
        self.done.entries += 1;
        self.seen.insert(path.to_owned(), seen);
        self.names.insert(stat.st_ino, path.to_owned());
        Ok(Is::Other)
    }

    fn directory(&mut self, to: BorrowedFd<'_>, name: &CString, path: &Path) -> vzsys::Result<()> {
        let what = |errno| SysError::new("mkdir", path.display(), errno);
        let is_one = |stat: Stat| is_dir(&stat);
        if !stat_in(to, name, path)?.is_some_and(is_one) {
            self.clear(to, name, path)?;
            mkdirat(to, name, Mode::RWXU).map_err(what)?;
            self.done.entries += 1;
            // Its parent's times changed with that.
            self.touched.insert(path.parent().unwrap_or(Path::new("")).to_owned());
        }
        Ok(())
    }

    /// A file with one name: made anew, because the old one may be shared with other copies.
    fn regular(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
        stat: &Stat,
    ) -> vzsys::Result<bool> {
        let Some(source) = open_same(from, name, path, stat)? else { return Ok(false) };
        self.clear(to, name, path)?;
        self.copy_file(&source, to, name, path)?;
        Ok(true)
    }

    fn copy_file(
        &mut self,
        source: &OwnedFd,
        to: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
    ) -> vzsys::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let what = |errno| SysError::new("copy", path.display(), errno);
        let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(what)?;
        self.done.bytes += fill(source.as_fd(), target.as_fd(), &mut self.can_clone).map_err(what)?;
        Ok(())
    }

    /// A file with several names: one in the copy too, kept beside it under its number.
    fn linked(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
        stat: &Stat,
    ) -> vzsys::Result<bool> {
        let what = |errno| SysError::new("link", path.display(), errno);
        let Some(source) = open_same(from, name, path, stat)? else { return Ok(false) };
        let number = CString::new(stat.st_ino.to_string()).unwrap_or_default();
        let links = self.links.try_clone().call("dup", || "a directory")?;
        if self.grouped.insert(stat.st_ino) {
            self.copy_file(&source, links.as_fd(), &number, path)?;
            // Copied as a file of its own while it had one name only.
            let other = self.names.get(&stat.st_ino).filter(|other| *other != path).cloned();
            self.again.extend(other);
        } else {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = openat(&links, &number, flags, Mode::empty()).map_err(what)?;
            ftruncate(&target, 0).map_err(what)?;
            self.done.bytes += fill(source.as_fd(), target.as_fd(), &mut self.can_clone).map_err(what)?;
        }
        dress(from, name, links.as_fd(), &number, stat)?;
        let there = stat_in(to, name, path)?.map(|there| there.st_ino);
        let own = stat_in(links.as_fd(), &number, path)?.map(|own| own.st_ino);
        if there != own {
            self.clear(to, name, path)?;
            linkat(&links, &number, to, name, AtFlags::empty()).map_err(what)?;
        }
        Ok(true)
    }

    /// A device, FIFO or socket.
    fn node(&self, to: BorrowedFd<'_>, name: &CString, stat: &Stat) -> Result<(), Errno> {
        if !is_whiteout(stat) {
            let kind = FileType::from_raw_mode(stat.st_mode);
            return mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev);
        }
        match self.whiteout(to, name) {
            // So many names are more than the file system lets one node have.
            Err(Errno::MLINK) => {
                unlinkat(&self.links, WHITEOUT, AtFlags::empty())?;
                self.whiteout(to, name)
            }
            done => done,
        }
    }

    fn whiteout(&self, to: BorrowedFd<'_>, name: &CString) -> Result<(), Errno> {
        match mknodat(&self.links, WHITEOUT, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) | Err(Errno::EXIST) => linkat(&self.links, WHITEOUT, to, name, AtFlags::empty()),
            Err(errno) => Err(errno),
        }
    }

    /// Nothing has this name in the copy any more, and nothing below it is known.
    pub(super) fn clear(&mut self, to: BorrowedFd<'_>, name: &CString, path: &Path) -> vzsys::Result<()> {
        if stat_in(to, name, path)?.is_some_and(|stat| is_dir(&stat)) {
            self.seen.retain(|known, _| !known.starts_with(path));
        }
        self.seen.remove(path);
        crate::removal::remove_at(to, OsStr::from_bytes(name.to_bytes()))
    }

    /// Owner, mode, attributes and times of a directory.
    pub(super) fn dress(&mut self, path: &Path) -> vzsys::Result<()> {
        let (Some(from), Some(to)) = (self.open(self.from.as_fd(), path)?, self.open(self.to.as_fd(), path)?)
        else {
            return Ok(());
        };
        let stat = fstat(&from).call("fstat", || path.display().to_string())?;
        dress(from.as_fd(), &c".".to_owned(), to.as_fd(), &c".".to_owned(), &stat)?;
        self.seen.insert(path.to_owned(), Seen::of(&stat));
        Ok(())
    }
}

/// Opens a file, if it is the one that was looked at.
fn open_same(
    from: BorrowedFd<'_>,
    name: &CString,
    path: &Path,
    stat: &Stat,
) -> vzsys::Result<Option<OwnedFd>> {
    let file = match openat(from, name, READ, Mode::empty()) {
        Ok(file) => file,
        Err(errno) => return gone_or(errno, "open", path).map(|()| None),
    };
    let now = fstat(&file).call("fstat", || path.display().to_string())?;
    Ok((now.st_ino == stat.st_ino && now.st_mode == stat.st_mode).then_some(file))
}

fn symlink(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CString) -> Result<bool, Errno> {
    match readlinkat(from, name, Vec::new()) {
        Ok(target) => symlinkat(&target, to, name).map(|()| true),
        Err(Errno::NOENT | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Owner, mode, attributes, times: in this order, because a new owner costs capabilities, and ACLs change the mode.
fn dress(
    from: BorrowedFd<'_>,
    name: &CString,
    to: BorrowedFd<'_>,
    new: &CString,
    stat: &Stat,
) -> vzsys::Result<()> {
    let what = || String::from_utf8_lossy(name.to_bytes()).into_owned();
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).call("chown", what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, new, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).call("chmod", what)?;
    }
    copy_xattrs(&path_in(from, name), &path_in(to, new), Which::All)?;
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    utimensat(to, new, &times, AtFlags::SYMLINK_NOFOLLOW).call("utimensat", what)
}
