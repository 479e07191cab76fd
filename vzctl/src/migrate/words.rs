//! The command line of vzmigrate.

use std::time::Duration;

use migrate::resolve::Dead;
use migrate::source::{Ignored, Options};
use migrate::transport::Ssh;
use migrate::wire::{Compress, LONGEST};

/// What is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// The usage.
    Help,
    /// Serve a source on the standard streams.
    Serve,
    /// Move a container.
    Move {
        /// By number or name.
        ct: String,
        options: Box<Options>,
    },
    /// Bring an interrupted move to its end.
    Resolve {
        /// By number or name.
        ct: String,
        ssh: Ssh,
        dead: Dead,
    },
}

/// How much is told, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    pub(super) quiet: bool,
    pub(super) json: bool,
    pub(super) times: bool,
    pub(super) verbose: i32,
}

/// What the words say; a complaint where they say nothing.
#[derive(Debug, Default)]
struct Words {
    options: Options,
    manner: Manner,
    resolve: bool,
    dead: Dead,
    rest: Vec<String>,
}

/// Reads the words after the program's name.
pub(super) fn parse(words: &[String]) -> Result<(Request, Manner), String> {
    let help = |word: &String| matches!(word.as_str(), "-h" | "--help" | "--usage");
    if words.is_empty() || words.iter().any(help) {
        return Ok((Request::Help, Manner::default()));
    }
    if words == ["--serve"] {
        return Ok((Request::Serve, Manner::default()));
    }
    let mut read = Words::default();
    let mut left = words.iter();
    while let Some(word) = left.next() {
        let mut next = || left.next().cloned();
        read.word(word, &mut next)?;
    }
    read.request()
}

impl Words {
    fn word(&mut self, word: &str, next: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
        let (name, given) = match word.split_once('=') {
            Some((name, value)) if word.starts_with('-') => (name, Some(value.to_owned())),
            _ => (word, None),
        };
        let mut value =
            || given.clone().or_else(&mut *next).ok_or_else(|| format!("option {name} requires a value"));
        match name {
            "-r" | "--remove-area" => self.options.keep_source = !yes(name, &value()?)?,
            "--ssh" => self.options.ssh.options.extend(split(&value()?)?),
            "--rsync" => drop(value()?),
            "--patience" => self.options.ssh.patience = seconds(name, &value()?)?,
            "--compress" => {
                self.options.compress = match value()?.as_str() {
                    "auto" | "yes" => Compress::Auto,
                    "no" => Compress::No,
                    other => return Err(format!("--compress={other}: auto or no is known")),
                }
            }
            "-f" | "--nodeps" => self.ignore(given.as_deref().unwrap_or("all"))?,
            "-h" => {}
            _ if given.is_some() => return Err(format!("unknown option: {word}")),
            _ => return self.flag(word),
        }
        Ok(())
    }

    fn flag(&mut self, word: &str) -> Result<(), String> {
        match word {
            "--ssh-mux" => self.options.ssh.mux = true,
            "--keep-dst" => self.options.keep_destination = true,
            "--online" | "--live" => self.options.online = true,
            "-c" | "--compact" => {
                return Err("compacting an image is not possible yet; see: vzctl compact".to_owned());
            }
            "-s" | "--snapshot" => return Err("make the snapshot before: vzctl snapshot".to_owned()),
            "--check-only" | "--dry-run" => self.options.check_only = true,
            "-t" | "--times" => self.manner.times = true,
            "-q" | "--quiet" => self.manner.quiet = true,
            "--json" => self.manner.json = true,
            "--verbose" => self.manner.verbose += 1,
            "--resolve" => self.resolve = true,
            "--dst-is-dead" => self.dead.destination = true,
            "--src-is-dead" => self.dead.source = true,
            _ if word.len() > 1 && word.strip_prefix('-').is_some_and(|v| v.bytes().all(|b| b == b'v')) => {
                self.manner.verbose += i32::try_from(word.len() - 1).unwrap_or(1);
            }
            _ if word.starts_with('-') => return Err(format!("unknown option: {word}")),
            _ => self.rest.push(word.to_owned()),
        }
        Ok(())
    }

