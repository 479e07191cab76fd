//! The one protocol: framed, versioned, with a limit on every length. Neither side trusts the other.
//!
//! ```text
//! greeting   "VZMIGRATE 3 3 10\n" ▶   the versions that the source speaks, lowest and highest; its patience, in seconds
//!            ◀ "VZMIGRATE 3\n"        the one that is spoken; what a login shell prints before is skipped
//!            from here on in chunks, which the relays of the two sides make and take apart: see `transport`
//! frame      kind: u8, length: u32 (little endian), payload
//!            M  a message (postcard)            at most 12 MiB
//!            D  offset: u64, bytes of a file    at most 256 KiB
//!            Z  the same, compressed (zstd)     at most 256 KiB, before and after
//! ```

mod frame;
mod greeting;
mod link;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use frame::Stopped;
pub use frame::WireError;
pub use greeting::{LONGEST, PATIENCE, accept, greet};
pub use link::{Compress, Link, Received};
pub use message::{Answer, Ask, Report, Tree, Verdict};
