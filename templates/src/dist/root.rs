//! A guest's tree as seen by the host, which trusts nothing in it.
//!
//! Every path is resolved by the kernel below the root (`openat2`, `RESOLVE_IN_ROOT`), so a symbolic
//! link or `..` leads nowhere else. A file is first opened as a mere path (`O_PATH`), looked at, and
//! only a regular one is opened for reading: a named pipe never blocks, a device is never touched.
//! Files are replaced by renaming, on a directory that is held open.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use vzsys::SysError;

use super::error::{DistError, Kind};
use super::skeleton::Owner;

/// No configuration file that we read may be larger.
pub const FILE_LIMIT: u64 = 4 << 20;
/// More entries than any directory of interest has.
const LIST_LIMIT: usize = 4096;
const LINK_LIMIT: usize = 40;
const RACES: usize = 32;

type Result<T> = std::result::Result<T, DistError>;

/// How a file reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the kernel likes.
    Lazy,
    /// Before the old file goes: for passwords.
    Synced,
}

/// A guest's root directory.
#[derive(Debug)]
pub struct GuestRoot {
    dir: OwnedFd,
}

/// A directory and a name in it that is no symbolic link.
struct Place {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl GuestRoot {
    /// Opens the tree at a path of the host (a mounted root, or `/proc/PID/root` of a running VE).
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty());
        Ok(Self { dir: dir.map_err(|errno| call("open", path, errno))? })
    }

    /// The tree of an open directory.
    #[must_use]
    pub fn from_fd(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// What lies at `path` in the guest, symbolic links followed; `None` if nothing.
    ///
    /// # Errors
    /// The errno of openat2(2), but for "not there".
    pub fn kind(&self, path: impl AsRef<Path>) -> Result<Option<Kind>> {
        let path = path.as_ref();
        let Some(fd) = missing_is_none(self.resolve(path, OFlags::PATH), path)? else { return Ok(None) };
        Ok(Some(kind_of(&stat(&fd, path)?)))
    }

    /// Whether anything is at `path`; what cannot be looked at does not count.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        matches!(self.kind(path), Ok(Some(_)))
    }

    /// Whether a regular file is at `path`.
    #[must_use]
    pub fn is_file(&self, path: impl AsRef<Path>) -> bool {
        matches!(self.kind(path), Ok(Some(Kind::File)))
    }

    /// Whether a directory is at `path`.
    #[must_use]
    pub fn is_dir(&self, path: impl AsRef<Path>) -> bool {
        matches!(self.kind(path), Ok(Some(Kind::Directory)))
    }

    /// The contents of a regular file; `None` if nothing is there.
    ///
    /// # Errors
    /// [`DistError::NotRegular`], [`DistError::TooLarge`], or the failing call. Never blocks.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let size = stat(&file, path)?.st_size.unsigned_abs();
        if size > FILE_LIMIT {
            return Err(DistError::TooLarge { path: path.to_owned(), size, limit: FILE_LIMIT });
        }
        let mut content = Vec::new();
        // It may grow while it is read.
        file.take(FILE_LIMIT + 1).read_to_end(&mut content).map_err(|e| io("read", path, &e))?;
        if content.len() as u64 > FILE_LIMIT {
            let size = content.len() as u64;
            return Err(DistError::TooLarge { path: path.to_owned(), size, limit: FILE_LIMIT });
        }
        Ok(Some(content))
    }

    /// The first `N` bytes of a regular file of any size, or fewer; `None` if there is none.
    #[must_use]
    pub fn head<const N: usize>(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let file = self.open_file(path.as_ref()).ok()??;
        let mut content = Vec::with_capacity(N);
        file.take(N as u64).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// A file as text, bytes that are not UTF-8 replaced; an unreadable one is empty.
    #[must_use]
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        let content = self.read(path).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&content).into_owned()
    }

    /// Where the symbolic link at `path` leads, as written; `None` if it is none.
    #[must_use]
    pub fn link_target(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        let dir = self.resolve(path.parent()?, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let target = rustix::fs::readlinkat(dir, path.file_name()?, Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// The path that `path` leads to after its own symbolic links (not those of its parents).
    #[must_use]
    pub fn final_path(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let mut path = path.as_ref().to_owned();
        for _ in 0..LINK_LIMIT {
            let Some(target) = self.link_target(&path) else { return Some(path) };
            path = path.parent()?.join(target);
        }
        None
    }

    /// The names in a directory, sorted; none if there is no such directory. At most 4096.
    #[must_use]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Ok(fd) = self.resolve(path.as_ref(), flags) else { return Vec::new() };
        let Ok(dir) = rustix::fs::Dir::new(fd) else { return Vec::new() };
        let names = dir.flatten().take(LIST_LIMIT).map(|e| e.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "." && name != "..").collect();
        names.sort();
        names
    }

    /// Puts `content` at `path`, unless it is there already: in a new file that takes the old one's
    /// place, mode and owner. A symbolic link at `path` is followed inside the guest. Missing
    /// directories are made. Tells whether anything changed.
    ///
    /// # Errors
    /// [`DistError::NotRegular`] and the like; then the old file is untouched.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        content: &[u8],
        mode: u32,
        durable: Durability,
    ) -> Result<bool> {
        let path = path.as_ref();
        // Read first: what is no readable file is not replaced either.
        let old = match self.read(path) {
            Ok(old) => old,
            Err(DistError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        if old.as_deref() == Some(content) {
            return Ok(false);
        }
        let place = self.place(path)?;
        let before = match rustix::fs::statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if kind_of(&found) == Kind::File => Some(found),
            Ok(found) => return Err(DistError::NotRegular { path: place.path, kind: kind_of(&found) }),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(call("fstatat", &place.path, errno)),
        };
        place.replace(content, mode, before.as_ref(), durable)?;
        Ok(true)
    }

    /// Removes a file or symbolic link (not what it leads to). Tells whether one was there.
    ///
    /// # Errors
    /// The errno of unlink(2), but for "not there".
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let Some((dir, name)) = self.parent(path)? else { return Ok(false) };
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(call("unlinkat", path, errno)),
        }
    }

    /// Makes `path` a symbolic link to `target`, in the place of another link. Tells whether anything
    /// changed. A file or directory that is there stays.
    ///
    /// # Errors
    /// The errno of symlink(2).
    pub fn symlink(&self, target: &str, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        match self.link_target(path) {
            Some(old) if old == Path::new(target) => return Ok(false),
            Some(_) => drop(self.remove(path)?),
            None => {}
        }
        let dir = self.make_dirs(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        let name = path.file_name().unwrap_or_default();
        match rustix::fs::symlinkat(target, dir, name) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(call("symlinkat", path, errno)),
        }
    }

    /// Opens the directory `path`, making what is missing of it.
    ///
    /// # Errors
    /// The errno of mkdir(2) or openat2(2).
    pub(super) fn make_dirs(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, directory) {
            Err(Errno::NOENT) => {}
            done => return done.map_err(|errno| call("openat2", path, errno)),
        }
        let parent = path.parent().ok_or_else(|| call("openat2", path, Errno::NOENT))?;
        let above = self.make_dirs(parent, mode)?;
        let name = path.file_name().ok_or_else(|| call("mkdirat", path, Errno::INVAL))?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(call("mkdirat", path, errno)),
        }
        self.resolve(path, directory).map_err(|errno| call("openat2", path, errno))
    }

    /// Makes the directory `path` with what is missing above it, its mode set whatever the umask is.
    ///
    /// # Errors
    /// The errno of mkdir(2), openat2(2) or chmod(2).
    pub(crate) fn make_dir(&self, path: &Path, mode: u32) -> Result<()> {
        let made = self.make_dirs(path, 0o755)?;
        rustix::fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), Mode::from_raw_mode(mode))
            .map_err(|errno| call("chmod", path, errno))
    }

    /// Gives what was just made at `path` to a user of the guest, and sets its mode (not of a link).
    ///
    /// The guest's numbers begin where the new file's owner is: at 0, or at the base of the range that
    /// the tree is mapped to.
    pub(super) fn give(&self, path: &Path, owner: Owner, mode: Option<u32>) -> Result<()> {
        let fd = self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW);
        let fd = fd.map_err(|errno| call("openat2", path, errno))?;
        if let Some(mode) = mode {
            let by_fd = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::chmod(by_fd, Mode::from_raw_mode(mode & 0o7777))
                .map_err(|errno| call("chmod", path, errno))?;
        }
        let now = stat(&fd, path)?;
        let uid = rustix::fs::Uid::from_raw(now.st_uid.saturating_add(owner.uid));
        let gid = rustix::fs::Gid::from_raw(now.st_gid.saturating_add(owner.gid));
        rustix::fs::chownat(&fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| call("fchownat", path, errno))
    }

    /// The permission bits of what is at `path`.
    pub(super) fn mode(&self, path: &Path) -> Result<u32> {
        let fd = self.resolve(path, OFlags::PATH).map_err(|errno| call("openat2", path, errno))?;
        Ok(stat(&fd, path)?.st_mode & 0o7777)
    }

    /// Opens a regular file (made if missing) for locking.
    pub(super) fn open_lock(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = retry(|| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, mode, how)
        });
        let fd = fd.map_err(|errno| call("openat2", path, errno))?;
        match kind_of(&stat(&fd, path)?) {
            Kind::File => Ok(fd),
            kind => Err(DistError::NotRegular { path: path.to_owned(), kind }),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Option<File>> {
        let Some(fd) = missing_is_none(self.resolve(path, OFlags::PATH), path)? else { return Ok(None) };
        match kind_of(&stat(&fd, path)?) {
            Kind::File => {}
            kind => return Err(DistError::NotRegular { path: path.to_owned(), kind }),
        }
        // The very inode that was looked at, by the host's own procfs.
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(again, flags, Mode::empty()).map_err(|errno| call("open", path, errno))?;
        Ok(Some(File::from(fd)))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        retry(|| rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), how))
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<Option<(OwnedFd, &'p OsStr)>> {
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back())
        else {
            return Err(call("openat2", path, Errno::INVAL));
        };
        let dir = missing_is_none(self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY), path)?;
        Ok(dir.map(|dir| (dir, name)))
    }

    /// Follows the symbolic links that `path` itself is, making missing directories.
    fn place(&self, path: &Path) -> Result<Place> {
        let mut path = path.to_owned();
        for _ in 0..LINK_LIMIT {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(call("openat2", &path, Errno::INVAL));
            };
            let dir = self.make_dirs(parent, 0o755)?;
            match rustix::fs::readlinkat(&dir, name, Vec::new()) {
                Ok(target) => path = parent.join(OsStr::from_bytes(target.as_bytes())),
                Err(Errno::INVAL | Errno::NOENT) => {
                    let name = name.to_owned();
                    return Ok(Place { dir, name, path });
                }
                Err(errno) => return Err(call("readlinkat", &path, errno)),
            }
        }
        Err(call("openat2", &path, Errno::LOOP))
    }
}

