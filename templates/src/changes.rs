//! Which paths of a tree have changed since somebody began to watch.
//!
//! The kernel tells every change of a whole file system (fanotify); kept is what lies below the watched tree.
//! A [`Watch`] begins with [`Watch::start`], says with each [`Watch::drain`] what changed since the one before, and
//! ends when it is dropped. Nothing of it costs anything that grows with the tree.
//!
//! What is told is a superset: a path may be told that has not changed, or is no more. What happens to a file is
//! told when it is over: whoever reads the file between a change and its event sees either state, and is told the
//! path by the next drain.
//!
//! **What the kernel does not tell**, and what to do about it:
//!
//! - Stores to a file that is mapped writable and shared. It is told when the last such mapping goes. Until
//!   then [`mapped`] lists those files; whoever wants to skip the unchanged ones syncs each before reading it: the
//!   next store then changes its ctime.
//! - Writes by `io_submit(2)`, whose end nobody tells, until the file is closed. [`writable`] lists files that are
//!   open for it; such a write changes their ctime.
//! - Anything at all after an overflow ([`Drained::Lost`]): then the trees are to be compared.
//! - Writes through an overlay, on kernels that open the file below it without events. [`layout`](crate::layout)
//!   tries that out once.
//! - A file that was made without a name (`O_TMPFILE`), linked, and written through the first descriptor still: its
//!   events carry `#INODE` for a name. [`Change::unnamed`] has the number.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use vzsys::fanotify::{Event, Group, Place, mask};
use vzsys::{Call, SysError};

/// All that changes what a copy of a tree looks like.
const WANTED: u64 = mask::MODIFY
    | mask::CLOSE_WRITE
    | mask::ATTRIB
    | mask::CREATE
    | mask::DELETE
    | mask::MOVED_FROM
    | mask::MOVED_TO
    | mask::ONDIR;

/// One path that is to be looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// Below the watched tree; empty for its top.
    pub path: PathBuf,
    /// With everything below it: a directory that came from elsewhere.
    pub deep: bool,
    /// The name is none: it is about the file with this inode number, whatever it is called.
    pub unnamed: Option<u64>,
}

impl Change {
    /// Whether nothing is known but the file's number: the path says nothing.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.unnamed.is_some() && self.path.as_os_str().is_empty()
    }
}

/// What changed between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// These, each once, those above before those below.
    Changes(Vec<Change>),
    /// Nobody knows: the whole tree is to be compared.
    Lost,
}

/// A tree under watch.
#[derive(Debug)]
pub struct Watch {
    group: Group,
    /// The tree's top, and where that is.
    top: OwnedFd,
    prefix: PathBuf,
    /// Where directories are; `None` elsewhere. Forgotten whenever a directory moves.
    known: HashMap<Place, Option<PathBuf>>,
}

impl Watch {
    /// Begins to watch the tree at `top`, a directory of the host. Needs `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system cannot tell (an overlay; btrfs subvolumes before 6.8).
    pub fn start(top: &Path) -> vzsys::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, top, flags, Mode::empty()).call("open", || top.display().to_string())?;
        let prefix = path_of(&opened)?;
        let group = Group::new()?;
        group.mark_filesystem(top, WANTED)?;
        Ok(Self { group, top: opened, prefix, known: HashMap::new() })
    }

    /// What changed since the last call. Does not wait.
    ///
    /// # Errors
    /// The errno of read(2) or open_by_handle_at(2).
    pub fn drain(&mut self) -> vzsys::Result<Drained> {
        let events = self.group.read()?;
        if events.iter().any(|event| event.mask & mask::OVERFLOW != 0) {
            return Ok(Drained::Lost);
        }
        let moves = mask::MOVED_FROM | mask::MOVED_TO;
        if events.iter().any(|event| event.mask & mask::ONDIR != 0 && event.mask & moves != 0) {
            self.known.clear();
        }
        let mut changes = Vec::new();
        for event in &events {
            changes.extend(self.change(event)?);
        }
        changes.sort();
        changes.dedup();
        Ok(Drained::Changes(changes))
    }

    fn change(&mut self, event: &Event) -> vzsys::Result<Option<Change>> {
        let Some(place) = &event.place else { return Ok(None) };
        if event.name.is_empty() {
            // It has got or lost a name. What was written to it may have been told by one that is another file's now.
            let inode = place.inode(self.top.as_fd())?;
            return Ok(inode.map(|inode| Change { path: PathBuf::new(), deep: false, unnamed: Some(inode) }));
        }
        let dir = match self.known.get(place) {
            Some(known) => known.clone(),
            None => {
                let found = self.find(place)?;
                self.known.insert(place.clone(), found.clone());
                found
            }
        };
        let Some(dir) = dir else { return Ok(None) };
        let path = if event.name == "." { dir } else { dir.join(&event.name) };
        // A directory that is new may have got its first entries before it was marked as ours to look at.
        let came = event.mask & (mask::MOVED_TO | mask::CREATE) != 0 && event.mask & mask::ONDIR != 0;
        Ok(Some(Change { path, deep: came, unnamed: unnamed(&event.name) }))
    }

    /// Where a directory is now, if below the tree.
    fn find(&self, place: &Place) -> vzsys::Result<Option<PathBuf>> {
        let Some(dir) = place.open(self.top.as_fd())? else { return Ok(None) };
        match path_of(&dir) {
            // Too deep to be named; whoever made it elsewhere is not to disturb us.
            Err(error) if error.errno() == Errno::NAMETOOLONG && !self.is_above(dir)? => Ok(None),
            path => Ok(path?.strip_prefix(&self.prefix).ok().map(Path::to_owned)),
        }
    }

    /// Whether the tree holds a directory whose path is too long, by the first one above it whose path is not.
    fn is_above(&self, mut dir: OwnedFd) -> vzsys::Result<bool> {
        loop {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = openat(&dir, "..", flags, Mode::empty()).call("openat", || "..")?;
            match path_of(&dir) {
                Err(error) if error.errno() == Errno::NAMETOOLONG => {}
                path => return Ok(path?.starts_with(&self.prefix)),
            }
        }
    }
}

