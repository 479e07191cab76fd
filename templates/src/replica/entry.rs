//! The steps of which a copy is made.

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

/// One step. Paths are relative to the root, which is the empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A directory is there from now on, open to its owner alone until [`Op::Leave`].
    Directory {
        /// Where.
        path: Vec<u8>,
    },
    /// All below a directory is as it shall be: now its own attributes.
    Leave {
        /// Where.
        path: Vec<u8>,
        /// What it is like.
        meta: Meta,
    },
    /// A regular file; what follows are pieces of its content, up to [`Op::Close`].
    File {
        /// Where.
        path: Vec<u8>,
        /// Whether the old content stays where nothing new comes.
        content: Content,
    },
    /// This part of the open file is zeros.
    Zero {
        /// From this byte on.
        offset: u64,
        /// So many.
        length: u64,
    },
    /// The open file is complete.
    Close {
        /// Its size.
        size: u64,
        /// What it is like.
        meta: Meta,
    },
    /// A further name of something that is there.
    HardLink {
        /// Where.
        path: Vec<u8>,
        /// A name that it has already.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        path: Vec<u8>,
        /// What it says.
        target: Vec<u8>,
        /// What it is like.
        meta: Meta,
    },
    /// A device, FIFO or socket.
    Node {
        /// Where.
        path: Vec<u8>,
        /// Which.
        kind: NodeKind,
        /// Device numbers; 0 for those that have none.
        device: (u32, u32),
        /// What it is like.
        meta: Meta,
    },
    /// Only the attributes have changed.
    Meta {
        /// Where.
        path: Vec<u8>,
        /// What it is like now.
        meta: Meta,
    },
    /// It is gone, with all below it.
    Remove {
        /// Where it was.
        path: Vec<u8>,
    },
}

/// What becomes of the content that a file has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A new file, whatever was there.
    New,
    /// The same file; what is not sent stays.
    Patched,
}

/// What is neither file, directory nor link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// FIFO.
    Fifo,
    /// A socket's name.
    Socket,
}

impl NodeKind {
    pub(super) fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::CharacterDevice => Self::Char,
            FileType::BlockDevice => Self::Block,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            _ => return None,
        })
    }

    pub(super) fn file_type(self) -> FileType {
        match self {
            Self::Char => FileType::CharacterDevice,
            Self::Block => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Everything about a file but its content and its names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permissions with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds of the last access.
    pub accessed: (i64, u32),
    /// The same of the last change of content.
    pub modified: (i64, u32),
    /// Extended attributes, ACLs and capabilities among them, sorted.
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    pub(super) fn of(stat: &Stat, xattrs: Vec<Xattr>) -> Self {
        #[allow(clippy::unnecessary_cast)] // their type differs between kernels' headers
        let nanos = |value| u32::try_from(value as u64).unwrap_or(0);
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            accessed: (stat.st_atime, nanos(stat.st_atime_nsec)),
            modified: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
            xattrs,
        }
    }
}
