//! The VE's own block of the table, as a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fchown, fcntl_add_seals, memfd_create};
use rustix::process::{Gid, Uid};

use super::caller::reopen;

/// A VE that opens it all the time has it counted no more often.
const FRESH: Duration = Duration::from_millis(100);

/// What was shown last.
#[derive(Debug, Default)]
pub(super) struct Block {
    last: Option<(Instant, File)>,
}

impl Block {
    /// The file to give, with what `text` says now or said a moment ago.
    pub(super) fn open(&mut self, owner: u32, text: impl FnOnce() -> Option<String>) -> io::Result<File> {
        let fresh = self.last.take().filter(|(at, _)| at.elapsed() < FRESH);
        let (at, file) = match fresh {
            Some(last) => last,
            None => {
                let text = text().ok_or_else(|| io::Error::other("the container has no cgroup"))?;
                (Instant::now(), sealed(owner, &text)?)
            }
        };
        let given = reopen(&file);
        self.last = Some((at, file));
        given
    }
}

/// A file in memory that nobody can change, not even the owner that the VE sees.
fn sealed(owner: u32, text: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("user_beancounters", flags)?);
    file.write_all(text.as_bytes())?;
    fchmod(file.as_fd(), Mode::RUSR)?;
    fchown(file.as_fd(), Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(file.as_fd(), seals)?;
    Ok(file)
}
