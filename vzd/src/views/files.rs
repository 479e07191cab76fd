//! A tree of small read-only files, and what they say.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::wire::Attributes;

/// A file whose time is set anew by whoever changes what is shown: limits of a VE.
#[derive(Debug)]
pub(super) struct Bell {
    file: Option<File>,
    rung: Option<SystemTime>,
}

impl Bell {
    pub(super) fn new(file: Option<&File>) -> Self {
        let mut bell = Self { file: file.and_then(|file| file.try_clone().ok()), rung: None };
        bell.rings();
        bell
    }

    /// Whether it has rung since it was last listened to.
    pub(super) fn rings(&mut self) -> bool {
        let at = self.file.as_ref().and_then(|file| file.metadata().ok()?.modified().ok());
        std::mem::replace(&mut self.rung, at) != at
    }
}

/// The number of the directory that holds all.
pub(super) const ROOT: u64 = 1;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<F> {
    Directory,
    File(F),
    Link,
}

/// Whose files they are decides what there is.
pub(super) trait Files {
    /// Names a file.
    type File: Copy + Ord;

    fn kind(&mut self, node: u64) -> Option<Kind<Self::File>>;

    fn attributes(&mut self, node: u64) -> Option<Attributes>;

    fn find(&mut self, parent: u64, name: &[u8]) -> Option<u64>;

    /// Numbers and names of what is in a directory, always in the same order.
    fn below(&mut self, parent: u64) -> Vec<(u64, String)>;

    /// Where a link leads to.
    fn target(&mut self, _node: u64) -> Option<String> {
        None
    }

    /// What the file says now.
    fn text(&mut self, file: Self::File) -> String;

    /// Whether something has changed by which even what was shown a moment ago is not true any more.
    fn changed(&mut self) -> bool;

    /// How long [`Files::tick`] can wait.
    fn left(&self) -> Option<Duration> {
        None
    }

    /// Counts what has to be counted regularly.
    fn tick(&mut self) {}

    /// Closes what is kept open between questions.
    fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_heard_once_by_each_who_listens() {
        let file = tempfile::tempfile().unwrap();
        let (mut one, mut other) = (Bell::new(Some(&file)), Bell::new(Some(&file)));
        assert!(!one.rings());
        file.set_modified(SystemTime::now() + Duration::from_nanos(1)).unwrap();
        assert!(one.rings() && !one.rings());
        assert!(other.rings() && !other.rings());
        assert!(!Bell::new(None).rings());
    }
}
