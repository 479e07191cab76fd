//! Words out: the console, the log file and the exit code.
//!
//! Every line has a level. Levels below 0 are errors and go to stderr, the others to stdout; a line is shown if
//! the console's level (VERBOSE, `--verbose`) reaches its level, logged if LOG_LEVEL does. `--quiet` silences the
//! console but not the log.

mod bar;
mod console;
mod log;
mod sentence;
mod status;

use std::cell::Cell;
use std::error::Error;

use vzconf::{Ctid, Exit};

pub use self::bar::Bar;
use self::console::{Paint, Stream};
use self::log::Log;
pub use self::log::LogSettings;
pub use self::status::status_json;
use crate::cli::{Flags, HelpText, UsageError, Verb};

/// How much the console shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loudness {
    /// Nothing at all.
    Quiet,
    /// Lines up to this level.
    Upto(i32),
}

/// The one place where a command speaks.
#[derive(Debug)]
pub struct Report {
    loudness: Loudness,
    log: Log,
    ct: Cell<Option<Ctid>>,
}

impl Report {
    /// A report for one run. Without `settings` (vz.conf is not read yet, or not readable) nothing is logged.
    pub fn new(flags: Flags, settings: Option<LogSettings>) -> Self {
        let level = flags.verbose.or(settings.as_ref().map(|settings| settings.verbose)).unwrap_or(0);
        let loudness = if flags.quiet { Loudness::Quiet } else { Loudness::Upto(level) };
        Self { loudness, log: Log::new(settings, "vzctl"), ct: Cell::new(None) }
    }

    /// The report of a verb: `status` shows errors only, `enter` logs nothing.
    #[must_use]
    pub fn for_verb(mut self, verb: &Verb) -> Self {
        if verb.errors_only() && self.loudness != Loudness::Quiet {
            self.loudness = Loudness::Upto(-1);
        }
        if matches!(verb, Verb::Enter { .. }) {
            self.log = Log::new(None, "vzctl");
        }
        self
    }

    /// From here on, log lines name this container.
    pub fn about(&self, ct: Ctid) {
        self.ct.set(Some(ct));
    }

    fn shows(&self, level: i32) -> bool {
        matches!(self.loudness, Loudness::Upto(upto) if upto >= level)
    }

    /// Says a line: on the console and in the log, each if its level reaches.
    pub fn line(&self, level: i32, message: &str) {
        self.show(level, message);
        if let Err(complaint) = self.log.line(self.ct.get(), level, message) {
            self.show(-1, &complaint);
        }
    }

    fn show(&self, level: i32, message: &str) {
        if self.shows(level) {
            let stream = Stream::of(level);
            console::write(stream, &format!("{}\n", console::dressed(Paint::detect(stream), message)));
        }
    }

    /// The same as a closure, for those who know nothing of reports.
    pub fn say(&self) -> impl Fn(i32, &str) + '_ {
        |level, message| self.line(level, message)
    }

    /// A line for people only: stderr, not logged.
    pub fn hint(&self, message: &str) {
        if self.shows(-1) {
            let paint = Paint::detect(Stream::Err);
            console::write(Stream::Err, &format!("{}\n", console::faint(paint, message)));
        }
    }

    /// Prints what was asked for (a status line, a help text, a list): to stdout, even with `--quiet`.
    pub fn output(&self, text: &str) {
        console::write(Stream::Out, text);
    }

    /// Prints a help text, coloured on a terminal.
    pub fn help(&self, text: &HelpText) {
        self.output(&text.render(Paint::detect(Stream::Out) == Paint::Coloured));
    }

    /// A progress bar for something long; `total` in bytes, if known. Invisible unless stderr is a terminal.
    pub fn bar(&self, label: &str, total: Option<u64>) -> Bar {
        if self.shows(0) { Bar::visible(label, total) } else { Bar::hidden() }
    }

    /// Tells why a verb failed: the fixed sentence if this failure has one, else `Error: ` and the chain of causes;
    /// then a hint. The chain behind a fixed sentence is logged, and shown with `--verbose`.
    ///
    /// `ct` is the container as the user named it.
    pub fn failure(&self, verb: &Verb, ct: &str, exit: Exit, error: &dyn Error) {
        let chain = chain(error);
        match sentence::fixed(verb.word(), exit) {
            Some((level, sentence)) => {
                self.line(level, sentence);
                if !chain.starts_with(sentence) {
                    self.line(1, &chain);
                }
            }
            // Errors begin with a small letter; a capital one begins a sentence that is an interface itself.
            None if chain.starts_with(char::is_uppercase) => self.line(-1, &chain),
            None => self.line(-1, &format!("Error: {chain}")),
        }
        if matches!(verb, Verb::Create(_)) {
            self.line(-1, "Creation of container private area failed");
        }
        if let Some(hint) = sentence::hint(verb.word(), exit, ct) {
            self.hint(&hint);
        }
    }

    /// Tells what is wrong with the command line. Needs no report: it happens before there is one.
    pub fn usage_error(error: &UsageError) {
        if error.quiet() {
            return;
        }
        let paint = Paint::detect(Stream::Err);
        console::write(Stream::Err, &format!("{}\n", console::dressed(paint, &error.to_string())));
        if let Some(advice) = error.advice() {
            console::write(Stream::Err, &format!("{}\n", console::faint(paint, advice)));
        }
    }
}

/// An error and its causes, joined with colons.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors repeat their source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot mount {what}")]
    struct Outer {
        what: &'static str,
        #[source]
        cause: std::io::Error,
    }

    #[test]
    fn an_error_tells_its_causes_once() {
        let error = Outer { what: "/vz/root/101", cause: std::io::Error::from_raw_os_error(13) };
        assert_eq!(chain(&error), "cannot mount /vz/root/101: Permission denied (os error 13)");
    }

    #[test]
    fn quiet_wins_over_verbose_and_status_shows_errors_only() {
        let quiet = Report::new(Flags { quiet: true, verbose: Some(3), ..Flags::default() }, None);
        assert!(!quiet.shows(-1));
        let settings = LogSettings { enabled: false, file: "/x".into(), level: 0, verbose: 2 };
        let loud = Report::new(Flags::default(), Some(settings.clone()));
        assert!(loud.shows(2) && !loud.shows(3));
        let told = Report::new(Flags { verbose: Some(1), ..Flags::default() }, Some(settings));
        assert!(told.shows(1) && !told.shows(2));
        let status = told.for_verb(&Verb::Status { json: false });
        assert!(status.shows(-1) && !status.shows(0));
    }
}
