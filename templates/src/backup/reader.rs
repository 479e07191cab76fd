//! Frames out of a stream, in order, each proved.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::error::Fault;
use super::frame::{HEADER, Header, Key, Kind, PART_MAX, key_of};
use super::head::{self, Head, HeadFault, TAIL, Totals};
use super::wire::Bad;

/// A stream in which one can leap forward.
pub(super) trait Leap: Read {
    /// Leaves bytes out.
    fn leap(&mut self, bytes: u64) -> io::Result<()> {
        let mut rest = self.take(bytes);
        io::copy(&mut rest, &mut io::sink()).map(drop)
    }
}

impl Leap for BufReader<File> {
    fn leap(&mut self, bytes: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(bytes).unwrap_or(i64::MAX))
    }
}

/// A pipe.
#[derive(Debug)]
pub(super) struct Pipe<R>(pub(super) R);

impl<R: Read> Read for Pipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Leap for Pipe<R> {}

/// A stream from which the data parts were left out.
#[derive(Debug)]
pub(super) struct Bare<R>(pub(super) R);

impl<R: Read> Read for Bare<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Leap for Bare<R> {
    fn leap(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What to do with the data parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Read, prove and unpack them.
    Take,
    /// Read and prove them.
    Prove,
    /// Leap over them.
    Leave,
}

/// One frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    /// Where it begins.
    pub(super) at: u64,
    pub(super) meta: Vec<u8>,
    /// Empty unless [`Data::Take`].
    pub(super) data: Vec<u8>,
}

/// The frames of one stream; the first one is read by [`Frames::open`].
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: R,
    key: Key,
    /// The end of the last frame that was read and proved.
    pub(super) at: u64,
    /// The number of the next frame.
    pub(super) number: u64,
    /// What the stream tells of itself.
    pub(super) head: Head,
    /// From its last frame, once that is read.
    pub(super) totals: Option<Totals>,
    buffer: Vec<u8>,
    /// What was read since the last look, without data parts, for who sends it on.
    copy: Option<Vec<u8>>,
}

impl<R: Leap> Frames<R> {
    /// Reads the head.
    pub(super) fn open(input: R) -> Result<Self, Fault> {
        Self::begin(input, None)
    }

    /// The same; what is read is kept for [`Frames::take_copy`].
    pub(super) fn open_copied(input: R) -> Result<Self, Fault> {
        Self::begin(input, Some(Vec::new()))
    }

