//! A network device whose packets a program gets (TUN): needs CAP_NET_ADMIN. It goes with its descriptor.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Call, Result, SysError};
use crate::raw::last_errno;

/// The longest name of a device.
const LONGEST: usize = libc::IFNAMSIZ - 1;
const TUNSETIFF: libc::c_ulong = 0x4004_54CA;

/// One.
#[derive(Debug)]
pub struct Tun(OwnedFd);

impl Tun {
    /// Makes a device of that name, which is down.
    ///
    /// # Errors
    /// `ENOENT` on a kernel without TUN; `EBUSY` when there is one of that name; `ENAMETOOLONG`.
    pub fn new(name: &str) -> Result<Self> {
        if name.len() > LONGEST {
            return Err(SysError::new("ioctl", format!("TUNSETIFF, {name}"), Errno::NAMETOOLONG));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).call("open", || "/dev/net/tun")?;
        // SAFETY: an ifreq is plain data, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request reads and writes an ifreq, which `request` is, live for the call.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
        if done < 0 {
            return Err(SysError::new("ioctl", format!("TUNSETIFF, {name}"), last_errno()));
        }
        Ok(Self(fd))
    }

    /// The next packet that was sent through it, cut to the size of `packet`; `None` when there is none.
    ///
    /// # Errors
    /// The errno of read(2).
    pub fn next(&self, packet: &mut [u8]) -> Result<Option<usize>> {
        loop {
            match rustix::io::read(&self.0, &mut *packet) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("read", "/dev/net/tun", errno)),
            }
        }
    }
}
