//! Words in: the arguments of `vzctl` become a typed request, or an error with its exit code.
//!
//! ```text
//! vzctl [flags] VERB CTID [options]
//!        │      │    │     └ grammar: getopt_long rules, one clap command, built for this verb only
//!        │      │    └ kept as a word; the caller resolves names
//!        │      └ word: the table of verbs
//!        └ only before the verb
//! ```
//! It reads no file and asks nothing of the system, so that an error costs nothing.

mod error;
mod grammar;
mod help;
mod option;
mod request;
mod snapshots;
mod verb;
mod word;

use std::ffi::OsString;

use clap::{ArgMatches, Command};
use vzconf::Exit;

pub use self::error::UsageError;
pub use self::help::{HelpText, usage, verb_help, verb_words, version_line};
pub use self::request::{CtWord, Flags, Invocation, Request, parse};
pub use self::snapshots::{Column, FIELDS, Field, ListOptions, SwitchOptions, TakeOptions};
pub use self::verb::{CreateOptions, SetMode, SetOptions, Setting, StartOptions, StopOptions, Verb};

pub(crate) use self::option::{Opt, Values};
pub(crate) use self::word::{Containers, PLAIN, WORDS, Word};

/// The version `vzctl` tells: clients want three numbers, at least 3.0.23.
pub const VERSION: &str = "5.0.0";

/// The words of a program other than vzctl, which begin with its name. Help, or what is wrong with them, has been
/// printed when there is an exit code instead.
pub(crate) fn matches(
    command: Command,
    words: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, Exit> {
    command.try_get_matches_from(words).map_err(|error| {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        if error.use_stderr() { Exit::InvalidSyntax } else { Exit::Ok }
    })
}
