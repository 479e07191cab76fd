//! What a scan remembers of what it sent.

use std::collections::{BTreeMap, HashSet};

use rustix::fs::{FileType, Stat};
use sha2::{Digest, Sha256};

use super::scan::descend;

/// Files from this size on are remembered by blocks, so that a change in a large one costs little.
pub(super) const LARGE: u64 = 4 << 20;
/// Size of such a block.
pub(super) const BLOCK: u64 = 1 << 20;

/// The hash of a block; half of SHA-256 is enough against chance, and a VE that finds a collision harms itself.
pub(super) type Hash = [u8; 16];

/// A name in a directory that was sent.
#[derive(Debug)]
pub(super) struct Known {
    /// The pass in which it was seen last.
    pub(super) pass: u32,
    pub(super) kind: FileType,
    pub(super) inode: u64,
    /// Size, and times of change of content and of anything, in seconds and nanoseconds.
    pub(super) state: (i64, (i64, i64), (i64, i64)),
    /// Of a large file that was sent when more passes were to come.
    pub(super) blocks: Option<Vec<Hash>>,
    pub(super) below: Below,
}

/// The names below a directory.
pub(super) type Below = BTreeMap<Box<[u8]>, Known>;

impl Known {
    pub(super) fn new(pass: u32, stat: &Stat) -> Self {
        Self {
            pass,
            kind: FileType::from_raw_mode(stat.st_mode),
            inode: stat.st_ino,
            state: state(stat),
            blocks: None,
            below: Below::new(),
        }
    }

    /// Whether it is still what was sent. A change after `settled` (seconds) may have left no mark: the clock of
    /// files is coarse, and a page that is being written already can be written again without one.
    pub(super) fn unchanged(&self, stat: &Stat, settled: i64) -> bool {
        self.inode == stat.st_ino && self.state == state(stat) && stat.st_ctime < settled
    }

    /// It counts as changed, whatever its times say.
    pub(super) fn doubt(&mut self) {
        self.state.0 = -1;
    }

    /// Whether it is the same file as the one that was sent, whatever it holds now.
    pub(super) fn same_file(&self, stat: &Stat) -> bool {
        self.inode == stat.st_ino && self.kind == FileType::from_raw_mode(stat.st_mode)
    }
}

#[allow(clippy::unnecessary_cast)] // their type differs between kernels' headers
fn state(stat: &Stat) -> (i64, (i64, i64), (i64, i64)) {
    (
        stat.st_size as i64,
        (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    )
}

pub(super) fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
}

/// The names of these inodes.
pub(super) fn names_of(below: &Below, inodes: &HashSet<u64>) -> Vec<Vec<u8>> {
    fn search(below: &Below, path: &mut Vec<u8>, inodes: &HashSet<u64>, found: &mut Vec<Vec<u8>>) {
        let length = path.len();
        for (name, known) in below {
            descend(path, name);
            if inodes.contains(&known.inode) && known.kind != FileType::Directory {
                found.push(path.clone());
            }
            search(&known.below, path, inodes, found);
            path.truncate(length);
        }
    }
    let mut found = Vec::new();
    if !inodes.is_empty() {
        search(below, &mut Vec::new(), inodes, &mut found);
    }
    found
}
