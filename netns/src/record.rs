//! The file that records a VE's addresses: `/var/lib/vzctl/veip/<CTID>`, blank separated.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::Path;

use crate::error::Error;

/// What it holds now; `None` when there is none.
pub(crate) fn read(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

/// The addresses in it; `None` when there is no such file.
pub(crate) fn addresses(path: &Path) -> Option<Vec<IpAddr>> {
    let text = String::from_utf8(read(path)?).ok()?;
    Some(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// Records the addresses. It tells of the running kernel only and is worth nothing after a crash of
/// the host, so it is replaced in one step but not synced: that would cost more than all the rest.
pub(crate) fn write(path: &Path, addresses: &[IpAddr]) -> Result<(), Error> {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    replace(path, format!("{}\n", words.join(" ")).as_bytes())
}

/// Puts back what [`read`] found.
pub(crate) fn restore(path: &Path, before: Option<Vec<u8>>) -> Result<(), Error> {
    match before {
        Some(bytes) => replace(path, &bytes),
        None => remove(path),
    }
}

/// Removes it; one that is not there is as well.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::Record { path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let attempt = || -> io::Result<()> {
        match fs::write(&temporary, bytes) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir)?;
                }
                fs::write(&temporary, bytes)?;
            }
            other => other?,
        }
        fs::rename(&temporary, path)
    };
    attempt().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::Record { path: path.to_path_buf(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back_and_removed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("veip/101");
        assert_eq!(addresses(&path), None);
        let list: Vec<IpAddr> = ["10.0.0.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into();
        write(&path, &list).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "10.0.0.1 2001:db8::1\n");
        assert_eq!(addresses(&path), Some(list));
        let before = read(&path);
        write(&path, &[]).unwrap();
        assert_eq!(addresses(&path), Some(Vec::new()));
        restore(&path, before).unwrap();
        assert_eq!(addresses(&path).unwrap().len(), 2);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("veip")).unwrap().count(), 0);
    }
}
