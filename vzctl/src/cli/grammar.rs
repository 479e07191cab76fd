//! A verb's options as a clap command, and clap's findings as vzctl's sentences.
//!
//! The rules are those of `getopt_long`: `--opt value` and `--opt=value`, unambiguous prefixes, any order,
//! an option that wants a value takes the next word whatever it looks like, the last of repeated ones counts.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use vzconf::Exit;
use vzconf::params::{self, Origin};

use super::error::UsageError;
use super::option::{GENERAL, Opt};
use super::word::{Kind, Word};

/// The id of the words that belong to no option: the CTID first.
pub(super) const WORDS_ID: &str = " words";
/// The id of `-h` and `--help`.
pub(super) const HELP_ID: &str = " help";

/// The clap command of one verb. `foreign` options are there to be refused by name.
pub(super) fn command(word: &Word) -> Command {
    let options = word.options();
    let heading = options.first().map_or(GENERAL, |opt| opt.group);
    let foreign = word.foreign().iter().map(|opt| arg(opt).hide(true));
    Command::new(word.name)
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .args(options.iter().map(arg))
        .args(foreign)
        .arg(
            Arg::new(HELP_ID)
                .long("help")
                .short('h')
                .action(ArgAction::SetTrue)
                .help("Print this help")
                .help_heading(heading)
                .display_order(usize::MAX),
        )
        .arg(
            Arg::new(WORDS_ID)
                .action(ArgAction::Append)
                .num_args(0..)
                .value_parser(ValueParser::os_string())
                .hide(true),
        )
}

fn arg(opt: &Opt) -> Arg {
    let (value, help) = shown(opt);
    let arg = Arg::new(opt.long).long(opt.long).help(help).help_heading(opt.group).hide(opt.hidden());
    let arg = opt.short.into_iter().fold(arg, Arg::short);
    let arg = other_spellings(opt).into_iter().fold(arg, |arg, alias| arg.alias(alias));
    match value {
        None => arg.action(ArgAction::SetTrue),
        Some(name) => arg
            .action(ArgAction::Append)
            .num_args(1)
            .value_name(name)
            .allow_hyphen_values(true)
            .value_parser(ValueParser::os_string()),
    }
}

/// An option's value and text in help. A long form moves into the text, or it would push all texts of its section
/// to lines of their own.
fn shown(opt: &Opt) -> (Option<&'static str>, Cow<'static, str>) {
    const WIDEST: usize = 17;
    match opt.value {
        Some(form) if form.len() > WIDEST => (Some("VALUE"), format!("{}: {form}", opt.help).into()),
        value => (value, opt.help.into()),
    }
}

/// Aliases, and the forms with `_` and `-` exchanged.
fn other_spellings(opt: &Opt) -> Vec<String> {
    let mut all: Vec<String> = opt.aliases.iter().map(|alias| (*alias).to_owned()).collect();
    for word in std::iter::once(&opt.long).chain(opt.aliases) {
        for swapped in [word.replace('_', "-"), word.replace('-', "_")] {
            if swapped != opt.long && !all.contains(&swapped) {
                all.push(swapped);
            }
        }
    }
    all
}

/// A value that its option accepts.
pub(super) struct Value {
    /// As the configuration stores it.
    pub(super) stored: String,
    /// As given.
    pub(super) given: String,
}

/// One option found on the command line.
pub(super) struct Found {
    pub(super) opt: Opt,
    /// `None` for a flag.
    pub(super) value: Option<Value>,
}

/// A verb's command line taken apart.
pub(super) struct Parsed {
    pub(super) help: bool,
    /// Stray words, the CTID first.
    pub(super) words: Vec<OsString>,
    /// The options in the order given.
    pub(super) found: Vec<Found>,
}

impl Parsed {
    /// The value that was given last, as given.
    pub(super) fn value(&self, long: &str) -> Option<&str> {
        let last = self.found.iter().rev().find(|found| found.opt.long == long);
        last.and_then(|found| found.value.as_ref()).map(|value| value.given.as_str())
    }

    /// Whether the flag was given.
    pub(super) fn flag(&self, long: &str) -> bool {
        self.found.iter().any(|found| found.opt.long == long)
    }
}

/// Takes the words after a verb apart.
pub(super) fn parse(word: &Word, rest: Vec<OsString>) -> Result<Parsed, UsageError> {
    let mut command = command(word);
    let asks_help = rest.iter().any(|arg| arg == "--help" || arg == "-h");
    let mut matches = match command.try_get_matches_from_mut(rest) {
        Ok(matches) => matches,
        // Whoever asks for help gets it, wherever the line goes wrong.
        Err(_) if asks_help => return Ok(Parsed { help: true, words: Vec::new(), found: Vec::new() }),
        Err(error) => return Err(sentence(word, &command, &error)),
    };
    let help = matches.get_flag(HELP_ID);
    let words = matches.remove_many(WORDS_ID).map(Iterator::collect).unwrap_or_default();
    if let Some(opt) = word.foreign().iter().find(|opt| matches.get_flag(opt.long)) {
        return Err(not_applicable(word, opt));
    }
    Ok(Parsed { help, words, found: found(word, &mut matches)? })
}

