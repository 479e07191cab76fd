//! Removing a VE's cgroup.
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::tree::{self, Dir};
use crate::ve_cgroup::VeCgroup;

impl VeCgroup {
    /// Removes the cgroup from every hierarchy, with all that the VE made below it, and its count of files. Processes
    /// that are just dying are waited for; others are left alone. What is gone already is fine.
    ///
    /// # Errors
    /// [`Error::Populated`] when it is still in use at the deadline, [`Error::File`], [`Error::Inside`].
    pub fn remove(&mut self, deadline: Instant) -> Result<()> {
        self.commit();
        for dir in self.dirs() {
            if !remove_dir(&dir, deadline)? {
                return Err(Error::Populated { ctid: self.ctid(), path: dir });
            }
        }
        crate::files::forget_files(self.ctid())
    }
}

/// Removes one cgroup and those below it; `false` when it is still in use at the deadline.
pub(crate) fn remove_dir(path: &Path, deadline: Instant) -> Result<bool> {
    let failed = |errno| Error::file("remove", path, errno);
    let mut pause = Duration::from_micros(100);
    loop {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(failed(errno)),
        }
        if let Some(dir) = Dir::open(path).map_err(failed)? {
            tree::remove_below(dir).map_err(failed)?;
        }
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() >= deadline => return Ok(false),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // The kernel tells nobody when the last dying task has let go of a v1 cgroup.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
