//! vzbackup, vzdump and vzrestore: words in, words out; what they do is [`ve::backup`].

mod dump;
mod restore;
mod save;
mod show;
mod words;

use std::ffi::OsString;
use std::rc::Rc;

use clap::{ArgMatches, Command};
use templates::backup::{BackupError, Location};
use ve::Node;
use vzconf::{Exit, Paths};

use crate::cli;
use crate::report::{Failure, Report};

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::of(error.exit(), &error)
    }
}

/// Where the words go: to standard output, unless that is the backup itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Out,
    Err,
}

struct Front<'a> {
    options: &'a ArgMatches,
    report: Rc<Report>,
    voice: Voice,
    json: bool,
}

/// Runs vzbackup; `words` begin with the program's name.
pub fn save(words: impl IntoIterator<Item = OsString>, paths: &Paths) -> Exit {
    run(words::save(), words, paths, save::run)
}

/// Runs vzdump; `words` begin with the program's name.
pub fn dump(words: impl IntoIterator<Item = OsString>, paths: &Paths) -> Exit {
    run(words::dump(), words, paths, dump::run)
}

/// Runs vzrestore; `words` begin with the program's name.
pub fn restore(words: impl IntoIterator<Item = OsString>, paths: &Paths) -> Exit {
    run(words::restore(), words, paths, restore::run)
}

fn run(
    command: Command,
    words: impl IntoIterator<Item = OsString>,
    paths: &Paths,
    work: fn(&Front<'_>, &Node) -> Result<(), Failure>,
) -> Exit {
    let matches = match cli::matches(command, words) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    if matches.try_get_one::<bool>("serve").ok().flatten() == Some(&true) {
        return match templates::backup::serve() {
            Ok(()) => Exit::Ok,
            // The client has gone; nobody is there to be told.
            Err(_) => Exit::System,
        };
    }
    let verbose = matches.get_flag("verbose").then_some(1);
    let report = Report::of_program(matches.get_flag("quiet"), verbose);
    let to_stdout = matches.try_get_one::<String>("to").ok().flatten().is_some_and(|to| to == "-");
    let voice = if to_stdout { Voice::Err } else { Voice::Out };
    let json = matches.get_flag("json");
    let front = Front { options: &matches, report, voice, json };
    let done = front.node(paths).and_then(|node| work(&front, &node));
    match done {
        Ok(()) => Exit::Ok,
        Err(failure) => front.report.fail(&failure),
    }
}

impl Front<'_> {
    fn node(&self, paths: &Paths) -> Result<Node, Failure> {
        crate::run::node(&self.report, paths, self.voice == Voice::Err || self.json)
    }

    fn text(&self, id: &str) -> Option<&str> {
        self.options.get_one::<String>(id).map(String::as_str)
    }

    fn flag(&self, id: &str) -> bool {
        self.options.get_flag(id)
    }

    fn print(&self, text: &str) {
        match self.voice {
            Voice::Out => self.report.output(text),
            Voice::Err => eprint!("{text}"),
        }
    }

    fn print_json(&self, value: &serde_json::Value) {
        self.print(&format!("{value:#}\n"));
    }
}

/// A place as the user wrote it.
fn location(word: &str) -> Result<Location, Failure> {
    Location::parse(word).map_err(|why| Failure::new(Exit::InvalidValue, format!("'{word}': {why}")))
}
