//! Empty images, made once for each size and kept until the next reboot.
//!
//! ```text
//! BLANKS/<bytes>-<inodes>.ext4   holes, but for some hundred kilobytes
//! ```

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use vzconf::Exit;
use vzsys::{Call, SysError};

use super::ext4::{self, Superblock};
use super::{BLOCK, ImageError, SMALLEST, Size};

/// Sizes that are kept: a host has a few samples.
const KEPT: usize = 32;
/// The size of what the file system takes for itself depends on its size, a little.
const ROUNDS: u32 = 12;
/// As mke2fs has it for anything but small disks.
const BYTES_PER_INODE: u64 = 16 << 10;

/// The blank of this size.
pub(super) fn blank(dir: &Path, size: Size) -> Result<File, ImageError> {
    let path = dir.join(name(size));
    if size.bytes < SMALLEST {
        let reason = format!("an image has {} KiB at least", SMALLEST >> 10);
        return Err(ImageError::Size { path, wanted: size.bytes >> 10, reason });
    }
    if let Ok(file) = File::open(&path)
        && Superblock::read(&file).is_ok()
    {
        return Ok(file);
    }
    let failed = || ImageError::call(&path, Exit::CreateImage);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .call("mkdir", || dir.display().to_string())
        .map_err(failed())?;
    make_room(dir);
    let temp =
        tempfile::NamedTempFile::new_in(dir).call("open", || dir.display().to_string()).map_err(failed())?;
    fill(temp.as_file(), &path, size)?;
    let kept = temp.persist(&path).map_err(|error| SysError::from_io("rename", path.display(), &error.error));
    kept.map_err(failed())
}

fn name(size: Size) -> PathBuf {
    match size.inodes {
        Some(inodes) => format!("{}-{inodes}.ext4", size.bytes).into(),
        None => format!("{}.ext4", size.bytes).into(),
    }
}

/// Made until `df` shows what was asked for: the one before tells what the file system takes for itself.
fn fill(file: &File, path: &Path, size: Size) -> Result<(), ImageError> {
    let failed = |source: SysError| ImageError::call(path, Exit::CreateImage)(source);
    let inodes = size.inodes.unwrap_or(size.bytes / BYTES_PER_INODE);
    let mut length = size.bytes.next_multiple_of(BLOCK);
    for _ in 0..ROUNDS {
        file.set_len(0).and_then(|()| file.set_len(length)).call("ftruncate", || length).map_err(failed)?;
        ext4::format(file, path, inodes)?;
        let made = Superblock::read(file)
            .map_err(|reason| ImageError::NotAnImage { path: path.to_owned(), reason })?;
        if made.usable() >= size.bytes {
            return Ok(());
        }
        let missing = (size.bytes - made.usable()).next_multiple_of(BLOCK);
        // What is left over for a last group that is too small for one is not used at all.
        let left_over = made.blocks * BLOCK < length;
        let least = if left_over { made.least_group(inodes) * BLOCK } else { 0 };
        length = made.blocks * BLOCK + missing.max(least);
    }
    let reason = "ext4 takes more and more of it for itself".to_owned();
    Err(ImageError::Size { path: path.to_owned(), wanted: size.bytes >> 10, reason })
}

/// They are all as good as new ones: when there are too many, all go.
fn make_room(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let kept: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "ext4")).collect();
    if kept.len() >= KEPT {
        // What stays is only in the way of room.
        kept.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}
