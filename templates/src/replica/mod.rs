//! A copy of a tree that is made while the tree is in use, in passes: each sends what has changed since the last.
//!
//! ```text
//! tree ─▶ Scan ── Op, data ──▶ Sink            a connection, or
//!         remembers what it sent               Replica ─▶ the copy, beneath a root handle
//! ```
//!
//! Nothing is lost: devices, hard links, sockets, sparse files, extended attributes, ACLs, file capabilities, times.
//! Whoever takes the steps does not trust them: no path leaves the copy's root, no link in it is followed.

mod digest;
mod entry;
mod error;
mod known;
mod measure;
mod partial;
mod place;
mod scan;
#[cfg(test)]
mod tests;
mod thin;

pub use digest::{Digests, Hashing};
pub use entry::{Content, Meta, NodeKind, Op, Xattr};
pub use error::ReplicaError;
pub use measure::Measure;
pub use place::Replica;
pub use scan::{More, Passed, Scan};
pub use thin::Thin;

/// The most bytes of a file that come in one piece.
pub const PIECE: usize = 256 << 10;

/// Who takes the steps: a connection to another host, or a [`Replica`] here.
pub trait Sink {
    /// Takes one step.
    ///
    /// # Errors
    /// [`ReplicaError`]; the pass ends.
    fn op(&mut self, op: Op) -> Result<(), ReplicaError>;

    /// Takes bytes of the file that was opened by [`Op::File`]; at most [`PIECE`].
    ///
    /// # Errors
    /// [`ReplicaError`]; the pass ends.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ReplicaError>;
}
