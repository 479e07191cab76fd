//! The words of `vzctl status` and `vzlist`.
use std::fmt;

use crate::Ctid;

/// The one line of `vzctl status`.
/// For an unknown number that is `CTID 777 deleted unmounted down`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whose.
    pub ctid: Ctid,
    /// Private area and config file are both there.
    pub exists: bool,
    /// The root is mounted.
    pub mounted: bool,
    /// Its init is alive.
    pub running: bool,
    /// The default dump file is there; only shown if it exists and does not run.
    pub suspended: bool,
}

impl Status {
    /// The word `vzlist` shows. Mounted beats suspended.
    #[must_use]
    pub fn word(&self) -> Word {
        match (self.running, self.mounted, self.suspended) {
            (true, _, _) => Word::Running,
            (_, true, _) => Word::Mounted,
            (_, _, true) => Word::Suspended,
            _ => Word::Stopped,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CTID {} {} {} {}{}",
            self.ctid,
            if self.exists { "exist" } else { "deleted" },
            if self.mounted { "mounted" } else { "unmounted" },
            if self.running { "running" } else { "down" },
            if self.exists && !self.running && self.suspended { " suspended" } else { "" },
        )
    }
}

/// The state of a VE in one word, as `vzlist` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// Its init is alive.
    Running,
    /// Nothing of it is up.
    Stopped,
    /// Its root is mounted, no init.
    Mounted,
    /// Not running, with a dump to restore from.
    Suspended,
}

impl Word {
    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Word::Running => "running",
            Word::Stopped => "stopped",
            Word::Mounted => "mounted",
            Word::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_word() {
        let ctid = Ctid::new(101).unwrap();
        for (flags, line, word) in [
            ([false, false, false, false], "CTID 101 deleted unmounted down", "stopped"),
            ([false, false, false, true], "CTID 101 deleted unmounted down", "suspended"),
            ([true, false, false, false], "CTID 101 exist unmounted down", "stopped"),
            ([true, true, false, false], "CTID 101 exist mounted down", "mounted"),
            ([true, true, true, false], "CTID 101 exist mounted running", "running"),
            ([true, true, true, true], "CTID 101 exist mounted running", "running"),
            ([true, false, false, true], "CTID 101 exist unmounted down suspended", "suspended"),
            ([true, true, false, true], "CTID 101 exist mounted down suspended", "mounted"),
        ] {
            let [exists, mounted, running, suspended] = flags;
            let status = Status { ctid, exists, mounted, running, suspended };
            assert_eq!(status.to_string(), line);
            assert_eq!(status.word().to_string(), word);
        }
    }
}
