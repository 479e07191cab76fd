//! Another size for an image.
//!
//! Growing is the kernel's work, mounted or not: its journal makes it whole or not done. A smaller one is a new image to
//! which the files are copied, and which takes the place of the old one by a rename. resize2fs would move blocks where
//! they lie, lose the file system when it is killed, and change the times of directories.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::block::{self, Cache, Loop};
use vzsys::mount::Detached;
use vzsys::{Call, SysError, fault};

use super::{ENDED, Hold, Image, ImageError, Mounts, Size, directory, make, mount_device};
use crate::replica::{More, Op, Replica, ReplicaError, Scan, Sink};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resized {
    /// It had that size.
    Unchanged,
    /// It is larger.
    Grown,
    /// It is smaller.
    Shrunk,
}

/// Why a mounted file system did not grow.
enum Refused {
    /// Not without `CAP_SYS_RESOURCE`.
    NotAllowed,
    Failed(ImageError),
}

/// What a mounted file system has.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Bytes of a block.
    block: u64,
    /// Blocks that `df` shows.
    blocks: u64,
    free: u64,
}

impl Room {
    fn of(mounted: &Detached) -> vzsys::Result<Self> {
        let stat = rustix::fs::fstatvfs(mounted).call("fstatvfs", || "an image")?;
        Ok(Self { block: stat.f_frsize, blocks: stat.f_blocks, free: stat.f_bfree })
    }

    fn bytes(self) -> u64 {
        self.blocks * self.block
    }

    fn used(self) -> u64 {
        self.blocks.saturating_sub(self.free) * self.block
    }

    /// Groups of blocks have tables of their own, so that not every size can be had to the byte.
    fn is_about(self, bytes: u64) -> bool {
        self.bytes() >= bytes && self.bytes() - bytes < bytes / 100 + (1 << 20)
    }
}

