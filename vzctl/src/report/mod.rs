//! Words out: the console, the log file and the exit code.
//!
//! Every line has a level. Levels below 0 are errors and go to stderr, the others to stdout; a line is shown if
//! the console's level (VERBOSE, `--verbose`) reaches its level, logged if LOG_LEVEL does. `--quiet` of
//! vzctl silences the console but not the log, that of the programs beside it leaves errors.

mod bar;
mod console;
mod failure;
mod log;
mod sentence;
pub mod snapshots;
mod status;
mod verdict;

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::rc::Rc;

use vzconf::{Config, Ctid, Exit};

pub use self::bar::Bar;
use self::console::{Paint, Stream};
pub(crate) use self::failure::Failure;
use self::log::{Log, LogSettings};
pub use self::status::status_json;
pub(crate) use self::verdict::{verdict, verdict_json};
use crate::cli::{Flags, HelpText, UsageError, Verb};

/// Takes a line, with its level first.
pub type Say = Box<dyn Fn(i32, &str)>;

/// The one place where a command speaks.
///
/// It speaks before `vz.conf` is read (to say that it cannot be), so what that says comes later:
/// ```no_run
/// # fn main() -> Result<(), vzctl::cli::UsageError> {
/// # use vzctl::{cli, report::Report};
/// let invocation = cli::parse(std::env::args_os().skip(1))?;
/// let report = Report::new(invocation.flags);
/// let say = report.say(); // for `ve::Node::open`
/// // report.configure(&node.global); report.about(ctid); …
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Report {
    flags: Flags,
    /// VERBOSE of vz.conf.
    verbose: Cell<i32>,
    /// Only errors are shown.
    errors_only: Cell<bool>,
    /// Nothing is logged.
    unlogged: Cell<bool>,
    /// Empty until vz.conf is read.
    log: OnceCell<Log>,
    ct: Cell<Option<Ctid>>,
}

impl Report {
    /// A report for one run, with the flags of its command line.
    #[must_use]
    pub fn new(flags: Flags) -> Rc<Self> {
        Rc::new(Self {
            flags,
            verbose: Cell::new(0),
            errors_only: Cell::new(false),
            unlogged: Cell::new(false),
            log: OnceCell::new(),
            ct: Cell::new(None),
        })
    }

    /// The same for a program whose `--quiet` leaves errors to be seen, as vzctl's does not.
    #[must_use]
    pub fn of_program(quiet: bool, verbose: Option<i32>) -> Rc<Self> {
        let report = Self::new(Flags { verbose, ..Flags::default() });
        report.errors_only.set(quiet);
        report
    }

    /// Takes over LOGGING, LOGFILE, LOG_LEVEL and VERBOSE. Logs from here on; only the first call counts.
    pub fn configure(&self, config: &Config) {
        self.settings(LogSettings::read(|key| config.node(key), config.paths().log_file()));
    }

    fn settings(&self, settings: LogSettings) {
        self.verbose.set(settings.verbose);
        self.log.get_or_init(|| Log::new(settings, "vzctl"));
    }

    /// Adapts to the verb: `status` shows errors only, `enter` logs nothing.
    pub fn serve(&self, verb: &Verb) {
        self.errors_only.set(verb.errors_only());
        self.unlogged.set(matches!(verb, Verb::Enter { .. }));
    }

    /// From here on, log lines name this container.
    pub fn about(&self, ct: Ctid) {
        self.ct.set(Some(ct));
    }

    fn shows(&self, level: i32) -> bool {
        let upto = if self.errors_only.get() { -1 } else { self.flags.verbose.unwrap_or(self.verbose.get()) };
        !self.flags.quiet && upto >= level
    }

    /// Says a line: on the console and in the log, each if its level reaches.
    pub fn line(&self, level: i32, message: &str) {
        self.put(Stream::of(level), level, message);
    }

    fn put(&self, stream: Stream, level: i32, message: &str) {
        self.show(stream, level, message);
        let log = self.log.get().filter(|_| !self.unlogged.get());
        if let Some(Err(complaint)) = log.map(|log| log.line(self.ct.get(), level, message)) {
            self.show(Stream::Err, -1, &complaint);
        }
    }

    fn show(&self, stream: Stream, level: i32, message: &str) {
        if self.shows(level) {
            console::write(stream, &format!("{}\n", console::dressed(Paint::detect(stream), message)));
        }
    }

    /// The same as a closure, for those who know nothing of reports.
    #[must_use]
    pub fn say(self: &Rc<Self>) -> Say {
        let report = Rc::clone(self);
        Box::new(move |level, message| report.line(level, message))
    }

    /// Says a line as [`Report::line`] does, but on stderr: stdout is taken by something else.
    pub fn aside(&self, level: i32, message: &str) {
        self.put(Stream::Err, level, message);
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
    /// `ct` is the container as the user named it; `hint` replaces the usual hint for such a failure.
    pub fn failure(&self, verb: &Verb, ct: &str, exit: Exit, error: &dyn Error, hint: Option<&str>) {
        let chain = ve::describe(error);
        match sentence::fixed(verb.word(), exit) {
            Some((level, sentence)) => {
                self.line(level, sentence);
                match chain.strip_prefix(sentence) {
                    // Such as who holds the lock.
                    Some(more) => {
                        more.lines().filter(|more| !more.is_empty()).for_each(|more| self.line(level, more))
                    }
                    None => self.line(1, &chain),
                }
            }
            None => self.error(&chain),
        }
        if matches!(verb, Verb::Create(_)) {
            self.line(-1, "Creation of container private area failed");
        }
        let usual = || sentence::hint(verb.word(), exit, ct);
        if let Some(hint) = hint.map(str::to_owned).or_else(usual) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(verbose: i32) -> LogSettings {
        LogSettings { enabled: false, file: "/x".into(), level: 0, verbose }
    }

    #[test]
    fn quiet_wins_over_verbose_and_verbose_over_vz_conf() {
        let quiet = Report::new(Flags { quiet: true, verbose: Some(3), ..Flags::default() });
        assert!(!quiet.shows(-1));
        let conf = Report::new(Flags::default());
        assert!(conf.shows(0) && !conf.shows(1));
        conf.settings(settings(2));
        assert!(conf.shows(2) && !conf.shows(3));
        let told = Report::new(Flags { verbose: Some(1), ..Flags::default() });
        told.settings(settings(2));
        assert!(told.shows(1) && !told.shows(2));
    }

    #[test]
    fn status_shows_errors_only() {
        let report = Report::new(Flags { verbose: Some(2), ..Flags::default() });
        report.serve(&Verb::Status { json: false });
        assert!(report.shows(-1) && !report.shows(0));
    }

    #[test]
    fn a_quiet_program_still_says_why_it_failed() {
        let quiet = Report::of_program(true, Some(1));
        assert!(quiet.shows(-1) && !quiet.shows(0));
        let told = Report::of_program(false, Some(1));
        assert!(told.shows(1) && !told.shows(2));
    }

    #[test]
    fn a_quiet_run_is_logged_and_enter_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let report = Report::new(Flags { quiet: true, ..Flags::default() });
        report.line(0, "before vz.conf");
        report.settings(LogSettings { enabled: true, file: file.clone(), level: 0, verbose: 0 });
        report.about(Ctid::new(101).unwrap());
        report.say()(0, "Starting container...");
        report.serve(&Verb::Enter { exec: None });
        report.line(0, "entered into CT 101");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.ends_with(" vzctl : CT 101 : Starting container...\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