fn not_applicable(word: &Word, opt: &Opt) -> UsageError {
    UsageError::syntax(format!("Option --{} is not applicable to {} command", opt.long, word.name))
}

fn found(word: &Word, matches: &mut ArgMatches) -> Result<Vec<Found>, UsageError> {
    let mut found = Vec::new();
    for opt in word.options() {
        if opt.value.is_none() {
            if matches.get_flag(opt.long) {
                let at = matches.index_of(opt.long).unwrap_or_default();
                found.push((at, Found { opt, value: None }));
            }
            continue;
        }
        let indices: Vec<usize> = matches.indices_of(opt.long).map(Iterator::collect).unwrap_or_default();
        let values = matches.remove_many::<OsString>(opt.long).into_iter().flatten();
        for (at, value) in indices.into_iter().zip(values) {
            found.push((at, Found { opt, value: Some(checked(&opt, value)?) }));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// Checks a value.
fn checked(opt: &Opt, value: OsString) -> Result<Value, UsageError> {
    let bad = |value: &str| UsageError::value(format!("Bad parameter for --{}: {value}", opt.long));
    let given = value.into_string().map_err(|raw| bad(&raw.to_string_lossy()))?;
    // Of modules the unknown ones are left out, with a warning, by whoever applies them.
    let Some(param) = opt.param.filter(|param| param.kind != params::Kind::IptablesModules) else {
        return Ok(Value { stored: given.clone(), given });
    };
    match param.kind.canonical(&given, Origin::Option) {
        Ok(stored) => Ok(Value { stored, given }),
        Err(expected) => Err(bad(&given).advise(format!("Expected: {expected}"))),
    }
}

/// The exit code of an unknown or incomplete option.
fn option_exit(word: &Word) -> Exit {
    match word.kind {
        Kind::Set
        | Kind::Create
        | Kind::Snapshot
        | Kind::SnapshotSwitch
        | Kind::SnapshotDelete
        | Kind::SnapshotMount
        | Kind::SnapshotUmount
        | Kind::SnapshotList => Exit::InvalidValue,
        _ => Exit::InvalidSyntax,
    }
}

fn sentence(word: &Word, command: &Command, error: &clap::Error) -> UsageError {
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.as_str(),
        Some(ContextValue::Strings(args)) => args.first().map_or("", String::as_str),
        _ => "",
    };
    // clap names an option with its value's name: `--ipadd <ADDRESS>`.
    let given = given.split([' ', '=']).next().unwrap_or_default();
    if word.options().is_empty() {
        return UsageError::syntax(format!("Invalid options: {given}")).advise(see_help(word));
    }
    let exit = option_exit(word);
    match error.kind() {
        ErrorKind::InvalidValue => {
            UsageError::with_exit(exit, format!("vzctl: option '{given}' requires an argument"))
        }
        ErrorKind::TooManyValues => {
            UsageError::with_exit(exit, format!("vzctl: option '{given}' doesn't allow an argument"))
        }
        _ => unknown(word, command, given, exit, error),
    }
}

fn unknown(word: &Word, command: &Command, given: &str, exit: Exit, error: &clap::Error) -> UsageError {
    let possible = starting_with(command, given);
    if possible.len() > 1 {
        let possible: Vec<String> = possible.iter().map(|long| format!("'--{long}'")).collect();
        let all = possible.join(" ");
        return UsageError::with_exit(
            exit,
            format!("vzctl: option '{given}' is ambiguous; possibilities: {all}"),
        );
    }
    let message = match given.strip_prefix('-') {
        Some(letter) if !letter.starts_with('-') => format!("vzctl: invalid option -- '{letter}'"),
        _ => format!("vzctl: unrecognized option '{given}'"),
    };
    let advice = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(meant)) => {
            let meant = meant.split(' ').next().unwrap_or_default();
            format!("Did you mean {meant}? See: vzctl {} --help", word.name)
        }
        _ => see_help(word),
    };
    UsageError::with_exit(exit, message).advise(advice)
}

fn see_help(word: &Word) -> String {
    format!("See: vzctl {} --help", word.name)
}

/// The visible options whose canonical name begins so.
fn starting_with<'a>(command: &'a Command, given: &str) -> Vec<&'a str> {
    let Some(prefix) = given.strip_prefix("--").filter(|prefix| !prefix.is_empty()) else {
        return Vec::new();
    };
    command.get_arguments().filter_map(Arg::get_long).filter(|long| long.starts_with(prefix)).collect()
}
