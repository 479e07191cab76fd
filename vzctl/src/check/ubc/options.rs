//! The command line of vzubc. Its options are of two letters, so they are not bundled.

use std::path::PathBuf;
use std::time::Duration;

use super::super::Error;
use super::past::Kind;

/// How it is run again and again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Watch {
    /// What has changed is highlighted.
    pub(super) differences: bool,
    /// What is run, and when, stands above.
    pub(super) title: bool,
    /// Between two runs.
    pub(super) interval: Duration,
}

/// Parts of a barrier from which on a row is worth notice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Thresholds {
    /// For what is in use.
    pub(super) held: f64,
    /// For the highest use.
    pub(super) maxheld: f64,
}

/// What is to be shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) watch: Option<Watch>,
    /// Only what is worth notice.
    pub(super) quiet: bool,
    pub(super) thresholds: Thresholds,
    /// What has no limit as well.
    pub(super) verbose: bool,
    /// Refusals since the last run.
    pub(super) relative: bool,
    /// A column of what is held more, or less, than at the last run.
    pub(super) incremental: bool,
    pub(super) color: bool,
    pub(super) file: Option<String>,
    /// Where runs are remembered, unless in the usual place.
    pub(super) store: Option<PathBuf>,
    /// What is to be forgotten first.
    pub(super) forget: Vec<Kind>,
    /// CTIDs and names.
    pub(super) named: Vec<String>,
}

/// A command line, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Help,
    Show(Box<Options>),
}

/// Reads the words after the program's name.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn parse(words: &[String]) -> Result<Request, Error> {
    let mut reading = Reading::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-h" | "--help" => return Ok(Request::Help),
            "--" => {
                reading.named.extend(words.by_ref().cloned());
            }
            _ => reading.word(word, || words.next().map(String::as_str))?,
        }
    }
    reading.finish().map(|options| Request::Show(Box::new(options)))
}

/// Of watch(1).
const INTERVAL: f64 = 2.0;
/// Faster than anybody can look.
const FASTEST: f64 = 0.1;
/// Longer than a node is up.
const SLOWEST: f64 = 1e9;

#[derive(Debug, Default)]
struct Reading {
    watch: Option<(bool, bool, f64)>,
    quiet: bool,
    held: Option<f64>,
    maxheld: Option<f64>,
    verbose: bool,
    relative: bool,
    incremental: bool,
    color: bool,
    file: Option<String>,
    store: Option<PathBuf>,
    forget: Vec<Kind>,
    named: Vec<String>,
}

impl Reading {
    fn word<'a>(&mut self, word: &'a str, mut next: impl FnMut() -> Option<&'a str>) -> Result<(), Error> {
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        let mut value = || {
            let value = attached.or_else(&mut next).filter(|value| !value.is_empty());
            value.ok_or_else(|| refuse(format!("option {option} requires an argument")))
        };
        match option {
            "-f" | "--file" => self.file = Some(value()?.to_owned()),
            _ if attached.is_some() => return Err(refuse(format!("unrecognized option: {word}"))),
            "-w" | "--watch" => {
                self.watch();
            }
            "-wd" => self.watch().0 = true,
            "-wt" => self.watch().1 = true,
            "-wn" => self.watch().2 = number(option, value()?)?.clamp(FASTEST, SLOWEST),
            "-q" | "--quiet" => self.quiet = true,
            "-qh" => self.held = Some(number(option, value()?)?),
            "-qm" => self.maxheld = Some(number(option, value()?)?),
            "-v" | "--verbose" => self.verbose = true,
            "-r" | "--relative" => self.relative = true,
            "-rc" => self.forget.push(Kind::Failcnt),
            "-rd" | "-id" => self.store = Some(value()?.into()),
            "-i" | "--incremental" => self.incremental = true,
            "-ic" => self.forget.push(Kind::Held),
            "-c" | "--color" => self.color = true,
            "-" => return Err(refuse("standard input is read with: -f -")),
            _ if option.starts_with('-') => return Err(refuse(format!("unrecognized option: {word}"))),
            _ => self.named.push(word.to_owned()),
        }
        Ok(())
    }

    fn watch(&mut self) -> &mut (bool, bool, f64) {
        self.watch.get_or_insert((false, false, INTERVAL))
    }

    fn finish(self) -> Result<Options, Error> {
        if (self.held.is_some() || self.maxheld.is_some()) && !self.quiet && !self.color {
            return Err(refuse("-qh and -qm only make sense with --quiet or --color"));
        }
        if self.quiet && self.verbose {
            return Err(refuse("options --quiet and --verbose can't be used together"));
        }
        if self.color && self.watch.is_some_and(|(differences, ..)| differences) {
            return Err(refuse("options -wd and --color can't be used together"));
        }
        if self.watch.is_some() && self.file.as_deref() == Some("-") {
            return Err(refuse("standard input can't be read again and again"));
        }
        let maxheld = part(self.maxheld.unwrap_or(0.8));
        let thresholds = Thresholds { held: part(self.held.unwrap_or(0.5)).min(maxheld), maxheld };
        let watch = self.watch.map(|(differences, untitled, seconds)| Watch {
            differences,
            title: !untitled,
            interval: Duration::from_secs_f64(seconds),
        });
        let Self { quiet, verbose, relative, incremental, color, file, store, forget, named, .. } = self;
        Ok(Options {
            watch,
            quiet,
            thresholds,
            verbose,
            relative,
            incremental,
            color,
            file,
            store,
            forget,
            named,
        })
    }
}

