//! Images: an ext4 in a sparse file, which is a limit that no file system below has to keep.
//!
//! ```text
//!  file ── flock ──▶ e2fsck -p (only if it is dirty) ──▶ loop device ──▶ mount, attached nowhere
//!            ▲                                              │
//!            └── kept by the device, which ends with its last mount
//! ```
//!
//! Two devices of one file would be two file systems that write over one another. So who makes a device, or
//! changes the file otherwise, has the lock of the file. The device keeps it (it holds the same open file), and so
//! do the programs that work on the file (it is their standard input): they may outlive us. Who finds the
//! lock taken and a device there shares that device, and the kernel gives it the same mounted file system.
//!
//! Nothing of it is seen in the host's mount table, and nothing has to be taken down: mount, device and lock go
//! when the last descriptor or overlay that uses them goes, however that happens.

mod blank;
mod copy;
pub mod descriptor;
mod error;
mod ext4;
mod how;
mod resize;
mod still;
mod users;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use vzconf::Exit;
use vzsys::block::{self, Cache, Loop};
use vzsys::mount::{Detached, Opt};
use vzsys::{Call, SysError, fault, room};

pub use copy::copy;
pub use error::ImageError;
use ext4::Superblock;
pub use how::{BadOption, How};
pub use resize::Resized;
pub use still::Still;
pub use users::Users;

/// How long the mount before, or a program that works on the file, may take to end.
const ENDED: Duration = Duration::from_secs(60);
/// How long an unmount in the background may take: it writes what is dirty.
const UNMOUNTED: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// A disk with so little room could not take what was written last.
const FULL: u64 = 4 << 20;
/// Of the file and of the file system in it.
const BLOCK: u64 = 4096;
/// Smaller ones have no room for a journal.
pub const SMALLEST: u64 = 16 << 20;

/// How much an image may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes that `df` shows in it; at least [`SMALLEST`].
    pub bytes: u64,
    /// Inodes; one for every 16 KiB where `None`.
    pub inodes: Option<u64>,
}

/// How much an image may hold, and what is in use of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that `df` shows in it.
    pub bytes: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

/// Makes an image of an empty file system at `path`, which does not exist. `blanks` is a directory that is gone
/// after a reboot: the next image of that size is a copy of a few kilobytes. Nothing of it need be on the disk
/// when this returns.
///
/// # Errors
/// [`ImageError`] with exit 151, 46 without room; nothing is left.
pub fn make(path: &Path, size: Size, blanks: &Path) -> Result<(), ImageError> {
    let blank = blank::blank(blanks, size)?;
    let made = new_file(path)?;
    let done = copy(&blank, &made, &mut |_, _| ()).map_err(ImageError::call(path, Exit::CreateImage));
    if done.is_err() {
        // The first error counts; the caller throws the whole area away.
        let _ = std::fs::remove_file(path);
    }
    done
}

fn new_file(path: &Path) -> Result<File, ImageError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).call("open", || path.display().to_string());
    made.map(File::from).map_err(ImageError::call(path, Exit::CreateImage))
}

/// Whether files below a directory can be read and written around the host's page cache.
///
/// # Errors
/// What open(2) with `O_DIRECT` said.
pub fn direct_io(dir: &Path) -> Result<(), SysError> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
    openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR)
        .map(drop)
        .call("open", || format!("{}, O_TMPFILE|O_DIRECT", dir.display()))
}

/// An image, by its open file.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
}

/// What is known of mounts of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// There may be some, and they go on.
    Stay,
    /// There is none, or the last one is about to end.
    End,
}

/// Who may use an image now.
enum Hold {
    /// This open file has the lock: nobody uses it.
    Alone(File),
    /// A device of it is there, and with that, or soon, a mount.
    Shared(Loop),
}