fn path_of(fd: &OwnedFd) -> vzsys::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).call("readlink", || &link)
}

/// The inode number in the name that the kernel gives a file without one.
fn unnamed(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix('#')?.parse().ok()
}

/// Files of a VE's root that its processes (host pids) have mapped writable and shared, as paths below that root.
/// A file elsewhere may be told by a path that looks like one; processes that have ended have none.
///
/// # Errors
/// The errno of reading `/proc/PID/maps`, but for a process that is gone.
pub fn mapped(pids: &[i32]) -> vzsys::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = mappings(pids)?.into_iter().map(|open| open.path).collect();
    paths.dedup();
    Ok(paths)
}

/// Files that these processes (host pids) have mapped writable and shared, or open for writing: who can write to them
/// does it without a word of the kernel.
///
/// # Errors
/// As [`mapped`], and the errno of reading `/proc/PID/fd`.
pub fn writable(pids: &[i32]) -> vzsys::Result<Vec<Open>> {
    let mut all = mappings(pids)?;
    all.extend(open_for_writing(pids)?);
    all.sort();
    all.dedup();
    Ok(all)
}

fn mappings(pids: &[i32]) -> vzsys::Result<Vec<Open>> {
    let mut paths = Vec::new();
    for pid in pids {
        let file = format!("/proc/{pid}/maps");
        match std::fs::read(&file) {
            Ok(table) => paths.extend(table.split(|byte| *byte == b'\n').filter_map(mapped_in)),
            Err(error) => {
                let error = SysError::from_io("read", &file, &error);
                let gone = [rustix::io::Errno::NOENT, rustix::io::Errno::SRCH];
                if !gone.contains(&error.errno()) {
                    return Err(error);
                }
            }
        }
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A file that somebody can write to without a word of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Open {
    /// What it is called there where it was opened: a path below the VE's root, or below a mount of its own.
    pub path: PathBuf,
    /// Its number; through an overlay perhaps another one's.
    pub inode: u64,
}

/// Regular files that these processes have open for writing. Processes that have ended have none.
fn open_for_writing(pids: &[i32]) -> vzsys::Result<Vec<Open>> {
    use rustix::fs::{AtFlags, FileType, statat};
    let mut found = Vec::new();
    for pid in pids {
        let dir = format!("/proc/{pid}/fd");
        let fds = match std::fs::read_dir(&dir) {
            Ok(fds) => fds,
            Err(error) => match SysError::from_io("open", &dir, &error) {
                error if [Errno::NOENT, Errno::SRCH].contains(&error.errno()) => continue,
                error => return Err(error),
            },
        };
        let fds = fds.flatten().map(|entry| entry.path());
        for link in fds {
            // The permissions of the link are those of the descriptor.
            let Ok(how) = statat(CWD, &link, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if how.st_mode & 0o200 == 0 {
                continue;
            }
            let Ok(stat) = statat(CWD, &link, AtFlags::empty()) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            let Ok(path) = std::fs::read_link(&link) else { continue };
            let path = path.strip_prefix("/").map(Path::to_owned).unwrap_or_default();
            found.push(Open { path, inode: stat.st_ino });
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// `address perms offset device inode path`: perms ends with `s` for a shared one.
fn mapped_in(line: &[u8]) -> Option<Open> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let perms = fields.nth(1)?;
    if perms.get(1) != Some(&b'w') || perms.get(3) != Some(&b's') {
        return None;
    }
    let inode = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
    let path = fields.next()?.trim_ascii_start();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path).strip_prefix(b"/")?;
    // The kernel writes a line break in a name as \012.
    let mut name = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        if rest.starts_with(b"\\012") {
            name.push(b'\n');
            rest = &rest[4..];
        } else {
            name.push(*first);
            rest = tail;
        }
    }
    Some(Open { path: PathBuf::from(std::ffi::OsString::from_vec(name)), inode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn watched() -> Option<(tempfile::TempDir, Watch)> {
        // On a disk: not every kernel's tmpfs has handles.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
        fs::write(dir.path().join("tree/old"), "x").unwrap();
        match Watch::start(&dir.path().join("tree")) {
            Ok(watch) => Some((dir, watch)),
            Err(error) => {
                println!("\nSKIP: needs root, and a file system that tells: {error}");
                None
            }
        }
    }

    fn told(watch: &mut Watch) -> Vec<(String, bool)> {
        match watch.drain().unwrap() {
            Drained::Changes(changes) => {
                changes.into_iter().map(|c| (c.path.display().to_string(), c.deep)).collect()
            }
            Drained::Lost => panic!("lost"),
        }
    }

    #[test]
    fn each_kind_of_change_is_told_once_and_nothing_from_outside() {
        let Some((dir, mut watch)) = watched() else { return };
        let tree = dir.path().join("tree");
        fs::write(dir.path().join("outside"), "x").unwrap();
        fs::write(tree.join("old"), "more").unwrap();
        fs::write(tree.join("sub/new"), "x").unwrap();
        symlink("/", tree.join("link")).unwrap();
        let all = told(&mut watch);
        assert_eq!(all, [("link".into(), false), ("old".into(), false), ("sub/new".into(), false)]);
        assert_eq!(told(&mut watch), []);
        fs::remove_file(tree.join("old")).unwrap();
        fs::set_permissions(tree.join("sub"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let all = told(&mut watch);
        assert!(all.contains(&("old".into(), false)) && all.contains(&("sub".into(), false)), "{all:?}");
    }

    #[test]
    fn a_directory_that_moves_is_told_at_both_ends_and_followed() {
        let Some((dir, mut watch)) = watched() else { return };
        let tree = dir.path().join("tree");
        fs::write(tree.join("sub/a"), "x").unwrap();
        told(&mut watch);
        fs::rename(tree.join("sub"), tree.join("moved")).unwrap();
        fs::write(tree.join("moved/b"), "x").unwrap();
        let all = told(&mut watch);
        for wanted in [("sub", false), ("moved", true), ("moved/b", false)] {
            assert!(all.contains(&(wanted.0.to_owned(), wanted.1)), "{wanted:?} in {all:?}");
        }
        fs::create_dir_all(dir.path().join("other/deep")).unwrap();
        fs::write(dir.path().join("other/deep/x"), "x").unwrap();
        fs::rename(dir.path().join("other"), tree.join("came")).unwrap();
        fs::write(tree.join("came/deep/y"), "x").unwrap();
        let all = told(&mut watch);
        assert!(
            all.contains(&("came".into(), true)) && all.contains(&("came/deep/y".into(), false)),
            "{all:?}"
        );
    }

    #[test]
    fn files_without_a_name_are_told_by_their_number() {
        assert_eq!(unnamed(OsStr::new("#1234")), Some(1234));
        assert_eq!(unnamed(OsStr::new("#x")), None);
        assert_eq!(unnamed(OsStr::from_bytes(b"#\xff")), None);
    }

    #[test]
    fn shared_writable_mappings_are_found_in_a_table() {
        let line = |perms: &str, path: &str| {
            mapped_in(format!("7f00-7f01 {perms} 00000000 08:01 123      {path}").as_bytes())
        };
        let open = |path: &str| Some(Open { path: path.into(), inode: 123 });
        assert_eq!(line("rw-s", "/var/db/a b"), open("var/db/a b"));
        assert_eq!(line("rw-s", "/var/x\\012y (deleted)"), open("var/x\ny"));
        for (perms, path) in [("rw-p", "/x"), ("r--s", "/x"), ("rw-s", "[anon]"), ("rw-s", "")] {
            assert_eq!(line(perms, path), None, "{perms} {path}");
        }
        assert_eq!(mapped_in(b""), None);
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_found_and_one_for_reading_is_not() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let [written, read] = ["written", "read"].map(|name| dir.path().join(name));
        let file = fs::File::create(&written).unwrap();
        fs::write(&read, "x").unwrap();
        let _reading = fs::File::open(&read).unwrap();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let found = open_for_writing(&[own, i32::MAX]).unwrap();
        let inode = file.metadata().unwrap().ino();
        let wanted = Open { path: written.strip_prefix("/").unwrap().to_owned(), inode };
        assert!(found.contains(&wanted), "{found:?}");
        assert!(!found.iter().any(|open| Path::new("/").join(&open.path) == read));
    }

    #[test]
    fn a_mapping_of_this_process_is_found() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("mapped");
        fs::write(&path, [0; 4096]).unwrap();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(!mapped(&[own, i32::MAX]).unwrap().iter().any(|found| Path::new("/").join(found) == path));
    }
}
