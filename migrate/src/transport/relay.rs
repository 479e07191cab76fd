//! A process between one side and its connection. While its side is at work it says on the connection that the side is
//! there, and when nothing comes over the connection any more it ends it: a network that is cut tells nobody.
//!
//! ```text
//!  Source ══ relay ══ ssh ══ sshd ══ relay ══ Target
//!                  chunks: length (u32), so many bytes; a length of 0 says: I am here
//! ```
//! A process, because whoever starts containers must not have threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use vzsys::spawn::Beside;

/// Bytes that are carried at once.
const CHUNK: usize = 256 << 10;
const HEAD: usize = 4;
/// Who is silent says so many times in the other one's patience that it is there.
const BEATS: u32 = 4;
/// The exit code of one to which nothing came any more.
const STALLED: i32 = 3;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Waits, once its side is gone, until the far one has cleaned up.
    Near,
    /// Ends with its side.
    Far,
}

/// One at work.
#[derive(Debug)]
pub(crate) struct Relay(Beside);

impl Relay {
    /// Puts one between the connection and what is returned: both ways of it are for a side. When nothing comes from the
    /// other end for `patience`, it ends.
    ///
    /// # Errors
    /// The errno of socketpair(2) or clone3(2).
    pub(crate) fn start(
        from: OwnedFd,
        out: OwnedFd,
        patience: Duration,
        end: End,
    ) -> io::Result<(OwnedFd, Self)> {
        let (side, ours) = UnixStream::pair()?;
        let carry = |mut fds: Vec<OwnedFd>| {
            let (Some(side), Some(out), Some(from)) = (fds.pop(), fds.pop(), fds.pop()) else { return 1 };
            Carrier::new(from, out, side, patience, end).map_or(1, Carrier::run)
        };
        let process = Beside::start(vec![from, out, side.into()], carry).map_err(io::Error::other)?;
        Ok((ours.into(), Self(process)))
    }

    /// Whether it ended because nothing came any more.
    pub(crate) fn stalled(&mut self) -> bool {
        self.0.ended(false) == Some(STALLED)
    }

