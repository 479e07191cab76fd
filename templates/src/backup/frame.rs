//! Frames: what the stream is cut into, each with its checksums.
//!
//! ```text
//!  0  "vzB1"          magic and version of the framing
//!  4  kind            1 head, 2 tree, 3 end
//!  5  0 0 0
//!  8  number          of the frame, from 0                      u64, little endian as all
//! 16  meta stored, meta plain, data stored, data plain          u32 each
//! 32  BLAKE3 of the data as stored                              32 bytes
//! 64  BLAKE3 of bytes 0..64 and of the meta part as stored      32 bytes, keyed by the backup's id
//! 96  meta part, data part
//! ```
//! A part whose stored length is its plain one is stored as it is, else it is one zstd frame. The meta part says what
//! to do, the data part has the bytes of new chunks: who looks for something leaps over the data and can trust what
//! he reads all the same. The head's key is zero, since it tells the id.

use super::wire::Bad;

pub(super) const MAGIC: [u8; 4] = *b"vzB1";
/// Bytes of a header.
pub(super) const HEADER: usize = 96;
/// The most that a part may hold, stored or plain: what a reader must be ready to keep in memory.
pub(super) const PART_MAX: u32 = 8 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Tree = 2,
    End = 3,
}

/// The key of all frames but the head.
pub(super) type Key = [u8; 32];

pub(super) fn key_of(id: &[u8; 16]) -> Key {
    blake3::derive_key("vzbackup 2026 frames of one stream", id)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) meta_stored: u32,
    pub(super) meta_plain: u32,
    pub(super) data_stored: u32,
    pub(super) data_plain: u32,
    data_sum: [u8; 32],
    sum: [u8; 32],
}

impl Header {
    /// Takes a header apart; its checksum is checked with the meta part's, by [`Header::check_meta`].
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Result<Self, Bad> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC {
            return Err(Bad("no frame begins here"));
        }
        let kind = match bytes[4] {
            1 => Kind::Head,
            2 => Kind::Tree,
            3 => Kind::End,
            _ => return Err(Bad("a kind of frame that does not exist")),
        };
        let header = Self {
            kind,
            number: u64::from(word(8)) | u64::from(word(12)) << 32,
            meta_stored: word(16),
            meta_plain: word(20),
            data_stored: word(24),
            data_plain: word(28),
            data_sum: bytes[32..64].try_into().map_err(|_| Bad("a short header"))?,
            sum: bytes[64..96].try_into().map_err(|_| Bad("a short header"))?,
        };
        let fits = |stored: u32, plain: u32| stored <= plain && plain <= PART_MAX;
        if bytes[5..8] != [0; 3]
            || !fits(header.meta_stored, header.meta_plain)
            || !fits(header.data_stored, header.data_plain)
        {
            return Err(Bad("a header with impossible lengths"));
        }
        Ok(header)
    }

    fn start(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        for (at, word) in
            [(16, self.meta_stored), (20, self.meta_plain), (24, self.data_stored), (28, self.data_plain)]
        {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..64].copy_from_slice(&self.data_sum);
        bytes
    }

    fn seal(&self, key: &Key, meta: &[u8]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_keyed(key);
        hash.update(&self.start());
        hash.update(meta);
        *hash.finalize().as_bytes()
    }

    /// Bytes after the header.
    pub(super) fn body(&self) -> usize {
        (self.meta_stored + self.data_stored) as usize
    }

    /// The whole frame in the stream.
    pub(super) fn length(&self) -> u64 {
        (HEADER + self.body()) as u64
    }

    /// Unpacks the meta part, which proves the header too.
    pub(super) fn check_meta(&self, key: &Key, stored: &[u8]) -> Result<Vec<u8>, Bad> {
        if blake3::Hash::from(self.seal(key, stored)) != blake3::Hash::from(self.sum) {
            return Err(Bad("a checksum does not fit"));
        }
        unpack(stored, self.meta_plain)
    }

    /// Proves the data part, and unpacks nothing.
    pub(super) fn check_data(&self, stored: &[u8]) -> Result<(), Bad> {
        if blake3::hash(stored) == blake3::Hash::from(self.data_sum) {
            Ok(())
        } else {
            Err(Bad("a checksum of data does not fit"))
        }
    }

    /// Unpacks the data part.
    pub(super) fn data(&self, stored: &[u8]) -> Result<Vec<u8>, Bad> {
        self.check_data(stored)?;
        unpack(stored, self.data_plain)
    }
}