/// What is above 1 means per cent.
fn part(number: f64) -> f64 {
    if number > 1.0 { number / 100.0 } else { number }
}

fn number(option: &str, word: &str) -> Result<f64, Error> {
    let number = word.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| refuse(format!("option {option} takes a number, not {word}")))
}

fn refuse(complaint: impl Into<String>) -> Error {
    Error::Usage { program: "vzubc", complaint: complaint.into(), exit: 1 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn read(line: &str) -> Options {
        match parse(&words(line)) {
            Ok(Request::Show(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_of_two_letters() {
        let all = read("-wd -wt -wn 10 101 web -r -rc -rd /x -i -ic -v -f t");
        let watch = Watch { differences: true, title: false, interval: Duration::from_secs(10) };
        assert_eq!(all.watch, Some(watch));
        assert_eq!((all.relative, all.incremental, all.verbose), (true, true, true));
        assert_eq!(all.forget, [Kind::Failcnt, Kind::Held]);
        assert_eq!((all.store, all.file), (Some("/x".into()), Some("t".to_owned())));
        assert_eq!(all.named, ["101", "web"]);
        assert_eq!(read("--file=- -- -x").named, ["-x"]);
        assert_eq!(parse(&words("101 --help")).unwrap(), Request::Help);
    }

    #[test]
    fn to_forget_is_not_to_compare() {
        let options = read("-rc -ic");
        assert!(!options.relative && !options.incremental);
    }

    #[test]
    fn thresholds_are_parts_or_per_cents() {
        for (line, held, maxheld) in [
            ("-q", 0.5, 0.8),
            ("-q -qh 0.8 -qm 1", 0.8, 1.0),
            ("-c -qh 70 -qm 90", 0.7, 0.9),
            ("-q -qh 0.9", 0.8, 0.8),
            ("-q -qh 2 -qm 2", 0.02, 0.02),
        ] {
            assert_eq!(read(line).thresholds, Thresholds { held, maxheld }, "{line}");
        }
    }

    #[test]
    fn intervals_are_such_that_one_can_look() {
        let interval = |line| read(line).watch.unwrap().interval;
        assert_eq!(interval("--watch"), Duration::from_secs(2));
        assert_eq!(interval("-wn 0"), Duration::from_millis(100));
        assert_eq!(interval("-wn 1e300"), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "-x",
            "--quite",
            "-",
            "-wn",
            "-wn soon",
            "-wn -1",
            "-qh nan -q",
            "-qh 0.5",
            "-q -v",
            "-wd -c",
            "-w -f -",
            "--quiet=yes",
            "--file=",
        ] {
            let error = parse(&words(line)).unwrap_err();
            assert_eq!(error.exit(), 1);
            assert!(
                error.to_string().ends_with("Try `vzubc --help' for more information."),
                "{line}: {error}"
            );
        }
    }
}
