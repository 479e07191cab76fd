//! Reading a backup: into a tree, to check it, to list it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use vzsys::Call;

use super::base::Base;
use super::error::{BackupError, Fault};
use super::frame::{HEADER, Header, Kind as FrameKind, key_of};
use super::head::{self, Head, TAIL, Totals};
use super::item::{Item, Kind};
use super::place::Placer;
use super::reader::{Data, Frames, Pipe, failed};
use super::replay::Replay;
use super::save::locate;
use super::store::{Shelf, Stream};
use super::wire::Cursor;
use super::{Location, Progress};
use crate::archive::open_root;

/// A backup that was opened; its head is read.
pub struct Load {
    name: String,
    head: Head,
    input: Input,
    totals: Option<Totals>,
    bases: Vec<Location>,
}

/// Where it comes from.
enum Input {
    /// A pipe, from which its head was taken.
    Pipe(Box<Frames<Stream>>),
    /// A file of a directory, which can be read again and anywhere.
    File(Box<dyn Shelf>, String),
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("name", &self.name).field("head", self.head()).finish_non_exhaustive()
    }
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Below the root; empty for the root.
    pub path: Vec<u8>,
    /// As the first letter in `ls -l`; `h` for a hard link.
    pub kind: char,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Bytes of a file.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// What a link points to.
    pub target: Option<Vec<u8>>,
}

impl Load {
    /// Opens a backup. Its bases are looked for beside it, and in the directories of `bases`.
    ///
    /// # Errors
    /// [`BackupError`]: it cannot be read, is none, or is not whole.
    pub fn open(from: &Location, bases: Vec<Location>) -> Result<Self, BackupError> {
        let blame = |fault: Fault| fault.of(from.to_string());
        if *from == Location::Pipe {
            let stdin: Stream = Box::new(Pipe(io::stdin()));
            let frames = Frames::open(stdin).map_err(blame)?;
            let (name, head) = ("standard input".to_owned(), frames.head.clone());
            return Ok(Self { name, head, input: Input::Pipe(Box::new(frames)), totals: None, bases });
        }
        let (mut shelf, file) = from.open()?;
        let head = shelf.head(&file).map_err(blame)?;
        let totals = Some(end(shelf.as_mut(), &file, &head).map_err(blame)?);
        Ok(Self { name: from.to_string(), head, input: Input::File(shelf, file), totals, bases })
    }

    /// What it tells of itself.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it holds; `None` as long as it comes from a pipe.
    #[must_use]
    pub fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    /// Reads all of it and of what it needs of its bases, and writes nothing.
    ///
    /// # Errors
    /// [`BackupError`], naming what is damaged or missing.
    pub fn check(self, progress: &mut dyn FnMut(Progress)) -> Result<Totals, BackupError> {
        self.replay(None, progress).map(|(_, totals, _)| totals)
    }

    /// Fills `dir`, an empty directory. What it holds after a failure is the caller's to remove.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn into(self, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(Head, Totals), BackupError> {
        let name = self.name.clone();
        let blame = |fault: Fault| fault.of(&name);
        let root = open_root(dir).map_err(|error| blame(error.into()))?;
        // Nobody else looks in while ids and modes are half set.
        let closed =
            rustix::fs::fchmod(&root, rustix::fs::Mode::RWXU).call("fchmod", || dir.display().to_string());
        closed.map_err(|error| blame(error.into()))?;
        let (head, totals, root) = self.replay(Some(Placer::new(root)), progress)?;
        if let Some(root) = root {
            let synced = rustix::fs::syncfs(&root).call("syncfs", || dir.display().to_string());
            synced.map_err(|error| blame(error.into()))?;
        }
        Ok((head, totals))
    }

    fn replay(
        mut self,
        placer: Option<Placer>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Head, Totals, Option<OwnedFd>), BackupError> {
        let name = self.name.clone();
        let blame = |fault: Fault| fault.of(&name);
        let bases = self.find_bases().map_err(blame)?;
        let mut replay = Replay::new(placer, bases, progress);
        let frames = match self.input {
            Input::Pipe(frames) => *frames,
            Input::File(mut shelf, file) => {
                let totals = self.totals.unwrap_or_default();
                replay.of(totals.bytes);
                from_file(shelf.as_mut(), &file, &totals, &mut replay).map_err(blame)?
            }
        };
        let (done, placer) = replay.run(frames).map_err(blame)?;
        let root = placer.map(Placer::finish).transpose().map_err(blame)?;
        Ok((done.head, done.totals, root))
    }

    fn find_bases(&mut self) -> Result<Vec<Base>, Fault> {
        let mut found = Vec::new();
        for link in self.head.chain.clone() {
            let mut first = None;
            let beside = match &mut self.input {
                Input::File(shelf, _) => Some(locate_base(shelf.as_mut(), &link)),
                Input::Pipe(_) => None,
            };
            let elsewhere = self.bases.iter().map(|place| {
                let (mut shelf, _) = place.open().map_err(|error| Fault::Remote(error.to_string()))?;
                locate_base(shelf.as_mut(), &link)
            });
            let mut base = None;
            for attempt in beside.into_iter().chain(elsewhere) {
                match attempt {
                    Ok(found) => {
                        base = Some(found);
                        break;
                    }
                    Err(fault) => {
                        first.get_or_insert(fault);
                    }
                }
            }
            let missing =
                || Fault::NoBase { file: link.file.clone(), id: link.id.clone(), why: "is not there".into() };
            found.push(base.ok_or_else(|| first.unwrap_or_else(missing))?);
        }
        Ok(found)
    }

    /// Tells every file in it, in its order, without reading any contents.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn list(self, each: &mut dyn FnMut(Listed)) -> Result<(Head, Totals), BackupError> {
        let name = self.name.clone();
        let blame = |fault: Fault| fault.of(&name);
        let first = self.totals.map_or(0, |totals| totals.first);
        let mut frames = match self.input {
            Input::Pipe(frames) => *frames,
            Input::File(mut shelf, file) => shelf.frames(&file).and_then(Frames::open).map_err(blame)?,
        };
        let mut dir = Vec::new();
        while let Some(frame) = frames.next(Data::Leave).map_err(blame)? {
            if frame.header.kind != FrameKind::Tree || frame.header.number < first {
                continue;
            }
            let mut cursor = Cursor(&frame.meta);
            while let Some(item) = Item::read(&mut cursor).map_err(|bad| blame(frames.damaged(bad)))? {
                if let Item::Entry(entry) = item {
                    each(listed(entry, &mut dir));
                }
            }
        }
        Ok((frames.head.clone(), frames.totals.unwrap_or_default()))
    }
}

