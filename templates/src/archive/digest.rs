//! Everything about a tree in lines of text, to compare two of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use sha2::{Digest, Sha256};
use vzsys::{Call, SysError};

use super::pack::{attributes, names, proc_path};
use super::place::open_root;
use crate::holes::next_data;

/// One line a file: kind, mode, owner, size, time, contents, links, attributes. Sockets are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeDigest(BTreeMap<String, String>);

impl TreeDigest {
    /// Reads the whole tree at `root`. Needs root to see everything.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn of(root: &Path) -> Result<Self, SysError> {
        let fd = open_root(root)?;
        let mut lines = BTreeMap::new();
        let mut seen = HashMap::new();
        let stat = fs::fstat(&fd).call("fstat", || root.display().to_string())?;
        let above = line(fd.as_fd(), b".", "", &stat, &mut seen)?;
        lines.insert(".".to_owned(), above);
        walk(fd.as_fd(), "", &mut lines, &mut seen)?;
        Ok(Self(lines))
    }

    /// The lines, by path.
    #[must_use]
    pub fn lines(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What differs: `path: ours / theirs`, empty if nothing.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<String> {
        let keys = self.0.keys().chain(other.0.keys().filter(|key| !self.0.contains_key(*key)));
        let none = "(missing)".to_owned();
        keys.filter_map(|key| {
            let (ours, theirs) = (self.0.get(key).unwrap_or(&none), other.0.get(key).unwrap_or(&none));
            (ours != theirs).then(|| format!("{key}: {ours} / {theirs}"))
        })
        .collect()
    }
}

fn walk(
    dir: BorrowedFd<'_>,
    path: &str,
    lines: &mut BTreeMap<String, String>,
    seen: &mut HashMap<(u64, u64), String>,
) -> Result<(), SysError> {
    for name in names(dir).call("getdents", || path)? {
        let below = format!("{path}{}{}", if path.is_empty() { "" } else { "/" }, name.escape_ascii());
        let stat = fs::statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).call("fstatat", || &below)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            continue;
        }
        lines.insert(below.clone(), line(dir, &name, &below, &stat, seen)?);
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(dir, name.as_slice(), flags, Mode::empty()).call("openat", || &below)?;
            walk(fd.as_fd(), &below, lines, seen)?;
        }
    }
    Ok(())
}

fn line(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &str,
    stat: &Stat,
    seen: &mut HashMap<(u64, u64), String>,
) -> Result<String, SysError> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut text = format!(
        "{kind:?} {:o} {}:{} {}.{:09}",
        stat.st_mode & 0o7777,
        stat.st_uid,
        stat.st_gid,
        stat.st_mtime,
        stat.st_mtime_nsec
    );
    match kind {
        FileType::RegularFile => {
            let sparse = stat.st_blocks * 512 < stat.st_size;
            let _ = write!(
                text,
                " {}b {}{}",
                stat.st_size,
                hash(dir, name, path)?,
                if sparse { " sparse" } else { "" }
            );
        }
        FileType::Symlink => {
            let target = fs::readlinkat(dir, name, Vec::new()).call("readlinkat", || path)?;
            let _ = write!(text, " -> {}", target.to_bytes().escape_ascii());
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            let _ = write!(text, " {}:{}", fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        }
        _ => {}
    }
    if kind != FileType::Directory && stat.st_nlink > 1 {
        let first = seen.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_owned());
        let _ = write!(text, " = {first} ({})", stat.st_nlink);
    }
    for (key, value) in attributes(&proc_path(dir, name)).call("lgetxattr", || path)? {
        let _ = write!(text, " {}={}", key.escape_ascii(), value.escape_ascii());
    }
    Ok(text)
}

fn hash(dir: BorrowedFd<'_>, name: &[u8], path: &str) -> Result<String, SysError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(fs::openat(dir, name, flags, Mode::empty()).call("openat", || path)?);
    contents(&file).call("read", || path)
}

/// A hash of what is not zero and where that is: holes cost nothing, and count as zeros.
fn contents(file: &std::fs::File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let size = file.metadata()?.len();
    let mut at = 0;
    loop {
        at = match next_data(file, at, size)? {
            Some((data, _)) => data / 4096 * 4096,
            None => break,
        };
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], at + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        for block in buffer[..filled].chunks(4096) {
            if block.iter().any(|&b| b != 0) {
                hash.update(at.to_le_bytes());
                hash.update(block);
            }
            at += block.len() as u64;
        }
        if filled < buffer.len() {
            break;
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of all that can be read, in hex.
pub(crate) fn sha256(reader: &mut impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
