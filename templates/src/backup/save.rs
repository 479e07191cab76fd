//! Making a backup.

use std::io::{self, Write};
use std::path::Path;

use vzsys::Call;

use super::error::{BackupError, Fault};
use super::frame::{Kind, Sealer, key_of};
use super::head::{FORMAT, Head, Link, Totals};
use super::index::{Absorb, Index};
use super::item::Item;
use super::passes::{Passes, Running};
use super::press::{Position, Press};
use super::reader::{Data, Frames};
use super::store::{PartWriter, Shelf, Stream};
use super::walk::{Torn, Walk, written};
use super::{Location, Progress};
use crate::archive::open_root;

/// A backup about to be made. Needs root, to read everything and to see `trusted.*`.
#[derive(Debug)]
pub struct Save<'a> {
    /// The tree.
    pub root: &'a Path,
    /// Taken off every id: for a root mounted with the ids of its VE.
    pub shift: u32,
    /// What it is of; id and chain are filled in here.
    pub head: Head,
    /// The earlier backup that this one goes on from.
    pub base: Option<Location>,
    /// zstd's level.
    pub level: i32,
    /// The tree is in use, and is to be saved as it is at one moment.
    pub running: Option<Running<'a>>,
}

/// A backup that was made.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its head.
    pub head: Head,
    /// What it holds.
    pub totals: Totals,
    /// Bytes of the whole stream.
    pub stream: u64,
    /// Bytes that were there from a run that was interrupted.
    pub resumed: u64,
    /// Files that changed while they were read.
    pub torn: Torn,
}

impl Save<'_> {
    /// Makes it. Goes on with `TO.part` where a run with the same base was interrupted. Blocks for as long as it takes.
    ///
    /// # Errors
    /// [`BackupError`]. `TO.part` stays, to go on with, but on a disk that is full.
    pub fn to(mut self, to: &Location, progress: &mut dyn FnMut(Progress)) -> Result<Saved, BackupError> {
        let mut index = Index::default();
        self.head.format = FORMAT;
        let blame = |fault: Fault| fault.of(to.to_string());
        self.head.chain = match &self.base {
            None => Vec::new(),
            Some(base) => chain(base)?,
        };
        if *to == Location::Pipe {
            self.head.id = Head::new_id().map_err(|error| blame(error.into()))?;
            self.load_chain(&mut index)?;
            let start = Start { position: Position::default(), position_of_data: 0 };
            let stdout = Box::new(Stdout(io::stdout()));
            return self.write(stdout, start, &mut index, progress).map_err(|(fault, _)| blame(fault));
        }
        let (mut shelf, file) = to.open()?;
        let (frames, how, mut part) = shelf.part(&file).map_err(blame)?;
        let start = self.go_on(frames, how, &mut index).map_err(blame)?;
        part.cut(start.position.at).map_err(blame)?;
        self.load_chain(&mut index)?;
        self.write(part, start, &mut index, progress).map_err(|(fault, part)| {
            // It fills a disk that others need.
            if fault.is_full()
                && let Some(part) = part
            {
                part.abandon();
            }
            blame(fault)
        })
    }

    /// What an interrupted run has written, if it was to become the same backup.
    fn go_on(&mut self, frames: Stream, how: Data, index: &mut Index) -> Result<Start, Fault> {
        let begin = |head: &mut Head| -> Result<Start, Fault> {
            head.id = Head::new_id()?;
            Ok(Start { position: Position::default(), position_of_data: 0 })
        };
        let Ok(mut frames) = Frames::open(frames) else { return begin(&mut self.head) };
        if frames.head.ctid != self.head.ctid || frames.head.chain != self.head.chain {
            return begin(&mut self.head);
        }
        let mut absorb = Absorb::new(index, 0);
        let mut position = Position { at: frames.at, frame: frames.number, chunk: 0 };
        // Ends where the first frame is not whole.
        while let Ok(Some(frame)) = frames.next(how) {
            match frame.header.kind {
                Kind::Head => {}
                Kind::Tree => {
                    if absorb.meta(&frame.meta).is_err() {
                        break;
                    }
                }
                // Killed between its end and its name: the tree has changed since.
                Kind::End => break,
            }
            (position.at, position.frame) = (frames.at, frames.number);
        }
        position.chunk = absorb.finish();
        self.head.id.clone_from(&frames.head.id);
        Ok(Start { position, position_of_data: position.at })
    }

    fn load_chain(&self, index: &mut Index) -> Result<(), BackupError> {
        let Some(base) = &self.base else { return Ok(()) };
        let (mut shelf, _) = base.open()?;
        for (generation, link) in (1_u16..).zip(&self.head.chain) {
            let mut frames = find(shelf.as_mut(), link).map_err(|fault| fault.of(base.to_string()))?;
            let blame = |fault: Fault| fault.of(&link.file);
            let mut absorb = Absorb::new(index, generation);
            while let Some(frame) = frames.next(Data::Leave).map_err(blame)? {
                if frame.header.kind == Kind::Tree {
                    absorb.meta(&frame.meta).map_err(|bad| blame(frames.damaged(bad)))?;
                }
            }
            absorb.finish();
        }
        Ok(())
    }

    fn write(
        self,
        mut part: Box<dyn PartWriter>,
        start: Start,
        index: &mut Index,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Saved, (Fault, Option<Box<dyn PartWriter>>)> {
        let mut position = start.position;
        let (first, first_at, first_chunk) = (position.frame, position.at, position.chunk);
        let key = key_of(&self.head.id().map_err(|bad| (Fault::Remote(bad.0.to_owned()), None))?);
        match self.write_head(part.as_mut(), &mut position) {
            Ok(()) => {}
            Err(fault) => return Err((fault, Some(part))),
        }
        let press = match Press::new(Shared(part.as_mut()), key, self.level, position) {
            Ok(press) => press,
            Err(error) => return Err((written(&error), Some(part))),
        };
        let done = self.walk(press, start, index, progress, (first, first_at, first_chunk.into()));
        let (totals, torn, stream) = match done {
            Ok(done) => done,
            Err(fault) => return Err((fault, Some(part))),
        };
        vzsys::fault::point("backup.written");
        part.commit().map_err(|fault| (fault, None))?;
        Ok(Saved { head: self.head, totals, stream, resumed: start.position_of_data, torn })
    }

    fn walk(
        &self,
        mut press: Press<Shared<'_>>,
        start: Start,
        index: &mut Index,
        progress: &mut dyn FnMut(Progress),
        (first, first_at, first_chunk): (u64, u64, u64),
    ) -> Result<(Totals, Torn, u64), Fault> {
        let again = start.position.frame > 0;
        if again && self.running.is_none() {
            press.item(&Item::Anew).map_err(|error| written(&error))?;
        }
        let root = open_root(self.root)?;
        let walk = Walk::new(root, self.shift, press, index, progress)?;
        if let Some(running) = &self.running {
            let (press, totals) = Passes::new(walk, running, again).run()?;
            let (_, stream) = press.finish(&totals).map_err(|error| written(&error))?;
            return Ok((totals, Torn::default(), stream));
        }
        let (press, mut totals, torn) = walk.run()?;
        (totals.first, totals.first_at, totals.first_chunk) = (first, first_at, first_chunk);
        let (_, stream) = press.finish(&totals).map_err(|error| written(&error))?;
        Ok((totals, torn, stream))
    }

    /// The first frame; after an interruption a new one, since the configuration may be another now.
    fn write_head(&self, part: &mut dyn PartWriter, position: &mut Position) -> Result<(), Fault> {
        let id = self.head.id().map_err(|bad| Fault::Remote(bad.0.to_owned()))?;
        let key = if position.frame == 0 { [0; 32] } else { key_of(&id) };
        let json = serde_json::to_vec(&self.head).map_err(|error| Fault::Remote(error.to_string()))?;
        let mut seal = || -> io::Result<Vec<u8>> {
            let frame = Sealer::new(key, self.level)?.seal(Kind::Head, position.frame, &json, &[])?;
            part.write_all(&frame)?;
            Ok(frame)
        };
        let frame = seal().map_err(|error| written(&error))?;
        vzsys::fault::point("backup.head");
        position.at += frame.len() as u64;
        position.frame += 1;
        Ok(())
    }
}