impl AsFd for GuestRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Place {
    fn replace(&self, content: &[u8], mode: u32, before: Option<&Stat>, durable: Durability) -> Result<()> {
        let (temp, mut file) = self.temporary()?;
        let filled = self.fill(&mut file, content, mode, before, durable);
        let renamed = filled.and_then(|()| {
            rustix::fs::renameat(&self.dir, &temp, &self.dir, &self.name)
                .map_err(|errno| call("renameat", &self.path, errno))
        });
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&self.dir, &temp, AtFlags::empty());
        }
        renamed
    }

    fn fill(
        &self,
        file: &mut File,
        content: &[u8],
        mode: u32,
        old: Option<&Stat>,
        durable: Durability,
    ) -> Result<()> {
        file.write_all(content).map_err(|e| io("write", &self.path, &e))?;
        let mode = old.map_or(mode, |old| old.st_mode & 0o7777);
        if let Some(old) = old {
            let new = stat(&*file, &self.path)?;
            if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(old.st_uid), rustix::fs::Gid::from_raw(old.st_gid));
                rustix::fs::fchown(&*file, Some(uid), Some(gid))
                    .map_err(|errno| call("fchown", &self.path, errno))?;
            }
        }
        rustix::fs::fchmod(&*file, Mode::from_raw_mode(mode))
            .map_err(|errno| call("fchmod", &self.path, errno))?;
        if durable == Durability::Synced {
            file.sync_all().map_err(|e| io("fsync", &self.path, &e))?;
        }
        Ok(())
    }

    fn temporary(&self) -> Result<(OsString, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..RACES {
            let name = OsString::from(format!(".vz-{}-{number}", std::process::id()));
            match rustix::fs::openat(&self.dir, &name, flags, Mode::from_raw_mode(0o600)) {
                Ok(fd) => return Ok((name, File::from(fd))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(call("openat", &self.path, errno)),
            }
        }
        Err(call("openat", &self.path, Errno::EXIST))
    }
}

/// The kernel gives up with `EAGAIN` when somebody renames directories at the same time.
fn retry<T>(mut work: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..RACES {
        match work() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    work()
}

fn missing_is_none<T>(result: rustix::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(call("openat2", path, errno)),
    }
}

pub(super) fn stat(fd: impl AsFd, path: &Path) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|errno| call("fstat", path, errno))
}

pub(super) fn kind_of(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Device,
    }
}

pub(super) fn call(name: &'static str, path: &Path, errno: Errno) -> DistError {
    DistError::Call { path: path.to_owned(), source: SysError::new(name, path.display(), errno) }
}

fn io(name: &'static str, path: &Path, error: &std::io::Error) -> DistError {
    DistError::Call { path: path.to_owned(), source: SysError::from_io(name, path.display(), error) }
}