    /// The bytes since the last time, without data parts.
    pub(super) fn take_copy(&mut self) -> Vec<u8> {
        self.copy.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn begin(mut input: R, copy: Option<Vec<u8>>) -> Result<Self, Fault> {
        let mut start = [0; HEADER];
        let read = read_up_to(&mut input, &mut start).map_err(|error| failed(&error))?;
        if read < 4 || start[..4] != super::frame::MAGIC {
            return Err(Fault::NotOurs);
        }
        let mut frames = Self {
            input,
            key: [0; 32],
            at: 0,
            number: 0,
            head: Head::default(),
            totals: None,
            buffer: Vec::new(),
            copy,
        };
        if read < HEADER {
            return Err(frames.truncated());
        }
        let header = Header::parse(&start).map_err(|bad| frames.damaged(bad))?;
        if header.kind != Kind::Head {
            return Err(Fault::NotOurs);
        }
        frames.body(header, &start, Data::Prove)?;
        let id = frames.head.id().map_err(|bad| frames.damaged(bad))?;
        frames.key = key_of(&id);
        Ok(frames)
    }

    /// Goes on at another frame, where `input` begins.
    pub(super) fn elsewhere<S>(self, input: S, at: u64, number: u64) -> Frames<S> {
        Frames {
            input,
            key: self.key,
            at,
            number,
            head: self.head,
            totals: None,
            buffer: self.buffer,
            copy: None,
        }
    }

    /// The next frame; `None` once the whole stream was read.
    ///
    /// # Errors
    /// [`Fault::Truncated`] where it ends without its end, [`Fault::Damaged`], or the call that failed.
    pub(super) fn next(&mut self, how: Data) -> Result<Option<Frame>, Fault> {
        if self.totals.is_some() {
            return Ok(None);
        }
        let mut start = [0; HEADER];
        let read = read_up_to(&mut self.input, &mut start).map_err(|error| failed(&error))?;
        if read < HEADER {
            return Err(self.truncated());
        }
        let header = Header::parse(&start).map_err(|bad| self.damaged(bad))?;
        if header.number != self.number {
            return Err(self.damaged(Bad("frames are missing before it")));
        }
        let frame = self.body(header, &start, how)?;
        if frame.header.kind == Kind::End {
            self.end(&frame)?;
        }
        Ok(Some(frame))
    }

    fn body(&mut self, header: Header, start: &[u8; HEADER], how: Data) -> Result<Frame, Fault> {
        let at = self.at;
        let mut meta = std::mem::take(&mut self.buffer);
        self.fill(&mut meta, header.meta_stored)?;
        let plain = header.check_meta(&self.key, &meta).map_err(|bad| self.damaged(bad))?;
        let mut data = Vec::new();
        let copied = self.copy.is_some().then(|| [start.as_slice(), &meta].concat());
        if how == Data::Leave {
            self.input.leap(u64::from(header.data_stored)).map_err(|error| failed(&error))?;
        } else {
            self.fill(&mut meta, header.data_stored)?;
            let proved = match how {
                Data::Take => header.data(&meta).map(|plain| data = plain),
                _ => header.check_data(&meta),
            };
            proved.map_err(|bad| self.damaged(bad))?;
        }
        self.buffer = meta;
        // Only of a frame that is whole.
        if let (Some(copy), Some(copied)) = (&mut self.copy, copied) {
            copy.extend_from_slice(&copied);
        }
        if header.kind == Kind::Head {
            self.meet(&plain)?;
        }
        self.at += header.length();
        self.number += 1;
        Ok(Frame { header, at, meta: plain, data })
    }

    /// A head: the first one, or that of a run that went on after an interruption.
    fn meet(&mut self, meta: &[u8]) -> Result<(), Fault> {
        let head = Head::parse(meta).map_err(|fault| match fault {
            HeadFault::TooNew(format) => Fault::TooNew(format),
            HeadFault::Bad(bad) => self.damaged(bad),
        })?;
        if self.number > 0 && (head.id != self.head.id || head.chain != self.head.chain) {
            return Err(self.damaged(Bad("the head of another backup")));
        }
        self.head = head;
        Ok(())
    }

    fn end(&mut self, frame: &Frame) -> Result<(), Fault> {
        let totals = Totals::read(&frame.meta).map_err(|bad| self.damaged(bad))?;
        let mut tail = [0; TAIL];
        let read = read_up_to(&mut self.input, &mut tail).map_err(|error| failed(&error))?;
        if read < TAIL {
            return Err(self.truncated());
        }
        if head::parse_tail(&tail) != Some(frame.at) {
            return Err(self.damaged(Bad("its end is not where it should be")));
        }
        if read_up_to(&mut self.input, &mut [0]).map_err(|error| failed(&error))? > 0 {
            return Err(self.damaged(Bad("something follows its end")));
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&tail);
        }
        self.at += TAIL as u64;
        self.totals = Some(totals);
        Ok(())
    }

    fn fill(&mut self, buffer: &mut Vec<u8>, length: u32) -> Result<(), Fault> {
        debug_assert!(length <= PART_MAX);
        buffer.clear();
        // Grows with what is there, not with what was announced.
        let read =
            (&mut self.input).take(length.into()).read_to_end(buffer).map_err(|error| failed(&error))?;
        if read < length as usize { Err(self.truncated()) } else { Ok(()) }
    }

    fn truncated(&self) -> Fault {
        Fault::Truncated { frame: self.number.saturating_sub(1), at: self.at }
    }

    pub(super) fn damaged(&self, bad: Bad) -> Fault {
        Fault::Damaged { frame: self.number, at: self.at, reason: bad.0.into() }
    }
}

/// The stream cannot be read.
pub(super) fn failed(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(_) => Fault::System(vzsys::SysError::from_io("read", "the backup", error)),
        None => Fault::Remote(error.to_string()),
    }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