impl Image {
    /// Makes it one in which `df` shows `size.bytes`; `size.inodes` counts where it has to be made anew: when it
    /// shrinks. `tell` is then told bytes copied and in all. Killed at any moment, it has the one size or the other.
    ///
    /// # Errors
    /// [`ImageError::Mounted`] when it would have to shrink, [`ImageError::Size`] when it holds more than that
    /// (both exit 154); 46 when the copy has no room; as [`Image::mount`].
    pub fn resize(
        &self,
        size: Size,
        blanks: &Path,
        mounts: Mounts,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Resized, ImageError> {
        let (device, alone) = match self.hold(mounts, ENDED)? {
            Hold::Shared(device) => (device, false),
            Hold::Alone(locked) => {
                let sectors = self.check(&locked)?.sectors();
                (Loop::attach(locked.as_fd(), sectors, Cache::Around).map_err(self.failed())?, true)
            }
        };
        let mounted = mount_device(&device).map_err(self.failed())?;
        let room = Room::of(&mounted).map_err(self.failed())?;
        if room.is_about(size.bytes) {
            return Ok(Resized::Unchanged);
        }
        if size.bytes < room.bytes() {
            if !alone {
                return Err(self.mounted("it becomes smaller only while it is not: stop the container first"));
            }
            return self.rebuild(&mounted, room, size, blanks, tell).map(|()| Resized::Shrunk);
        }
        match self.grow(&device, &mounted, room, size.bytes) {
            Err(Refused::NotAllowed) if alone => self.rebuild(&mounted, room, size, blanks, tell)?,
            Err(Refused::NotAllowed) => {
                return Err(self.mounted(
                    "without CAP_SYS_RESOURCE it grows only while it is not: stop the container first",
                ));
            }
            Err(Refused::Failed(error)) => return Err(error),
            Ok(()) => {}
        }
        Ok(Resized::Grown)
    }

    fn grow(&self, device: &Loop, mounted: &Detached, room: Room, bytes: u64) -> Result<(), Refused> {
        let failed = |source: SysError| Refused::Failed(self.failed()(source));
        let now = self.superblock().map_err(Refused::Failed)?;
        let wanted = now.blocks_for(bytes, now.blocks.saturating_sub(room.blocks));
        let top = directory(mounted).map_err(failed)?;
        // The size that it has: only asks whether we may.
        match block::grow_ext4(top.as_fd(), now.blocks) {
            Err(error) if error.errno() == Errno::PERM => return Err(Refused::NotAllowed),
            asked => asked.map_err(failed)?,
        }
        let length = wanted * now.block;
        if self.file.metadata().map_or(0, |meta| meta.len()) < length {
            self.file.set_len(length).call("ftruncate", || length).map_err(failed)?;
        }
        fault::point("resize.extended");
        device.take_new_size().map_err(failed)?;
        // COMMIT: the kernel's journal has it.
        block::grow_ext4(top.as_fd(), wanted).map_err(failed)?;
        fault::point("resize.grown");
        Ok(())
    }

    /// A new image of the size that is wanted takes the place of this one, which nobody else has mounted.
    fn rebuild(
        &self,
        mounted: &Detached,
        room: Room,
        size: Size,
        blanks: &Path,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        if room.used() > size.bytes {
            return Err(self.too_small(room, size));
        }
        let beside = beside(&self.path);
        forget(&self.path);
        let done = self.rebuild_in(&beside, mounted, size, blanks, tell);
        if done.is_err() {
            forget(&self.path);
        }
        match done {
            // Of the new image, not of the file system below: that would be an I/O error.
            Err(ImageError::Call { source, .. }) if source.is_full() => Err(self.too_small(room, size)),
            done => done,
        }
    }

    fn rebuild_in(
        &self,
        beside: &Path,
        mounted: &Detached,
        size: Size,
        blanks: &Path,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        make(beside, size, blanks)?;
        fault::point("resize.made");
        let new = Image::open(beside)?.mount()?;
        // The old one has its own, or none.
        let lost = rustix::fs::unlinkat(&new, "lost+found", AtFlags::REMOVEDIR);
        lost.call("rmdir", || "lost+found").map_err(self.failed())?;
        self.copy_files(mounted, &new, tell)?;
        fault::point("resize.copied");
        drop(new);
        let file = File::open(beside).and_then(|file| file.sync_all());
        file.call("fsync", || beside.display().to_string()).map_err(self.failed())?;
        fault::point("resize.ready");
        // COMMIT: the image of the new size has the name.
        fs::rename(beside, &self.path)
            .call("rename", || beside.display().to_string())
            .map_err(self.failed())?;
        fault::point("resize.renamed");
        Ok(())
    }

    fn copy_files(
        &self,
        from: &Detached,
        to: &Detached,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        let top = |mount: &Detached| PathBuf::from(format!("{}/.", mount.proc_path()));
        let mut copy = || {
            let mut scan = Scan::new(&top(from))?;
            let total = scan.measure()?.bytes;
            let mut told = Told { to: Replica::new(&top(to))?, total, tell };
            scan.pass(More::Nothing, &mut told)?;
            told.to.sync()
        };
        copy().map_err(|error: ReplicaError| match error {
            ReplicaError::System(source) => self.failed()(source),
            other => ImageError::Copy { path: self.path.clone(), reason: other.to_string() },
        })
    }

    fn too_small(&self, room: Room, size: Size) -> ImageError {
        let reason = format!("it holds {} KiB", room.used() >> 10);
        ImageError::Size { path: self.path.clone(), wanted: size.bytes >> 10, reason }
    }

    fn failed(&self) -> impl FnOnce(SysError) -> ImageError {
        ImageError::call(&self.path, Exit::ResizeImage)
    }

    fn mounted(&self, reason: &'static str) -> ImageError {
        ImageError::Mounted { path: self.path.clone(), reason }
    }
}

/// A copy that tells how far it is.
struct Told<'a> {
    to: Replica,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
}

impl Sink for Told<'_> {
    fn op(&mut self, op: Op) -> Result<(), ReplicaError> {
        self.to.op(op)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        self.to.data(offset, bytes)?;
        (self.tell)(self.to.bytes(), self.total);
        Ok(())
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Removes what a killed resize left. Whoever calls it has the lock of the image, which a resize at work has.
pub(super) fn forget(path: &Path) {
    // Not there, mostly. What cannot be removed is only in the way of room, and tried again each time.
    let _ = fs::remove_file(beside(path));
}
