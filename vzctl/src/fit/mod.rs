//! The tools that make configurations fit: the values to one another and to the node ([`validate`]), a sample to the
//! number of VEs that the node is to hold ([`split`]), a VE to what it has become ([`scale`]).
//!
//! ```text
//! words ──▶ Subject (a config file, perhaps a VE's) ──▶ Limits ──▶ rules, levels or factors ──▶ Limits ──▶ file
//! ```
//! What is in the middle is pure. What is not a limit passes through a file untouched.

mod error;
mod limits;
pub mod scale;
pub mod split;
mod subject;
mod talk;
#[cfg(test)]
mod testing;
pub mod validate;
mod words;

use std::io::ErrorKind;
use std::process::ExitCode;

use vzconf::Paths;

pub use self::error::Error;
pub use self::talk::Talk;
use crate::check::complain;

/// What a tool found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Good,
    /// A configuration that does not fit.
    Unfit,
}

/// A tool: the words after its name in; it says what it finds as it goes, because it may ask.
pub type Tool = fn(&[String], &Paths, &mut Talk<'_>) -> Result<Outcome, Error>;

/// Runs a tool as a program.
#[must_use]
pub fn main(tool: Tool) -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    let (mut out, mut err, mut input) = (std::io::stdout(), std::io::stderr(), std::io::stdin().lock());
    let mut talk = Talk { out: &mut out, err: &mut err, input: &mut input };
    match tool(&words, &Paths::host(), &mut talk) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Unfit) => ExitCode::from(2),
        // `vzsplit | head` has read what it wants.
        Err(Error::Output(source)) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain("Error", &ve::describe(&error));
            ExitCode::FAILURE
        }
    }
}
