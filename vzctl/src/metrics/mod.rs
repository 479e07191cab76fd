//! vzmetrics(8): the containers of the host as OpenMetrics text, once.
//!
//! ```text
//! accounts ─▶ Vitals of each ─▶ text (families, by prometheus-client) ─▶ standard output, or a file replaced at once
//! ```

mod text;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use beancounters::IoMeter;
use ve::accounts::Accounts;
use vzconf::{Config, Paths};

use self::text::{Container, Look, text};
use crate::check::{Answer, Error};

/// Runs vzmetrics.
///
/// # Errors
/// Those of the command line, the accounts and the file.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let Some(file) = parse(words)? else {
        return Ok(include_str!("../check/help/vzmetrics.txt").to_owned().into());
    };
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let text = text(look(paths)?);
    match file {
        None => Ok(text.into()),
        Some(file) => replace(Path::new(&file), &text).map(|()| Answer::default()),
    }
}

/// The file to write to, if any; `None` when the help is wanted.
#[allow(clippy::option_option, reason = "wanted, and whereto")]
fn parse(words: &[String]) -> Result<Option<Option<String>>, Error> {
    let refuse = |complaint: String| Error::Usage { program: "vzmetrics", complaint, exit: 1 };
    let (mut file, mut words) = (None, words.iter());
    while let Some(word) = words.next() {
        let value = match word.as_str() {
            "-h" | "--help" => return Ok(None),
            "-o" | "--output" => words.next().cloned(),
            _ => match word.strip_prefix("--output=") {
                Some(value) => Some(value.to_owned()),
                None if word.starts_with('-') => return Err(refuse(format!("unrecognized option: {word}"))),
                None => return Err(refuse(format!("unexpected argument: {word}"))),
            },
        };
        let value = value.filter(|value| !value.is_empty());
        file = Some(value.ok_or_else(|| refuse("option --output requires a file".to_owned()))?);
    }
    Ok(Some(file))
}

fn look(paths: &Paths) -> Result<Look, Error> {
    let accounts = Accounts::new(paths)?;
    let global = Config::global(paths)?;
    let vitals = accounts.vitals(&mut IoMeter::default());
    let container = |vitals: ve::vitals::Vitals| {
        let config = global.for_ve(vitals.ctid).ok();
        let name = config.and_then(|config| config.name().map(str::to_owned)).unwrap_or_default();
        Container { vitals, name }
    };
    let running: Vec<Container> = vitals.into_iter().map(container).collect();
    let runs = |ctid| running.iter().any(|container| container.vitals.ctid == ctid);
    let stopped = crate::list::configured(paths).into_iter().filter(|ctid| !runs(*ctid)).count();
    Ok(Look { stopped, running })
}

/// Whoever reads the file meanwhile reads the old text or the new one, never a part.
fn replace(file: &Path, text: &str) -> Result<(), Error> {
    let fail = |source| Error::io(format!("write {}", file.display()), source);
    let name = file.file_name().ok_or_else(|| fail(std::io::ErrorKind::IsADirectory.into()))?;
    let temp = file.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    };
    write().and_then(|()| fs::rename(&temp, file)).map_err(|source| {
        // The cause is told; what is left of the attempt is nobody's.
        let _ = fs::remove_file(&temp);
        fail(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Option<String>>, Error> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_understood() {
        assert_eq!(read("").unwrap(), Some(None));
        assert_eq!(read("-o f").unwrap(), Some(Some("f".to_owned())));
        assert_eq!(read("--output=f").unwrap(), Some(Some("f".to_owned())));
        assert_eq!(read("--help").unwrap(), None);
        for line in ["-x", "101", "-o", "--output="] {
            let error = read(line).unwrap_err();
            assert!(error.exit() == 1 && error.to_string().contains("vzmetrics --help"), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_is_replaced_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vz.prom");
        replace(&file, "one\n").unwrap();
        replace(&file, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two\n");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 1);
        assert!(replace(&dir.path().join("nosuch/vz.prom"), "").unwrap_err().to_string().contains("nosuch"));
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(replace(&dir.path().join("d"), "").is_err());
        assert_eq!(names(), 2, "nothing is left of an attempt");
    }
}
