//! Another size for an image.
//!
//! Growing is the kernel's work, mounted or not: its journal makes it whole or not done. A smaller one is made of a
//! copy, which takes the place of the image by a rename when it is ready: resize2fs moves blocks about, and a file
//! system that it was killed in is lost.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use vzconf::Exit;
use vzsys::block::{self, Loop};
use vzsys::mount::Detached;
use vzsys::{Call, SysError, fault};

use super::{Hold, Image, ImageError, Superblock, copy, directory, ext4, mount_device, new_file};

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

impl Image {
    /// Bytes that `df` shows in it.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`].
    pub fn size(&self) -> Result<u64, ImageError> {
        self.superblock().map(|found| found.usable())
    }

    /// Makes it one in which `df` shows so many bytes; `tell` is told bytes copied and in all, when it shrinks.
    /// Killed at any moment, it has the one size or the other.
    ///
    /// # Errors
    /// [`ImageError::Mounted`] when it would have to shrink, [`ImageError::Size`] when it holds more than that
    /// (both exit 154); 46 when the copy has no room; as [`Image::mount`].
    pub fn resize(&self, bytes: u64, tell: &mut dyn FnMut(u64, u64)) -> Result<Resized, ImageError> {
        match self.hold()? {
            Hold::Shared(device) => {
                let mounted = mount_device(&device).map_err(self.failed())?;
                match self.target(bytes, Some(&mounted))? {
                    (now, wanted) if wanted == now.blocks => Ok(Resized::Unchanged),
                    (now, wanted) if wanted < now.blocks => Err(self.mounted(
                        "it becomes smaller only while it is not: stop the container first",
                    )),
                    (_, wanted) => match self.grow(&device, &mounted, wanted) {
                        Err(Refused::NotAllowed) => Err(self.mounted(
                            "without CAP_SYS_RESOURCE it grows only while it is not: stop the container first",
                        )),
                        Err(Refused::Failed(error)) => Err(error),
                        Ok(()) => Ok(Resized::Grown),
                    },
                }
            }
            Hold::Alone(locked) => {
                self.check(&locked)?;
                let (now, wanted) = self.target(bytes, None)?;
                match wanted.cmp(&now.blocks) {
                    Ordering::Equal => Ok(Resized::Unchanged),
                    Ordering::Less => self.rebuild(now, wanted, tell).map(|()| Resized::Shrunk),
                    Ordering::Greater => self.grow_alone(locked, now, wanted, tell).map(|()| Resized::Grown),
                }
            }
        }
    }

    fn grow_alone(
        &self,
        locked: File,
        now: Superblock,
        wanted: u64,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        let device = Loop::attach(locked.as_fd(), now.sectors()).map_err(self.failed())?;
        let mounted = mount_device(&device).map_err(self.failed())?;
        let grown = self.grow(&device, &mounted, wanted);
        drop((mounted, device, locked));
        match grown {
            Err(Refused::NotAllowed) => match self.hold()? {
                Hold::Alone(locked) => self.rebuild(self.check(&locked)?, wanted, tell),
                Hold::Shared(_) => Err(ImageError::InUse { path: self.path.clone() }),
            },
            Err(Refused::Failed(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// The superblock, and how many blocks it is to have.
    fn target(&self, bytes: u64, mounted: Option<&Detached>) -> Result<(Superblock, u64), ImageError> {
        let now = self.superblock()?;
        let overhead = match mounted {
            // What lies in the superblock may be that of an earlier size.
            Some(mount) => {
                let stat = rustix::fs::fstatvfs(mount).call("fstatvfs", || self.path.display().to_string());
                now.blocks.saturating_sub(stat.map_err(self.failed())?.f_blocks)
            }
            None => now.overhead,
        };
        Ok((now, now.blocks_for(bytes, overhead)))
    }

    fn grow(&self, device: &Loop, mounted: &Detached, wanted: u64) -> Result<(), Refused> {
        let now = self.superblock().map_err(Refused::Failed)?;
        let failed = |source: SysError| Refused::Failed(self.failed()(source));
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

    /// A copy of the size that is wanted takes the image's place. The caller has the lock.
    fn rebuild(
        &self,
        now: Superblock,
        wanted: u64,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        let used = now.blocks - now.free.min(now.blocks);
        if used > wanted {
            let reason = format!("it holds {} KiB", ((used - now.overhead.min(used)) * now.block) >> 10);
            let wanted = (wanted.saturating_sub(now.overhead) * now.block) >> 10;
            return Err(ImageError::Size { path: self.path.clone(), wanted, reason });
        }
        let beside = beside(&self.path);
        forget(&self.path);
        let made = new_file(&beside)?;
        let done = self.rebuild_in(&made, &beside, (now, wanted), tell);
        if done.is_err() {
            forget(&self.path);
        }
        done
    }

    fn rebuild_in(
        &self,
        made: &File,
        beside: &Path,
        (now, wanted): (Superblock, u64),
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        copy(&self.file, made, tell).map_err(self.failed())?;
        fault::point("resize.copied");
        ext4::mend_all(made, &self.path, Exit::ResizeImage)?;
        let length = wanted * now.block;
        let finish = |made: &File| {
            made.set_len(length).and_then(|()| made.sync_all()).call("fsync", || beside.display().to_string())
        };
        if wanted > now.blocks {
            finish(made).map_err(self.failed())?;
        }
        ext4::resize(made, &self.path, wanted, now.block)?;
        finish(made).map_err(self.failed())?;
        fault::point("resize.ready");
        // COMMIT: the file of the new size has the name.
        fs::rename(beside, &self.path)
            .call("rename", || beside.display().to_string())
            .map_err(self.failed())?;
        fault::point("resize.renamed");
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(SysError) -> ImageError {
        ImageError::call(&self.path, Exit::ResizeImage)
    }

    fn mounted(&self, reason: &'static str) -> ImageError {
        ImageError::Mounted { path: self.path.clone(), reason }
    }
}

/// Why a mounted file system did not grow.
enum Refused {
    NotAllowed,
    Failed(ImageError),
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
