//! The FUSE protocol as far as small read-only files need it (fuse(4), include/uapi/linux/fuse.h, version 7.31).

/// What the kernel asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// Goes with the answer.
    pub(super) unique: u64,
    /// The file that is meant.
    pub(super) node: u64,
    pub(super) wish: Wish<'a>,
}

/// What is wanted of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish<'a> {
    Hello {
        minor: u32,
    },
    Lookup(&'a [u8]),
    Attributes,
    ReadLink,
    Open,
    OpenDirectory,
    Read(Read),
    ReadDirectory(Read),
    /// The handle is not used any more.
    Release(u64),
    ReleaseDirectory,
    Statistics,
    /// The kernel knows nothing of this node any more, or of some. No answer is expected.
    Forget,
    /// No answer is expected.
    Nothing,
    /// We do not do that, and need not be asked again.
    Unknown,
}

/// A part of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Into the reader's memory, not into the page cache.
    pub(super) direct: bool,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) node: u64,
    /// Type and permissions.
    pub(super) mode: u32,
    /// The host's number of its owner and group.
    pub(super) owner: u32,
    /// Whether its name always leads to it.
    pub(super) lasting: bool,
}

impl Attributes {
    fn name_valid(self) -> u64 {
        if self.lasting { VALID } else { 0 }
    }

    /// The inode number, small enough for `stat` of 32-bit programs.
    fn number(self) -> u64 {
        (self.node >> 32 ^ self.node) & u64::from(u32::MAX)
    }

    fn valid(self, minor: u32) -> u64 {
        if self.mode & S_IFDIR != 0 || minor >= MODSIZE { VALID } else { 0 }
    }
}

/// Our version; the kernel takes the lower one of both.
const MINOR: u32 = 31;
const HEAD: usize = 40;
/// From this version on (5.16), what [`reaches`] tells makes the kernel doubt the size of a file and nothing else: it
/// asks for attributes when somebody wants to know the size, and no more at every open(2), for the permissions.
const MODSIZE: u32 = 35;
/// Seconds that a name, a directory or permissions may be remembered: longer than any kernel runs.
const VALID: u64 = 1 << 30;
const DIRECT_IO: u32 = 1;
/// Of a read: the kernel says whose it is, and the page cache is nobody's.
const LOCK_OWNER: u32 = 2;
/// The kernel refuses less, though nobody writes here.
const MAX_WRITE: u32 = 4096;
pub(super) const ENOSYS: i32 = 38;

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// Up to the zero byte.
    fn name(&self) -> Option<&'a [u8]> {
        self.0.iter().position(|byte| *byte == 0).map(|end| &self.0[..end])
    }
}

impl<'a> Request<'a> {
    /// Understands a whole request; `None` for what the kernel never says.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut head = Fields(bytes.get(..HEAD)?);
        let (_, opcode, unique, node) = (head.u32()?, head.u32()?, head.u64()?, head.u64()?);
        let wish = Wish::parse(opcode, Fields(&bytes[HEAD..])).unwrap_or(Wish::Unknown);
        Some(Self { unique, node, wish })
    }
}

impl<'a> Wish<'a> {
    fn parse(opcode: u32, mut fields: Fields<'a>) -> Option<Self> {
        Some(match opcode {
            1 => Self::Lookup(fields.name()?),
            // FORGET, BATCH_FORGET
            2 | 42 => Self::Forget,
            // INTERRUPT
            36 => Self::Nothing,
            3 => Self::Attributes,
            5 => Self::ReadLink,
            14 => Self::Open,
            15 => Self::Read(Read::parse(fields)?),
            17 => Self::Statistics,
            18 => Self::Release(fields.u64()?),
            26 => {
                let (_, minor) = (fields.u32()?, fields.u32()?);
                Self::Hello { minor }
            }
            27 => Self::OpenDirectory,
            28 => Self::ReadDirectory(Read::parse(fields)?),
            29 => Self::ReleaseDirectory,
            _ => Self::Unknown,
        })
    }
}

impl Read {
    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let (handle, offset, size, flags) = (fields.u64()?, fields.u64()?, fields.u32()?, fields.u32()?);
        Some(Self { handle, offset, size, direct: flags & LOCK_OWNER != 0 })
    }
}

