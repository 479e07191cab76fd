//! The far side of an ssh: backups of a directory of this host, for a vzbackup or vzrestore elsewhere.
//!
//! Whoever may run it may read and write these files by other means as well: it trusts its client with the directory, and
//! with nothing but files whose names are those of backups.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Fault;
use super::message::{HELLO, Kind, fault_bytes, parse_request, receive, send};
use super::reader::{Data, Frames, failed};
use super::store::{Directory, PART, PartWriter, SUFFIX, Shelf, Stream};

/// A client says something more often than this; one that does not is gone, and its part must not stay locked.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE: usize = 1 << 20;

/// Serves one client on standard input and output, until it ends.
///
/// # Errors
/// The connection's.
pub fn serve() -> io::Result<()> {
    let mut input = Patient { stdin: io::stdin(), limit: None };
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let dir = match receive(&mut input)? {
        Some((Kind::Hello, words)) if words.starts_with(HELLO) => words[HELLO.len()..].to_vec(),
        Some(_) => {
            let fault = Fault::Remote("its vzbackup speaks another version of the protocol".to_owned());
            send(&mut out, Kind::Error, &fault_bytes(&fault))?;
            return out.flush();
        }
        None => return Ok(()),
    };
    use std::os::unix::ffi::OsStringExt as _;
    let mut server =
        Server { shelf: Directory(PathBuf::from(std::ffi::OsString::from_vec(dir))), part: None };
    loop {
        input.limit = server.part.is_some().then_some(PATIENCE);
        let Some((kind, words)) = receive(&mut input)? else { return Ok(()) };
        let done = server.answer(kind, &words, &mut out);
        match done {
            Ok(Answer::Done) => send(&mut out, Kind::Done, &[])?,
            Ok(Answer::Silence) => continue,
            Err(Failed::Fault(fault)) => {
                send(&mut out, Kind::Error, &fault_bytes(&fault))?;
                if kind == Kind::Append {
                    return out.flush();
                }
            }
            Err(Failed::Connection(error)) => return Err(error),
        }
        out.flush()?;
    }
}

/// Reads; for as long as something is locked for the client, it waits for a while only.
struct Patient {
    stdin: io::Stdin,
    limit: Option<Duration>,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wait = self.limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 });
        // Read past std's own buffer, which poll(2) does not see.
        let mut stdin = [PollFd::from_borrowed_fd(self.stdin.as_fd(), PollFlags::IN)];
        if poll(&mut stdin, wait.as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(rustix::io::read(&self.stdin, buffer)?)
    }
}

enum Answer {
    Done,
    Silence,
}

enum Failed {
    Fault(Fault),
    Connection(io::Error),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

struct Server {
    shelf: Directory,
    part: Option<Box<dyn PartWriter>>,
}

impl Server {
    fn answer(&mut self, kind: Kind, words: &[u8], out: &mut impl Write) -> Result<Answer, Failed> {
        match kind {
            Kind::Append => {
                let part = self.part.as_mut().ok_or_else(no_part)?;
                part.write_all(words).map_err(|error| Failed::Fault(super::walk::written(&error)))?;
                return Ok(Answer::Silence);
            }
            Kind::Commit => self.part.take().ok_or_else(no_part)?.commit()?,
            Kind::Abandon => self.part.take().ok_or_else(no_part)?.abandon(),
            Kind::Names => send(out, Kind::Bytes, self.shelf.names()?.join("\0").as_bytes())?,
            _ => {
                let request = parse_request(words).filter(|(file, ..)| kind == Kind::Cut || is_backup(file));
                let (file, first, second) =
                    request.ok_or_else(|| Fault::Remote("it is not asked for a backup".to_owned()))?;
                self.about(kind, &file, (first, second), out)?;
            }
        }
        Ok(Answer::Done)
    }

    fn about(
        &mut self,
        kind: Kind,
        file: &str,
        (first, second): (u64, u64),
        out: &mut impl Write,
    ) -> Result<(), Failed> {
        match kind {
            Kind::Frames => {
                let stream = self.shelf.frames(file)?;
                bare(stream, Data::Leave, out)?;
            }
            Kind::Part => {
                let (stream, how, part) = self.shelf.part(file)?;
                self.part = Some(part);
                // What cannot be read of it is written anew.
                match bare(stream, how, out) {
                    Err(Failed::Fault(_)) => {}
                    done => done?,
                }
            }
            Kind::Cut => self.part.as_mut().ok_or_else(no_part)?.cut(first)?,
            Kind::Stream => {
                let mut stream = self.shelf.stream(file, first)?;
                let mut buffer = vec![0; PIECE];
                loop {
                    match stream.read(&mut buffer).map_err(|error| failed(&error))? {
                        0 => break,
                        n => send(out, Kind::Bytes, &buffer[..n])?,
                    }
                }
            }
            Kind::Read => {
                let length = usize::try_from(second).unwrap_or(usize::MAX).min(8 << 20);
                let mut buffer = vec![0; length];
                let mut blocks = self.shelf.blocks(file)?;
                blocks.read_at(&mut buffer, first).map_err(|error| failed(&error))?;
                send(out, Kind::Bytes, &buffer)?;
            }
            Kind::Size => {
                let size = self.shelf.blocks(file)?.size().map_err(|error| failed(&error))?;
                send(out, Kind::Bytes, &size.to_le_bytes())?;
            }
            _ => return Err(Fault::Remote("it is asked for nothing it knows".to_owned()).into()),
        }
        Ok(())
    }
}

/// A stream without its data parts, as far as it can be read.
fn bare(stream: Stream, how: Data, out: &mut impl Write) -> Result<(), Failed> {
    let mut frames = Frames::open_copied(stream)?;
    loop {
        send(out, Kind::Bytes, &frames.take_copy())?;
        if frames.next(how)?.is_none() {
            return Ok(());
        }
    }
}

fn is_backup(file: &str) -> bool {
    file.strip_suffix(PART).unwrap_or(file).ends_with(SUFFIX)
}

fn no_part() -> Fault {
    Fault::Remote("nothing is being written".to_owned())
}
