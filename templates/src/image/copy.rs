//! Copies of sparse files that are as sparse.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::ioctl_ficlone;
use vzsys::{Call, SysError};

use crate::holes::next_data;

const CHUNK: usize = 1 << 20;
/// Zeros are looked for in pieces of this size.
const PIECE: usize = 4096;

/// Makes `to`, an empty file, a copy of `from`: by sharing its blocks where the file system can do that, else of
/// what is not zero. `tell` is told bytes looked at, and in all. What is written need not be on the disk after.
///
/// # Errors
/// The errno of reading or writing; `ENOSPC` when there is no room.
pub fn copy(from: &File, to: &File, tell: &mut dyn FnMut(u64, u64)) -> Result<(), SysError> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata().call("fstat", || "an image")?.len();
    to.set_len(length).call("ftruncate", || length)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length).call("lseek", || "an image, SEEK_DATA")? {
        copy_range(from, to, (start, end), &mut buffer)?;
        at = end;
        tell(at, length);
    }
    tell(length, length);
    Ok(())
}

fn copy_range(from: &File, to: &File, range: (u64, u64), buffer: &mut [u8]) -> Result<(), SysError> {
    let (mut at, end) = range;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let got = from.read_at(&mut buffer[..want], at).call("pread", || at)?;
        if got == 0 {
            return Ok(());
        }
        write_data(to, &buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}

/// Writes all pieces that are not zero, those beside one another together.
fn write_data(to: &File, bytes: &[u8], offset: u64) -> Result<(), SysError> {
    let mut from = 0;
    while from < bytes.len() {
        let piece = |at: usize| &bytes[at..(at + PIECE).min(bytes.len())];
        let zero = |at: usize| piece(at).iter().all(|byte| *byte == 0);
        let mut end = from;
        while end < bytes.len() && !zero(end) {
            end += piece(end).len();
        }
        if end > from {
            let at = offset + from as u64;
            to.write_all_at(&bytes[from..end], at).call("pwrite", || at)?;
        }
        from = end.max(from + PIECE.min(bytes.len() - from));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_bytes_and_no_more_blocks() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(64 << 20).unwrap();
        for at in [0, 5 << 20, (64 << 20) - 3] {
            from.write_all_at(b"abc", at).unwrap();
        }
        // Zeros that are there.
        from.write_all_at(&vec![0; 1 << 20], 20 << 20).unwrap();
        let to = tempfile::tempfile().unwrap();
        let mut last = (0, 0);
        copy(&from, &to, &mut |done, all| last = (done, all)).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(to.metadata().unwrap().blocks() * 512 <= 64 << 10);
        let (mut a, mut b) = (vec![0; 64 << 20], vec![0; 64 << 20]);
        from.read_exact_at(&mut a, 0).unwrap();
        to.read_exact_at(&mut b, 0).unwrap();
        assert!(a == b);
        assert!(last == (64 << 20, 64 << 20) || last == (0, 0));
    }
}
