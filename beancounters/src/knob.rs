//! Reading and writing the small files of a cgroup.
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// No file read by [`read`] is longer.
const LONGEST: usize = 4096;

/// How long a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Read at once.
    Short,
    /// As `memory.stat`, which grows with every kernel.
    Any,
}

/// The content of a small file without the last line break.
///
/// # Errors
/// The errno of open(2) or read(2).
pub(crate) fn read(path: &Path) -> Result<String, Errno> {
    read_as(path, Length::Short)
}

/// The same of a file of either kind.
///
/// # Errors
/// The errno of open(2) or pread(2).
pub(crate) fn read_as(path: &Path, length: Length) -> Result<String, Errno> {
    read_open(&open(path)?, length)
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// The same of an open file, from its beginning.
///
/// # Errors
/// The errno of pread(2).
pub(crate) fn read_open(file: &OwnedFd, length: Length) -> Result<String, Errno> {
    let mut buffer = [0; LONGEST];
    let mut text = Vec::new();
    loop {
        let n = rustix::io::pread(file, &mut buffer, text.len() as u64)?;
        text.extend_from_slice(&buffer[..n]);
        if n == 0 || length == Length::Short {
            break;
        }
    }
    let end = text.trim_ascii_end().len();
    text.truncate(end);
    Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
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
