//! What the meta part of a tree frame says, one item after the other.
//!
//! ```text
//! dir     1  path of the directory below the root, then what follows lies in it
//! node    2  one name in the current directory; a file's contents follow, up to its close
//! new     3  a chunk whose bytes are the next ones of the data part
//! ref     4  a chunk that was there before: in this stream (generation 0) or in an earlier backup
//! hole    5  nothing but zeros, and no blocks
//! close   6  the file ends; whether its numbers can be trusted next time
//! anew    7  forget the tree: a backup that was interrupted goes on with it from the beginning; its chunks stay
//! ```
//! Chunks are numbered as they come, over the whole stream. Each directory comes before what is in it.

use super::wire::{Bad, Cursor, put, put_bytes, put_signed};

/// Length of a path or of a link's target, as the kernel has it.
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;
/// Attributes of one file, names and values.
const XATTRS_MAX: usize = 1 << 20;
/// Longer chunks are not written; read are these.
const CHUNK_MAX: u32 = 4 << 20;

/// What something in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink(Vec<u8>),
    /// Another name of what has this path.
    Hard(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// Seconds and nanoseconds.
pub(super) type Time = (i64, u32);

/// An extended attribute: name, value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// One file, directory, link or node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// A name in the current directory; of a directory, its path below the root (empty for the root).
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    /// By these the next backup knows that it is the same still.
    pub(super) inode: u64,
    pub(super) ctime: Time,
    pub(super) size: u64,
    pub(super) xattrs: Vec<Xattr>,
}

/// A chunk by its number; generation 0 is this stream, 1 its base, 2 the base's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Chunk {
    pub(super) generation: u16,
    pub(super) number: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Entry(Entry),
    New { length: u32, hash: [u8; 32] },
    Ref { chunk: Chunk, length: u32 },
    Hole(u64),
    Close { trusted: bool },
    Anew,
}

impl Item {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => entry.write(out),
            Self::New { length, hash } => {
                out.push(3);
                put(out, u64::from(*length));
                out.extend_from_slice(hash);
            }
            Self::Ref { chunk, length } => {
                out.push(4);
                for number in [u32::from(chunk.generation), chunk.number, *length] {
                    put(out, number.into());
                }
            }
            Self::Hole(length) => {
                out.push(5);
                put(out, *length);
            }
            Self::Close { trusted } => out.extend([6, u8::from(*trusted)]),
            Self::Anew => out.push(7),
        }
    }

    /// The next item of a meta part; `None` at its end. What comes out can be used: names are names, lengths are small.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Option<Self>, Bad> {
        if cursor.is_empty() {
            return Ok(None);
        }
        Ok(Some(match cursor.byte()? {
            tag @ (1 | 2) => Self::Entry(Entry::read(cursor, tag == 1)?),
            3 => Self::New { length: chunk_length(cursor)?, hash: cursor.hash()? },
            4 => {
                let generation =
                    u16::try_from(cursor.number()?).map_err(|_| Bad("a generation that is too large"))?;
                let chunk = Chunk { generation, number: cursor.small()? };
                Self::Ref { chunk, length: chunk_length(cursor)? }
            }
            5 => match cursor.number()? {
                length if length > 0 && i64::try_from(length).is_ok() => Self::Hole(length),
                _ => return Err(Bad("a hole of an impossible length")),
            },
            6 => Self::Close { trusted: cursor.byte()? != 0 },
            7 => Self::Anew,
            _ => return Err(Bad("an item of an unknown kind")),
        }))
    }
}

impl Kind {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::File => 0,
            Self::Dir => 1,
            Self::Symlink(_) => 2,
            Self::Hard(_) => 3,
            Self::Char(..) => 4,
            Self::Block(..) => 5,
            Self::Fifo => 6,
            Self::Socket => 7,
        });
        match self {
            Self::Symlink(target) | Self::Hard(target) => put_bytes(out, target),
            Self::Char(major, minor) | Self::Block(major, minor) => {
                put(out, (*major).into());
                put(out, (*minor).into());
            }
            _ => {}
        }
    }
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.kind == Kind::Dir { 1 } else { 2 });
        put_bytes(out, &self.name);
        self.kind.write(out);
        for number in [self.mode, self.uid, self.gid] {
            put(out, number.into());
        }
        put(out, self.inode);
        put(out, self.size);
        for (seconds, nanos) in [self.mtime, self.ctime] {
            put_signed(out, seconds);
            put(out, nanos.into());
        }
        put(out, self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }

    fn read(cursor: &mut Cursor<'_>, directory: bool) -> Result<Self, Bad> {
        let name = cursor.bytes(PATH_MAX)?.to_vec();
        let fits = if directory { is_path(&name) } else { is_name(&name) };
        if !fits {
            return Err(Bad("a name that is none"));
        }
        let kind = match (cursor.byte()?, directory) {
            (1, true) => Kind::Dir,
            (_, true) | (1, false) => return Err(Bad("a directory that is none")),
            (0, _) => Kind::File,
            (2, _) => Kind::Symlink(target(cursor)?),
            (3, _) => match cursor.bytes(PATH_MAX)? {
                path if is_path(path) && !path.is_empty() => Kind::Hard(path.to_vec()),
                _ => return Err(Bad("a hard link to no path")),
            },
            (4, _) => Kind::Char(cursor.small()?, cursor.small()?),
            (5, _) => Kind::Block(cursor.small()?, cursor.small()?),
            (6, _) => Kind::Fifo,
            (7, _) => Kind::Socket,
            _ => return Err(Bad("an unknown kind of file")),
        };
        let (mode, uid, gid) = (cursor.small()?, cursor.small()?, cursor.small()?);
        // The kernel takes this id for "leave it".
        if mode > 0o7777 || uid == u32::MAX || gid == u32::MAX {
            return Err(Bad("an impossible mode or owner"));
        }
        let (inode, size) = (cursor.number()?, cursor.number()?);
        let (mtime, ctime) = (time(cursor)?, time(cursor)?);
        Ok(Self { name, kind, mode, uid, gid, mtime, inode, ctime, size, xattrs: xattrs(cursor)? })
    }
}

