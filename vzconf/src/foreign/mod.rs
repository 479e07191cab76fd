//! Configurations of other container managers, in our words.
//!
//! Each reader takes a text that a stranger may have written, and gives options as `vzctl set` takes them, with a note
//! on every line of the original: nothing is dropped without a word.

mod lxc;
mod openvz;
mod pct;
mod resources;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::conf_file::ConfFile;

pub use lxc::{LXC_INCLUDES, lxc};
pub use openvz::openvz;
pub use pct::pct;

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It means the same here.
    Mapped,
    /// It is kept in the configuration, where nothing reads it today.
    Kept,
    /// It has no meaning here, or its default is meant.
    Left,
    /// It is not done: the admin should look at it.
    Missing,
}

impl Fate {
    /// The word in a report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Kept => "kept",
            Self::Left => "left out",
            Self::Missing => "not mapped",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The original: `memory: 512`.
    pub line: String,
    /// What became of it.
    pub fate: Fate,
    /// As what, or why not.
    pub detail: String,
}

/// Where a container's files are, as its configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootHint {
    /// A directory or image at this path.
    Path(String),
    /// A volume of a storage: `local:101/vm-101-disk-0.raw`.
    Volume {
        /// The storage.
        storage: String,
        /// The volume in it.
        volume: String,
    },
}

/// A configuration in our words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Foreign {
    /// Lines taken over as they are.
    pub file: ConfFile,
    /// Options of `vzctl set`.
    pub options: Vec<(String, String)>,
    /// Its name in the other world, where it has one besides a number.
    pub name: Option<String>,
    /// Where its files are.
    pub root: Option<RootHint>,
    /// The host's number for its root, by which all ids on its disk are shifted; 0 for none.
    pub shift: u32,
    /// What became of each line.
    pub notes: Vec<Note>,
}

/// Which bridges this host has.
pub type HasBridge<'a> = &'a dyn Fn(&str) -> bool;

/// A configuration that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Line number from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
    }
}

impl std::error::Error for Unreadable {}

/// Limits that a VE without one of RAM must have.
const REQUIRED: [&str; 20] = [
    "KMEMSIZE",
    "LOCKEDPAGES",
    "PRIVVMPAGES",
    "SHMPAGES",
    "NUMPROC",
    "PHYSPAGES",
    "VMGUARPAGES",
    "OOMGUARPAGES",
    "NUMTCPSOCK",
    "NUMFLOCK",
    "NUMPTY",
    "NUMSIGINFO",
    "TCPSNDBUF",
    "TCPRCVBUF",
    "OTHERSOCKBUF",
    "DGRAMRCVBUF",
    "NUMOTHERSOCK",
    "NUMFILE",
    "DCACHESIZE",
    "NUMIPTENT",
];

/// Larger texts are no configuration.
const MOST: usize = 1 << 20;
/// More lines than any has.
const LINES: usize = 20_000;

fn check_size(text: &str) -> Result<(), Unreadable> {
    if text.len() > MOST || text.lines().count() > LINES {
        return Err(Unreadable { line: 0, reason: "it is too large for a configuration".to_owned() });
    }
    Ok(())
}

impl Foreign {
    fn note(&mut self, line: impl Into<String>, fate: Fate, detail: impl Into<String>) {
        let plain = |text: String| -> String {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
        };
        self.notes.push(Note { line: plain(line.into()), fate, detail: plain(detail.into()) });
    }

    /// Gives what a VE must have and the original had no word for: it had no limit there.
    fn complete(&mut self) {
        let given = |foreign: &Self, option: &str, key: &str| {
            let word = foreign
                .options
                .iter()
                .rev()
                .find(|(name, _)| name == option)
                .map(|(_, value)| value.as_str());
            word.or_else(|| foreign.file.get(key)).map(str::to_owned)
        };
        let limit = |value: &str| value.rsplit(':').next().unwrap_or_default().to_owned();
        let endless = ["unlimited".to_owned(), i32::MAX.to_string(), i64::MAX.to_string()];
        let ram = given(self, "ram", "PHYSPAGES").is_some_and(|value| !endless.contains(&limit(&value)));
        let keys: &[&str] = if ram { &["SWAPPAGES"] } else { &REQUIRED };
        let mut added = Vec::new();
        for key in keys {
            let option = if *key == "SWAPPAGES" { "swap" } else { "" };
            if given(self, option, key).is_none() && self.file.set(key, "unlimited:unlimited").is_ok() {
                added.push(*key);
            }
        }
        if !added.is_empty() {
            self.note("(nothing)", Fate::Mapped, format!("no limit: {}", added.join(", ")));
        }
    }

    fn option(&mut self, line: &str, option: &str, value: impl Into<String>) {
        let value = value.into();
        self.note(line, Fate::Mapped, format!("--{option} {value}"));
        self.options.push((option.to_owned(), value));
    }
}
