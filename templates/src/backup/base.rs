//! Chunks of a backup that can be read anywhere: of an earlier one, or of this one's own beginning.

use std::collections::VecDeque;

use super::error::Fault;
use super::frame::{HEADER, Header, Kind};
use super::item::Item;
use super::reader::{Data, Frames, Leap, failed};
use super::store::ReadAt;
use super::wire::{Bad, Cursor};

/// Frames that are kept unpacked: files are mostly read in the order in which they were written.
const KEPT: usize = 4;

/// Where a chunk is.
#[derive(Debug, Clone, Copy)]
struct Spot {
    frame: u32,
    offset: u32,
    length: u32,
    hash: [u8; 32],
}

/// The chunks of one stream.
pub(super) struct Base {
    name: String,
    file: Box<dyn ReadAt>,
    frames: Vec<(u64, Header)>,
    spots: Vec<Spot>,
    kept: VecDeque<(u32, Vec<u8>)>,
}

impl Base {
    /// Learns where all chunks are: of the whole stream, or of the frames before number `until`.
    pub(super) fn learn<R: Leap>(
        name: &str,
        frames: &mut Frames<R>,
        file: Box<dyn ReadAt>,
        until: Option<u64>,
    ) -> Result<Self, Fault> {
        let mut base = Self {
            name: name.to_owned(),
            file,
            frames: Vec::new(),
            spots: Vec::new(),
            kept: VecDeque::new(),
        };
        while until.is_none_or(|until| frames.number < until)
            && let Some(frame) = frames.next(Data::Leave)?
        {
            if frame.header.kind != Kind::Tree {
                continue;
            }
            let number = u32::try_from(base.frames.len()).unwrap_or(u32::MAX);
            base.add(&frame.meta, number, &frame.header).map_err(|bad| frames.damaged(bad))?;
            base.frames.push((frame.at, frame.header));
        }
        Ok(base)
    }

    fn add(&mut self, meta: &[u8], frame: u32, header: &Header) -> Result<(), Bad> {
        let mut cursor = Cursor(meta);
        let mut offset = 0_u32;
        while let Some(item) = Item::read(&mut cursor)? {
            if let Item::New { length, hash } = item {
                self.spots.push(Spot { frame, offset, length, hash });
                offset = offset.saturating_add(length);
            }
        }
        if offset == header.data_plain { Ok(()) } else { Err(Bad("chunks that do not fill its data")) }
    }

    /// The bytes of a chunk, proved.
    pub(super) fn chunk(&mut self, number: u32) -> Result<&[u8], Fault> {
        let name = self.name.clone();
        self.find(number).map_err(|fault| Fault::InBase { file: name, fault: Box::new(fault) })
    }

    fn find(&mut self, number: u32) -> Result<&[u8], Fault> {
        let Some(&spot) = self.spots.get(number as usize) else {
            return Err(Fault::Damaged { frame: 0, at: 0, reason: "a chunk that no backup has".into() });
        };
        let kept = match self.kept.iter().position(|(frame, _)| *frame == spot.frame) {
            Some(kept) => kept,
            None => self.load(spot.frame)?,
        };
        let (from, to) = (spot.offset as usize, (spot.offset + spot.length) as usize);
        if blake3::hash(&self.kept[kept].1[from..to]) != blake3::Hash::from(spot.hash) {
            return Err(self.damaged(spot.frame, Bad("a chunk's checksum does not fit")));
        }
        Ok(&self.kept[kept].1[from..to])
    }

    /// Unpacks a frame; returns its place among those that are kept.
    fn load(&mut self, frame: u32) -> Result<usize, Fault> {
        let (at, header) = &self.frames[frame as usize];
        let mut stored = vec![0; header.data_stored as usize];
        let from = at + HEADER as u64 + u64::from(header.meta_stored);
        self.file.read_at(&mut stored, from).map_err(|error| failed(&error))?;
        let data = header.data(&stored).map_err(|bad| self.damaged(frame, bad))?;
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((frame, data));
        Ok(self.kept.len() - 1)
    }

    fn damaged(&self, frame: u32, bad: Bad) -> Fault {
        let (at, header) = &self.frames[frame as usize];
        Fault::Damaged { frame: header.number, at: *at, reason: bad.0.into() }
    }
}
