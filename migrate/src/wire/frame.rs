//! Frames.

use std::io::{self, BufRead, Read, Write};

use templates::replica::PIECE;

/// The longest message. A file's attributes are at most 1 MiB, a configuration and each script too.
pub(super) const MESSAGE: usize = 12 << 20;
/// The longest piece of a file, with its offset.
pub(super) const DATA: usize = PIECE + 8;

/// The connection failed, or what came over it makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The other side is gone.
    #[error("the connection was lost")]
    Closed,
    /// The user wants to stop.
    #[error("interrupted")]
    Interrupted,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// What came is nothing of the protocol.
    #[error("the other side does not keep to the protocol: {0}")]
    Protocol(String),
    /// No version is common.
    #[error("no common version: here {here}, there {there}; install the same version on both hosts")]
    Version {
        /// What this side speaks.
        here: String,
        /// What the other side speaks.
        there: String,
    },
}

/// The mark of an [`io::Error`] that says that the user wants to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Stopped;

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Stopped>()) {
            return Self::Interrupted;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Self::Closed
            }
            _ => Self::Io(error),
        }
    }
}

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Data,
    Compressed,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Message => b'M',
            Self::Data => b'D',
            Self::Compressed => b'Z',
        }
    }

    fn limit(self) -> usize {
        if self == Self::Message { MESSAGE } else { DATA }
    }
}

pub(super) fn write(out: &mut impl Write, kind: Kind, parts: &[&[u8]]) -> Result<(), WireError> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).ok().filter(|_| length <= kind.limit());
    let length =
        length.ok_or_else(|| WireError::Protocol("a message that is too long to send".to_owned()))?;
    let mut head = [kind.byte(), 0, 0, 0, 0];
    head[1..].copy_from_slice(&length.to_le_bytes());
    out.write_all(&head)?;
    parts.iter().try_for_each(|part| out.write_all(part)).map_err(Into::into)
}

/// Waits for the next frame. A failure here has lost nothing.
pub(super) fn wait(from: &mut impl BufRead) -> Result<(), WireError> {
    if from.fill_buf()?.is_empty() { Err(WireError::Closed) } else { Ok(()) }
}

/// Reads a frame into `buffer`. No more is taken from the memory than really comes.
pub(super) fn read(from: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Kind, WireError> {
    let mut head = [0_u8; 5];
    from.read_exact(&mut head)?;
    let kind = match head[0] {
        b'M' => Kind::Message,
        b'D' => Kind::Data,
        b'Z' => Kind::Compressed,
        other => return Err(WireError::Protocol(format!("a frame of kind {other}"))),
    };
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > kind.limit() {
        return Err(WireError::Protocol(format!("a frame of {length} bytes")));
    }
    buffer.clear();
    let got = from.take(length as u64).read_to_end(buffer)?;
    if got < length { Err(WireError::Closed) } else { Ok(kind) }
}
