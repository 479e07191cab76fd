//! Limits of the users and groups inside an image: ext4's own quota, kept in hidden files of the image. It counts the ids
//! that lie on the disk, which are the VE's own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use vzconf::Exit;
use vzsys::block::{Cache, Loop};
use vzsys::mount::Detached;
use vzsys::quota::{self, Grace, Quota, State, Whose};
use vzsys::{Call, fault};

use super::{
    ENDED, Hold, How, Image, ImageError, Mounts, SMALLEST, Writes, directory, ext4, mount_device_with,
};

/// The books of the users and groups of an image, which stays mounted while the value lives.
#[derive(Debug)]
pub struct Users {
    top: OwnedFd,
    _mount: Detached,
}

impl Image {
    /// Has the file system count what each user and group has, from its next mount on: a walk through it, once. `false` where
    /// the kernel does not do that (`CONFIG_QFMT_V2`), and for one that is mounted without.
    ///
    /// # Errors
    /// As [`Image::mount`].
    pub fn count_users(&self) -> Result<bool, ImageError> {
        match self.hold(Mounts::Stay, ENDED)? {
            Hold::Shared(_) => Ok(self.superblock()?.counts_users()),
            Hold::Alone(locked) => {
                if self.check(&locked)?.counts_users() {
                    return Ok(true);
                }
                if !self.kernel_counts_users()? {
                    return Ok(false);
                }
                ext4::count_users(&locked, &self.path, true)?;
                fault::point("image.users");
                Ok(true)
            }
        }
    }

    /// Its users and groups; `None` where nobody counts what they have.
    ///
    /// # Errors
    /// As [`Image::mount`].
    pub fn users(&self) -> Result<Option<Users>, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::DqUgidNotInitialized);
        let how = How::counting(self.superblock()?.counts_users());
        let mount = self.mount_as(&how)?;
        let top = directory(&mount).map_err(failed())?;
        let is_on = quota::state(top.as_fd(), Whose::User).map_err(failed())? != State::Off;
        Ok(is_on.then_some(Users { top, _mount: mount }))
    }

    /// A kernel that keeps no such quota refuses to mount what has it. The program that is asked makes a small one.
    pub(super) fn kernel_counts_users(&self) -> Result<bool, ImageError> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let failed = || ImageError::call(&self.path, Exit::MountImage);
        let file = tempfile::tempfile_in(dir).and_then(|file| file.set_len(SMALLEST).map(|()| file));
        let file = file.call("open", || format!("{}, O_TMPFILE", dir.display())).map_err(failed())?;
        ext4::format(&file, &self.path, 16)?;
        ext4::count_users(&file, &self.path, true)?;
        let device = Loop::attach(file.as_fd(), 4096, Cache::Through).map_err(failed())?;
        let how = How::counting(true);
        match mount_device_with(&device, how.options(), Writes::Left) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.errno(), Errno::INVAL | Errno::SRCH) => Ok(false),
            Err(error) => Err(failed()(error)),
        }
    }
}

impl Users {
    /// All that have files or limits, by number.
    ///
    /// # Errors
    /// The errno of quotactl_fd(2).
    pub fn list(&self, whose: Whose) -> vzsys::Result<Vec<(u32, Quota)>> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(id) = from
            && let Some((id, quota)) = quota::next(self.top.as_fd(), whose, id)?
        {
            all.push((id, quota));
            from = id.checked_add(1);
        }
        Ok(all)
    }

    /// Sets the limits of one.
    ///
    /// # Errors
    /// The errno of quotactl_fd(2).
    pub fn limit(&self, whose: Whose, id: u32, limits: &Quota) -> vzsys::Result<()> {
        quota::set(self.top.as_fd(), whose, id, limits)
    }

    /// For how long all users, or groups, may exceed their soft limits.
    ///
    /// # Errors
    /// The errno of quotactl_fd(2).
    pub fn grace(&self, whose: Whose) -> vzsys::Result<Grace> {
        quota::grace(self.top.as_fd(), whose)
    }

    /// Sets that.
    ///
    /// # Errors
    /// The errno of quotactl_fd(2).
    pub fn set_grace(&self, whose: Whose, grace: Grace) -> vzsys::Result<()> {
        quota::set_grace(self.top.as_fd(), whose, grace)
    }
}
