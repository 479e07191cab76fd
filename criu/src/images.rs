//! An image directory: CRIU's files, what we save beside them, and a list of all with their hashes.
//!
//! ```text
//! DIR.tmp    is being written; of no use to anybody
//! DIR        whole: listed in `vz-manifest`, synced, renamed
//! DIR.fail   an attempt that failed: CRIU's log
//! ```
//!
//! The list has the format of sha256sum(1), so that `sha256sum -c vz-manifest` checks it by hand.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::job::{DUMP_LOG, RESTORE_LOG};

const STATE: &str = "vz-state.json";
/// The list.
pub const MANIFEST: &str = "vz-manifest";
const TITLE: &str = "# vz dump 1";
/// Written by CRIU when the list is closed, or by a restore.
const UNLISTED: [&str; 5] = [MANIFEST, DUMP_LOG, RESTORE_LOG, "stats-dump", "stats-restore"];
/// No list and no state of ours is longer, in bytes.
const LONGEST: u64 = 64 << 20;

/// Hashes of files that are known already, by their names.
pub type Hashes<'h> = &'h dyn Fn(&str) -> Option<String>;

/// An open image directory.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    dir: File,
    /// Where it is to be at the end; `None` when it is there.
    target: Option<PathBuf>,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where an attempt is written.
#[must_use]
pub fn temporary(target: &Path) -> PathBuf {
    with_suffix(target, ".tmp")
}

/// Where a failed attempt stays.
#[must_use]
pub fn failed(target: &Path) -> PathBuf {
    with_suffix(target, ".fail")
}

impl Images {
    /// Begins an image directory that is to be at `target`: what an earlier attempt left is removed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(target: &Path) -> Result<Images> {
        let path = temporary(target);
        remove(&path)?;
        // CRIU opens some of it as the VE's root; the directory above is closed to everybody else.
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(Error::file("create", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::file("open", &path))?;
        let dir = File::open(&path).map_err(Error::file("open", &path))?;
        Ok(Images { path, dir, target: Some(target.to_owned()) })
    }

    /// Opens one that is whole, with what was saved beside CRIU's images. Every file is read and compared with the list.
    ///
    /// # Errors
    /// [`Error::Image`] when it is not what was written, [`Error::File`].
    pub fn open<S: DeserializeOwned>(path: &Path) -> Result<(Images, S)> {
        Self::open_known(path, &|_| None)
    }

    /// The same, where the hashes of files are known already by their names: those are not read.
    ///
    /// # Errors
    /// As [`Images::open`].
    pub fn open_known<S: DeserializeOwned>(path: &Path, known: Hashes<'_>) -> Result<(Images, S)> {
        let bad = |reason: String| Error::Image { path: path.to_owned(), reason };
        let dir = File::open(path).map_err(Error::file("open", path))?;
        if !path.is_dir() {
            return Err(bad("it is not a directory".to_owned()));
        }
        let listed = parse(&read_short(&path.join(MANIFEST))?).map_err(bad)?;
        for name in names(path)? {
            if !listed.iter().any(|(_, known)| *known == name) {
                return Err(bad(format!("{name} does not belong to it")));
            }
        }
        for (hash, name) in &listed {
            let file = path.join(name);
            let found = hash_at(&file, known(name))?;
            if found != *hash {
                return Err(bad(format!("{name} was changed or cut off")));
            }
        }
        let state = read_short(&path.join(STATE))?;
        let state = serde_json::from_str(&state).map_err(|e| bad(format!("{STATE}: {e}")))?;
        Ok((Images { path: path.to_owned(), dir, target: None }, state))
    }

    /// What was saved, without a look at the images: for whoever wants to know what a dump is of.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::File`].
    pub fn peek<S: DeserializeOwned>(path: &Path) -> Result<S> {
        let state = read_short(&path.join(STATE))?;
        let bad =
            |e: serde_json::Error| Error::Image { path: path.to_owned(), reason: format!("{STATE}: {e}") };
        serde_json::from_str(&state).map_err(bad)
    }

    /// Where it is now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of ours into it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(Error::file("write", &path))
    }

    /// Closes the list: `state` is saved, every file is hashed. Nothing of it may change from now on.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list<S: Serialize>(&self, state: &S) -> Result<()> {
        self.complete(state)?;
        self.list_known(&|_| None).map(drop)
    }

    /// Saves `state`: all is there but the list. Nothing of it may change from now on.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn complete<S: Serialize>(&self, state: &S) -> Result<()> {
        self.add(STATE, &serde_json::to_vec_pretty(state).unwrap_or_default())?;
        for name in names(&self.path)? {
            let path = self.path.join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .map_err(Error::file("open", &path))?;
        }
        Ok(())
    }

    /// Closes the list of one that is [complete][Images::complete]; files whose hashes are not known are read. Returns
    /// its text.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list_known(&self, known: Hashes<'_>) -> Result<String> {
        let mut names = names(&self.path)?;
        names.sort();
        let mut list = format!("{TITLE}\n");
        for name in &names {
            let hash = hash_at(&self.path.join(name), known(name))?;
            let _ = writeln!(list, "{hash}  {name}");
        }
        let _ = writeln!(list, "# {} files", names.len());
        self.add(MANIFEST, list.as_bytes())?;
        Ok(list)
    }

    /// Puts it where it is to be, for good: all of it is on the disk before and after.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn publish(&mut self) -> Result<()> {
        let Some(target) = self.target.clone() else { return Ok(()) };
        for entry in fs::read_dir(&self.path).map_err(Error::file("read", &self.path))? {
            let path = entry.map_err(Error::file("read", &self.path))?.path();
            open_file(&path).and_then(|file| file.sync_all()).map_err(Error::file("write", &path))?;
        }
        self.dir.sync_all().map_err(Error::file("write", &self.path))?;
        remove(&failed(&target))?;
        fs::rename(&self.path, &target).map_err(Error::file("rename", &self.path))?;
        (self.path, self.target) = (target, None);
        sync_parent(&self.path)
    }

    /// What is left of a failed attempt: its log, at `DIR.fail`. Returns where.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn fail(self) -> Result<PathBuf> {
        let target = self.target.unwrap_or_else(|| self.path.clone());
        set_aside(&self.path, &target)
    }
}

