//! Events of a whole file system, with the directory and name that each is about (fanotify(7), 5.9).
//!
//! Events tell a directory by its file handle, which stays the same when the directory moves; [`Place::open`]
//! makes a descriptor of it. Nothing here ever waits.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Result, SysError};
use crate::raw::last_errno;

const INIT: libc::c_uint = libc::FAN_CLASS_NOTIF
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_REPORT_DIR_FID
    | libc::FAN_REPORT_NAME
    // Of what is told without a directory: that a file has got or lost a name.
    | libc::FAN_REPORT_FID;

/// The kinds of events, as bits.
pub mod mask {
    /// Written to.
    pub const MODIFY: u64 = libc::FAN_MODIFY;
    /// A file that was open for writing was closed, or the last mapping of one went.
    pub const CLOSE_WRITE: u64 = libc::FAN_CLOSE_WRITE;
    /// Owner, mode, times, extended attributes, number of links.
    pub const ATTRIB: u64 = libc::FAN_ATTRIB;
    /// A new name.
    pub const CREATE: u64 = libc::FAN_CREATE;
    /// A name is gone.
    pub const DELETE: u64 = libc::FAN_DELETE;
    /// A name went elsewhere.
    pub const MOVED_FROM: u64 = libc::FAN_MOVED_FROM;
    /// A name came from elsewhere.
    pub const MOVED_TO: u64 = libc::FAN_MOVED_TO;
    /// Asked for: of directories too. Told: it is about a directory.
    pub const ONDIR: u64 = libc::FAN_ONDIR;
    /// Events were lost.
    pub const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;
}

/// A directory, or a file, as events tell it: the same one has the same value, whatever it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    kind: i32,
    handle: Vec<u8>,
}

/// How many milliseconds another file may take to be made under the number of one that is gone.
const BEING_MADE: u32 = 1000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened, several things at once perhaps ([`mask`]).
    pub mask: u64,
    /// Where; `None` for an overflow.
    pub place: Option<Place>,
    /// Under which name there; `.` is the directory itself. Empty: the place is no directory, but the file itself, by none of
    /// its names.
    pub name: OsString,
}

/// A group of marks, and the queue of their events. Its end is the end of the marks.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// An empty group whose queue has no limit. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// The errno of fanotify_init(2); `ENOSYS` where the kernel has none.
    pub fn new() -> Result<Self> {
        // SAFETY: two plain integers; what comes back is a new descriptor that nobody else owns.
        let fd = unsafe { libc::fanotify_init(INIT, libc::O_RDONLY as libc::c_uint) };
        if fd < 0 {
            return Err(SysError::new("fanotify_init", format_args!("{INIT:#x}"), last_errno()));
        }
        // SAFETY: as above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Asks for events of the whole file system that holds `path`.
    ///
    /// # Errors
    /// The errno of fanotify_mark(2): `EOPNOTSUPP` or `ENODEV` where the file system has no lasting handles.
    pub fn mark_filesystem(&self, path: &Path, mask: u64) -> Result<()> {
        let what = || format!("{}, FILESYSTEM, {mask:#x}", path.display());
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| SysError::new("fanotify_mark", what(), Errno::INVAL))?;
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: the path is NUL-terminated and lives for the call; the rest are integers.
        let r =
            unsafe { libc::fanotify_mark(self.0.as_raw_fd(), flags, mask, libc::AT_FDCWD, name.as_ptr()) };
        if r == 0 { Ok(()) } else { Err(SysError::new("fanotify_mark", what(), last_errno())) }
    }

    /// Takes what is in the queue, in order; an empty list when that is empty.
    ///
    /// # Errors
    /// The errno of read(2).
    pub fn read(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut buffer = vec![0_u8; 256 * 1024];
        loop {
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => {}
                Ok(length) => parse(&buffer[..length], &mut events),
                Err(errno) => return Err(SysError::new("read", "fanotify", errno)),
            }
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Bytes of `struct fanotify_event_metadata`.
const METADATA: usize = 24;
/// Bytes of an info record before its handle's bytes: its header (4), the file system's id (8), the handle's
/// length (4) and type (4).
const INFO: usize = 20;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What the kernel wrote; a record that makes no sense counts as an overflow, so that nobody relies on the rest.
fn parse(mut bytes: &[u8], events: &mut Vec<Event>) {
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mask = u64_at(bytes, 8);
        let (Some(mask), Some(record)) = (mask, bytes.get(..length).filter(|r| r.len() >= METADATA)) else {
            events.push(Event { mask: mask::OVERFLOW, place: None, name: OsString::new() });
            return;
        };
        if mask & mask::OVERFLOW != 0 {
            events.push(Event { mask, place: None, name: OsString::new() });
        } else if let Some((place, name)) = place_of(&record[METADATA..]) {
            events.push(Event { mask, place: Some(place), name });
        }
        bytes = &bytes[length..];
    }
}

