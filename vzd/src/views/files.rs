//! A tree of small read-only files, and what they say.

use std::time::Duration;

use super::wire::Attributes;

/// The number of the directory that holds all.
pub(super) const ROOT: u64 = 1;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<F> {
    Directory,
    File(F),
}

/// Whose files they are decides what there is.
pub(super) trait Files {
    /// Names a file.
    type File: Copy + Ord;

    fn kind(&self, node: u64) -> Option<Kind<Self::File>>;

    fn attributes(&self, node: u64) -> Option<Attributes>;

    fn find(&self, parent: u64, name: &[u8]) -> Option<u64>;

    /// Numbers and names of what is in a directory, always in the same order.
    fn below(&self, parent: u64) -> Vec<(u64, String)>;

    /// What the file says now.
    fn text(&mut self, file: Self::File) -> String;

    /// How long [`Files::tick`] can wait.
    fn left(&self) -> Option<Duration> {
        None
    }

    /// Counts what has to be counted regularly.
    fn tick(&mut self) {}

    /// Closes what is kept open between questions.
    fn close(&mut self) {}
}
