//! Reading and writing the small files of a cgroup.
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// No file read by [`read`] is longer.
const LONGEST: usize = 4096;
/// Nor `memory.stat`, which grows with every kernel.
const LONGEST_STAT: usize = 16384;

/// The content of a small file without the last line break.
///
/// # Errors
/// The errno of open(2) or read(2).
pub(crate) fn read(path: &Path) -> Result<String, Errno> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let mut buffer = [0u8; LONGEST];
    let n = rustix::io::read(&fd, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).trim_end().to_owned())
}

/// The same for `memory.stat`.
///
/// # Errors
/// The errno of open(2) or read(2).
pub(crate) fn read_long(path: &Path) -> Result<String, Errno> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let mut buffer = vec![0u8; LONGEST_STAT];
    let mut read = 0;
    loop {
        match rustix::io::read(&fd, &mut buffer[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(String::from_utf8_lossy(&buffer[..read]).trim_end().to_owned())
}

/// Writes a value with one write(2), as the kernel wants it.
///
/// # Errors
/// The errno of open(2) or write(2).
pub(crate) fn write(path: &Path, value: &str) -> Result<(), Errno> {
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    rustix::io::write(&fd, value.as_bytes()).map(|_| ())
}

/// A file with one number; `None` when it is absent or holds `max`.
pub(crate) fn number(path: &Path) -> Option<u64> {
    read(path).ok()?.parse().ok()
}

/// The number after `key ` in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}
