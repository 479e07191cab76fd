//! The data of a regular file: shared, or copied without its holes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, copy_file_range, fstat, ftruncate, ioctl_ficlone};
use rustix::io::{Errno, pread, pwrite};

use crate::holes::next_data;

pub(super) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

/// At most this is copied by one call.
const PIECE: usize = 64 << 20;

/// Makes an empty file hold what another holds now. `can_clone` is whether data can be shared, found out by trying.
/// Returns how many bytes were copied.
pub(super) fn fill(from: BorrowedFd<'_>, to: BorrowedFd<'_>, can_clone: &mut bool) -> Result<u64, Errno> {
    let size = u64::try_from(fstat(from)?.st_size).unwrap_or(0);
    if size == 0 {
        return Ok(0);
    }
    if *can_clone {
        match ioctl_ficlone(to, from) {
            Ok(()) => return Ok(0),
            // Not this file (it is a swap file, or has no blocks to share); others may be.
            Err(Errno::TXTBSY) => {}
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => {
                *can_clone = false
            }
            Err(errno) => return Err(errno),
        }
    }
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, size)? {
        copied += copy(from, to, start, end)?;
        at = end;
    }
    ftruncate(to, size)?;
    Ok(copied)
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<u64, Errno> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(PIECE).min(PIECE);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            // It is shorter now.
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                return plainly(from, to, read, end).map(|more| read - start + more);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(read - start)
}

fn plainly(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<u64, Errno> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let length = pread(from.as_fd(), &mut buffer[..wanted], at)?;
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let n = pwrite(to.as_fd(), rest, at)?;
            at += n as u64;
            rest = &rest[n..];
        }
    }
    Ok(at - start)
}