/// Keeps of a directory at `path`, that was to be at `target`, only the logs.
///
/// # Errors
/// [`Error::File`].
pub fn set_aside(path: &Path, target: &Path) -> Result<PathBuf> {
    let kept = failed(target);
    remove(&kept)?;
    for name in names(path)?.into_iter().chain([MANIFEST, "stats-dump"].map(str::to_owned)) {
        let file = path.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("remove", file)(error));
            }
            _ => {}
        }
    }
    fs::rename(path, &kept).map_err(Error::file("rename", path))?;
    Ok(kept)
}

/// Renames an image directory, for good.
///
/// # Errors
/// [`Error::File`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::file("rename", from))?;
    sync_parent(to)
}

/// Removes an image directory; none is as well.
///
/// # Errors
/// [`Error::File`].
pub fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).map_err(Error::file("remove", path)),
        _ => fs::remove_file(path).map_err(Error::file("remove", path)),
    }
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::file("write", parent))
}

/// The files that are to be listed.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let name = entry.map_err(Error::file("read", dir))?.file_name().to_string_lossy().into_owned();
        if !UNLISTED.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A plain file and nothing that a name might lead to.
fn open_file(path: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(nofollow.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

fn hash_at(path: &Path, known: Option<String>) -> Result<String> {
    match known {
        Some(hash) => Ok(hash),
        None => open_file(path).and_then(hash_of).map_err(Error::file("read", path)),
    }
}

fn hash_of(mut file: File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read_short(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = open_file(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Image {
            path: path.parent().unwrap_or(path).to_owned(),
            reason: format!("it has no {}", path.file_name().unwrap_or_default().display()),
        }),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Hashes and names. What they name lies in the directory itself.
fn parse(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let cut = || format!("{MANIFEST} was changed or cut off");
    let lines = text.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix('\n')).ok_or_else(cut)?;
    let (lines, last) = lines.trim_end_matches('\n').rsplit_once('\n').ok_or_else(cut)?;
    let mut listed = Vec::new();
    for line in lines.lines() {
        let (hash, name) = line.split_once("  ").ok_or_else(cut)?;
        let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if hash.len() != 64 || !plain {
            return Err(cut());
        }
        listed.push((hash.to_owned(), name.to_owned()));
    }
    let complete =
        last == format!("# {} files", listed.len()) && listed.iter().any(|(_, name)| name == STATE);
    if complete { Ok(listed) } else { Err(cut()) }
}

impl AsFd for Images {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> PathBuf {
        let target = dir.join("Dump.1");
        let mut images = Images::create(&target).unwrap();
        images.add("pages-1.img", &[7; 10_000]).unwrap();
        images.add("core-1.img", b"core").unwrap();
        images.add(DUMP_LOG, b"log").unwrap();
        images.list(&("state".to_owned(), 7)).unwrap();
        images.publish().unwrap();
        target
    }

    fn reason(path: &Path) -> String {
        Images::open::<(String, i32)>(path).unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read_and_its_list_is_one_of_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let target = made(dir.path());
        let (_, state) = Images::open::<(String, i32)>(&target).unwrap();
        assert_eq!(state, ("state".to_owned(), 7));
        assert!(!temporary(&target).exists());
        let mut check = vzsys::spawn::command("sha256sum").unwrap();
        assert!(
            check
                .args(["--check", "--quiet", "--strict", MANIFEST])
                .current_dir(&target)
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn whatever_is_changed_cut_off_missing_or_added_is_noticed() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 7] = [
            (|d| fs::write(d.join("pages-1.img"), [7; 9_999]).unwrap(), "pages-1.img was changed"),
            (|d| fs::write(d.join("core-1.img"), "cora").unwrap(), "core-1.img was changed"),
            (|d| fs::remove_file(d.join("core-1.img")).unwrap(), "cannot read"),
            (|d| fs::write(d.join("more.img"), "x").unwrap(), "more.img does not belong"),
            (|d| fs::write(d.join(STATE), "[\"other\",7]").unwrap(), "vz-state.json was changed"),
            (|d| fs::remove_file(d.join(MANIFEST)).unwrap(), "has no vz-manifest"),
            (
                |d| {
                    let text = fs::read_to_string(d.join(MANIFEST)).unwrap();
                    fs::write(d.join(MANIFEST), &text[..text.len() - 12]).unwrap();
                },
                "vz-manifest was changed",
            ),
        ];
        for (change, want) in changes {
            let dir = tempfile::tempdir().unwrap();
            let target = made(dir.path());
            change(&target);
            assert!(reason(&target).contains(want), "{}", reason(&target));
        }
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = made(dir.path());
        fs::rename(target.join("core-1.img"), dir.path().join("core")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("core"), target.join("core-1.img")).unwrap();
        assert!(reason(&target).contains("cannot read"));
    }

    #[test]
    fn of_a_failed_attempt_the_log_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("Dump.1");
        let images = Images::create(&target).unwrap();
        images.add("core-1.img", b"core").unwrap();
        images.add(DUMP_LOG, b"log").unwrap();
        let kept = images.fail().unwrap();
        assert_eq!(kept, failed(&target));
        let names: Vec<_> = fs::read_dir(&kept).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [DUMP_LOG]);
        assert!(!temporary(&target).exists() && !target.exists());
    }
}
