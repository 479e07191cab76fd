//! Small files of ours in a place that others can fill with anything under their names.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

/// Reads a regular file of `most` bytes at the most: no link is followed, no FIFO waited for, no endless file read.
pub(crate) fn read(dir: impl AsFd, name: &Path, most: u64) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(Error::other("no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::fs;

    #[test]
    fn what_is_no_small_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(CWD, &at("file"), 4).unwrap(), b"text");
        for (name, most) in [("file", 3), ("link", 9), ("fifo", 9), (".", 9), ("none", 9)] {
            assert!(read(CWD, &at(name), most).is_err(), "{name}");
        }
        assert_eq!(read(CWD, &at("none"), 9).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
