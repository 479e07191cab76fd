//! A file system whose requests another process answers (fuse(4), include/uapi/linux/fuse.h).
//!
//! The kernel gives a request out once only, and whoever made it waits for the answer, if need be for ever. So it is
//! read right into memory that copies of the process share: a process that is killed in the kernel dies only when the
//! request is there, or was not taken at all, and whoever goes on in its place finds it and answers.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::error::{Call, Result, SysError};
use crate::mount::{Attr, Detached, Opt, QUIET};

/// Where requests are read. The kernel wants room for the largest, and at least 8 KiB.
const ROOM: usize = 16 * 1024;
/// The head of a request begins with its length.
const LENGTH: usize = size_of::<u32>();

/// The server's end of a mounted file system. Copies of the process share the request in flight; only one of them at a
/// time may use it.
#[derive(Debug)]
pub struct Connection {
    device: OwnedFd,
    room: NonNull<u8>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Connection {
    /// A new file system, read-only, that everybody may look into as far as the modes of its files allow. Mounted
    /// nowhere yet. When nobody has the connection any more, what is asked fails.
    ///
    /// # Errors
    /// `ENOENT` or `ENODEV` from a kernel without FUSE; those of fsopen(2) and fsmount(2).
    pub fn open(source: &str) -> Result<(Self, Detached)> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).call("open", || "/dev/fuse")?;
        let options = [
            Opt::value("fd", device.as_raw_fd()),
            Opt::value("rootmode", "40555"),
            Opt::value("user_id", 0),
            Opt::value("group_id", 0),
            Opt::flag("allow_other"),
            Opt::flag("default_permissions"),
        ];
        let mount = Detached::new("fuse", source, &options, QUIET | Attr::MOUNT_ATTR_RDONLY)?;
        // SAFETY: a new mapping where the kernel likes, nothing that exists is touched.
        let room = unsafe {
            mmap_anonymous(std::ptr::null_mut(), ROOM, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        };
        let room = room.call("mmap", || ROOM)?;
        let room = NonNull::new(room.cast()).ok_or_else(|| SysError::new("mmap", ROOM, Errno::NOMEM))?;
        Ok((Self { device, room }, mount))
    }

    /// Takes the next request, if there is one. The one before must have been answered.
    ///
    /// # Errors
    /// `ENODEV` when the file system is mounted nowhere any more.
    pub fn receive(&mut self) -> Result<Option<&[u8]>> {
        self.answered();
        // SAFETY: the mapping is ROOM bytes, lives as long as the process, and is ours alone by contract.
        let room = unsafe { std::slice::from_raw_parts_mut(self.room.as_ptr(), ROOM) };
        match rustix::io::read(&self.device, room) {
            Ok(_) => Ok(self.pending()),
            // Nothing there, or whoever asked was interrupted meanwhile.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => Ok(None),
            Err(errno) => Err(SysError::new("read", "/dev/fuse", errno)),
        }
    }

    /// The request that was taken and not called answered.
    #[must_use]
    pub fn pending(&self) -> Option<&[u8]> {
        // SAFETY: as above; bytes of any value are bytes.
        let room = unsafe { std::slice::from_raw_parts(self.room.as_ptr(), ROOM) };
        let length = room.first_chunk::<LENGTH>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let length = usize::try_from(length).unwrap_or(0);
        room.get(..length).filter(|request| !request.is_empty())
    }

    /// Sends an answer. One that nobody waits for any more is fine.
    pub fn answer(&self, bytes: &[u8]) {
        // ENOENT: answered by whoever was killed right after; whatever else is wrong with it, waiting is not better.
        let _ = rustix::io::write(&self.device, bytes);
    }

    /// Nothing is in flight.
    pub fn answered(&mut self) {
        // SAFETY: the mapping begins with the length of what it holds; it is ours alone by contract.
        unsafe { self.room.as_ptr().cast::<[u8; LENGTH]>().write_volatile([0; LENGTH]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_it_waits_until_it_is_taken_and_stays_until_it_is_answered() {
        let (mut connection, mount) = Connection::open("test").unwrap();
        assert!(connection.pending().is_none());
        // The kernel says hello first.
        let request = connection.receive().unwrap().unwrap().to_vec();
        let opcode = u32::from_ne_bytes(*request[4..].first_chunk().unwrap());
        assert_eq!((opcode, connection.pending().unwrap()), (26, &request[..]));
        connection.answered();
        assert!(connection.pending().is_none() && connection.receive().unwrap().is_none());
        drop(mount);
        assert_eq!(connection.receive().unwrap_err().errno(), Errno::NODEV);
    }
}
