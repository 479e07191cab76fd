//! A pipe to a child on which a wait ends when the user wants to stop.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::interrupt::Interrupt;
use crate::wire::Stopped;

/// One end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    fd: OwnedFd,
    interrupt: Interrupt,
}

impl Pipe {
    /// Takes an end over, and never blocks on it again.
    ///
    /// # Errors
    /// The errno of fcntl(2).
    pub fn new(fd: OwnedFd, interrupt: Interrupt) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self { fd, interrupt })
    }

    /// What is below.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn wait(&self, what: PollFlags) -> io::Result<()> {
        loop {
            if self.interrupt.wanted() {
                return Err(io::Error::other(Stopped));
            }
            let mut fds = vec![PollFd::new(&self.fd, what)];
            fds.extend(self.interrupt.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(self.fd.as_fd(), &mut *buffer) {
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                done => return done.map_err(Into::into),
            }
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A connection that takes everything must not keep the user from stopping.
        if self.interrupt.wanted() {
            return Err(io::Error::other(Stopped));
        }
        loop {
            match rustix::io::write(self.fd.as_fd(), bytes) {
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                done => return done.map_err(Into::into),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