fn unpack(stored: &[u8], plain: u32) -> Result<Vec<u8>, Bad> {
    if stored.len() == plain as usize {
        return Ok(stored.to_vec());
    }
    match zstd::bulk::decompress(stored, plain as usize) {
        Ok(bytes) if bytes.len() == plain as usize => Ok(bytes),
        _ => Err(Bad("it cannot be decompressed")),
    }
}

/// Makes frames; keeps the compressor's memory between two.
pub(super) struct Sealer {
    key: Key,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Sealer {
    pub(super) fn new(key: Key, level: i32) -> std::io::Result<Self> {
        Ok(Self { key, compressor: zstd::bulk::Compressor::new(level)? })
    }

    /// One whole frame.
    pub(super) fn seal(
        &mut self,
        kind: Kind,
        number: u64,
        meta: &[u8],
        data: &[u8],
    ) -> std::io::Result<Vec<u8>> {
        let room = |part: &[u8]| zstd::zstd_safe::compress_bound(part.len());
        let mut frame = vec![0; HEADER + room(meta) + room(data)];
        let meta_stored = self.pack(meta, &mut frame[HEADER..])?;
        let data_at = HEADER + meta_stored;
        let data_stored = self.pack(data, &mut frame[data_at..])?;
        frame.truncate(data_at + data_stored);
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut header = Header {
            kind,
            number,
            meta_stored: length(meta_stored),
            meta_plain: length(meta.len()),
            data_stored: length(data_stored),
            data_plain: length(data.len()),
            data_sum: *blake3::hash(&frame[data_at..]).as_bytes(),
            sum: [0; 32],
        };
        header.sum = header.seal(&self.key, &frame[HEADER..data_at]);
        frame[..64].copy_from_slice(&header.start());
        frame[64..HEADER].copy_from_slice(&header.sum);
        Ok(frame)
    }

    /// Compresses where that makes it shorter.
    fn pack(&mut self, part: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
        let packed = self.compressor.compress_to_buffer(part, out)?;
        if packed < part.len() {
            return Ok(packed);
        }
        out[..part.len()].copy_from_slice(part);
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(frame: &[u8], key: &Key) -> Result<(Vec<u8>, Vec<u8>), Bad> {
        let header = Header::parse(frame[..HEADER].try_into().unwrap())?;
        let (meta, data) = frame[HEADER..].split_at(header.meta_stored as usize);
        Ok((header.check_meta(key, meta)?, header.data(data)?))
    }

    #[test]
    fn a_frame_comes_back_and_no_bit_of_it_may_change() {
        let key = key_of(&[7; 16]);
        let mut sealer = Sealer::new(key, 3).unwrap();
        let (meta, data) = (b"meta meta meta meta meta meta meta meta".repeat(9), vec![7; 9000]);
        let frame = sealer.seal(Kind::Tree, 5, &meta, &data).unwrap();
        assert_eq!(open(&frame, &key).unwrap(), (meta, data));
        assert!(open(&frame, &key_of(&[8; 16])).is_err());
        for at in 0..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 1;
            // A longer part is cut off by the test itself, so this may panic no more than fail.
            let header = bad[..HEADER].try_into().map(Header::parse).unwrap();
            let opened = header.and_then(|header| {
                let (meta, data) =
                    bad[HEADER..].split_at_checked(header.meta_stored as usize).ok_or(Bad("short"))?;
                header.check_meta(&key, meta)?;
                header.data(data)
            });
            assert!(opened.is_err(), "byte {at}");
        }
    }
}
