//! One action's edits: all are tried, what failed is reported at the end.

use super::error::DistError;
use super::root::{Durability, GuestRoot};
use super::text;

/// What an action did to the guest's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths that were written, linked or removed; empty when all was in order already.
    pub paths: Vec<String>,
}

/// What to do about a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, with this mode.
    Create(u32),
    /// Leave it so.
    Skip,
}

pub(super) struct Work<'r> {
    pub(super) root: &'r GuestRoot,
    changes: Changes,
    failures: Vec<DistError>,
}

impl<'r> Work<'r> {
    pub(super) fn new(root: &'r GuestRoot) -> Self {
        Self { root, changes: Changes::default(), failures: Vec::new() }
    }

    /// Rewrites a text file.
    pub(super) fn edit(&mut self, path: &str, missing: Missing, change: impl FnOnce(&str) -> String) {
        let mode = match missing {
            Missing::Create(mode) => mode,
            Missing::Skip if self.root.exists(path) => 0o644,
            Missing::Skip => return,
        };
        let done = self.root.read(path).and_then(|old| {
            let (old, encoding) = text::decode(&old.unwrap_or_default());
            let new = text::encode(&change(&old), encoding);
            self.root.write(path, &new, mode, Durability::Lazy)
        });
        self.note(path, done);
    }

    /// Puts a file there, whatever it held.
    pub(super) fn put(&mut self, path: &str, content: &str) {
        let done = self.root.write(path, content.as_bytes(), 0o644, Durability::Lazy);
        self.note(path, done);
    }

    /// The same for a program.
    pub(super) fn put_executable(&mut self, path: &str, content: &str) {
        let done = self.root.write(path, content.as_bytes(), 0o755, Durability::Lazy);
        self.note(path, done);
    }

    pub(super) fn remove(&mut self, path: &str) {
        let done = self.root.remove(path);
        self.note(path, done);
    }

    pub(super) fn symlink(&mut self, target: &str, path: &str) {
        let done = self.root.symlink(target, path);
        self.note(path, done);
    }

    /// Takes in what was done elsewhere.
    pub(super) fn include(&mut self, done: Result<Changes, DistError>) {
        match done {
            Ok(changes) => self.changes.paths.extend(changes.paths),
            Err(error) => self.failures.push(error),
        }
    }

    pub(super) fn finish(mut self) -> Result<Changes, DistError> {
        if self.failures.is_empty() {
            return Ok(self.changes);
        }
        let first = self.failures.remove(0);
        if self.failures.is_empty() {
            return Err(first);
        }
        Err(DistError::Several { first: Box::new(first), others: self.failures })
    }

    fn note(&mut self, path: &str, done: Result<bool, DistError>) {
        match done {
            Ok(true) => self.changes.paths.push(path.to_owned()),
            Ok(false) => {}
            Err(error) => self.failures.push(error),
        }
    }
}
