//! Backups of whole trees: one stream, incremental, checksummed, resumable. docs/backup.md has the format.
//!
//! ```text
//! tree ─▶ walk ─▶ chunk ─▶ press (threads) ─▶ FILE.part ─▶ FILE     frames: frame, items in them: item
//!           ▲ index: what the base and FILE.part hold
//! FILE ─▶ reader (thread) ─▶ replay ─▶ place ─▶ tree                chunks of earlier backups: base
//! ```
//! A backup holds the whole tree as the VE sees it, whatever its layout, so it can be restored where neither the template
//! nor that layout is. An incremental one names all files too, but of those that are the same as in its base it has
//! numbers of chunks only.

mod base;
mod catalog;
mod chunk;
mod error;
mod frame;
mod head;
mod index;
mod item;
mod load;
mod place;
mod press;
mod reader;
mod replay;
mod save;
mod store;
#[cfg(test)]
mod tests;
mod walk;
mod wire;

pub use catalog::{Found, catalog, file_name};
pub use error::{BackupError, Fault};
pub use head::{Head, Link, Totals};
pub use load::{Listed, Load};
pub use save::{Save, Saved};
pub use store::SUFFIX;
pub use walk::Torn;

/// What overlayfs writes for itself.
const OVERLAYS_OWN: &[u8] = b"trusted.overlay.";

/// How far it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Of files.
    pub done: u64,
    /// Of all files; 0 where nobody knows.
    pub total: u64,
    /// Of the stream written so far; 0 when one is read.
    pub stream: u64,
}

/// Where a backup is, or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Standard input or output.
    Pipe,
    /// A file of this host.
    File(std::path::PathBuf),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pipe => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Location {
    /// Reads a place as users write it: `-`, or a path.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "" => Err("it is empty".to_owned()),
            "-" => Ok(Self::Pipe),
            path => Ok(Self::File(path.into())),
        }
    }

    /// Another file of the same directory.
    #[must_use]
    pub fn beside(&self, file: &str) -> Self {
        match self {
            Self::Pipe => Self::Pipe,
            Self::File(path) => Self::File(path.with_file_name(file)),
        }
    }

    /// The directory, and the name in it.
    fn open(&self) -> Result<(Box<dyn store::Shelf>, String), BackupError> {
        let Self::File(path) = self else {
            return Err(Fault::Remote("a pipe has no directory".to_owned()).of(self.to_string()));
        };
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| Fault::Remote("it names no file".to_owned()).of(self.to_string()))?;
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => std::path::PathBuf::from("."),
        };
        Ok((Box::new(store::Directory(dir)), name))
    }
}
