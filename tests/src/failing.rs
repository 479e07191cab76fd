//! A disk that fails.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use crate::inside::skip;
use crate::node::Node;
use crate::run::run;

/// An ext4 whose blocks are a sparse file in a tmpfs that has no room for them: what is written fails when it is to reach the
/// disk, which fsync(2) and syncfs(2) alone tell: as an I/O error, or, by newer kernels, as one of room.
#[derive(Debug)]
pub struct FailingDisk {
    memory: PathBuf,
    at: PathBuf,
    closed: Cell<bool>,
}

impl FailingDisk {
    /// Of 128 MiB, mounted at an empty directory of the node's scratch, without a journal, and good for a mebibyte more.
    ///
    /// # Panics
    /// When its memory cannot be had.
    #[must_use]
    pub fn new(node: &Node) -> Option<Self> {
        let at = node.scratch().join("failing");
        fs::create_dir(&at).unwrap();
        let disk = Self::at(node, &at, false)?;
        disk.leave(1 << 20);
        Some(disk)
    }

    /// Of 128 MiB, mounted there; good for 100 MiB until [`FailingDisk::leave`] says less.
    ///
    /// # Panics
    /// When its memory cannot be had.
    #[must_use]
    pub fn at(node: &Node, at: &Path, journal: bool) -> Option<Self> {
        let memory = node.scratch().join("memory");
        fs::create_dir_all(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=100m", "memory", text(&memory)]).ok();
        let image = memory.join("image");
        run("truncate", &["-s", "128M", text(&image)]).ok();
        // With a journal, what the file system keeps of itself is there from the start, and it ends read-only when it loses
        // something of that.
        let kept: &[&str] =
            if journal { &["-E", "lazy_itable_init=0,lazy_journal_init=0"] } else { &["-O", "^has_journal"] };
        run("mkfs.ext4", &[&["-q", "-m", "0"], kept, &[text(&image)]].concat()).ok();
        let disk = Self { memory, at: at.to_owned(), closed: Cell::new(true) };
        if !disk.mount() {
            skip("loop devices");
            return None;
        }
        run("sync", &["-f", text(at)]).ok();
        Some(disk)
    }

    fn mount(&self) -> bool {
        self.closed
            .set(run("mount", &["-o", "loop", text(&self.memory.join("image")), text(&self.at)]).code != 0);
        !self.closed.get()
    }

    /// Where it is mounted.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.at
    }

    /// Its blocks may take so many bytes more.
    ///
    /// # Panics
    /// When they cannot be limited.
    pub fn leave(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(&self.memory).unwrap();
        let size = (stat.f_blocks - stat.f_bfree) * stat.f_frsize + bytes;
        run("mount", &["-o", &format!("remount,size={size}"), text(&self.memory)]).ok();
    }

    /// Mounts it anew: from then on it shows what has reached the disk, not what memory has of it. `false` while it is
    /// in use.
    ///
    /// # Panics
    /// When it cannot be mounted any more.
    #[must_use]
    pub fn reopen(&self) -> bool {
        if !self.close() {
            return false;
        }
        assert!(self.mount(), "a disk that failed");
        true
    }

    /// Takes it off; `false` while it is in use.
    #[must_use]
    pub fn close(&self) -> bool {
        self.closed.set(self.closed.get() || run("umount", &[text(&self.at)]).code == 0);
        self.closed.get()
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = self.close();
        let _ = run("umount", &[text(&self.memory)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
