//! Frames are compressed by all processors and written in their order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::frame::{Key, Kind, Sealer};
use super::head::{self, Totals};
use super::item::Item;

/// Bytes of chunks after which a frame is full: the window of zstd's usual levels.
const DATA: usize = 2 << 20;
/// The same of what its items say.
const META: usize = 256 << 10;

struct Job {
    kind: Kind,
    number: u64,
    meta: Vec<u8>,
    data: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// The stream as it is written: items in, frames out.
pub(super) struct Press<W> {
    out: W,
    /// Bytes of the stream so far.
    pub(super) at: u64,
    number: u64,
    chunks: u32,
    meta: Vec<u8>,
    data: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: Vec<JoinHandle<()>>,
}

/// Where a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    pub(super) at: u64,
    pub(super) frame: u64,
    pub(super) chunk: u32,
}

impl<W: Write> Press<W> {
    /// Begins, or goes on, at `position`. Starts the threads.
    pub(super) fn new(out: W, key: Key, level: i32, position: Position) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        let (jobs, queue) = sync_channel::<Job>(threads * 2);
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads).map(|_| {
            let mut sealer = Sealer::new(key, level)?;
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("compress".to_owned()).spawn(move || {
                // An end, or a poisoned lock: nobody waits for more.
                while let Some(job) = queue.lock().ok().and_then(|queue| queue.recv().ok()) {
                    let sealed = sealer.seal(job.kind, job.number, &job.meta, &job.data);
                    let _ = job.done.send(sealed);
                }
            })
        });
        Ok(Self {
            out,
            at: position.at,
            number: position.frame,
            chunks: position.chunk,
            meta: Vec::new(),
            data: Vec::new(),
            jobs: Some(jobs),
            pending: VecDeque::new(),
            workers: workers.collect::<io::Result<_>>()?,
        })
    }

    /// One item that brings no bytes.
    pub(super) fn item(&mut self, item: &Item) -> io::Result<()> {
        item.write(&mut self.meta);
        if self.meta.len() >= META { self.flush() } else { Ok(()) }
    }

    /// A chunk that is new; returns its number.
    pub(super) fn chunk(&mut self, hash: [u8; 32], bytes: &[u8]) -> io::Result<u32> {
        let number = self.chunks;
        // 2^32 chunks are 512 TiB.
        self.chunks = number.checked_add(1).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Item::New { length, hash }.write(&mut self.meta);
        if self.data.capacity() == 0 {
            self.data.reserve(DATA + super::chunk::MAX);
        }
        self.data.extend_from_slice(bytes);
        if self.data.len() >= DATA {
            self.flush()?
        }
        Ok(number)
    }

    /// What there is becomes a frame.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.meta.is_empty() {
            return Ok(());
        }
        let (meta, data) = (std::mem::take(&mut self.meta), std::mem::take(&mut self.data));
        self.frame(Kind::Tree, meta, data)
    }

    /// All that there is becomes frames, and is written; the next item begins a frame, which is the one at this position.
    pub(super) fn settle(&mut self) -> io::Result<Position> {
        self.flush()?;
        while !self.pending.is_empty() {
            self.write_first()?;
        }
        Ok(Position { at: self.at, frame: self.number, chunk: self.chunks })
    }

    fn frame(&mut self, kind: Kind, meta: Vec<u8>, data: Vec<u8>) -> io::Result<()> {
        let (done, result) = sync_channel(1);
        let job = Job { kind, number: self.number, meta, data, done };
        self.number += 1;
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(io::Error::other("the threads that compress have ended"));
        }
        self.pending.push_back(result);
        while self.pending.len() > self.workers.len() + 2 {
            self.write_first()?;
        }
        Ok(())
    }

    fn write_first(&mut self) -> io::Result<()> {
        let Some(first) = self.pending.pop_front() else { return Ok(()) };
        let lost = |_| io::Error::other("a thread that compresses has ended");
        let frame = first.recv().map_err(lost)??;
        vzsys::fault::point("backup.frame");
        self.at += frame.len() as u64;
        self.out.write_all(&frame)
    }

    /// Ends the stream; returns where it went to, and its length.
    pub(super) fn finish(mut self, totals: &Totals) -> io::Result<(W, u64)> {
        let end_at = self.settle()?.at;
        self.frame(Kind::End, totals.write(), Vec::new())?;
        while !self.pending.is_empty() {
            self.write_first()?;
        }
        let tail = head::tail(end_at);
        self.out.write_all(&tail)?;
        self.at += tail.len() as u64;
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        self.out.flush()?;
        Ok((self.out, self.at))
    }
}
