//! Whole messages with descriptors between two of our own processes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Call, Result, SysError};
use crate::process::timespec;

/// The longest message. A launch plan is a few KiB.
const MAX: usize = 256 * 1024;

/// One end of a `SOCK_SEQPACKET` pair that carries JSON messages, each with at most one descriptor.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends.
    ///
    /// # Errors
    /// The errno of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call("socketpair", || "AF_UNIX, SOCK_SEQPACKET")?;
        // A launch plan with its files may be larger than the default buffer.
        for end in [&a, &b] {
            rustix::net::sockopt::set_socket_send_buffer_size(end, MAX).call("setsockopt", || "SO_SNDBUF")?;
        }
        Ok((Self(a), Self(b)))
    }

    /// Takes over an end that we were started with.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message, with a descriptor or without.
    ///
    /// # Errors
    /// The errno of sendmsg(2); `EPIPE` when the other end is gone (no signal is raised).
    pub fn send<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let bytes =
            serde_json::to_vec(message).map_err(|_| SysError::new("sendmsg", "encoding", Errno::INVAL))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .call("sendmsg", || format!("{} bytes", bytes.len()))?;
        Ok(())
    }

    /// Receives a message; `None` when the other end is closed.
    ///
    /// # Errors
    /// The errno of recvmsg(2); `EBADMSG` for what is no message of this type.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Option<OwnedFd>)>> {
        let Some(length) = self.next_length()? else { return Ok(None) };
        let mut buffer = vec![0_u8; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
            {
                Ok(got) => break got,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("recvmsg", "", errno)),
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let message = serde_json::from_slice(&buffer[..got.bytes])
            .map_err(|_| SysError::new("recvmsg", "decoding", Errno::BADMSG))?;
        Ok(Some((message, fd)))
    }

    /// How long the message is that comes next; `None` when the other end is closed. Asked first, because a
    /// buffer for the longest message would stay in a monitor's memory for as long as its VE runs.
    fn next_length(&self) -> Result<Option<usize>> {
        loop {
            match recv(&self.0, &mut [0_u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(None),
                Ok((_, length)) if length > MAX => {
                    return Err(SysError::new("recv", format!("{length} bytes"), Errno::BADMSG));
                }
                Ok((_, length)) => return Ok(Some(length)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("recv", "", errno)),
            }
        }
    }

    /// Whether a message or the end of the channel comes before the time is over.
    ///
    /// # Errors
    /// The errno of poll(2).
    pub fn ready(&self, timeout: Option<Duration>) -> Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timespec(timeout).as_ref()) {
            Ok(n) => Ok(n > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(SysError::new("poll", "channel", errno)),
        }
    }

    /// The same with a point in time, however often a signal comes.
    ///
    /// # Errors
    /// The errno of poll(2).
    pub fn ready_by(&self, deadline: Instant) -> Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ready(Some(left))? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_brings_its_descriptor_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        let (r, w) = std::io::pipe().unwrap();
        a.send(&("hello".to_owned(), 7), Some(w.as_fd())).unwrap();
        let ((text, number), fd) = b.receive::<(String, i32)>().unwrap().unwrap();
        assert_eq!((text.as_str(), number), ("hello", 7));
        assert!(fd.is_some());
        drop(r);
        drop(a);
        assert!(b.receive::<(String, i32)>().unwrap().is_none());
    }

    #[test]
    fn messages_of_all_lengths_arrive_whole_and_in_order() {
        let (a, b) = Channel::pair().unwrap();
        for length in [0, 1, 5000, 100_000] {
            a.send(&"x".repeat(length), None).unwrap();
            a.send(&length, None).unwrap();
            assert_eq!(b.receive::<String>().unwrap().unwrap().0.len(), length);
            assert_eq!(b.receive::<usize>().unwrap().unwrap().0, length);
        }
    }
}
