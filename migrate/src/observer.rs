//! Who watches a move.

use crate::phase::Phase;

/// Is told how a move goes.
pub trait Observer {
    /// A line; 0 is shown by default, 1 with `-v`, -1 is a warning.
    fn say(&self, level: i32, text: &str);

    /// A phase begins.
    fn phase(&self, phase: Phase);

    /// Bytes of files that were sent in all, of about so many; 0 when nobody knows.
    fn progress(&self, label: &str, done: u64, total: u64);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Observer for Quiet {
    fn say(&self, _level: i32, _text: &str) {}
    fn phase(&self, _phase: Phase) {}
    fn progress(&self, _label: &str, _done: u64, _total: u64) {}
}
