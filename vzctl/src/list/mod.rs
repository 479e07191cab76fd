//! `vzlist`: which VEs there are and how they are.
//!
//! About twenty public programs parse what this prints, so every blank of it is a promise.
//!
//! ```text
//!  words ── options ──▶ Options ─┬─▶ source ──▶ Vec<Row> ──▶ select ──▶ render / json ──▶ Output
//!                                └── which fields, hence what has to be read (fields::Need)
//! ```
//! Only [`source`] looks at the world, only as deep as the asked fields need, takes no lock and
//! goes on when a config is malformed or vanishes.

mod fields;
mod json;
mod options;
mod pattern;
mod render;
mod row;
mod select;
mod source;
mod value;

pub use fields::{Align, Field, Need, field_table};
pub use options::{Error, Form, Options, Request, Scope, Sort, parse};
pub use row::{Column, Counter, Disk, DiskColumn, Resource, Row, Status, Switch};
pub use select::select;
pub(crate) use source::configured;
pub use value::{Room, Value};

use vzconf::{Ctid, Paths};

/// What `vzlist --help` prints.
pub const USAGE: &str = include_str!("usage.txt");

/// Everything a run of `vzlist` says, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// Exit status.
    pub exit: u8,
}

impl Output {
    fn failure(message: impl std::fmt::Display) -> Self {
        Self { err: format!("{message}\n"), exit: 1, ..Self::default() }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Effective uid 0.
    Root,
    /// Anybody else, who may only read the help.
    User,
}

/// Runs `vzlist` with these arguments (without the program's name). Takes no lock; blocks on
/// nothing but the local file system.
pub fn run<I: IntoIterator<Item = String>>(arguments: I, caller: Caller, paths: &Paths) -> Output {
    let options = match parse(arguments) {
        Ok(Request::List(options)) => options,
        Ok(Request::FieldNames) => return Output { out: render::field_names(), ..Output::default() },
        Ok(Request::Help) => return Output { out: USAGE.to_owned(), exit: 1, ..Output::default() },
        Err(error @ Error::Syntax(_)) => {
            return Output::failure(format_args!("{error}\nTry `vzlist --help' for more information."));
        }
        Err(error) => return Output::failure(error),
    };
    let ids = match resolve(&options.named, |name| source::by_name(paths, name)) {
        Ok(ids) => ids,
        Err(refusal) => return refusal,
    };
    if caller != Caller::Root {
        return Output::failure("This program can only be run under root.");
    }
    match source::rows(paths, &options, &ids) {
        Ok(seen) => {
            let mut output = report(seen.rows, &options, &ids);
            output.err.insert_str(0, &seen.warnings.concat());
            output
        }
        Err(error) => Output::failure(ve::describe(&error)),
    }
}

/// The CTIDs that the arguments stand for. A number is a CTID whether or not there is such a VE;
/// anything else, and 0, is looked up as a name.
///
/// # Errors
/// What `vzlist` says of an argument that is neither.
pub fn resolve(named: &[String], by_name: impl Fn(&str) -> Option<Ctid>) -> Result<Vec<Ctid>, Output> {
    let resolved = named.iter().map(|word| {
        let number = word.parse().ok().filter(|ctid: &Ctid| !ctid.is_host());
        number
            .or_else(|| by_name(word))
            .ok_or_else(|| Output::failure(format_args!("CT ID {word} is invalid.")))
    });
    resolved.collect()
}

/// Shows rows: picks and sorts those the options and CTIDs ask for, and renders them.
pub fn report(rows: Vec<Row>, options: &Options, ids: &[Ctid]) -> Output {
    let rows = select(rows, options, ids);
    let exit = u8::from(rows.is_empty() && !ids.is_empty());
    match options.form {
        Form::Json => Output { out: json::json(&rows, options), exit, ..Output::default() },
        Form::Text if rows.is_empty() => {
            Output { err: "Container(s) not found\n".to_owned(), exit, ..Output::default() }
        }
        Form::Text => Output { out: render::text(&rows, options), exit, ..Output::default() },
    }
}