/// The frames of a file from where its tree begins; chunks before that are learnt.
fn from_file(
    shelf: &mut dyn Shelf,
    file: &str,
    totals: &Totals,
    replay: &mut Replay<'_>,
) -> Result<Frames<Stream>, Fault> {
    if totals.first == 0 {
        return Frames::open(shelf.stream(file, 0)?);
    }
    let blocks = shelf.blocks(file)?;
    let mut frames = Frames::open(shelf.frames(file)?)?;
    let beginning = Base::learn(file, &mut frames, blocks, Some(totals.first))?;
    replay.after(beginning, u32::try_from(totals.first_chunk).unwrap_or(u32::MAX));
    Ok(frames.elsewhere(shelf.stream(file, totals.first_at)?, totals.first_at, totals.first))
}

fn listed(entry: super::item::Entry, dir: &mut Vec<u8>) -> Listed {
    let path = match (&entry.kind, dir.is_empty()) {
        (Kind::Dir, _) => {
            dir.clone_from(&entry.name);
            entry.name
        }
        (_, true) => entry.name,
        (_, false) => [dir, b"/".as_slice(), &entry.name].concat(),
    };
    let (kind, target) = match entry.kind {
        Kind::File => ('-', None),
        Kind::Dir => ('d', None),
        Kind::Symlink(target) => ('l', Some(target)),
        Kind::Hard(target) => ('h', Some(target)),
        Kind::Char(..) => ('c', None),
        Kind::Block(..) => ('b', None),
        Kind::Fifo => ('p', None),
        Kind::Socket => ('s', None),
    };
    let owner = (entry.uid, entry.gid);
    Listed { path, kind, mode: entry.mode, owner, size: entry.size, mtime: entry.mtime.0, target }
}

fn locate_base(shelf: &mut dyn Shelf, link: &super::Link) -> Result<Base, Fault> {
    let (name, mut frames) = locate(shelf, link)?;
    let blocks = shelf.blocks(&name)?;
    let learnt = Base::learn(&name, &mut frames, blocks, None);
    learnt.map_err(|fault| Fault::InBase { file: name.clone(), fault: Box::new(fault) })
}

/// The last frame of a file, by its tail.
pub(super) fn end(shelf: &mut dyn Shelf, file: &str, head: &Head) -> Result<Totals, Fault> {
    let mut blocks = shelf.blocks(file)?;
    let size = blocks.size().map_err(|error| failed(&error))?;
    let cut = || Fault::Truncated { frame: 0, at: size };
    let tail_at = size.checked_sub(TAIL as u64).ok_or_else(cut)?;
    let mut tail = [0; TAIL];
    blocks.read_at(&mut tail, tail_at).map_err(|error| failed(&error))?;
    let end_at =
        head::parse_tail(&tail).filter(|at| at.checked_add(HEADER as u64).is_some_and(|end| end <= tail_at));
    let end_at = end_at.ok_or_else(cut)?;
    let damaged = |number| {
        move |bad: super::wire::Bad| Fault::Damaged { frame: number, at: end_at, reason: bad.0.into() }
    };
    let mut start = [0; HEADER];
    blocks.read_at(&mut start, end_at).map_err(|error| failed(&error))?;
    let header = Header::parse(&start).map_err(damaged(0))?;
    if header.kind != FrameKind::End || end_at + header.length() != tail_at {
        return Err(damaged(header.number)(super::wire::Bad("its end is none")));
    }
    let mut meta = vec![0; header.meta_stored as usize];
    blocks.read_at(&mut meta, end_at + HEADER as u64).map_err(|error| failed(&error))?;
    let key = key_of(&head.id().map_err(damaged(header.number))?);
    let plain = header.check_meta(&key, &meta).map_err(damaged(header.number))?;
    Totals::read(&plain).map_err(damaged(header.number))
}