/// Where the frames of this run begin.
#[derive(Debug, Clone, Copy)]
struct Start {
    position: Position,
    /// Bytes that were there.
    position_of_data: u64,
}

/// The base, its base, …
fn chain(base: &Location) -> Result<Vec<Link>, BackupError> {
    let (mut shelf, file) = base.open()?;
    let blame = |fault: Fault| fault.of(base.to_string());
    let head = shelf.head(&file).map_err(blame)?;
    let mut chain = vec![Link { id: head.id, file }];
    chain.extend(head.chain);
    Ok(chain)
}

/// The frames of an earlier backup: by its name, else by its id under any name.
pub(super) fn find(shelf: &mut dyn Shelf, link: &Link) -> Result<Frames<Stream>, Fault> {
    locate(shelf, link).map(|(_, frames)| frames)
}

/// The same with the name it has now.
pub(super) fn locate(shelf: &mut dyn Shelf, link: &Link) -> Result<(String, Frames<Stream>), Fault> {
    let mut names = vec![link.file.clone()];
    names.extend(
        shelf.names()?.into_iter().filter(|name| *name != link.file && name.ends_with(super::SUFFIX)),
    );
    let mut why = "is not there";
    for name in names {
        match shelf.head(&name) {
            Ok(head) if head.id == link.id => {
                let frames = Frames::open(shelf.frames(&name)?)?;
                return Ok((name, frames));
            }
            Ok(_) if name == link.file => why = "is another one under that name",
            Err(fault) if name == link.file && !is_missing(&fault) => return Err(fault),
            _ => {}
        }
    }
    Err(Fault::NoBase { file: link.file.clone(), id: link.id.clone(), why: why.into() })
}

fn is_missing(fault: &Fault) -> bool {
    matches!(fault, Fault::System(error) if error.errno() == rustix::io::Errno::NOENT)
}

/// Lends a writer to the press.
struct Shared<'a>(&'a mut dyn PartWriter);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A pipe cannot go on, and has no name to give.
struct Stdout(io::Stdout);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl PartWriter for Stdout {
    fn cut(&mut self, _: u64) -> Result<(), Fault> {
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), Fault> {
        Ok(self.0.flush().call("write", || "standard output")?)
    }

    fn abandon(self: Box<Self>) {}
}
