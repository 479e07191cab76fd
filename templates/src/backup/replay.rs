//! A stream becomes a tree, or is only checked: every byte is proved in both cases.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};

use super::Progress;
use super::base::Base;
use super::error::Fault;
use super::frame::Kind as FrameKind;
use super::head::{Head, Totals};
use super::item::{Chunk, Entry, Item, Kind};
use super::place::{Open, Placer};
use super::reader::{Data, Frame, Frames, Leap};
use super::wire::{Bad, Cursor};

/// Frames unpacked ahead, in a thread of their own.
const AHEAD: usize = 3;

/// A chunk of the stream itself: what it must be, and where it was written.
#[derive(Debug, Clone, Copy)]
struct Own {
    hash: [u8; 32],
    length: u32,
    file: u32,
    at: u64,
}

/// What a replay found.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) head: Head,
    pub(super) totals: Totals,
}

/// Takes the items of one stream in order.
pub(super) struct Replay<'a> {
    /// `None` when it is only checked.
    placer: Option<Placer>,
    bases: Vec<Base>,
    /// The beginning of this stream, which was leapt over; its chunks have the numbers below `first`.
    beginning: Option<Base>,
    first: u32,
    own: Vec<Own>,
    open: Option<(Entry, u32, Option<Open>)>,
    scratch: Vec<u8>,
    counted: Totals,
    told: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Progress),
}

