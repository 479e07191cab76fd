//! What the processes of a VE watch by inotify, by name: an overlay cannot tell CRIU what its inodes are called.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use criu::watches::Name;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat};
use vzconf::Exit;

use crate::error::{Error, Result};
use crate::externals::Line;

/// Where guests watch most.
const USUAL: [&str; 6] =
    ["etc", "usr/share/dbus-1", "usr/lib/udev", "var/spool", "var/log", "usr/share/polkit-1"];
/// For how long the whole tree is searched for the rest. What is not found then, CRIU complains about.
const SEARCH: Duration = Duration::from_secs(30);
/// The same for a small file system while the VE stands still.
const STILL: Duration = Duration::from_secs(2);
/// No tree is deeper that can be named.
const DEPTH: u32 = 128;

/// The names of what these processes watch in the root of the VE, absolute. To be asked while they run: a large tree
/// takes its time.
pub(crate) fn names(init: i32, processes: &[i32]) -> Vec<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{init}/root"), flags, Mode::empty()).ok();
    let Some((root, device)) =
        root.and_then(|root| Some((fstat(&root).ok()?.st_dev, root)).map(|(d, r)| (r, d)))
    else {
        return Vec::new();
    };
    let mut search = Search {
        device,
        wanted: processes.iter().flat_map(|pid| watched(*pid, device)).collect(),
        found: Vec::new(),
        until: Instant::now() + SEARCH,
    };
    // The root itself is known to CRIU.
    if let Ok(stat) = fstat(&root) {
        search.wanted.remove(&stat.st_ino);
    }
    for dir in USUAL {
        if search.wanted.is_empty() {
            break;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if let Ok(dir_fd) = openat2(&root, dir, flags, Mode::empty(), how) {
            search.look_at(&dir_fd, &format!("/{dir}"));
            search.below(dir_fd.as_fd(), &format!("/{dir}"), 0);
        }
    }
    if !search.wanted.is_empty()
        && let Ok(top) =
            openat(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    {
        search.below(top.as_fd(), "", 0);
    }
    search.found
}

/// Corrects names in images that CRIU got wrong; the VE stands still.
///
/// # Errors
/// 16 for something that has no name, or images that cannot be read.
pub(crate) fn correct(init: i32, images: &Path) -> Result<()> {
    let lines = Line::of(init);
    let Some(root) = lines.iter().find(|line| line.place == Path::new("/")) else { return Ok(()) };
    let mut nameless = None;
    let done = criu::watches::correct(images, &mut |watched| {
        let device = format!("{}:{}", watched.device.0, watched.device.1);
        if watched.path != "/" || device == root.device {
            return None;
        }
        let whole = lines.iter().filter(|line| line.device == device && line.root == Path::new("/"));
        let name = whole.filter_map(|line| search_mount(init, &line.place, watched.inode)).next();
        if name.is_none() {
            nameless = Some(watched.inode);
        }
        Some(Name { path: name?, mount: root.id })
    });
    done.map_err(|source| Error::Criu { source, exit: Exit::Chkpnt })?;
    match nameless {
        None => Ok(()),
        Some(inode) => {
            let message = format!("a process watches inode {inode} of a file system where it has no name");
            Err(Error::refused(Exit::Chkpnt, message))
        }
    }
}

/// What an inode of the file system that is mounted there is called.
fn search_mount(init: i32, place: &Path, inode: u64) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{init}/root"), flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = openat2(&root, place, flags, Mode::empty(), how).ok()?;
    let device = fstat(&top).ok()?.st_dev;
    let until = Instant::now() + STILL;
    let mut search = Search { device, wanted: BTreeSet::from([inode]), found: Vec::new(), until };
    let place = place.to_str()?.trim_end_matches('/');
    search.look_at(&top, place);
    search.below(top.as_fd(), place, 0);
    search.found.pop()
}

/// Inodes of this file system that a process watches.
fn watched(pid: i32, device: u64) -> Vec<u64> {
    // In fdinfo the kernel writes its own form: the major number from bit 20 on.
    let device = u64::from(rustix::fs::major(device)) << 20 | u64::from(rustix::fs::minor(device));
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.filter(|entry| is_inotify(pid, &entry.file_name().to_string_lossy()));
    let texts: Vec<String> = texts.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    texts.iter().flat_map(|text| inodes(text, device)).collect()
}

fn is_inotify(pid: i32, fd: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{fd}"))
        .is_ok_and(|target| target.as_os_str() == "anon_inode:inotify")
}

fn inodes(fdinfo: &str, device: u64) -> Vec<u64> {
    let hex = |word: &str, key: &str| u64::from_str_radix(word.strip_prefix(key)?, 16).ok();
    let lines = fdinfo.lines().filter_map(|line| line.strip_prefix("inotify "));
    lines
        .filter_map(|line| {
            let inode = line.split(' ').find_map(|word| hex(word, "ino:"))?;
            let on = line.split(' ').find_map(|word| hex(word, "sdev:"))?;
            (on == device).then_some(inode)
        })
        .collect()
}

struct Search {
    device: u64,
    wanted: BTreeSet<u64>,
    found: Vec<String>,
    until: Instant,
}

impl Search {
    fn look_at(&mut self, file: &OwnedFd, path: &str) {
        if fstat(file).is_ok_and(|stat| stat.st_dev == self.device && self.wanted.remove(&stat.st_ino)) {
            self.found.push(path.to_owned());
        }
    }

    fn below(&mut self, dir: BorrowedFd<'_>, path: &str, depth: u32) {
        let Ok(entries) = Dir::read_from(dir) else { return };
        for entry in entries.flatten() {
            if self.wanted.is_empty() || depth > DEPTH || Instant::now() >= self.until {
                return;
            }
            let name = entry.file_name();
            let Ok(text) = name.to_str().map(str::to_owned) else { continue };
            if text == "." || text == ".." {
                continue;
            }
            let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) else {
                continue;
            };
            if stat.st_dev != self.device {
                continue;
            }
            let path = format!("{path}/{text}");
            if self.wanted.remove(&stat.st_ino) {
                self.found.push(path.clone());
            }
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(below) = openat(dir, name, flags, Mode::empty()) {
                    self.below(below.as_fd(), &path, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_inodes_are_read_from_fdinfo() {
        let text = "pos:\t0\nflags:\t02004000\n\
            inotify wd:3 ino:9933f4 sdev:2d mask:2c8 ignored_mask:0 fhandle-bytes:20 fhandle-type:f8 f_handle:00\n\
            inotify wd:1 ino:5c sdev:3f mask:c06 ignored_mask:0\n";
        assert_eq!(inodes(text, 0x2d), [0x0099_33f4]);
        assert_eq!(inodes("inotify wd:x\n", 0x2d), [0_u64; 0]);
    }
}
