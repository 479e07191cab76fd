//! vzbackup, vzdump and vzrestore: words in, words out; what they do is [`ve::backup`].

mod dump;
mod restore;
mod save;
mod show;
mod words;

use std::error::Error;
use std::ffi::OsString;
use std::rc::Rc;

use clap::{ArgMatches, Command};
use templates::backup::{BackupError, Location};
use ve::Node;
use vzconf::{Exit, Paths};

use crate::cli::Flags;
use crate::report::Report;

/// How a command ends that does not succeed.
struct Failure {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, ve::describe(error))
    }
}

impl From<ve::Error> for Failure {
    fn from(error: ve::Error) -> Self {
        Self { hint: error.hint().map(str::to_owned), ..Self::of(error.exit(), &error) }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl From<vzconf::Error> for Failure {
    fn from(error: vzconf::Error) -> Self {
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
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed pipe is the reader's choice.
            let _ = error.print();
            return if error.use_stderr() { Exit::InvalidSyntax } else { Exit::Ok };
        }
    };
    if matches.try_get_one::<bool>("serve").ok().flatten() == Some(&true) {
        return match templates::backup::serve() {
            Ok(()) => Exit::Ok,
            // The client has gone; nobody is there to be told.
            Err(_) => Exit::System,
        };
    }
    let verbose = matches.get_flag("verbose").then_some(1);
    let report = Report::new(Flags { quiet: matches.get_flag("quiet"), verbose, ..Flags::default() });
    let to_stdout = matches.try_get_one::<String>("to").ok().flatten().is_some_and(|to| to == "-");
    let voice = if to_stdout { Voice::Err } else { Voice::Out };
    let json = matches.get_flag("json");
    let front = Front { options: &matches, report, voice, json };
    let done = front.node(paths).and_then(|node| work(&front, &node));
    match done {
        Ok(()) => Exit::Ok,
        Err(failure) => front.complain(&failure),
    }
}

impl Front<'_> {
    fn node(&self, paths: &Paths) -> Result<Node, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(Exit::NoAccess, "it must be run by root"));
        }
        let (report, voice, json) = (Rc::clone(&self.report), self.voice, self.json);
        let say = move |level: i32, text: &str| match (level, voice, json) {
            (..0, ..) | (_, Voice::Out, false) => report.line(level, text),
            // What is for people does not get between what is for programs.
            _ => report.aside(level, text),
        };
        let mut node = Node::open(paths.clone(), Box::new(say))?;
        node.progress = crate::run::progress(&self.report);
        self.report.configure(&node.global);
        Ok(node)
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

    fn complain(&self, failure: &Failure) -> Exit {
        // Errors begin with a small letter; a capital one begins a sentence that is an interface itself.
        let text = &failure.text;
        let kind = if text.starts_with(char::is_uppercase) { "" } else { "Error: " };
        self.report.line(-1, &format!("{kind}{text}"));
        if let Some(hint) = &failure.hint {
            self.report.hint(hint);
        }
        failure.exit
    }
}

/// A place as the user wrote it.
fn location(word: &str) -> Result<Location, Failure> {
    Location::parse(word).map_err(|why| Failure::new(Exit::InvalidValue, format!("'{word}': {why}")))
}