/// The directory and name of an event, or the file and no name.
fn place_of(mut info: &[u8]) -> Option<(Place, OsString)> {
    let mut file = None;
    while info.len() >= INFO {
        let length = usize::from(u16::from_ne_bytes(info.get(2..4)?.try_into().ok()?));
        let record = info.get(..length).filter(|record| record.len() >= INFO)?;
        let bytes = usize::try_from(u32_at(record, 12)?).ok()?;
        let kind = u32_at(record, 16)?.cast_signed();
        let handle = record.get(INFO..INFO.checked_add(bytes)?)?.to_vec();
        if record[0] == libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
            let name = record.get(INFO + bytes..)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            return Some((Place { kind, handle }, OsString::from_vec(name[..end].to_vec())));
        }
        if record[0] == libc::FAN_EVENT_INFO_TYPE_FID {
            file = Some((Place { kind, handle }, OsString::new()));
        }
        info = &info[length..];
    }
    file
}

impl Place {
    /// A descriptor (`O_PATH`) of the directory; `None` when it is gone. `mount` is any descriptor on its file
    /// system, and tells through which mount it is seen. Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// The errno of open_by_handle_at(2).
    pub fn open(&self, mount: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        self.open_as(mount, libc::O_DIRECTORY)
    }

    /// The inode number of a file; `None` when it is gone. As [`Place::open`].
    ///
    /// # Errors
    /// The errno of open_by_handle_at(2) or fstat(2).
    pub fn inode(&self, mount: BorrowedFd<'_>) -> Result<Option<u64>> {
        let Some(file) = self.open_as(mount, libc::O_NOFOLLOW)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&file).map_err(|errno| SysError::new("fstat", "a file", errno))?;
        Ok(Some(stat.st_ino))
    }

    fn open_as(&self, mount: BorrowedFd<'_>, how: libc::c_int) -> Result<Option<OwnedFd>> {
        let mut buffer = vec![0_u32; 2 + self.handle.len().div_ceil(4)];
        let Ok(length) = u32::try_from(self.handle.len()) else { return Ok(None) };
        (buffer[0], buffer[1]) = (length, self.kind.cast_unsigned());
        for (word, bytes) in buffer[2..].iter_mut().zip(self.handle.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(whole);
        }
        let flags = libc::O_PATH | libc::O_CLOEXEC | how;
        let mut tries = 0;
        let fd = loop {
            // SAFETY: `buffer` has the form of a struct file_handle (two 32-bit fields, then as many bytes as the first
            // one says), aligned for it, and lives for the call; the kernel only reads it.
            let fd = unsafe {
                libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), buffer.as_mut_ptr(), flags)
            };
            // ENOMEM: its number is given to a file that is being made at this moment (`iget_locked` in fs/inode.c).
            if fd >= 0 || last_errno() != Errno::NOMEM || tries == BEING_MADE {
                break fd;
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(1));
        };
        if fd < 0 {
            return match last_errno() {
                // ESTALE: it was deleted. ENOTDIR: its handle was given to something else since.
                Errno::STALE | Errno::NOENT | Errno::NOTDIR => Ok(None),
                errno => Err(SysError::new("open_by_handle_at", "what has changed", errno)),
            };
        }
        // SAFETY: the kernel returned a new descriptor, which nobody else owns.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn events_name_the_directory_that_can_be_opened_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let group = match Group::new() {
            Ok(group) => group,
            Err(error) => return println!("\nSKIP: needs root and fanotify: {error}"),
        };
        group.mark_filesystem(dir.path(), mask::CREATE | mask::MODIFY | mask::ONDIR).unwrap();
        let mount = fs::File::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a file"), "x").unwrap();
        let events = group.read().unwrap();
        let event = events.iter().find(|event| event.name == "a file" && event.mask & mask::CREATE != 0);
        let place = event.unwrap().place.clone().unwrap();
        let opened = place.open(mount.as_fd()).unwrap().unwrap();
        let path = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).unwrap();
        assert_eq!(path, dir.path().join("sub"));
        drop(opened);
        fs::remove_dir_all(dir.path().join("sub")).unwrap();
        assert!(place.open(mount.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_makes_no_sense_counts_as_lost() {
        let mut events = Vec::new();
        parse(&[1, 2, 3], &mut events);
        parse(&[255; 64], &mut events);
        assert!(events.iter().all(|event| event.mask & mask::OVERFLOW != 0) && events.len() == 2);
    }
}
