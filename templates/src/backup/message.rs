//! What two hosts say to each other, over the two pipes of an ssh.
//!
//! ```text
//! client                          server (vzbackup --serve)
//!   hello, directory        ─▶
//!   frames FILE             ─▶    bytes …, done          headers and meta parts alone
//!   stream FILE, from       ─▶    bytes …, done
//!   read FILE, from, length ─▶    bytes, done
//!   size FILE, names        ─▶    bytes, done
//!   part FILE               ─▶    bytes …, done          the frames of an interrupted beginning, proved
//!   cut AT                  ─▶    done
//!   append bytes            ─▶                           none; an error comes at once, and is the last word
//!   commit | abandon        ─▶    done
//! ```
//! Each message is its kind (one byte), a length (four bytes, little endian) and so many bytes. Instead of `done` may come an
//! error. A version that does not understand a hello says so.

use std::io::{self, Read, Write};

use rustix::io::Errno;
use vzsys::SysError;

use super::error::Fault;
use super::wire::{Cursor, put, put_bytes};

/// The first words.
pub(super) const HELLO: &[u8] = b"vzbackup 1 ";
/// No message is longer.
const LONGEST: usize = 9 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Frames,
    Stream,
    Read,
    Size,
    Names,
    Part,
    Cut,
    Append,
    Commit,
    Abandon,
    Bytes,
    Done,
    Error,
}

const KINDS: [Kind; 14] = [
    Kind::Hello,
    Kind::Frames,
    Kind::Stream,
    Kind::Read,
    Kind::Size,
    Kind::Names,
    Kind::Part,
    Kind::Cut,
    Kind::Append,
    Kind::Commit,
    Kind::Abandon,
    Kind::Bytes,
    Kind::Done,
    Kind::Error,
];

pub(super) fn send(out: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let mut start = [kind as u8, 0, 0, 0, 0];
    start[1..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.write_all(&start)?;
    out.write_all(bytes)
}

/// The next message; `None` when the other side has ended.
pub(super) fn receive(input: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut start = [0; 5];
    let mut filled = 0;
    while filled < start.len() {
        match input.read(&mut start[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes([start[1], start[2], start[3], start[4]]) as usize;
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == start[0]);
    let Some(kind) = kind.filter(|_| length <= LONGEST) else {
        return Err(io::Error::other("the other side says something that is no message of vzbackup"));
    };
    let mut bytes = Vec::new();
    if input.take(length as u64).read_to_end(&mut bytes)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((kind, bytes)))
}

/// A request's words: a name and numbers.
pub(super) fn request(file: &str, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, file.as_bytes());
    numbers.iter().for_each(|number| put(&mut bytes, *number));
    bytes
}

/// The same, read. No name leads out of the directory.
pub(super) fn parse_request(bytes: &[u8]) -> Option<(String, u64, u64)> {
    let mut cursor = Cursor(bytes);
    let file = String::from_utf8(cursor.bytes(255).ok()?.to_vec()).ok()?;
    if file.is_empty() || file.contains(['/', '\0']) || file == "." || file == ".." {
        return None;
    }
    Some((file, cursor.number().unwrap_or(0), cursor.number().unwrap_or(0)))
}

/// A fault as it crosses: what the other side decides by stays what it is.
pub(super) fn fault_bytes(fault: &Fault) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (kind, number, text) = match fault {
        Fault::Exists => (1, 0, String::new()),
        Fault::Busy => (2, 0, String::new()),
        Fault::System(error) => (3, error.errno().raw_os_error().cast_unsigned(), error.to_string()),
        Fault::NotOurs => (4, 0, String::new()),
        fault => (0, 0, fault.to_string()),
    };
    put(&mut bytes, kind);
    put(&mut bytes, number.into());
    put_bytes(&mut bytes, text.as_bytes());
    bytes
}

pub(super) fn parse_fault(bytes: &[u8], host: &str) -> Fault {
    let mut cursor = Cursor(bytes);
    let words = cursor.number().and_then(|kind| Ok((kind, cursor.small()?, cursor.bytes(LONGEST)?)));
    let Ok((kind, number, text)) = words else { return Fault::Remote(format!("{host} failed")) };
    let text = String::from_utf8_lossy(text);
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match kind {
        1 => Fault::Exists,
        2 => Fault::Busy,
        3 => {
            let args = text.split_once('(').map_or(text.as_str(), |(_, rest)| rest);
            let args = args.rsplit_once("): ").map_or(args, |(args, _)| args);
            // The kernel has no other numbers; the other side may say anything.
            let number = i32::try_from(number).ok().filter(|number| (1..=4095).contains(number));
            Fault::System(SysError::new("remote", args, number.map_or(Errno::IO, Errno::from_raw_os_error)))
        }
        4 => Fault::NotOurs,
        _ => Fault::Remote(format!("{host}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn faults_stay_what_they_are() {
        let full = Fault::System(SysError::new("write", "x.part", Errno::NOSPC));
        let there = parse_fault(&fault_bytes(&full), "vault");
        assert!(there.is_full() && there.to_string().contains("x.part"), "{there}");
        assert!(matches!(parse_fault(&fault_bytes(&Fault::Busy), "vault"), Fault::Busy));
        let text = parse_fault(&fault_bytes(&Fault::TooNew(7)), "vault").to_string();
        assert!(text.starts_with("vault: ") && text.contains('7'), "{text}");
    }

    #[test]
    fn names_stay_in_their_directory() {
        assert_eq!(parse_request(&request("a.vzb", &[5])), Some(("a.vzb".to_owned(), 5, 0)));
        for bad in ["", ".", "..", "a/b", "/etc/passwd"] {
            assert_eq!(parse_request(&request(bad, &[])), None, "{bad}");
        }
    }

    #[test]
    fn an_errno_that_is_none_is_an_error_all_the_same() {
        let bytes = [&[3, 128, 32][..], &[0; 60]].concat();
        assert!(matches!(parse_fault(&bytes, "vault"), Fault::System(error) if error.errno() == Errno::IO));
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_not(bytes: Vec<u8>) {
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = receive(&mut input) {}
            let _ = parse_request(&bytes);
            let _ = parse_fault(&bytes, "vault");
        }
    }
}
