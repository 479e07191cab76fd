//! An image in use whose file can be copied.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use vzconf::Exit;
use vzsys::block;
use vzsys::mount::Detached;
use vzsys::spawn::Heir;

use super::{Image, ImageError, directory};

/// An image whose file holds all that was written into it, and whose file system writes nothing more as long as the
/// value lives. When this process is killed its heir lets it go on.
#[derive(Debug)]
pub struct Still {
    top: OwnedFd,
    _mounted: Detached,
    _heir: Heir,
}

impl Image {
    /// Stops writes into it, mounted or not. Whoever writes waits, so its VE must stand still. The caller must be
    /// single-threaded.
    ///
    /// # Errors
    /// As [`Image::mount`].
    pub fn still(&self) -> Result<Still, ImageError> {
        let failed = || ImageError::call(&self.path, Exit::MountImage);
        let mounted = self.mount()?;
        let top = directory(&mounted).map_err(failed())?;
        let heir = Heir::appoint(|| drop(Self::open(&self.path).and_then(|image| image.let_go())));
        let heir = heir.map_err(failed())?;
        block::freeze(top.as_fd()).map_err(failed())?;
        Ok(Still { top, _mounted: mounted, _heir: heir })
    }

    /// Lets it go on after whoever stopped it, and his heir, were killed.
    ///
    /// # Errors
    /// As [`Image::mount`].
    pub fn let_go(&self) -> Result<(), ImageError> {
        let mounted = self.mount()?;
        let top = directory(&mounted).map_err(ImageError::call(&self.path, Exit::MountImage))?;
        match block::thaw(top.as_fd()) {
            Err(error) if error.errno() != Errno::INVAL => {
                Err(ImageError::call(&self.path, Exit::MountImage)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // Nothing else can let it go but a mount that is no more.
        let _ = block::thaw(self.top.as_fd());
    }
}
