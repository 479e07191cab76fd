//! Raw Ethernet frames on one device (packet(7)): needs CAP_NET_RAW.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Call, Result, SysError};
use crate::process::timespec;

/// A packet socket of one device.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket on the device with that index; with an `ethertype` it receives such frames, with
    /// none it only sends. Closing it waits for a grace period of the kernel (milliseconds).
    ///
    /// # Errors
    /// The errno of socket(2) or bind(2).
    pub fn open(index: u32, ethertype: Option<u16>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0: nothing is received before the socket is bound to its device.
        let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None::<Protocol>)
            .call("socket", || "AF_PACKET")?;
        bind(&fd, index, ethertype.unwrap_or(0))?;
        Ok(Self(fd))
    }

    /// Sends one whole frame.
    ///
    /// # Errors
    /// The errno of send(2): `ENETDOWN` when the device is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        rustix::net::send(&self.0, frame, SendFlags::empty()).call("send", || "AF_PACKET")?;
        Ok(())
    }

    /// The next frame, cut to the size of `frame`; `None` when none came before the deadline.
    ///
    /// # Errors
    /// The errno of poll(2) or recv(2).
    pub fn receive(&self, frame: &mut [u8], deadline: Instant) -> Result<Option<usize>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match rustix::event::poll(&mut fds, timespec(Some(left)).as_ref()) {
                Ok(0) | Err(Errno::INTR) if left == Duration::ZERO => return Ok(None),
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(SysError::new("poll", "AF_PACKET", errno)),
            }
            match rustix::net::recv(&self.0, &mut *frame, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("recv", "AF_PACKET", errno)),
            }
        }
    }
}

fn bind(fd: &OwnedFd, index: u32, ethertype: u16) -> Result<()> {
    let size = size_of::<libc::sockaddr_ll>();
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and `size` is its size; the
    // kernel only reads it.
    let r = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size as libc::socklen_t) };
    if r == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(SysError::from_io("bind", format_args!("AF_PACKET, index {index}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_told_by_its_number() {
        // Needs CAP_NET_RAW, as everything here does.
        let error = PacketSocket::open(0x7fff_fff0, None).unwrap_err();
        assert!(error.to_string().contains("bind(AF_PACKET, index"), "{error}");
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let socket = PacketSocket::open(1, Some(0x88b5)).unwrap();
        let begun = Instant::now();
        assert_eq!(socket.receive(&mut [0; 64], begun + Duration::from_millis(20)).unwrap(), None);
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
