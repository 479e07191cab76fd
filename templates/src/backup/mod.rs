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
mod dump;
mod error;
mod frame;
mod head;
mod index;
mod item;
mod load;
mod message;
mod passes;
#[cfg(test)]
mod passes_tests;
mod place;
mod press;
mod reader;
mod record;
mod remote;
mod replay;
mod save;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod walk;
mod wire;

pub use catalog::{Found, catalog, file_name};
pub use dump::{dump_name, forget_dump};
pub use error::{BackupError, Fault};
pub use head::{Head, Link, Totals};
pub use load::{Listed, Load};
pub use passes::{Running, Stand};
pub use remote::Remote;
pub use save::{Save, Saved};
pub use serve::serve;
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
    /// A file of another host.
    Remote(Remote),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pipe => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl Location {
    /// Reads a place as users write it: `-`, `ssh://[USER@]HOST[:PORT]/PATH`, or a path.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "" => Err("it is empty".to_owned()),
            "-" => Ok(Self::Pipe),
            path => match path.strip_prefix("ssh://") {
                Some(rest) => Remote::parse(rest).map(Self::Remote),
                None => Ok(Self::File(path.into())),
            },
        }
    }

    /// Another file of the same directory.
    #[must_use]
    pub fn beside(&self, file: &str) -> Self {
        match self {
            Self::Pipe => Self::Pipe,
            Self::File(path) => Self::File(path.with_file_name(file)),
            Self::Remote(remote) => {
                let dir = remote.split().0.trim_end_matches('/');
                Self::Remote(Remote { path: format!("{dir}/{file}"), ..remote.clone() })
            }
        }
    }

    /// The directory, and the name in it.
    fn open(&self) -> Result<(Box<dyn store::Shelf>, String), BackupError> {
        let path = match self {
            Self::Pipe => {
                return Err(Fault::Remote("a pipe has no directory".to_owned()).of(self.to_string()));
            }
            Self::Remote(remote) => {
                let file = remote.split().1.to_owned();
                return Ok((Box::new(remote::Vault::new(remote.clone())), file));
            }
            Self::File(path) => path,
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
