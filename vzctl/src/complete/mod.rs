//! Completion: short scripts for the shells, and the words they ask for.
//!
//! The scripts know nothing: at each Tab they run `vzctl __complete line WORD…`, which reads a few directories.
//! So the three shells agree, and the table of options is the parser's own.

mod line;
mod sources;
mod tools;

use std::ffi::OsString;
use std::fmt::Write as _;

pub use self::line::{Candidate, Proposal, propose};
pub use self::sources::Sources;
use crate::cli::Containers;

/// A shell that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// The shell of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }

    /// Its completion script, for vzctl and all other programs.
    pub fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("vzctl.bash"),
            Self::Zsh => include_str!("vzctl.zsh"),
            Self::Fish => include_str!("vzctl.fish"),
        }
    }
}

/// The answer to `vzctl __complete KIND [WORD…]`, one candidate a line, with its meaning after a tab.
///
/// KIND is `line` (the words up to the cursor follow), or one of `ctids`, `running`, `stopped` (numbers and names),
/// `next`, `templates` and `samples`. Anything else has no answer.
pub fn answer(sources: &Sources, request: &[OsString]) -> String {
    let Some((kind, words)) = request.split_first() else { return String::new() };
    let plain = |words: std::collections::BTreeSet<String>| {
        words.into_iter().map(|word| Candidate { word, about: String::new() }).collect()
    };
    let candidates: Vec<Candidate> = match &*kind.to_string_lossy() {
        "line" => match propose(sources, words) {
            Proposal::Words(candidates) => candidates,
            Proposal::Paths => return ":paths\n".to_owned(),
        },
        "ctids" => line::containers(sources, Containers::Any),
        "running" => line::containers(sources, Containers::Running),
        "stopped" => line::containers(sources, Containers::Stopped),
        "next" => line::containers(sources, Containers::New),
        "templates" => plain(sources.templates()),
        "samples" => plain(sources.samples()),
        _ => Vec::new(),
    };
    let mut text = String::new();
    for Candidate { word, about } in candidates {
        let _ = if about.is_empty() { writeln!(text, "{word}") } else { writeln!(text, "{word}\t{about}") };
    }
    text
}