    /// Waits until what its side has said is on its way, or cannot be.
    pub(crate) fn wait(&mut self) {
        self.0.ended(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Bytes on their way.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    /// What is still to be written of them.
    left: std::ops::Range<usize>,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; HEAD + CHUNK], left: 0..0 }
    }

    fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn clear(&mut self) {
        self.left = 0..0;
    }

    /// Writes what can be written now.
    fn write(&mut self, to: &OwnedFd) -> rustix::io::Result<()> {
        while !self.is_empty() {
            match rustix::io::write(to, &self.bytes[self.left.clone()]) {
                Ok(written) => self.left.start += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where in a chunk the connection is.
#[derive(Debug, Default)]
struct Chunks {
    head: [u8; HEAD],
    got: usize,
    left: usize,
}

impl Chunks {
    /// Takes the heads out of what came; what remains is at the beginning of `bytes`. Returns how much.
    fn strip(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            if self.left == 0 {
                self.head[self.got] = bytes[at];
                (self.got, at) = (self.got + 1, at + 1);
                if self.got == HEAD {
                    (self.left, self.got) = (u32::from_le_bytes(self.head) as usize, 0);
                }
                continue;
            }
            let now = self.left.min(bytes.len() - at);
            if kept != at {
                bytes.copy_within(at..at + now, kept);
            }
            (at, kept, self.left) = (at + now, kept + now, self.left - now);
        }
        kept
    }
}

/// The work of the process.
struct Carrier {
    from: OwnedFd,
    from_ended: bool,
    /// `None` once nothing can be sent any more.
    out: Option<OwnedFd>,
    side: OwnedFd,
    side_ended: bool,
    patience: Duration,
    end: End,
    /// From the side to the connection, and back.
    up: Buffer,
    down: Buffer,
    chunks: Chunks,
    heard: Instant,
    sent: Instant,
}

impl Carrier {
    fn new(
        from: OwnedFd,
        out: OwnedFd,
        side: OwnedFd,
        patience: Duration,
        end: End,
    ) -> rustix::io::Result<Self> {
        for fd in [&from, &out, &side] {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        let now = Instant::now();
        Ok(Self {
            from,
            from_ended: false,
            out: Some(out),
            side,
            side_ended: false,
            patience,
            end,
            up: Buffer::new(),
            down: Buffer::new(),
            chunks: Chunks::default(),
            heard: now,
            sent: now,
        })
    }

    /// Carries until one end is gone, or nothing comes any more. Returns the exit code.
    fn run(mut self) -> i32 {
        loop {
            if self.turn().is_err() {
                return 1;
            }
            if self.from_ended && self.down.is_empty() {
                return 0;
            }
            if self.side_ended && self.up.is_empty() {
                // The far side's end is the end of the connection; the near one's waits for that.
                if self.end == End::Far {
                    return 0;
                }
                self.out = None;
            }
            if self.is_silent() {
                return STALLED;
            }
        }
    }

    fn turn(&mut self) -> rustix::io::Result<()> {
        self.wait()?;
        self.receive()?;
        if self.side_ended {
            self.down.clear();
        } else if self.down.write(&self.side).is_err() {
            self.side_ended = true;
        }
        self.fetch()?;
        self.send();
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&self) -> rustix::io::Result<()> {
        let mut fds = Vec::with_capacity(3);
        if self.down.is_empty() && !self.from_ended {
            fds.push(PollFd::new(&self.from, PollFlags::IN));
        }
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.up.is_empty() && !self.side_ended);
        wanted.set(PollFlags::OUT, !self.down.is_empty());
        if !wanted.is_empty() {
            fds.push(PollFd::new(&self.side, wanted));
        }
        if let Some(out) = self.out.as_ref().filter(|_| !self.up.is_empty()) {
            fds.push(PollFd::new(out, PollFlags::OUT));
        }
        let next = self.beat().saturating_sub(self.sent.elapsed());
        let next = next.min(self.patience.saturating_sub(self.heard.elapsed()));
        // A moment more: a wait that ends too early would only be followed by another.
        let next = next.max(Duration::from_millis(10));
        let limit = Timespec { tv_sec: next.as_secs().cast_signed(), tv_nsec: next.subsec_nanos().into() };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn beat(&self) -> Duration {
        self.patience / BEATS
    }

    fn receive(&mut self) -> rustix::io::Result<()> {
        if !self.down.is_empty() || self.from_ended {
            return Ok(());
        }
        match rustix::io::read(&self.from, &mut self.down.bytes[..CHUNK]) {
            Ok(0) => self.from_ended = true,
            Ok(got) => {
                self.heard = Instant::now();
                self.down.left = 0..self.chunks.strip(&mut self.down.bytes[..got]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.from_ended = true,
        }
        Ok(())
    }

    fn fetch(&mut self) -> rustix::io::Result<()> {
        if !self.up.is_empty() || self.side_ended {
            return Ok(());
        }
        match rustix::io::read(&self.side, &mut self.up.bytes[HEAD..]) {
            Ok(0) => self.side_ended = true,
            Ok(got) => {
                self.up.bytes[..HEAD].copy_from_slice(&u32::try_from(got).unwrap_or(0).to_le_bytes());
                self.up.left = 0..HEAD + got;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.side_ended = true,
        }
        Ok(())
    }

    fn send(&mut self) {
        let Some(out) = &self.out else { return self.up.clear() };
        if self.up.is_empty() {
            if self.sent.elapsed() < self.beat() {
                return;
            }
            self.up.bytes[..HEAD].fill(0);
            self.up.left = 0..HEAD;
        }
        let before = self.up.left.start;
        if self.up.write(out).is_err() {
            // It may still have said why.
            self.out = None;
            self.up.clear();
        }
        if self.up.left.start != before {
            self.sent = Instant::now();
        }
    }

    /// Nothing has come for as long as anybody waits. Not silent is one whose words wait until our side takes them.
    fn is_silent(&mut self) -> bool {
        if self.from_ended || self.heard.elapsed() < self.patience {
            return false;
        }
        let mut fd = [PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN)];
        let waits = poll(&mut fd, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        if waits {
            self.heard = Instant::now();
        }
        !waits
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_are_taken_out_wherever_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            cuts in prop::collection::vec(1..9_usize, 0..60),
        ) {
            let mut line = Vec::new();
            for chunk in &chunks {
                line.extend(u32::try_from(chunk.len()).unwrap().to_le_bytes());
                line.extend(chunk);
            }
            let (mut state, mut got, mut rest) = (Chunks::default(), Vec::new(), &mut line[..]);
            for cut in cuts.into_iter().chain(std::iter::once(usize::MAX)) {
                let (now, later) = rest.split_at_mut(cut.min(rest.len()));
                let kept = state.strip(now);
                got.extend_from_slice(&now[..kept]);
                rest = later;
            }
            prop_assert_eq!(got, chunks.concat());
        }
    }

    /// One on a thread: its side, its connection (what it reads, what it writes), and its end.
    fn one(patience: Duration, end: End) -> (UnixStream, UnixStream, std::thread::JoinHandle<i32>) {
        let (side, ours) = UnixStream::pair().unwrap();
        let (net, far) = UnixStream::pair().unwrap();
        let from = net.try_clone().unwrap();
        let carrier = Carrier::new(from.into(), net.into(), side.into(), patience, end).unwrap();
        (ours, far, std::thread::spawn(move || carrier.run()))
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_one_side_says_the_other_hears_and_the_end_too() {
        let (mut near, net, first) = one(LONG, End::Near);
        let (mut far, other, second) = one(LONG, End::Far);
        // The cable between the two.
        for (from, to) in [(&net, &other), (&other, &net)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i >> 3) as u8).collect();
        let writer = {
            let (mut near, sent) = (near.try_clone().unwrap(), sent.clone());
            std::thread::spawn(move || near.write_all(&sent).unwrap())
        };
        let mut got = vec![0; sent.len()];
        far.read_exact(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == sent);
        far.write_all(b"heard").unwrap();
        let mut answer = [0; 5];
        near.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"heard");
        drop(far);
        assert_eq!(second.join().unwrap(), 0);
        assert_eq!(near.read(&mut answer).unwrap(), 0, "its end is told");
        assert_eq!(first.join().unwrap(), 0);
    }

    #[test]
    fn one_that_hears_nothing_says_that_it_is_there_and_ends() {
        let (mut side, mut cable, relay) = one(Duration::from_millis(60), End::Near);
        let mut beat = [7; HEAD];
        cable.read_exact(&mut beat).unwrap();
        assert_eq!(beat, [0; HEAD]);
        // The cable is there, and nothing comes.
        assert_eq!(relay.join().unwrap(), STALLED);
        assert_eq!(side.read(&mut beat).unwrap(), 0);
    }
}
