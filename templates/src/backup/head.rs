//! The first and the last frame: what a backup is of, and what it holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::wire::{Bad, Cursor, put};

/// The version of what the frames say.
pub(super) const FORMAT: u32 = 1;
/// Bytes after the end frame: where that begins, and a mark. By them the end is found from the end of the file.
pub(super) const TAIL: usize = 16;
const TAIL_MARK: [u8; 8] = *b"vzB1end\n";

/// An earlier backup that a backup needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its id, in hex.
    pub id: String,
    /// The name of its file, without a directory.
    pub file: String,
}

/// What a backup tells of itself in its first frame (JSON; unknown fields are left alone).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the format.
    pub format: u32,
    /// A random number for this backup, 32 hex digits.
    pub id: String,
    /// The container.
    pub ctid: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The host it was made on.
    #[serde(default)]
    pub node: String,
    /// When it was begun: seconds since 1970.
    pub created: i64,
    /// The layout it had, by its word.
    #[serde(default)]
    pub layout: String,
    /// The template it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ostemplate: Option<String>,
    /// Its configuration file.
    pub config: String,
    /// Its action scripts, by the ends of their names, such as `mount`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, String>,
    /// The backups it needs: its base, the base's base, …; none for a full one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Link>,
    /// Whether it ran meanwhile, and how it was held still: `stopped`, `snapshot` or `live`.
    #[serde(default)]
    pub taken: String,
}

impl Head {
    /// Its id as bytes.
    pub(super) fn id(&self) -> Result<[u8; 16], Bad> {
        let bad = Bad("an id that is none");
        if self.id.len() != 32 || !self.id.is_ascii() {
            return Err(bad);
        }
        let mut id = [0; 16];
        for (byte, digits) in id.iter_mut().zip(self.id.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad)?;
        }
        Ok(id)
    }

    /// A new id.
    pub(super) fn new_id() -> vzsys::Result<String> {
        use vzsys::Call as _;
        let mut id = [0; 16];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).call("getrandom", || "16")?;
        Ok(crate::archive::hex(&id))
    }

    /// Reads the meta part of the first frame.
    pub(super) fn parse(meta: &[u8]) -> Result<Self, HeadFault> {
        /// The version alone, which must be understood before the rest.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = |_| HeadFault::Bad(Bad("a first frame that says nothing"));
        let version: Version = serde_json::from_slice(meta).map_err(bad)?;
        if version.format > FORMAT {
            return Err(HeadFault::TooNew(version.format));
        }
        let head: Self = serde_json::from_slice(meta).map_err(bad)?;
        head.id().map_err(HeadFault::Bad)?;
        // A base is looked for beside the backup, and nowhere else.
        let plain =
            |file: &str| !file.is_empty() && !file.contains(['/', '\0']) && file != "." && file != "..";
        if !head.chain.iter().all(|link| plain(&link.file)) || head.chain.len() > usize::from(u16::MAX) {
            return Err(HeadFault::Bad(Bad("a chain of files that are none")));
        }
        Ok(head)
    }
}

/// Why the first frame is not understood.
pub(super) enum HeadFault {
    TooNew(u32),
    Bad(Bad),
}

/// What a whole backup holds, from its last frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files, directories, links and nodes.
    pub entries: u64,
    /// Bytes of all files, holes left out.
    pub bytes: u64,
    /// Bytes of chunks that are in it, before compression.
    pub new: u64,
    /// Files that were known by their numbers and not read.
    pub unread: u64,
    /// The frame with which the tree begins; not 1 in a backup that was interrupted and went on.
    pub(super) first: u64,
    /// Where that frame is.
    pub(super) first_at: u64,
    /// Chunks before it.
    pub(super) first_chunk: u64,
}

impl Totals {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let all =
            [self.entries, self.bytes, self.new, self.unread, self.first, self.first_at, self.first_chunk];
        all.into_iter().for_each(|number| put(&mut out, number));
        out
    }

    pub(super) fn read(meta: &[u8]) -> Result<Self, Bad> {
        let mut cursor = Cursor(meta);
        let mut next = || cursor.number();
        Ok(Self {
            entries: next()?,
            bytes: next()?,
            new: next()?,
            unread: next()?,
            first: next()?,
            first_at: next()?,
            first_chunk: next()?,
        })
    }
}

pub(super) fn tail(end_at: u64) -> [u8; TAIL] {
    let mut tail = [0; TAIL];
    tail[..8].copy_from_slice(&end_at.to_le_bytes());
    tail[8..].copy_from_slice(&TAIL_MARK);
    tail
}

/// Where the end frame begins.
pub(super) fn parse_tail(tail: &[u8; TAIL]) -> Option<u64> {
    let (at, mark) = tail.split_at(8);
    (mark == TAIL_MARK).then(|| u64::from_le_bytes(at.try_into().unwrap_or_default()))
}
