//! vztop(8): how the VEs that run are, live.
//!
//! ```text
//! accounts ── sampler ─▶ Snapshot ─┬─▶ batch: text, or JSON
//!             host ────────────────┴─▶ history ─▶ view (keys in, what is shown) ─▶ screen
//! ```
//! Everything between the accounts and the terminal is data: rates, order and what a key does are tested without one.

mod alarm;
mod batch;
mod column;
mod draw;
mod history;
mod host;
mod options;
mod sampler;
mod screen;
mod units;
mod view;

use std::collections::BTreeSet;

use vzconf::{Ctid, Paths, names};

use crate::check::{Answer, Error};

use self::options::{Options, Request, parse};
use self::sampler::Sampler;
#[cfg(test)]
pub(crate) use self::sampler::tests as sampler_tests;

/// Runs vztop until it is told to end.
///
/// # Errors
/// Those of the command line, the accounts and the terminal.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let options = match parse(words)? {
        Request::Help => return Ok(include_str!("../check/help/vztop.txt").to_owned().into()),
        Request::Show(options) => options,
    };
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let sampler = Sampler::new(paths, wanted(&options, paths)?)?;
    if options.batch {
        batch::run(sampler, &options)?;
    } else {
        screen::run(sampler, &options)?;
    }
    Ok(Answer::default())
}

/// The VEs asked for; none named means all.
fn wanted(options: &Options, paths: &Paths) -> Result<BTreeSet<Ctid>, Error> {
    options.named.iter().map(|word| Ok(names::resolve(paths, word)?)).collect()
}

/// The names of the columns that rows can be sorted by.
pub(crate) fn columns() -> impl Iterator<Item = &'static str> {
    column::Column::ALL.into_iter().map(column::Column::name)
}
