//! How much a tree holds, before anything of it is sent.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::error::ReplicaError;
use super::scan::{DEEPEST, Scan, descend, open_dir};
use crate::archive::names;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files of all kinds.
    pub entries: u64,
}

/// Counts what a first pass of a scan will send; a file with several names once.
pub(super) fn measure(scan: &Scan) -> Result<Measure, ReplicaError> {
    let mut measure = Measure::default();
    count(scan, scan.root.as_fd(), &mut Vec::new(), &mut HashSet::new(), &mut measure)?;
    Ok(measure)
}

fn count(
    scan: &Scan,
    dir: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    links: &mut HashSet<(u64, u64)>,
    measure: &mut Measure,
) -> Result<(), ReplicaError> {
    let length = path.len();
    for name in names(dir).map_err(ReplicaError::at("getdents", path))? {
        descend(path, &name);
        if path.len() > DEEPEST {
            return Err(ReplicaError::at("openat", path)(Errno::NAMETOOLONG));
        }
        let stat = fs::statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(stat) = stat {
            let kind = FileType::from_raw_mode(stat.st_mode);
            measure.entries += 1;
            if stat.st_nlink < 2 || kind == FileType::Directory || links.insert((stat.st_dev, stat.st_ino)) {
                measure.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if kind == FileType::Directory && stat.st_dev == scan.device && !scan.is_hollow(path) {
                match open_dir(dir, &name) {
                    Ok(fd) => count(scan, fd.as_fd(), path, links, measure)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => return Err(ReplicaError::at("openat", path)(errno)),
                }
            }
        }
        path.truncate(length);
    }
    Ok(())
}