enum Step {
    Frame(Frame),
    End(Head, Totals),
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        placer: Option<Placer>,
        bases: Vec<Base>,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        Self {
            placer,
            bases,
            beginning: None,
            first: 0,
            own: Vec::new(),
            open: None,
            scratch: Vec::new(),
            counted: Totals::default(),
            told: 0,
            total: 0,
            progress,
        }
    }

    /// The stream's own first chunks are there.
    pub(super) fn after(&mut self, beginning: Base, first: u32) {
        (self.beginning, self.first) = (Some(beginning), first);
    }

    /// How many bytes there are in all, where that is known.
    pub(super) fn of(&mut self, total: u64) {
        self.total = total;
    }

    /// Reads the stream to its end; returns the placer with everything in it.
    pub(super) fn run<R: Leap + Send + 'static>(
        mut self,
        mut frames: Frames<R>,
    ) -> Result<(Done, Option<Placer>), Fault> {
        let (sender, steps) = sync_channel(AHEAD);
        let pump = move || {
            loop {
                let step = match frames.next(Data::Take) {
                    Ok(Some(frame)) => Ok(Step::Frame(frame)),
                    Ok(None) => Ok(Step::End(frames.head.clone(), frames.totals.unwrap_or_default())),
                    Err(fault) => Err(fault),
                };
                let last = !matches!(step, Ok(Step::Frame(_)));
                // Nobody listens any more: the other side has failed.
                if sender.send(step).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("unpack".to_owned()).spawn(pump);
        thread.map_err(|error| super::reader::failed(&error))?;
        let done = self.steps(&steps)?;
        Ok((done, self.placer))
    }

    fn steps(&mut self, steps: &Receiver<Result<Step, Fault>>) -> Result<Done, Fault> {
        loop {
            let lost = |_| super::reader::failed(&io::Error::other("the thread that unpacks has ended"));
            match steps.recv().map_err(lost)?? {
                Step::Frame(frame) if frame.header.kind == FrameKind::Tree => self.frame(&frame)?,
                Step::Frame(_) => {}
                Step::End(head, totals) => {
                    self.check_end(&totals)?;
                    return Ok(Done { head, totals });
                }
            }
        }
    }

    fn check_end(&self, totals: &Totals) -> Result<(), Fault> {
        let fits = self.open.is_none()
            && (self.counted.entries, self.counted.bytes) == (totals.entries, totals.bytes);
        if fits {
            return Ok(());
        }
        Err(Fault::Damaged { frame: 0, at: 0, reason: "it does not hold what its end says".into() })
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Fault> {
        let damaged =
            |bad: Bad| Fault::Damaged { frame: frame.header.number, at: frame.at, reason: bad.0.into() };
        let mut cursor = Cursor(&frame.meta);
        let mut data = Cursor(&frame.data);
        while let Some(item) = Item::read(&mut cursor).map_err(damaged)? {
            match item {
                Item::Entry(entry) => self.entry(entry).map_err(|wrong| wrong.at(damaged))?,
                Item::New { length, hash } => {
                    let bytes = data.take(length as usize).map_err(damaged)?;
                    if blake3::hash(bytes) != blake3::Hash::from(hash) {
                        return Err(damaged(Bad("a chunk's checksum does not fit")));
                    }
                    self.fresh(hash, bytes).map_err(|wrong| wrong.at(damaged))?;
                }
                Item::Ref { chunk, length } => {
                    self.reference(chunk, length).map_err(|wrong| wrong.at(damaged))?
                }
                Item::Hole(length) => self.hole(length).map_err(|wrong| wrong.at(damaged))?,
                Item::Close { .. } => self.close().map_err(|wrong| wrong.at(damaged))?,
                Item::Anew => self.anew()?,
            }
        }
        if data.is_empty() { Ok(()) } else { Err(damaged(Bad("data that nothing names"))) }
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Wrong> {
        if self.open.is_some() {
            return Err(Wrong::Bad(Bad("a file that does not end")));
        }
        self.counted.entries += 1;
        match (&mut self.placer, &entry.kind) {
            (None, Kind::File) => self.open = Some((entry, 0, None)),
            (None, _) => {}
            (Some(placer), Kind::File) => {
                let (number, open) = placer.file(&entry)?;
                self.open = Some((entry, number, Some(open)));
            }
            (Some(placer), Kind::Dir) => placer.directory(entry)?,
            (Some(placer), _) => placer.node(&entry)?,
        }
        Ok(())
    }

    fn fresh(&mut self, hash: [u8; 32], bytes: &[u8]) -> Result<(), Wrong> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (entry, file, open) = self.open.as_mut().ok_or(NO_FILE)?;
        let at = open.as_ref().map_or(0, Open::at);
        if let Some(open) = open {
            open.write(&entry.name, bytes)?;
        }
        self.own.push(Own { hash, length, file: *file, at });
        self.count(bytes.len());
        Ok(())
    }

    fn reference(&mut self, chunk: Chunk, length: u32) -> Result<(), Wrong> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = self.find(chunk, length, &mut scratch);
        let done = found.and_then(|()| {
            let (entry, _, open) = self.open.as_mut().ok_or(NO_FILE)?;
            match open {
                Some(open) => Ok(open.write(&entry.name, &scratch)?),
                None => Ok(()),
            }
        });
        self.scratch = scratch;
        done?;
        self.count(length as usize);
        Ok(())
    }

    /// Gets a chunk that was there before, and proves it.
    fn find(&mut self, chunk: Chunk, length: u32, into: &mut Vec<u8>) -> Result<(), Wrong> {
        let bytes = match (chunk.generation, chunk.number.checked_sub(self.first)) {
            (0, Some(number)) => return self.find_own(number, length, into),
            (0, None) => match &mut self.beginning {
                Some(beginning) => beginning.chunk(chunk.number)?,
                None => return Err(Wrong::Bad(Bad("a chunk that was not there"))),
            },
            (generation, _) => match self.bases.get_mut(usize::from(generation) - 1) {
                Some(base) => base.chunk(chunk.number)?,
                None => return Err(Wrong::Bad(Bad("a chunk of a backup that it does not name"))),
            },
        };
        if bytes.len() != length as usize {
            return Err(Wrong::Bad(Bad("a chunk of another length")));
        }
        into.clear();
        into.extend_from_slice(bytes);
        Ok(())
    }

    fn find_own(&mut self, number: u32, length: u32, into: &mut Vec<u8>) -> Result<(), Wrong> {
        let own = *self.own.get(number as usize).ok_or(Wrong::Bad(Bad("a chunk that was not there")))?;
        if own.length != length {
            return Err(Wrong::Bad(Bad("a chunk of another length")));
        }
        // When it is only checked, it was proved where it came first.
        if let Some(placer) = &mut self.placer {
            into.clear();
            into.resize(length as usize, 0);
            placer.read(own.file, own.at, into)?;
            if blake3::hash(into) != blake3::Hash::from(own.hash) {
                return Err(Wrong::Bad(Bad("what was written of it is not what is read")));
            }
        }
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), Wrong> {
        let (entry, _, open) = self.open.as_mut().ok_or(NO_FILE)?;
        match open {
            Some(open) => Ok(open.hole(&entry.name, length)?),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let (entry, _, open) = self.open.take().ok_or(NO_FILE)?;
        if let (Some(open), Some(placer)) = (open, &self.placer) {
            placer.close(open, &entry)?;
        }
        Ok(())
    }

    fn anew(&mut self) -> Result<(), Fault> {
        self.open = None;
        self.counted = Totals::default();
        match &mut self.placer {
            Some(placer) if placer.begun() => placer.anew(),
            _ => Ok(()),
        }
    }

    fn count(&mut self, bytes: usize) {
        const TELL: u64 = 4 << 20;
        self.counted.bytes += bytes as u64;
        if self.counted.bytes >= self.told + TELL || self.counted.bytes < self.told {
            self.told = self.counted.bytes;
            (self.progress)(Progress { done: self.told, total: self.total, stream: 0 });
        }
    }
}

const NO_FILE: Wrong = Wrong::Bad(Bad("contents without a file"));

/// What is wrong with an item: itself, or what came of it.
enum Wrong {
    Bad(Bad),
    Fault(Fault),
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Wrong {
    fn at(self, damaged: impl FnOnce(Bad) -> Fault) -> Fault {
        match self {
            Self::Bad(bad) => damaged(bad),
            Self::Fault(fault) => fault,
        }
    }
}