    fn ignore(&mut self, list: &str) -> Result<(), String> {
        for word in list.split(',') {
            let ignored = &mut self.options.ignored;
            match word {
                "cpu" => ignored.cpu = true,
                "ipv6" => ignored.ipv6 = true,
                "all" => *ignored = Ignored { cpu: true, ipv6: true, all: true },
                other => return Err(format!("--nodeps={other}: cpu, ipv6 and all are known")),
            }
        }
        Ok(())
    }

    fn request(mut self) -> Result<(Request, Manner), String> {
        self.options.ssh.verbose = self.manner.verbose > 3;
        self.manner.times |= self.manner.verbose > 0;
        let manner = self.manner;
        let mut rest = self.rest.into_iter();
        let (first, second, third) = (rest.next(), rest.next(), rest.next());
        if self.resolve {
            let (Some(ct), None) = (first, second) else {
                return Err("--resolve takes one container".to_owned());
            };
            return Ok((Request::Resolve { ct, ssh: self.options.ssh, dead: self.dead }, manner));
        }
        if self.dead != Dead::default() {
            return Err("--dst-is-dead and --src-is-dead go with --resolve".to_owned());
        }
        let (Some(destination), Some(ct), None) = (first, second, third) else {
            return Err("a destination and a container are needed".to_owned());
        };
        self.options.destination = destination;
        Ok((Request::Move { ct, options: Box::new(self.options) }, manner))
    }
}

fn yes(name: &str, word: &str) -> Result<bool, String> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("{name} {other}: yes or no is known")),
    }
}

fn seconds(name: &str, word: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("{name} {word}: 1 to {LONGEST} seconds are possible"))?;
    Ok(Duration::from_secs(seconds))
}

/// Words as a shell splits them: blanks, quotes, backslashes; nothing is expanded.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("--ssh={text}: a quote that does not end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn moved(line: &str) -> (String, Options, Manner) {
        match parse(&words(line)) {
            Ok((Request::Move { ct, options }, manner)) => (ct, *options, manner),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_option_of_the_specification_is_understood() {
        let (ct, options, _) = moved("-r no --ssh=-p_2222 --ssh-mux --rsync=-z --keep-dst --online host 101");
        assert_eq!((ct.as_str(), options.destination.as_str()), ("101", "host"));
        assert!(options.keep_source && options.ssh.mux && options.keep_destination && options.online);
        let (_, options, manner) = moved("--remove-area yes --live --check-only -f -t -vv host web");
        assert!(!options.keep_source && options.check_only && options.ignored.all && manner.times);
        assert_eq!(manner.verbose, 2);
        let (_, options, manner) = moved("--nodeps=cpu,ipv6 -vvvv --dry-run host 1");
        assert!(options.ignored.cpu && options.ignored.ipv6 && !options.ignored.all && options.ssh.verbose);
        assert!(manner.times);
        let (_, options, _) = moved("--patience 30 host 1");
        assert_eq!(options.ssh.patience, Duration::from_secs(30));
        assert!(matches!(parse(&[]), Ok((Request::Help, _))));
        assert!(matches!(parse(&words("--usage")), Ok((Request::Help, _))));
        assert!(matches!(
            parse(&words("--resolve 101 --dst-is-dead")),
            Ok((Request::Resolve { dead: Dead { destination: true, source: false }, .. }, _))
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "host",
            "host 1 2",
            "-r maybe host 1",
            "--frobnicate host 1",
            "-f=gpu host 1",
            "--resolve",
            "--dst-is-dead host 1",
            "host 1 --ssh",
            "--ssh-mux=1 host 1",
            "--patience 0 host 1",
            "--patience=3601 host 1",
            "--patience=2s host 1",
        ] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn options_for_ssh_are_split_as_a_shell_does() {
        assert_eq!(
            split("-p 2222  -i '/a b/key' -o \"User=x\"").unwrap(),
            ["-p", "2222", "-i", "/a b/key", "-o", "User=x"]
        );
        assert_eq!(split("").unwrap(), Vec::<String>::new());
        assert!(split("'a").is_err());
    }
}
