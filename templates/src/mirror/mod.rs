//! A copy of a tree that is in use, brought up to date again and again until its users stand still.
//!
//! ```text
//! whole tree ─▶ what changed ─▶ what changed ─▶ … ─▶ (frozen) what changed ─▶ the copy is the tree as it was frozen
//! ```
//! Nothing is lost on the way: hard links, holes, devices, extended attributes, ACLs, capabilities, times to the
//! nanosecond, and overlayfs' own marks. Data are shared where the file system can (reflinks).
//!
//! The tree is a VE's and hostile: names are looked up one directory at a time below a descriptor, no link is
//! followed, no FIFO or device opened. Only this process may write to the copy.

mod entry;
mod file;
mod xattr;

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use crate::changes::Change;
pub(crate) use xattr::{Which, copy_xattrs, path_in, plain_xattrs};

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Bytes of a path that are looked up at once; the kernel takes 4095.
const STRETCH: usize = 2048;
/// A file whose ctime is this near to the moment it was copied may have changed since without another ctime: a long
/// write sets it once, when it begins.
const RACY: Duration = Duration::from_secs(2);

/// What was seen of an entry when it was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    /// ctime in nanoseconds since 1970.
    changed: i128,
    /// It may have changed later and look the same.
    racy: bool,
}

impl Seen {
    fn of(stat: &Stat) -> Self {
        let changed = changed(stat);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX) - changed;
        Self { inode: stat.st_ino, changed, racy: age < RACY.as_nanos().cast_signed() }
    }

    fn is_still(&self, stat: &Stat) -> bool {
        self.inode == stat.st_ino && self.changed == changed(stat)
    }
}

fn changed(stat: &Stat) -> i128 {
    i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec)
}

/// Nanoseconds since 1970, on the clock of file times.
#[must_use]
pub fn now() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Entries that were made or made anew.
    pub entries: u64,
    /// Bytes of file data that were copied; shared ones do not count.
    pub bytes: u64,
}

/// Whether an entry that looks as it did is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It was told as changed: copied, whatever it looks like.
    Nothing,
    /// Its inode and ctime, if that is old enough.
    Times,
}

/// A tree and its copy.
#[derive(Debug)]
pub struct Mirror {
    from: OwnedFd,
    to: OwnedFd,
    /// Files with several names, by inode number; beside the copy until it is sealed.
    links: OwnedFd,
    links_path: PathBuf,
    /// The name of that, where it is in the copy.
    inside: Option<CString>,
    seen: HashMap<PathBuf, Seen>,
    names: HashMap<u64, PathBuf>,
    /// Inodes that are in `links`.
    grouped: HashSet<u64>,
    /// Directories whose times are to be set again, for what was done in them.
    touched: HashSet<PathBuf>,
    /// Entries to be looked at again in this round.
    again: Vec<PathBuf>,
    can_clone: bool,
    done: Done,
}

impl Mirror {
    /// Prepares a copy of the tree at `from` as the new directory `to`.
    ///
    /// # Errors
    /// `EEXIST`, or what else mkdir(2) and open(2) say.
    pub fn new(from: &Path, to: &Path) -> vzsys::Result<Self> {
        let mut links = to.as_os_str().to_owned();
        links.push(".links");
        rustix::fs::mkdir(to, Mode::RWXU).call("mkdir", || to.display().to_string())?;
        Self::begin(from, to, PathBuf::from(links), None)
    }

    /// The same as the whole of a file system that is mounted at `to`, where nothing can be beside it.
    ///
    /// # Errors
    /// What mkdir(2) and open(2) say.
    pub fn filling(from: &Path, to: &Path) -> vzsys::Result<Self> {
        // No VE has this name.
        let name = format!(".{}", crate::snapshot::Id::random()?.bare());
        let inside = CString::new(name.as_bytes()).ok();
        Self::begin(from, to, to.join(name), inside)
    }

    fn begin(from: &Path, to: &Path, links_path: PathBuf, inside: Option<CString>) -> vzsys::Result<Self> {
        let open =
            |path: &Path| openat(CWD, path, DIR, Mode::empty()).call("open", || path.display().to_string());
        let source = open(from)?;
        rustix::fs::mkdir(&links_path, Mode::RWXU).call("mkdir", || links_path.display().to_string())?;
        Ok(Self {
            inside,
            from: source,
            to: open(to)?,
            links: open(&links_path)?,
            links_path,
            seen: HashMap::new(),
            names: HashMap::new(),
            grouped: HashSet::new(),
            touched: HashSet::new(),
            again: Vec::new(),
            can_clone: true,
            done: Done::default(),
        })
    }

