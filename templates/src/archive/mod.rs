//! Archives of whole root trees: nothing is lost, and nothing leaves the root.
//!
//! ```text
//! file ─▶ format (thread) ─▶ stream ─▶ reader ─▶ place ─▶ DEST.tmp ─▶ DEST
//!         decompress         chunks    members   openat2, attributes
//! tree ─▶ pack ─▶ writer ─▶ format ─▶ file
//! ```
//!
//! Understood are ustar, old and new GNU, PAX and libarchive's records: long names, numbers in base 256, sparse
//! files of all kinds, extended attributes, ACLs. Written is PAX that GNU tar reads.

mod acl;
mod base64;
mod digest;
mod error;
mod format;
mod header;
mod layer;
mod made;
mod names;
mod pack;
mod path;
mod pax;
mod place;
mod reader;
mod recompress;
mod sparse;
mod stream;
mod sum;
#[cfg(test)]
pub(crate) mod tests;
mod unpack;
mod writer;

use std::path::Path;

use vzsys::Call;

pub(crate) use acl::shift_acl;
pub use digest::TreeDigest;
pub(crate) use digest::{hex, sha256};
pub use error::{ArchiveError, Fault};
pub use format::Compression;
pub(crate) use layer::{Layer, open_tree};
pub use pack::Pack;
pub(crate) use pack::{
    attributes, attributes_of, names, open_beneath, proc_path, segments, shift_capability, shifted,
};
pub(crate) use place::{may_be_lost, open_root};
pub(crate) use recompress::to_gzip;
pub(crate) use sum::{Algorithm, Sum};
pub use unpack::{Durability, Unpack, check, member};
pub use writer::{Entry, EntryKind, Writer};

/// What an archive may cost. Archives are not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Members.
    pub entries: u64,
    /// Length of a path or of a link's target.
    pub path: usize,
    /// Extended attributes of one member, names and values.
    pub xattrs: u64,
}

impl Default for Limits {
    /// 4 TiB, 20 million members, 4095 bytes of path (as the kernel has it), 1 MiB of attributes.
    fn default() -> Self {
        Self { bytes: 4 << 40, entries: 20_000_000, path: 4095, xattrs: 1 << 20 }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the archive read, or of the tree packed.
    pub read: u64,
    /// Size of the archive; 0 if nobody knows (packing).
    pub total: u64,
    /// Bytes of files done.
    pub unpacked: u64,
}

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Bytes of all files.
    pub bytes: u64,
    /// Members.
    pub entries: u64,
    /// About how much that takes on a file system with blocks of 4 KiB.
    pub disk: u64,
}

/// How many bytes an archive will unpack to: exact for plain ones and those whose format tells, else a guess.
///
/// # Errors
/// [`Fault::System`] when it cannot be read.
pub fn estimate(archive: &Path) -> Result<u64, Fault> {
    let look = || {
        let mut file = std::fs::File::open(archive)?;
        let compression = Compression::detect(&mut file)?;
        compression.unpacked_size(&mut file)
    };
    Ok(look().call("read", || archive.display().to_string())?)
}
