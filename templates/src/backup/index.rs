//! What earlier backups, and the part of this one that was written before an interruption, hold.

use std::collections::HashMap;

use super::item::{Chunk, Entry, Item, Kind, Time, Xattr};
use super::wire::{Bad, Cursor};

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Chunk(Chunk, u32),
    Hole(u64),
}

/// A file that was saved before.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<Xattr>,
    pieces: std::ops::Range<usize>,
    generation: u16,
    /// Its last pieces are missing: the backup was interrupted in the middle of it.
    pub(super) partial: bool,
}

/// Files by what tells that they are the same still, chunks by their hash.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<(u64, Time), Known>,
    pieces: Vec<Piece>,
    chunks: HashMap<[u8; 32], Chunk>,
    /// Bytes of all files, for the progress of the next run.
    pub(super) bytes: u64,
}

impl Index {
    pub(super) fn file(&self, inode: u64, ctime: Time) -> Option<&Known> {
        self.files.get(&(inode, ctime))
    }

    pub(super) fn pieces(&self, known: &Known) -> &[Piece] {
        &self.pieces[known.pieces.clone()]
    }

    pub(super) fn chunk(&self, hash: &[u8; 32]) -> Option<Chunk> {
        self.chunks.get(hash).copied()
    }

    pub(super) fn add(&mut self, hash: [u8; 32], chunk: Chunk) {
        self.chunks.insert(hash, chunk);
    }
}

/// Reads the meta parts of one stream into an index.
pub(super) struct Absorb<'a> {
    index: &'a mut Index,
    /// What this stream is to the one that is being written: 0 its own beginning, 1 its base, …
    generation: u16,
    next: u32,
    open: Option<(Entry, usize)>,
}

impl<'a> Absorb<'a> {
    pub(super) fn new(index: &'a mut Index, generation: u16) -> Self {
        Self { index, generation, next: 0, open: None }
    }

    /// Files are taken from the stream itself and from its base; what their bases say is out of date.
    fn with_files(&self) -> bool {
        self.generation <= 1
    }

    pub(super) fn meta(&mut self, meta: &[u8]) -> Result<(), Bad> {
        let mut cursor = Cursor(meta);
        while let Some(item) = Item::read(&mut cursor)? {
            self.item(item)?;
        }
        Ok(())
    }

    fn item(&mut self, item: Item) -> Result<(), Bad> {
        match item {
            Item::Entry(entry) => {
                self.close(false, true);
                if entry.kind == Kind::File {
                    self.open = Some((entry, self.index.pieces.len()));
                }
            }
            Item::New { length, hash } => {
                let chunk = Chunk { generation: self.generation, number: self.next };
                self.next = self.next.checked_add(1).ok_or(Bad("too many chunks"))?;
                self.index.chunks.entry(hash).or_insert(chunk);
                self.piece(Piece::Chunk(chunk, length));
            }
            Item::Ref { mut chunk, length } => {
                chunk.generation =
                    chunk.generation.checked_add(self.generation).ok_or(Bad("too many backups"))?;
                self.piece(Piece::Chunk(chunk, length));
            }
            Item::Hole(length) => self.piece(Piece::Hole(length)),
            Item::Close { trusted } => self.close(trusted, false),
            Item::Anew => self.close(false, true),
        }
        Ok(())
    }

    fn piece(&mut self, piece: Piece) {
        if self.with_files() {
            self.index.pieces.push(piece);
        }
        if let (1, Piece::Chunk(_, length)) = (self.generation, piece) {
            self.index.bytes += u64::from(length);
        }
    }

    fn close(&mut self, trusted: bool, partial: bool) {
        let Some((entry, from)) = self.open.take() else { return };
        if !self.with_files() {
            return;
        }
        let pieces = from..self.index.pieces.len();
        let Entry { size, mtime, xattrs, inode, ctime, .. } = entry;
        // What is in the stream itself comes first, and counts; in one stream what comes last.
        let before = self.index.files.get(&(inode, ctime));
        if before.is_some_and(|before| before.generation != self.generation || (partial && !before.partial)) {
            return;
        }
        if trusted || (partial && self.generation == 0) {
            let known = Known { size, mtime, xattrs, pieces, generation: self.generation, partial };
            self.index.files.insert((inode, ctime), known);
        } else {
            self.index.files.remove(&(inode, ctime));
        }
    }

    /// The stream ends here; returns the number of its chunks.
    pub(super) fn finish(mut self) -> u32 {
        self.close(false, true);
        self.next
    }
}