/// Bytes of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// To a hello: what both can do. No read-ahead, few in the background.
    pub(super) fn hello(minor: u32) -> Self {
        let flags = 0;
        Self::default()
            .u32(7)
            .u32(minor.min(MINOR))
            .u32(0)
            .u32(flags)
            .u16(16)
            .u16(12)
            .u32(MAX_WRITE)
            .u32(1)
            .zeros(36)
    }

    /// `minor` is the kernel's version.
    pub(super) fn found(of: Attributes, minor: u32) -> Self {
        Self::default()
            .u64(of.node)
            .u64(0)
            .u64(of.name_valid())
            .u64(of.valid(minor))
            .u32(0)
            .u32(0)
            .attributes_of(of)
    }

    pub(super) fn attributes(of: Attributes, minor: u32) -> Self {
        Self::default().u64(of.valid(minor)).u32(0).u32(0).attributes_of(of)
    }

    fn attributes_of(self, of: Attributes) -> Self {
        // As in procfs: no size, no blocks; times of the epoch, since nothing is ever stored.
        let size_blocks_times = 5 * 8 + 3 * 4;
        let links = if of.mode & S_IFDIR != 0 { 2 } else { 1 };
        self.u64(of.number())
            .zeros(size_blocks_times)
            .u32(of.mode)
            .u32(links)
            .u32(of.owner)
            .u32(of.owner)
            .u32(0)
            .u32(BLOCK)
            .u32(0)
    }

    /// The page cache has no part in it: what is read is as of now, whatever size the file says it has.
    pub(super) fn opened(handle: u64) -> Self {
        Self::default().u64(handle).u32(DIRECT_IO).u32(0)
    }

    pub(super) fn target(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn opened_directory() -> Self {
        Self::default().u64(0).u32(0).u32(0)
    }

    /// As procfs says: nothing.
    pub(super) fn statistics() -> Self {
        let (block, name) = (4096, 255);
        Self::default().zeros(5 * 8).u32(block).u32(name).u32(block).zeros(4 + 6 * 4)
    }

    /// Adds an entry of a directory if it fits; where the next one begins.
    pub(super) fn entry(&mut self, room: usize, next: u64, node: u64, kind: u32, name: &str) -> bool {
        let length = name.len();
        let whole = (24 + length).next_multiple_of(8);
        if self.0.len() + whole > room {
            return false;
        }
        let head = std::mem::take(self);
        *self = head.u64(node).u64(next).u32(u32::try_from(length).unwrap_or(0)).u32(kind >> 12);
        self.0.extend(name.as_bytes());
        *self = std::mem::take(self).zeros(whole - 24 - length);
        true
    }
}

pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;
const BLOCK: u32 = 1024;

/// The head of an answer with this much behind it, or with an errno.
pub(super) fn head(unique: u64, errno: i32, length: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    let whole = u32::try_from(16 + length).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&whole.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(-errno).to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}

/// Tells the kernel, unasked, that the file may be as long as this: by its last byte, without which it takes no notice
/// (`FUSE_NOTIFY_STORE`). Opening the file drops that again.
///
/// sendfile(2) and splice(2) read no further than the size that the kernel knows (`filemap_splice_read`, since 6.5),
/// and a file of no size would look empty to them. A read that ends earlier tells the kernel where the end is. Attributes
/// that it has asked for before do not count after this, if it is farther than the kernel knew.
pub(super) fn reaches(node: u64, size: u64) -> Vec<u8> {
    const STORE: i32 = 4;
    // A notification is an answer to nothing, with a code in place of the errno.
    let mut bytes = head(0, -STORE, 25).to_vec();
    bytes.extend(Answer::default().u64(node).u64(size - 1).u32(1).zeros(4 + 1).bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let whole = u32::try_from(HEAD + body.len()).unwrap();
        let mut bytes = [whole.to_ne_bytes(), opcode.to_ne_bytes()].concat();
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(3_u64.to_ne_bytes());
        bytes.resize(HEAD, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn requests_are_understood() {
        let wish = |opcode, body: &[u8]| {
            let bytes = request(opcode, body);
            let parsed = Request::parse(&bytes).unwrap();
            assert_eq!((parsed.unique, parsed.node), (7, 3));
            format!("{:?}", parsed.wish)
        };
        assert_eq!(wish(1, b"meminfo\0"), format!("{:?}", Wish::Lookup(b"meminfo")));
        assert_eq!(wish(26, &[7, 0, 0, 0, 40, 0, 0, 0]), "Hello { minor: 40 }");
        let read = |flags: u64| [5_u64, 4096, 100 | flags << 32].map(u64::to_le_bytes).concat();
        assert_eq!(wish(15, &read(3)), "Read(Read { handle: 5, offset: 4096, size: 100, direct: true })");
        let read = read(1);
        assert_eq!(wish(15, &read), "Read(Read { handle: 5, offset: 4096, size: 100, direct: false })");
        assert_eq!(wish(15, &read[..16]), "Unknown");
        assert_eq!(wish(16, &read), "Unknown");
        assert_eq!((wish(42, b""), wish(36, b"")), ("Forget".to_owned(), "Nothing".to_owned()));
    }

    #[test]
    fn answers_have_the_sizes_that_the_kernel_wants() {
        let of = Attributes { node: 2, mode: S_IFREG | 0o444, owner: 0, lasting: true };
        let sizes = [
            Answer::hello(31).bytes().len(),
            Answer::found(of, 31).bytes().len(),
            Answer::attributes(of, 31).bytes().len(),
            Answer::opened(1).bytes().len(),
            Answer::statistics().bytes().len(),
        ];
        assert_eq!(sizes, [64, 128, 104, 16, 80]);
    }

    #[test]
    fn a_notification_is_no_answer() {
        let bytes = reaches(5, 1 << 20);
        assert_eq!(bytes.len(), 41);
        assert_eq!(bytes[..16], [41, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [5_u64.to_ne_bytes(), ((1_u64 << 20) - 1).to_ne_bytes()].concat());
    }

    #[test]
    fn entries_are_aligned_and_stop_where_the_room_ends() {
        let mut answer = Answer::default();
        assert!(answer.entry(80, 1, 2, S_IFREG, "meminfo"));
        assert_eq!(answer.bytes().len(), 32);
        assert!(answer.entry(80, 2, 3, S_IFREG, "stat"));
        assert!(!answer.entry(80, 3, 4, S_IFREG, "x"));
        assert_eq!(answer.bytes().len(), 64);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn no_body_makes_it_panic(opcode in 0_u32..50, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Request::parse(&request(opcode, &body)).is_some());
        }
    }
}