    /// What was done since the beginning.
    #[must_use]
    pub fn done(&self) -> Done {
        self.done
    }

    /// Whether the file system shares the data of files.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.can_clone
    }

    /// Compares the whole tree with the copy, and copies what differs: all of it the first time. `progress` is
    /// told after each directory.
    ///
    /// # Errors
    /// The first call that failed. A tree that changes meanwhile is no error.
    pub fn compare(&mut self, mut progress: impl FnMut(Done)) -> vzsys::Result<()> {
        self.touched.insert(PathBuf::new());
        self.below(PathBuf::new(), Trust::Times, &mut progress)?;
        self.repeat()
    }

    /// Looks at what changed.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn apply(&mut self, changes: &[Change]) -> vzsys::Result<()> {
        for change in changes {
            let known = change.unnamed.and_then(|inode| self.names.get(&inode).cloned());
            if known.is_none() && change.is_nameless() {
                continue;
            }
            self.renew(known.as_deref().unwrap_or(&change.path), change.deep)?;
        }
        self.repeat()
    }

    /// Looks at files that may have changed without a word: those that are mapped. One that looks as it did when
    /// it was copied is left alone, if it was synced before that (see [`crate::changes`]).
    ///
    /// # Errors
    /// The first call that failed.
    pub fn check(&mut self, paths: &[PathBuf]) -> vzsys::Result<()> {
        for path in paths {
            let (Some(name), Some(stat)) = (path.file_name(), self.stat(path)?) else { continue };
            let fresh = self.seen.get(path).is_some_and(|seen| seen.is_still(&stat) && !seen.racy);
            if !fresh {
                self.renew(&path.with_file_name(name), false)?;
            }
        }
        self.repeat()
    }

    /// Writes files of the tree to the disk, so that the next store to a mapped one changes its ctime. What is no
    /// regular file is left alone.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn sync(&self, paths: &[PathBuf]) -> vzsys::Result<()> {
        for path in paths {
            let Some(stat) = self.stat(path)? else { continue };
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
                continue;
            }
            let (Some(dir), Some(name)) = (self.dir(self.from.as_fd(), path)?, path.file_name()) else {
                continue;
            };
            match openat(&dir, name, file::READ, Mode::empty()) {
                Ok(file) => rustix::fs::fdatasync(file).call("fdatasync", || path.display().to_string())?,
                Err(errno) => gone_or(errno, "open", path)?,
            }
        }
        Ok(())
    }

    /// Gives directories their times: the last thing before the tree's users go on.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn finish(&mut self) -> vzsys::Result<()> {
        for path in std::mem::take(&mut self.touched) {
            self.dress(&path)?;
        }
        Ok(())
    }

    /// What changed before `moment` ([`now`]) and is not so in the copy: nothing, if all changes were told. Only
    /// looks, and may be done while the tree's users go on.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn missed(&self, moment: i128) -> vzsys::Result<Vec<PathBuf>> {
        let mut missed = Vec::new();
        let mut dirs = vec![PathBuf::new()];
        while let Some(path) = dirs.pop() {
            let Some(dir) = self.open(self.from.as_fd(), &path)? else { continue };
            for name in names(&dir, &path)? {
                let entry = path.join(OsStr::from_bytes(name.to_bytes()));
                let Some(stat) = stat_in(dir.as_fd(), &name, &entry)? else { continue };
                let known = self.seen.get(&entry).is_some_and(|seen| seen.is_still(&stat));
                if !known && changed(&stat) < moment {
                    missed.push(entry.clone());
                }
                if entry::is_dir(&stat) {
                    dirs.push(entry);
                }
            }
        }
        Ok(missed)
    }

    /// Removes what was beside the copy: nothing is brought up to date any more. What it holds need not have
    /// reached the disk.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn seal(mut self) -> vzsys::Result<Done> {
        crate::removal::remove(&self.links_path)?;
        if self.inside.is_some() {
            self.dress(Path::new(""))?;
        }
        Ok(self.done)
    }

    fn repeat(&mut self) -> vzsys::Result<()> {
        while let Some(path) = self.again.pop() {
            self.renew(&path, false)?;
        }
        Ok(())
    }

    /// All below a directory of the tree.
    fn below(&mut self, top: PathBuf, trust: Trust, progress: &mut dyn FnMut(Done)) -> vzsys::Result<()> {
        let mut dirs = vec![top];
        while let Some(path) = dirs.pop() {
            let (Some(from), Some(to)) =
                (self.open(self.from.as_fd(), &path)?, self.open(self.to.as_fd(), &path)?)
            else {
                continue;
            };
            let here = names(&from, &path)?;
            self.prune(&to, &path, &here)?;
            for name in here {
                let entry = path.join(OsStr::from_bytes(name.to_bytes()));
                if self.entry(from.as_fd(), to.as_fd(), &name, &entry, trust)? == entry::Is::Directory {
                    dirs.push(entry);
                }
            }
            progress(self.done);
        }
        Ok(())
    }

    /// Removes from a directory of the copy what the tree does not have.
    fn prune(&mut self, to: &OwnedFd, path: &Path, wanted: &[CString]) -> vzsys::Result<()> {
        let there = names(to, path)?;
        if there.is_empty() {
            return Ok(());
        }
        let wanted: HashSet<&CString> = wanted.iter().collect();
        let own = self.inside.clone().filter(|_| path.as_os_str().is_empty());
        for name in there.iter().filter(|name| !wanted.contains(name) && Some(*name) != own.as_ref()) {
            self.clear(to.as_fd(), name, &path.join(OsStr::from_bytes(name.to_bytes())))?;
            self.touched.insert(path.to_owned());
        }
        Ok(())
    }

    /// One path, whatever it is now.
    fn renew(&mut self, path: &Path, deep: bool) -> vzsys::Result<()> {
        let Some(name) = path.file_name() else {
            self.touched.insert(PathBuf::new());
            return if deep { self.below(PathBuf::new(), Trust::Nothing, &mut |_| {}) } else { Ok(()) };
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(from) = self.open(self.from.as_fd(), parent)? else {
            // A directory above is gone, or is none any more: told as well, and dealt with there.
            return Ok(());
        };
        let Some(to) = self.open(self.to.as_fd(), parent)? else {
            // It came a moment ago: all of it is to be told yet, or is in this very list.
            return self.renew(parent, true);
        };
        let Ok(name) = CString::new(name.as_bytes()) else { return Ok(()) };
        self.touched.insert(parent.to_owned());
        let is = self.entry(from.as_fd(), to.as_fd(), &name, path, Trust::Nothing)?;
        if deep && is == entry::Is::Directory {
            self.below(path.to_owned(), Trust::Nothing, &mut |_| {})?;
        }
        Ok(())
    }

    fn stat(&self, path: &Path) -> vzsys::Result<Option<Stat>> {
        let (Some(dir), Some(name)) = (self.dir(self.from.as_fd(), path)?, path.file_name()) else {
            return Ok(None);
        };
        let Ok(name) = CString::new(name.as_bytes()) else { return Ok(None) };
        stat_in(dir.as_fd(), &name, path)
    }

    /// The directory that holds `path`.
    fn dir(&self, root: BorrowedFd<'_>, path: &Path) -> vzsys::Result<Option<OwnedFd>> {
        self.open(root, path.parent().unwrap_or(Path::new("")))
    }

    /// A directory below one of the roots; `None` when there is none of that name (any more).
    fn open(&self, root: BorrowedFd<'_>, path: &Path) -> vzsys::Result<Option<OwnedFd>> {
        use rustix::fs::{ResolveFlags, openat2};
        let mut dir = match openat(root, c".", DIR, Mode::empty()) {
            Ok(dir) => dir,
            Err(errno) => return gone_or(errno, "open", path).map(|()| None),
        };
        let mut rest = path;
        while !rest.as_os_str().is_empty() {
            let (now, later) = stretch(rest);
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            dir = match openat2(&dir, &now, DIR, Mode::empty(), beneath) {
                Ok(dir) => dir,
                Err(errno) => return gone_or(errno, "openat2", path).map(|()| None),
            };
            rest = later;
        }
        Ok(Some(dir))
    }
}

/// As much of a path as is looked up at once, and the rest.
fn stretch(path: &Path) -> (PathBuf, &Path) {
    let mut parts = path.components();
    let mut now = PathBuf::new();
    for part in parts.by_ref() {
        now.push(part);
        if now.as_os_str().len() > STRETCH {
            break;
        }
    }
    (now, parts.as_path())
}

/// What is gone while it is looked at is no failure.
fn gone_or(errno: Errno, call: &'static str, path: &Path) -> vzsys::Result<()> {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => Ok(()),
        errno => Err(SysError::new(call, path.display(), errno)),
    }
}

fn stat_in(dir: BorrowedFd<'_>, name: &CString, path: &Path) -> vzsys::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(errno) => gone_or(errno, "stat", path).map(|()| None),
    }
}

/// The names in a directory, without itself and the one above.
pub(crate) fn names(dir: &OwnedFd, path: &Path) -> vzsys::Result<Vec<CString>> {
    let failed = |errno| SysError::new("getdents64", path.display(), errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
