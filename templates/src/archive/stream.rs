//! The unpacked bytes of an archive, decompressed in a thread of their own.
//!
//! The thread fills chunks and hands them over; used ones travel back to be filled again. Members' data is
//! written straight from a chunk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use vzsys::Call;

use super::error::Fault;
use super::format::Compression;

/// One tar block.
pub(super) const BLOCK: usize = 512;
/// A multiple of [`BLOCK`], so that headers never straddle two chunks of a sane decoder.
const CHUNK: usize = 512 << 10;
/// Chunks filled ahead.
const AHEAD: usize = 4;

/// Bytes in order, in big pieces.
#[derive(Debug)]
pub(super) struct Stream {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
    read: Arc<AtomicU64>,
    size: u64,
}

impl Stream {
    pub(super) fn open(path: &Path) -> Result<(Self, Compression), Fault> {
        let open = || -> io::Result<(File, Compression, u64)> {
            // Never block on a FIFO somebody put in the cache.
            use std::os::unix::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::NONBLOCK.bits();
            #[allow(clippy::cast_possible_wrap)]
            let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error()));
            }
            let compression = Compression::detect(&mut file)?;
            let size = file.metadata()?.len();
            Ok((file, compression, size))
        };
        let (file, compression, size) = open().call("open", || path.display().to_string())?;
        let read = Arc::new(AtomicU64::new(0));
        let decoder =
            compression.decoder(file, Arc::clone(&read)).call("open", || path.display().to_string())?;
        let stream = Self::over(decoder, read, size).call("clone3", || "decompressor")?;
        Ok((stream, compression))
    }

    /// A stream over any reader of `size` bytes, for tests and embedded archives.
    pub(super) fn over(
        reader: impl Read + Send + 'static,
        read: Arc<AtomicU64>,
        size: u64,
    ) -> io::Result<Self> {
        let (full_in, full) = sync_channel(AHEAD);
        let (empty, empty_out) = channel();
        std::thread::Builder::new()
            .name("decompress".to_owned())
            .spawn(move || pump(reader, &full_in, &empty_out))?;
        Ok(Self { full, empty, chunk: Vec::new(), at: 0, ended: false, read, size })
    }

    /// Bytes of the file read so far, and its size.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.size)
    }

    /// What is at hand; empty only at the end of the archive.
    pub(super) fn peek(&mut self) -> Result<&[u8], Fault> {
        while self.at == self.chunk.len() && !self.ended {
            let used = std::mem::take(&mut self.chunk);
            self.at = 0;
            // The thread ends before us at the end of the file.
            let _ = self.empty.send(used);
            match self.full.recv() {
                Ok(Ok(chunk)) => self.chunk = chunk,
                Ok(Err(error)) => return Err(stream_fault(&error)),
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.chunk[self.at..])
    }

    /// Marks bytes of [`Stream::peek`] as used.
    pub(super) fn consume(&mut self, n: usize) {
        self.at += n;
    }

    /// The next block; `None` at the end of the archive.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.peek()?;
            if bytes.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(Fault::Truncated) };
            }
            let n = bytes.len().min(BLOCK - filled);
            block[filled..filled + n].copy_from_slice(&bytes[..n]);
            self.consume(n);
            filled += n;
        }
        Ok(Some(block))
    }

    /// The next `n` bytes in pieces of the chunks' size.
    pub(super) fn each(
        &mut self,
        mut n: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while n > 0 {
            let bytes = self.peek()?;
            if bytes.is_empty() {
                return Err(Fault::Truncated);
            }
            let len = usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
            take(&bytes[..len])?;
            self.consume(len);
            n -= len as u64;
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, n: u64) -> Result<(), Fault> {
        self.each(n, |_| Ok(()))
    }

    /// `n` bytes and the rest of their last block.
    pub(super) fn padded(&mut self, n: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::with_capacity(usize::try_from(n.min(1 << 20)).unwrap_or(0));
        self.each(n, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.skip(padding(n))?;
        Ok(bytes)
    }
}

/// How much fills up the last block of `n` bytes.
pub(super) fn padding(n: u64) -> u64 {
    (BLOCK as u64 - n % BLOCK as u64) % BLOCK as u64
}

fn stream_fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Truncated,
        _ if error.raw_os_error().is_some() => vzsys::SysError::from_io("read", "archive", error).into(),
        // zstd says it this way.
        _ if error.to_string().contains("incomplete frame") => Fault::Truncated,
        _ => Fault::corrupt(error.to_string()),
    }
}

fn pump(mut reader: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        let end = loop {
            match reader.read(&mut chunk[filled..]) {
                Ok(0) => break Some(None),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Some(error)),
            }
            if filled == CHUNK {
                break None;
            }
        };
        chunk.truncate(filled);
        // A failed send means that nobody wants the rest.
        if filled > 0 && full.send(Ok(chunk)).is_err() {
            return;
        }
        match end {
            None => {}
            Some(None) => return,
            Some(Some(error)) => {
                let _ = full.send(Err(error));
                return;
            }
        }
    }
}