fn chunk_length(cursor: &mut Cursor<'_>) -> Result<u32, Bad> {
    match cursor.small()? {
        length if (1..=CHUNK_MAX).contains(&length) => Ok(length),
        _ => Err(Bad("a chunk of an impossible length")),
    }
}

fn target(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Bad> {
    match cursor.bytes(PATH_MAX)? {
        target if !target.is_empty() && !target.contains(&0) => Ok(target.to_vec()),
        _ => Err(Bad("a link to nothing")),
    }
}

fn time(cursor: &mut Cursor<'_>) -> Result<Time, Bad> {
    match (cursor.signed()?, cursor.small()?) {
        (seconds, nanos) if nanos < 1_000_000_000 => Ok((seconds, nanos)),
        _ => Err(Bad("an impossible time")),
    }
}

fn xattrs(cursor: &mut Cursor<'_>) -> Result<Vec<Xattr>, Bad> {
    let count = cursor.number()?;
    let (mut xattrs, mut total) = (Vec::new(), 0);
    for _ in 0..count {
        let (name, value) = (cursor.bytes(NAME_MAX)?, cursor.bytes(XATTRS_MAX)?);
        total += name.len() + value.len();
        if name.is_empty() || name.contains(&0) || total > XATTRS_MAX {
            return Err(Bad("an impossible attribute"));
        }
        xattrs.push((name.to_vec(), value.to_vec()));
    }
    Ok(xattrs)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// Names with single slashes between them, or nothing.
fn is_path(path: &[u8]) -> bool {
    path.is_empty() || (path.len() <= PATH_MAX && path.split(|&byte| byte == b'/').all(is_name))
}

/// Whether a path of this length can be opened, and stored.
pub(super) fn path_fits(length: usize) -> bool {
    length <= PATH_MAX
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        vec(1_u8..=255, 1..20).prop_map(|mut name| {
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            name.push(b'x');
            name
        })
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        vec(name(), 1..4).prop_map(|names| names.join(&b'/'))
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::File),
            Just(Kind::Dir),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            path().prop_map(Kind::Symlink),
            path().prop_map(Kind::Hard),
            any::<(u32, u32)>().prop_map(|(a, b)| Kind::Char(a, b)),
            any::<(u32, u32)>().prop_map(|(a, b)| Kind::Block(a, b)),
        ]
    }

    pub(crate) fn item() -> impl Strategy<Value = Item> {
        let time = || (any::<i64>(), 0_u32..1_000_000_000);
        let numbers = (0_u32..0o10000, 0..u32::MAX, 0..u32::MAX, any::<u64>(), any::<u64>());
        let xattrs = vec((name(), vec(any::<u8>(), 0..40)), 0..3);
        let entry = (kind(), name(), path(), numbers, time(), time(), xattrs).prop_map(
            |(kind, name, path, (mode, uid, gid, inode, size), mtime, ctime, xattrs)| {
                let name = if kind == Kind::Dir { path } else { name };
                Item::Entry(Entry { name, kind, mode, uid, gid, mtime, inode, ctime, size, xattrs })
            },
        );
        prop_oneof![
            entry,
            (1..=CHUNK_MAX, any::<[u8; 32]>()).prop_map(|(length, hash)| Item::New { length, hash }),
            (any::<(u16, u32)>(), 1..=CHUNK_MAX).prop_map(|((generation, number), length)| Item::Ref {
                chunk: Chunk { generation, number },
                length
            }),
            (1..=u64::MAX / 2).prop_map(Item::Hole),
            any::<bool>().prop_map(|trusted| Item::Close { trusted }),
            Just(Item::Anew),
        ]
    }

    proptest! {
        #[test]
        fn items_come_back(items in vec(item(), 0..20)) {
            let mut out = Vec::new();
            items.iter().for_each(|item| item.write(&mut out));
            let mut cursor = Cursor(&out);
            for item in items {
                prop_assert_eq!(Item::read(&mut cursor).unwrap().unwrap(), item);
            }
            prop_assert!(Item::read(&mut cursor).unwrap().is_none());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            let mut cursor = Cursor(&bytes);
            while let Ok(Some(_)) = Item::read(&mut cursor) {}
        }
    }

    #[test]
    fn names_that_lead_away_are_none() {
        for bad in ["", ".", "..", "a/b", "a\0b"] {
            assert!(!is_name(bad.as_bytes()), "{bad}");
        }
        for bad in ["/", "/a", "a/", "a//b", "a/../b", "."] {
            assert!(!is_path(bad.as_bytes()), "{bad}");
        }
        assert!(is_path(b"") && is_path(b"a") && is_path(b"a/b"));
    }
}
