//! One side's end of a connection.

use std::io::{BufReader, BufWriter, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use templates::replica::PIECE;

use super::frame::{self, Kind, WireError};

/// Whether pieces of files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compress {
    /// Those that become smaller by it.
    #[default]
    Auto,
    /// None.
    No,
}

/// A piece below this is not worth it.
const SHORT: usize = 1024;
/// After one that did not become smaller so many pieces are sent as they are.
const PATIENCE: u32 = 15;
/// zstd's level: above it, the processor is slower than a network of 1 Gbit/s.
const LEVEL: i32 = 1;

/// What was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<M> {
    /// A message.
    Message(M),
    /// Bytes of a file, from this offset on; they are in [`Link::piece`].
    Piece(u64),
}

/// Sends messages and pieces of files, and receives them.
#[derive(Debug)]
pub struct Link<R: Read, W: Write> {
    from: BufReader<R>,
    out: BufWriter<W>,
    frame: Vec<u8>,
    piece: Vec<u8>,
    packed: Vec<u8>,
    compress: Compress,
    /// Pieces that are not tried to be compressed.
    skip: u32,
    sent: u64,
    /// A frame was cut: what is sent or comes from here on makes no sense.
    broken: bool,
}

impl<R: Read, W: Write> Link<R, W> {
    /// Over a connection whose greetings have been said.
    pub fn new(from: R, out: W) -> Self {
        Self {
            from: BufReader::with_capacity(PIECE, from),
            out: BufWriter::with_capacity(PIECE, out),
            frame: Vec::new(),
            piece: Vec::new(),
            packed: vec![0; PIECE],
            compress: Compress::Auto,
            skip: 0,
            sent: 0,
            broken: false,
        }
    }

    /// How pieces are sent.
    pub fn compress(&mut self, how: Compress) {
        self.compress = how;
    }

    /// The writing end below.
    pub fn writer(&self) -> &W {
        self.out.get_ref()
    }

    /// Bytes that were sent, frames and all, as the network sees them.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether a frame was cut by a failure, so that nothing can be said any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn write(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), WireError> {
        let done = frame::write(&mut self.out, kind, parts);
        self.broken |= done.is_err();
        done
    }

    /// Sends a message; it may wait until [`Link::flush`].
    ///
    /// # Errors
    /// [`WireError`].
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        let bytes = postcard::to_stdvec(message).map_err(|error| WireError::Protocol(error.to_string()))?;
        self.sent += bytes.len() as u64;
        self.write(Kind::Message, &[&bytes])
    }

    /// Sends bytes of a file, at most [`PIECE`].
    ///
    /// # Errors
    /// [`WireError`].
    pub fn send_piece(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WireError> {
        let head = offset.to_le_bytes();
        self.skip = self.skip.saturating_sub(1);
        if self.compress == Compress::Auto && self.skip == 0 && bytes.len() >= SHORT {
            // Smaller by an eighth, or it does not fit here and is not worth it.
            let limit = bytes.len() - bytes.len() / 8;
            match zstd::bulk::compress_to_buffer(bytes, &mut self.packed[..limit.min(PIECE)], LEVEL) {
                Ok(length) => {
                    self.sent += length as u64;
                    let done =
                        frame::write(&mut self.out, Kind::Compressed, &[&head, &self.packed[..length]]);
                    self.broken |= done.is_err();
                    return done;
                }
                Err(_) => self.skip = PATIENCE,
            }
        }
        self.sent += bytes.len() as u64;
        self.write(Kind::Data, &[&head, bytes])
    }

    /// Lets everything go that was sent.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn flush(&mut self) -> Result<(), WireError> {
        let done = self.out.flush().map_err(Into::into);
        self.broken |= done.is_err();
        done
    }

    /// The next that comes.
    ///
    /// # Errors
    /// [`WireError`]; after one that is no message of this type nothing that follows can be trusted.
    pub fn receive<M: DeserializeOwned>(&mut self) -> Result<Received<M>, WireError> {
        frame::wait(&mut self.from)?;
        let read = frame::read(&mut self.from, &mut self.frame);
        self.broken |= read.is_err();
        let kind = read?;
        if kind == Kind::Message {
            let (message, rest) = postcard::take_from_bytes(&self.frame)
                .map_err(|error| WireError::Protocol(format!("a message that is none: {error}")))?;
            if !rest.is_empty() {
                return Err(WireError::Protocol("a message with more after its end".to_owned()));
            }
            return Ok(Received::Message(message));
        }
        let (head, bytes) = self
            .frame
            .split_first_chunk::<8>()
            .ok_or_else(|| WireError::Protocol("a piece without an offset".to_owned()))?;
        self.piece.clear();
        if kind == Kind::Data {
            self.piece.extend_from_slice(bytes);
        } else {
            self.piece = zstd::bulk::decompress(bytes, PIECE)
                .map_err(|error| WireError::Protocol(format!("a piece that cannot be unpacked: {error}")))?;
        }
        Ok(Received::Piece(u64::from_le_bytes(*head)))
    }

    /// Ends it without sending what still waits to be sent.
    pub fn discard(self) {
        let _ = self.out.into_parts();
    }

    /// The bytes of the last [`Received::Piece`].
    #[must_use]
    pub fn piece(&self) -> &[u8] {
        &self.piece
    }
}
