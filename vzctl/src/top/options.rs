//! The command line of vztop.

use std::time::Duration;

use super::column::Column;
use crate::check::Error;

/// Faster than anybody can look, and the shortest time over which a rate says anything.
const FASTEST: f64 = 0.1;
const SLOWEST: f64 = 86_400.0;

/// What is to be shown, and how.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    /// Text instead of a screen.
    pub(super) batch: bool,
    /// JSON, an object a line, instead of text.
    pub(super) json: bool,
    /// After so many times it ends.
    pub(super) times: Option<u64>,
    /// Between two times.
    pub(super) delay: Duration,
    pub(super) sort: Column,
    pub(super) reverse: bool,
    /// Only VEs whose number or name contains this.
    pub(super) filter: String,
    /// CTIDs and names.
    pub(super) named: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: false,
            json: false,
            times: None,
            delay: Duration::from_secs(2),
            sort: Column::Cpu,
            reverse: false,
            filter: String::new(),
            named: Vec::new(),
        }
    }
}

/// A command line, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Help,
    Show(Box<Options>),
}

/// Reads the words after the program's name. Letters without a value can be bundled: `-bj`.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn parse(words: &[String]) -> Result<Request, Error> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            options.named.extend(words.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, attached) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let letter = letter_of(name).ok_or_else(|| refuse(format!("unrecognized option: --{name}")))?;
            if letter == 'h' {
                return Ok(Request::Help);
            }
            if attached.is_some() && !takes_value(letter) {
                return Err(refuse(format!("option --{name} takes no value")));
            }
            options.set(letter, &format!("--{name}"), || attached.or_else(|| words.next().cloned()))?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            for (at, letter) in letters.char_indices() {
                if letter == 'h' {
                    return Ok(Request::Help);
                }
                let rest = &letters[at + letter.len_utf8()..];
                let attached = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
                options.set(letter, &format!("-{letter}"), || attached.or_else(|| words.next().cloned()))?;
                if takes_value(letter) {
                    break;
                }
            }
        } else {
            options.named.push(word.clone());
        }
    }
    options.batch |= options.json;
    Ok(Request::Show(Box::new(options)))
}

const NAMES: [(&str, char); 8] = [
    ("help", 'h'),
    ("batch", 'b'),
    ("json", 'j'),
    ("reverse", 'r'),
    ("iterations", 'n'),
    ("delay", 'd'),
    ("sort", 's'),
    ("filter", 'f'),
];

fn letter_of(name: &str) -> Option<char> {
    NAMES.into_iter().find(|(long, _)| *long == name).map(|(_, letter)| letter)
}

fn takes_value(letter: char) -> bool {
    matches!(letter, 'n' | 'd' | 's' | 'f')
}

impl Options {
    fn set(
        &mut self,
        letter: char,
        option: &str,
        value: impl FnOnce() -> Option<String>,
    ) -> Result<(), Error> {
        let value = || value().ok_or_else(|| refuse(format!("option {option} requires an argument")));
        match letter {
            'b' => self.batch = true,
            'j' => self.json = true,
            'r' => self.reverse = true,
            'n' => self.times = Some(times(option, &value()?)?),
            'd' => self.delay = delay(option, &value()?)?,
            's' => self.sort = sort(option, &value()?)?,
            'f' => self.filter = value()?,
            _ => return Err(refuse(format!("unrecognized option: {option}"))),
        }
        Ok(())
    }
}

fn times(option: &str, word: &str) -> Result<u64, Error> {
    let times = word.parse().ok().filter(|times| *times > 0);
    times.ok_or_else(|| refuse(format!("option {option} takes a number from 1 on, not {word}")))
}

fn delay(option: &str, word: &str) -> Result<Duration, Error> {
    let seconds = word.parse().ok().filter(|seconds| (FASTEST..=SLOWEST).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        refuse(format!("option {option} takes seconds, from {FASTEST} to {SLOWEST}, not {word}"))
    })
}

fn sort(option: &str, word: &str) -> Result<Column, Error> {
    Column::named(word).ok_or_else(|| {
        let all: Vec<&str> = Column::ALL.iter().map(|column| column.name()).collect();
        refuse(format!("option {option} takes one of {}, not {word}", all.join(", ")))
    })
}

fn refuse(complaint: impl Into<String>) -> Error {
    Error::Usage { program: "vztop", complaint: complaint.into(), exit: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, Error> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_bundled_and_spelt_out() {
        let want = Options {
            batch: true,
            json: true,
            times: Some(3),
            delay: Duration::from_millis(500),
            sort: Column::Ram,
            reverse: true,
            filter: "web".to_owned(),
            named: vec!["101".to_owned(), "-x".to_owned()],
        };
        for line in [
            "-bjrn3 -d.5 -s ram -f web 101 -- -x",
            "101 --json --iterations=3 --delay 0.5 --sort=ram --reverse --filter web -- -x",
        ] {
            assert_eq!(read(line).unwrap(), Request::Show(Box::new(want.clone())), "{line}");
        }
        assert_eq!(read("-bh").unwrap(), Request::Help);
        assert_eq!(read("").unwrap(), Request::Show(Box::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, named) in [
            ("-x", "-x"),
            ("--nosuch", "--nosuch"),
            ("-n", "requires"),
            ("-n 0", "from 1"),
            ("-d 0", "0.1"),
            ("-d nan", "nan"),
            ("-s size", "cpu, cap"),
            ("--batch=yes", "takes no value"),
        ] {
            let error = read(line).unwrap_err();
            let text = error.to_string();
            assert!(error.exit() == 1 && text.contains(named) && text.contains("vztop --help"), "{text}");
        }
    }
}
