//! The tools that read the table of beancounters and tell what it means for the node.
//!
//! ```text
//! words ──▶ source (accounts of running VEs, or a file) ──▶ Vec<Beancounter> ──▶ formula ──▶ text
//!           host   (RAM, swap, threads, power)          ──▶ Host ────────────────┘
//! ```
//! Formulas and text are pure: what they print is what OpenVZ's tools printed for the same table.

mod burden;
pub mod calc;
mod error;
pub(crate) mod host;
pub mod memory;
pub mod nnc;
pub mod oversell;
pub mod pid;
pub mod power;
mod source;
mod suffix;
pub mod ubc;
mod words;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use vzconf::Paths;

pub use self::error::Error;

/// What a tool has to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// Warnings, a line each, for standard error.
    pub warnings: Vec<String>,
}

impl From<String> for Answer {
    fn from(out: String) -> Self {
        Self { out, warnings: Vec::new() }
    }
}

/// A tool: the words after its name in, what it says out.
pub type Tool = fn(&[String], &Paths) -> Result<Answer, Error>;

/// Runs a tool as a program.
#[must_use]
pub fn main(tool: Tool) -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    match tool(&words, &Paths::host()) {
        Ok(answer) => {
            for warning in &answer.warnings {
                complain("Warning", warning);
            }
            print(&answer.out)
        }
        Err(error) => {
            complain("Error", &ve::describe(&error));
            ExitCode::from(error.exit())
        }
    }
}

fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `vzubc | head` has read what it wants.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain("Error", &format!("standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says it on standard error; a text of others' making cannot steer the terminal.
pub(crate) fn complain(kind: &str, text: &str) {
    let safe: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    // Errors begin with a small letter; a capital one begins a sentence that is an interface itself.
    let kind = if safe.starts_with(char::is_uppercase) { String::new() } else { format!("{kind}: ") };
    // There is nowhere left to complain to when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{kind}{safe}");
}
