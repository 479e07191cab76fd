//! Giving a tree to a project.
//!
//! What is made in a directory of a project belongs to it by itself; this is for a tree that has content already. Only
//! what can be opened can be given away. A link, device, FIFO or socket cannot, and one without the project could
//! not be renamed within the tree any more, so each is made anew. The top is given last: a tree whose top has
//! its project is done.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fstat,
    linkat, mknodat, openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::quota::{Project, project, set_project};
use vzsys::{Call, SysError};

use super::QuotaError;

/// How deep a tree is walked: two paths of the longest that a call takes.
const DEEPEST: usize = 4096;
/// What a link or device is made anew under, before it is renamed over the old one.
const ANEW: &CStr = c".vzctl-anew";
/// Links and devices with several names, of which the other ones are remembered.
const SHARED: usize = 512;

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens the top of a tree.
pub(super) fn open(top: &Path) -> Result<OwnedFd, QuotaError> {
    openat(CWD, top, OPEN | OFlags::DIRECTORY, Mode::empty())
        .call("open", || top.display().to_string())
        .map_err(QuotaError::call(Exit::DqInit, format!("cannot open {}", top.display())))
}

/// Whether a tree belongs to the project, whole.
pub(super) fn is_marked(top: BorrowedFd<'_>, id: u32) -> bool {
    project(top).is_ok_and(|now| now == Project { id, inherited: true })
}

/// Gives all of a tree to a project, on one file system; nobody else works in it. `progress` is told the number of
/// files now and then.
pub(super) fn mark(top: &Path, id: u32, progress: &mut dyn FnMut(u64)) -> Result<(), QuotaError> {
    let root = open(top)?;
    let failed = || QuotaError::call(Exit::DqInit, format!("cannot give {} to project {id}", top.display()));
    let device = fstat(&root).call("fstat", || top.display().to_string()).map_err(failed())?.st_dev;
    let mut walk = Walk { id, device, shared: HashMap::new(), seen: 0, progress };
    let mut stack = vec![Dir::read_from(&root).call("open", || top.display().to_string()).map_err(failed())?];
    while let Some(dir) = stack.last_mut() {
        let Some(entry) = dir.next() else {
            stack.pop();
            continue;
        };
        let entry = entry.call("getdents", || top.display().to_string()).map_err(failed())?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let at = dir.fd().call("open", || top.display().to_string()).map_err(failed())?;
        let below = walk.visit(at, name).map_err(failed())?;
        if let Some(below) = below {
            if stack.len() == DEEPEST {
                return Err(QuotaError::TooDeep { path: top.to_owned(), limit: DEEPEST });
            }
            stack.push(below);
        }
    }
    set_project(root.as_fd(), Project { id, inherited: true }).map_err(failed())
}

struct Walk<'a> {
    id: u32,
    device: u64,
    /// The new ones of links and devices with several names, by the inode numbers of the old ones.
    shared: HashMap<u64, OwnedFd>,
    seen: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Walk<'_> {
    /// Gives one entry away; a directory is returned, to be gone through.
    fn visit(&mut self, at: BorrowedFd<'_>, name: &CStr) -> vzsys::Result<Option<Dir>> {
        let show = || name.to_string_lossy().into_owned();
        let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            done => done.call("stat", show)?,
        };
        if stat.st_dev != self.device {
            return Ok(None);
        }
        self.seen += 1;
        if self.seen.is_multiple_of(1024) {
            (self.progress)(self.seen);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let dir = openat(at, name, OPEN | OFlags::DIRECTORY, Mode::empty()).call("open", show)?;
                set_project(dir.as_fd(), Project { id: self.id, inherited: true })?;
                Dir::read_from(&dir).call("open", show).map(Some)
            }
            FileType::RegularFile => {
                let file = openat(at, name, OPEN, Mode::empty()).call("open", show)?;
                set_project(file.as_fd(), Project { id: self.id, inherited: false }).map(|()| None)
            }
            // Left by a walk that was killed.
            _ if name == ANEW => unlinkat(at, name, AtFlags::empty()).call("unlink", show).map(|()| None),
            kind => self.renew(at, name, kind, &stat).map(|()| None),
        }
    }

    /// Makes a link or device anew, in its directory, which has its project already.
    fn renew(&mut self, at: BorrowedFd<'_>, name: &CStr, kind: FileType, old: &Stat) -> vzsys::Result<()> {
        let show = || name.to_string_lossy().into_owned();
        match unlinkat(at, ANEW, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            done => done.call("unlink", || ".vzctl-anew")?,
        }
        if !self.link_to_known(at, old) {
            make(at, name, kind, old)?;
        }
        if old.st_nlink > 1 && self.shared.len() < SHARED && !self.shared.contains_key(&old.st_ino) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = openat(at, ANEW, flags, Mode::empty()).call("open", show)?;
            self.shared.insert(old.st_ino, new);
        }
        renameat(at, ANEW, at, name).call("rename", show)
    }

    /// Whether it is another name of one that was made anew; too many names are not.
    fn link_to_known(&self, at: BorrowedFd<'_>, old: &Stat) -> bool {
        let known = self.shared.get(&old.st_ino);
        known.is_some_and(|known| linkat(known, c"", at, ANEW, AtFlags::EMPTY_PATH).is_ok())
    }
}

/// A copy of a link or device under [`ANEW`], in the same directory.
fn make(at: BorrowedFd<'_>, name: &CStr, kind: FileType, old: &Stat) -> vzsys::Result<()> {
    let show = || name.to_string_lossy().into_owned();
    if kind == FileType::Symlink {
        let target: CString = readlinkat(at, name, Vec::new()).call("readlink", show)?;
        symlinkat(&target, at, ANEW).call("symlink", show)?;
    } else {
        mknodat(at, ANEW, kind, Mode::from_raw_mode(old.st_mode), old.st_rdev).call("mknod", show)?;
    }
    let (owner, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
    chownat(at, ANEW, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW).call("chown", show)?;
    if kind != FileType::Symlink {
        chmodat(at, ANEW, Mode::from_raw_mode(old.st_mode), AtFlags::empty()).call("chmod", show)?;
    }
    copy_attributes(at, name)?;
    let times = Timestamps {
        last_access: timespec(old.st_atime, old.st_atime_nsec),
        last_modification: timespec(old.st_mtime, old.st_mtime_nsec),
    };
    utimensat(at, ANEW, &times, AtFlags::SYMLINK_NOFOLLOW).call("utimensat", show)
}

fn timespec(seconds: i64, nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() }
}

/// Extended attributes of links and devices: those of overlays and of security modules.
fn copy_attributes(at: BorrowedFd<'_>, name: &CStr) -> vzsys::Result<()> {
    const MOST: usize = 64 << 10;
    let path = |name: &CStr| {
        let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        path.extend(name.to_bytes());
        CString::new(path).unwrap_or_default()
    };
    let (from, to) = (path(name), path(ANEW));
    let failed = |call, errno| SysError::new(call, name.to_string_lossy(), errno);
    let mut names = vec![0; MOST];
    let length = match rustix::fs::llistxattr(&from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        done => done.map_err(|errno| failed("llistxattr", errno))?,
    };
    for attribute in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(attribute) = CStr::from_bytes_with_nul(attribute) else { continue };
        let mut value = vec![0; MOST];
        let length = rustix::fs::lgetxattr(&from, attribute, &mut value[..])
            .map_err(|errno| failed("lgetxattr", errno))?;
        rustix::fs::lsetxattr(&to, attribute, &value[..length], rustix::fs::XattrFlags::empty())
            .map_err(|errno| failed("lsetxattr", errno))?;
    }
    Ok(())
}