impl Image {
    /// Opens the image at `path`, a regular file; no link is followed.
    ///
    /// # Errors
    /// [`ImageError::Missing`], [`ImageError::NotAnImage`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::open_at(CWD, path, path)
    }

    /// The same below a directory; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_at(dir: impl AsFd, name: impl AsRef<Path>, path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, name.as_ref(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(ImageError::Missing { path: path.to_owned() }),
            opened => opened.call("open", || path.display().to_string()),
        };
        let file = file.map(File::from).map_err(ImageError::call(path, Exit::MountImage))?;
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            let reason = "it is no regular file".to_owned();
            return Err(ImageError::NotAnImage { path: path.to_owned(), reason });
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Mounts it, attached nowhere. One that was not unmounted cleanly is checked and mended first.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] when it cannot be mended, [`ImageError::InUse`], or the call that failed: exit 152.
    pub fn mount(&self) -> Result<Detached, ImageError> {
        self.mount_as(&How::USUAL)
    }

    /// The same, in the way that its VE is to have it.
    ///
    /// # Errors
    /// As [`Image::mount`]; an option that the kernel does not know is named.
    pub fn mount_as(&self, how: &How) -> Result<Detached, ImageError> {
        self.mount_with(how, Writes::Kept)
    }

    /// The same for an image in the making, which is thrown away if anything happens before [`Image::settle`].
    ///
    /// # Errors
    /// As [`Image::mount`].
    pub fn mount_new(&self) -> Result<Detached, ImageError> {
        self.mount_with(&How::USUAL, Writes::Left)
    }

    fn mount_with(&self, how: &How, writes: Writes) -> Result<Detached, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::MountImage);
        let locked = match self.hold(Mounts::Stay, ENDED)? {
            Hold::Shared(device) => {
                return mount_device_with(&device, how.options(), writes).map_err(failed());
            }
            Hold::Alone(locked) => locked,
        };
        let found = if how.skip_check { self.superblock()? } else { self.check(&locked)? };
        let mount = |options| {
            let cache = if writes == Writes::Kept { Cache::Around } else { Cache::Through };
            let device = Loop::attach(locked.as_fd(), found.sectors(), cache)?;
            fault::point("image.attached");
            mount_device_with(&device, options, writes)
        };
        match mount(how.options()) {
            Err(error)
                if found.counts_users()
                    && matches!(error.errno(), Errno::INVAL | Errno::SRCH)
                    && !self.kernel_counts_users()? =>
            {
                if how.user_quota {
                    return Err(ImageError::NoUserQuota { path: self.path.clone() });
                }
                // It comes from another kernel, and nobody asks for these limits.
                ext4::count_users(&locked, &self.path, false)?;
                mount(how.options()).map_err(failed())
            }
            done => done.map_err(failed()),
        }
    }

    /// Writes all that is dirty in it to the file, while it is mounted. What could not be written since somebody last asked is
    /// told: an unmount would not, and the host's disk may have less room than the image promises.
    ///
    /// # Errors
    /// 46 when the disk below is full, else the errno of syncfs(2) as exit 151.
    pub fn flush(&self) -> Result<(), ImageError> {
        let failed = || ImageError::call(&self.path, Exit::CreateImage);
        let mounted = self.mount()?;
        let top = directory(&mounted).map_err(failed())?;
        let synced = rustix::fs::syncfs(&top).call("syncfs", || self.path.display().to_string());
        synced.map_err(|error| match self.expect_room(FULL) {
            Err(full) => full,
            Ok(()) => failed()(error),
        })
    }

    /// Whether the disk below has room for so many bytes more.
    ///
    /// # Errors
    /// `ENOSPC`: exit 46.
    pub fn expect_room(&self, bytes: u64) -> Result<(), ImageError> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let failed = || ImageError::call(&self.path, Exit::CreateImage);
        let free = room::free(dir).map_err(failed())?;
        if free >= bytes {
            return Ok(());
        }
        let what = format!("{} KiB in {}, {} KiB needed", free >> 10, dir.display(), bytes.div_ceil(1024));
        Err(failed()(SysError::new("write", what, Errno::NOSPC)))
    }

    /// Waits until the disk has all that was written through [`Image::mount_new`], whose mount is gone or about to go.
    ///
    /// # Errors
    /// As [`Image::idle`], or the errno of fsync(2): exit 151, 46 without room.
    pub fn settle(&self) -> Result<(), ImageError> {
        self.idle()?;
        let synced = rustix::fs::fsync(&self.file).call("fsync", || self.path.display().to_string());
        synced.map_err(ImageError::call(&self.path, Exit::CreateImage))
    }

    /// Waits until it is not mounted any more, and so holds all that was written into it: an unmount may go on in the
    /// background.
    ///
    /// # Errors
    /// [`ImageError::InUse`] when it stays mounted.
    pub fn idle(&self) -> Result<(), ImageError> {
        self.hold(Mounts::End, UNMOUNTED).map(drop)
    }

    /// Waits until nobody works on the file; a mounted one is shared, unless its mount is only ending.
    fn hold(&self, mounts: Mounts, within: Duration) -> Result<Hold, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::MountImage);
        // Opened anew: a device that we made before may have the lock, as the open file that it was made of.
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let again = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let again =
            openat(CWD, &again, flags, Mode::empty()).call("open", || self.path.display().to_string());
        let again = again.map(File::from).map_err(failed())?;
        let until = Instant::now() + within;
        loop {
            match flock(&again, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    resize::forget(&self.path);
                    return Ok(Hold::Alone(again));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => {
                    return Err(failed()(SysError::new("flock", self.path.display(), errno)));
                }
            }
            if mounts == Mounts::Stay
                && let Some(device) = Loop::of(&self.file).map_err(failed())?
            {
                return Ok(Hold::Shared(device));
            }
            if Instant::now() > until {
                return Err(ImageError::InUse { path: self.path.clone() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The superblock of a file system that is fit to be mounted.
    fn check(&self, locked: &File) -> Result<Superblock, ImageError> {
        let found = self.superblock()?;
        if !found.is_dirty() {
            return Ok(found);
        }
        ext4::mend(locked, &self.path)?;
        self.superblock()
    }

    fn superblock(&self) -> Result<Superblock, ImageError> {
        Superblock::read(&self.file)
            .map_err(|reason| ImageError::NotAnImage { path: self.path.clone(), reason })
    }

    /// What it was opened as.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the file, in bytes; most of it may be holes.
    ///
    /// # Errors
    /// The errno of fstat(2), as exit 152.
    pub fn length(&self) -> Result<u64, ImageError> {
        let meta = self.file.metadata().call("fstat", || self.path.display().to_string());
        meta.map(|meta| meta.len()).map_err(ImageError::call(&self.path, Exit::MountImage))
    }

    /// What is in use of it, mounted or not: of one that is mounted what its file system says, else what that left behind.
    /// Changes nothing, and takes no lock.
    ///
    /// # Errors
    /// The call that failed, or [`ImageError::NotAnImage`]: exit 152.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::MountImage);
        let device = Loop::of(&self.file).map_err(failed())?;
        // The last mount of the device may end right now.
        if let Some(mounted) = device.and_then(|device| mount_device(&device).ok()) {
            let shown = rustix::fs::fstatvfs(&mounted).call("fstatvfs", || self.path.display().to_string());
            let shown = shown.map_err(failed())?;
            return Ok(Usage {
                bytes: shown.f_blocks * shown.f_frsize,
                used: shown.f_blocks.saturating_sub(shown.f_bfree) * shown.f_frsize,
                inodes: shown.f_files,
                inodes_used: shown.f_files.saturating_sub(shown.f_ffree),
            });
        }
        Ok(self.superblock()?.usage())
    }

    /// Bytes that it takes of the file system below.
    ///
    /// # Errors
    /// The errno of fstat(2), as exit 152.
    pub fn taken(&self) -> Result<u64, ImageError> {
        let meta = self.file.metadata().call("fstat", || self.path.display().to_string());
        meta.map(|meta| meta.blocks() * 512).map_err(ImageError::call(&self.path, Exit::MountImage))
    }

    /// Gives what is free in it back to the file system below, mounted or not. Returns bytes gained.
    ///
    /// # Errors
    /// As [`Image::mount`], or exit 166.
    pub fn compact(&self) -> Result<u64, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::CompactImage);
        let before = self.taken()?;
        let mounted = self.mount()?;
        fault::point("compact.mounted");
        let top = directory(&mounted).map_err(failed())?;
        // What was deleted a moment ago is free once the journal has it.
        rustix::fs::syncfs(&top).call("syncfs", || self.path.display().to_string()).map_err(failed())?;
        block::trim(top.as_fd()).map_err(failed())?;
        fault::point("compact.trimmed");
        Ok(before.saturating_sub(self.taken()?))
    }
}

/// Whether what is written in an image reaches the disk when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// Yes.
    Kept,
    /// Not before [`Image::settle`]. Each time that the journal is to be on the disk costs a sync of the host's own.
    Left,
}

fn mount_device(device: &Loop) -> vzsys::Result<Detached> {
    mount_device_with(device, Vec::new(), Writes::Kept)
}

fn mount_device_with(device: &Loop, mut options: Vec<Opt>, writes: Writes) -> vzsys::Result<Detached> {
    let source = device.path().display().to_string();
    options.push(Opt::value("errors", "remount-ro"));
    if writes == Writes::Left {
        options.push(Opt::flag("nobarrier"));
    }
    Detached::new("ext4", &source, &options, MountAttrFlags::empty())
}

/// The top directory of a mount, open for calls that work on the file system.
fn directory(mounted: &Detached) -> vzsys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(mounted.as_fd(), ".", flags, Mode::empty()).call("open", || "the top of a mount")
}

#[cfg(test)]
mod tests;
