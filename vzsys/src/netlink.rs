//! Dumps from the kernel's netlink families that list objects: sock_diag(7), nfnetlink.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::error::{Call, Result, SysError};

/// The kernel answers a dump at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(2);
const HEADER: usize = 16;
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A family of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Sockets.
    SockDiag,
    /// The packet filter.
    Netfilter,
}

/// A netlink socket. It stays with the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn open(family: Family) -> Result<Self> {
        let protocol: Protocol = match family {
            Family::SockDiag => netlink::SOCK_DIAG,
            Family::Netfilter => netlink::NETFILTER,
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
            .call("socket", || format!("AF_NETLINK, {family:?}"))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE)).call("setsockopt", || "SO_RCVTIMEO")?;
        Ok(Self(fd))
    }

    /// Sends one request, and passes every answer's body on.
    ///
    /// # Errors
    /// The errno of send(2) or recv(2), or the one that the kernel answers: `ENOENT` where it has no such objects.
    pub fn dump(&self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend_from_slice(&length.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        let what = || format!("netlink, type {kind:#x}");
        send(&self.0, &request, SendFlags::empty()).call("send", what)?;
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).call("recv", what)?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    DONE => return end(body, what),
                    ERROR => return end(body, what),
                    _ => each(body),
                }
                rest = next;
            }
            if length == 0 {
                return Ok(());
            }
        }
    }
}

/// What the last message says: 0, or a negative errno.
fn end(body: &[u8], what: impl Fn() -> String) -> Result<()> {
    match number(body, 0).map_or(0, u32::cast_signed) {
        0 => Ok(()),
        code => Err(SysError::new("netlink", what(), Errno::from_raw_os_error(code.saturating_neg()))),
    }
}

/// The first message: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The 32-bit number at this place.
#[must_use]
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The value of an attribute among those in `bytes`.
#[must_use]
pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        // The two highest bits say how it is encoded.
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_damaged_ones_end_the_search() {
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 8, 0, 7, 0x80, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 1), Some(&[9][..]));
        assert_eq!(attribute(&bytes, 7), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&bytes, 2), None);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None);
        assert_eq!(attribute(&[9, 0, 1, 0, 0], 1), None);
        assert_eq!(message(&[15, 0, 0, 0, 1, 0]), None);
    }

    #[test]
    fn the_kernel_lists_our_own_sockets_and_says_what_it_does_not_know() {
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let netlink = Netlink::open(Family::SockDiag).unwrap();
        let mut request = [0u8; 24];
        request[0] = 1; // AF_UNIX
        request[4..8].fill(0xff);
        let mut found = 0;
        netlink.dump(20, &request, |_| found += 1).unwrap();
        assert!(found >= 2, "{found}");
        request[0] = 200;
        assert!(netlink.dump(20, &request, |_| ()).is_err());
    }
}
