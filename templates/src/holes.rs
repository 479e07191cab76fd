//! Where files have data, and where they have holes.

use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, Result};

/// The next part with data of a file of `size` bytes, from `at` on: where it begins and ends. `None` when only a hole is
/// left, or when the file has become shorter meanwhile. Where the file system knows of no holes, it is the whole rest.
pub(crate) fn next_data(file: impl AsFd, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(&file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno),
    };
    let end = match seek(&file, SeekFrom::Hole(start)) {
        Ok(end) => end.min(size),
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok((start < end).then_some((start, end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_is_found_behind_holes_and_never_beyond_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.write_all_at(&[2; 4096], 3 << 20).unwrap();
        let all = |size| {
            let (mut at, mut found) = (0, Vec::new());
            while let Some((start, end)) = next_data(&file, at, size).unwrap() {
                assert!(at <= start && start < end && end <= size);
                found.push((start, end));
                at = end;
            }
            found
        };
        let within =
            |found: &[(u64, u64)], at: u64| found.iter().any(|(start, end)| (*start..*end).contains(&at));
        let found = all(4 << 20);
        assert!(within(&found, 1 << 20) && within(&found, 3 << 20), "{found:?}");
        assert!(!within(&all(2 << 20), 3 << 20));
        assert_eq!(all(0), []);
        // It is shorter than was thought.
        file.set_len(0).unwrap();
        assert_eq!(next_data(&file, 1, 4 << 20).unwrap(), None);
    }
}
