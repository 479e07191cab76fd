//! From arguments to a request.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use vzconf::Exit;

use super::error::{UsageError, closest};
use super::grammar::{self, Found, Parsed};
use super::help::{self, HelpText};
use super::snapshots;
use super::verb::{CreateOptions, SetMode, SetOptions, Setting, StartOptions, StopOptions, Verb};
use super::word::{Kind, PLAIN, WORDS, Word};
use crate::complete::Shell;

/// The flags before the verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Print nothing.
    pub quiet: bool,
    /// How often `--verbose` was given; if at all, it replaces VERBOSE of vz.conf.
    pub verbose: Option<i32>,
    /// Do not take the lock.
    pub skip_lock: bool,
    /// Show what would be done.
    pub dry_run: bool,
}

/// The container as the command line names it: a number or a name, not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtWord(pub String);

impl CtWord {
    /// The error for a word that is no container.
    pub fn bad(&self) -> UsageError {
        UsageError::value(format!("Bad CT ID {self}")).advise("See: vzlist -a")
    }
}

impl fmt::Display for CtWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print this on stdout.
    Help(HelpText),
    /// Print the version line.
    Version,
    /// Print a shell's completion script.
    Completion(Shell),
    /// Print completion candidates; the words are for [`crate::complete`].
    Complete(Vec<OsString>),
    /// Do something with a container.
    Container {
        /// Which one.
        ct: CtWord,
        /// What.
        verb: Verb,
    },
}

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The flags before the verb.
    pub flags: Flags,
    /// The rest.
    pub request: Request,
}

/// Takes the arguments of `vzctl` apart; `args` is without the program's name.
///
/// # Errors
/// The sentence to print and the exit code (5, 20, 21 or 131).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut args = args.into_iter();
    let mut flags = Flags::default();
    let verb = loop {
        let Some(word) = args.next() else {
            let error = UsageError::syntax(help::usage().render(false).trim_end());
            return Err(quieted(error, flags));
        };
        match word.to_str() {
            Some("--quiet") => flags.quiet = true,
            Some("--verbose") => flags.verbose = Some(flags.verbose.unwrap_or(0).saturating_add(1)),
            Some("--skiplock") => flags.skip_lock = true,
            Some("--dry-run") => flags.dry_run = true,
            _ => break word,
        }
    };
    match request(&verb, args.collect()) {
        Ok(request) => Ok(Invocation { flags, request }),
        Err(error) => Err(quieted(error, flags)),
    }
}

fn quieted(mut error: UsageError, flags: Flags) -> UsageError {
    error.quiet = flags.quiet;
    error
}

fn request(verb: &OsString, rest: Vec<OsString>) -> Result<Request, UsageError> {
    let name = verb.to_string_lossy();
    match &*name {
        "--version" => return Ok(Request::Version),
        "--help" | "-h" | "help" => return help_for(rest.first()),
        "completion" => return completion(&rest),
        "__complete" => return Ok(Request::Complete(rest)),
        _ => {}
    }
    let Some(word) = Word::find(&name) else {
        return Err(bad_command(&name));
    };
    if word.verbatim() { verbatim(word, rest) } else { with_options(word, rest) }
}

fn bad_command(name: &str) -> UsageError {
    let known = WORDS.iter().flat_map(|word| word.aliases.iter().chain(std::iter::once(&word.name)));
    let error = UsageError::syntax(format!("Bad command: {name}"));
    match closest(name, known.chain(PLAIN).copied()) {
        Some(meant) => error.advise(format!("Did you mean: vzctl {meant}?")),
        None => error.advise("See: vzctl --help"),
    }
}

fn help_for(verb: Option<&OsString>) -> Result<Request, UsageError> {
    let Some(verb) = verb else { return Ok(Request::Help(help::usage())) };
    let name = verb.to_string_lossy();
    let word = Word::find(&name).ok_or_else(|| bad_command(&name))?;
    Ok(Request::Help(help::verb(word, None)))
}

fn completion(rest: &[OsString]) -> Result<Request, UsageError> {
    let shell = match rest {
        [shell] => shell.to_str().and_then(Shell::from_word),
        _ => None,
    };
    shell.map(Request::Completion).ok_or_else(|| {
        UsageError::syntax("Usage: vzctl completion bash|zsh|fish")
            .advise("For bash: vzctl completion bash >/etc/bash_completion.d/vzctl")
    })
}

fn ct_word(word: OsString) -> Result<CtWord, UsageError> {
    word.into_string().map(CtWord).map_err(|raw| CtWord(raw.to_string_lossy().into_owned()).bad())
}

fn ct_missing(word: &Word) -> UsageError {
    UsageError::value("CT ID missing").advise(format!("See: vzctl {} --help", word.name))
}

/// Verbs whose words after the CTID are left alone.
fn verbatim(word: &Word, rest: Vec<OsString>) -> Result<Request, UsageError> {
    let mut rest = rest.into_iter();
    let ct = rest.next().ok_or_else(|| ct_missing(word))?;
    if ct == "--help" || ct == "-h" {
        return Ok(Request::Help(help::verb(word, None)));
    }
    let ct = ct_word(ct)?;
    let argv: Vec<OsString> = rest.collect();
    let verb = match word.kind {
        Kind::Enter => Verb::Enter { exec: enter_words(argv)? },
        _ if argv.is_empty() => {
            return Err(UsageError::syntax("No command line given for exec"));
        }
        Kind::Exec => Verb::Exec { argv },
        Kind::Exec2 => Verb::Exec2 { argv },
        _ => Verb::Exec3 { argv },
    };
    Ok(Request::Container { ct, verb })
}

fn enter_words(mut argv: Vec<OsString>) -> Result<Option<Vec<OsString>>, UsageError> {
    match argv.first() {
        None => Ok(None),
        Some(first) if first == "--exec" => {
            argv.remove(0);
            if argv.iter().all(|word| word.is_empty()) {
                return Err(UsageError::syntax("No command line given for --exec"));
            }
            Ok(Some(argv))
        }
        Some(other) => Err(UsageError::syntax(format!("Invalid option '{}'", other.to_string_lossy()))
            .advise("See: vzctl enter --help")),
    }
}

fn with_options(word: &'static Word, rest: Vec<OsString>) -> Result<Request, UsageError> {
    let mut parsed = grammar::parse(word, rest)?;
    if parsed.help {
        return Ok(Request::Help(help::verb(word, None)));
    }
    let mut words = std::mem::take(&mut parsed.words).into_iter();
    let ct = ct_word(words.next().ok_or_else(|| ct_missing(word))?)?;
    let operands: Vec<OsString> = words.collect();
    let verb = match word.kind {
        Kind::Runscript => Verb::Runscript { file: script(operands)? },
        Kind::Console => Verb::Console { tty: tty(&operands)? },
        _ => {
            no_more(word, &operands)?;
            optioned(word, parsed)?
        }
    };
    Ok(Request::Container { ct, verb })
}

fn no_more(word: &Word, operands: &[OsString]) -> Result<(), UsageError> {
    if operands.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = operands.iter().map(|word| word.to_string_lossy()).collect();
    let what = if word.options().is_empty() { "Invalid options" } else { "Invalid extra arguments" };
    Err(UsageError::syntax(format!("{what}: {}", all.join(" ")))
        .advise(format!("See: vzctl {} --help", word.name)))
}

fn script(operands: Vec<OsString>) -> Result<PathBuf, UsageError> {
    match <[OsString; 1]>::try_from(operands) {
        Ok([file]) => Ok(PathBuf::from(file)),
        Err(operands) if operands.is_empty() => {
            Err(UsageError::syntax("Script file is not specified").advise("See: vzctl runscript --help"))
        }
        Err(operands) => {
            let extra: Vec<_> = operands.iter().skip(1).map(|word| word.to_string_lossy()).collect();
            Err(UsageError::syntax(format!("Invalid extra arguments: {}", extra.join(" "))))
        }
    }
}

fn tty(operands: &[OsString]) -> Result<u32, UsageError> {
    match operands {
        [] => Ok(0),
        [number] => {
            let number = number.to_string_lossy();
            number.parse().map_err(|_| UsageError::value(format!("Invalid tty number: {number}")))
        }
        _ => Err(UsageError::syntax("Too many arguments for console")),
    }
}

fn optioned(word: &Word, parsed: Parsed) -> Result<Verb, UsageError> {
    Ok(match word.kind {
        Kind::Create => Verb::Create(create(parsed.found)?),
        Kind::Destroy => Verb::Destroy,
        Kind::Quotaon => Verb::Quotaon,
        Kind::Quotaoff => Verb::Quotaoff,
        Kind::Quotainit => Verb::Quotainit,
        Kind::Mount => Verb::Mount,
        Kind::Umount => Verb::Umount,
        Kind::Start => Verb::Start(start(&parsed)),
        Kind::Stop => Verb::Stop(stop(&parsed)),
        Kind::Restart => Verb::Restart(stop(&parsed), start(&parsed)),
        Kind::Set => Verb::Set(set(parsed)?),
        Kind::Snapshot
        | Kind::SnapshotSwitch
        | Kind::SnapshotDelete
        | Kind::SnapshotMount
        | Kind::SnapshotUmount
        | Kind::SnapshotList => snapshots::verb(word.kind, &parsed)?,
        Kind::Suspend => suspend(&parsed)?,
        Kind::Resume => resume(&parsed)?,
        Kind::CheckpointCheck => Verb::CheckpointCheck { json: parsed.flag("json") },
        Kind::Convert => Verb::Convert { layout: create(parsed.found)?.layout.unwrap_or("ploop".to_owned()) },
        Kind::Compact => Verb::Compact,
        _ => Verb::Status { json: parsed.flag("json") },
    })
}

/// The one part of a verb that was asked for.
fn part<P: Copy>(parsed: &Parsed, parts: &[(&str, P)], all: P) -> Result<P, UsageError> {
    let mut given = parts.iter().filter(|(flag, _)| parsed.flag(flag));
    match (given.next(), given.next()) {
        (None, _) => Ok(all),
        (Some((_, part)), None) => Ok(*part),
        _ => Err(UsageError::syntax("Invalid syntax: only one sub command may be used")),
    }
}

fn dumpfile(parsed: &Parsed) -> Option<PathBuf> {
    let found = parsed.found.iter().rfind(|found| found.opt.long == "dumpfile")?;
    found.value.as_ref().map(|value| PathBuf::from(&value.given))
}

fn needs_dumpfile(dumpfile: Option<&PathBuf>) -> Result<(), UsageError> {
    match dumpfile {
        Some(_) => Ok(()),
        None => Err(UsageError::syntax("Error: dumpfile is not specified").advise("Add: --dumpfile <path>")),
    }
}

fn suspend(parsed: &Parsed) -> Result<Verb, UsageError> {
    use ve::suspend::Part;
    let parts =
        [("suspend", Part::Suspend), ("dump", Part::Dump), ("kill", Part::Kill), ("resume", Part::Resume)];
    let (part, dumpfile) = (part(parsed, &parts, Part::All)?, dumpfile(parsed));
    if part == Part::Dump {
        needs_dumpfile(dumpfile.as_ref())?;
    }
    Ok(Verb::Suspend { part, dumpfile })
}

fn resume(parsed: &Parsed) -> Result<Verb, UsageError> {
    use ve::suspend::RestorePart as Part;
    let parts = [("undump", Part::Undump), ("kill", Part::Kill), ("resume", Part::Resume)];
    let (part, dumpfile) = (part(parsed, &parts, Part::All)?, dumpfile(parsed));
    if part == Part::Undump {
        needs_dumpfile(dumpfile.as_ref())?;
    }
    Ok(Verb::Resume { part, dumpfile })
}

fn start(parsed: &Parsed) -> StartOptions {
    StartOptions {
        force: parsed.flag("force"),
        wait: parsed.flag("wait"),
        skip_fsck: parsed.flag("skip-fsck"),
        skip_remount: parsed.flag("skip-remount"),
        skip_setup: parsed.flag("skip_ve_setup"),
    }
}

fn stop(parsed: &Parsed) -> StopOptions {
    StopOptions { fast: parsed.flag("fast"), skip_umount: parsed.flag("skip-umount") }
}

fn create(found: Vec<Found>) -> Result<CreateOptions, UsageError> {
    let mut options = CreateOptions::default();
    for found in found {
        let value = || found.value.as_ref().map(|value| value.stored.clone());
        match found.opt.long {
            "config" => options.sample = value(),
            "layout" => options.layout = value(),
            "ostemplate" => options.ostemplate = value(),
            "from" => options.from = value(),
            "keep-identity" => options.keep_identity = true,
            _ => options.settings.extend(setting(found)),
        }
    }
    let given = [
        ("config", options.sample.is_some()),
        ("layout", options.layout.is_some()),
        ("ostemplate", options.ostemplate.is_some()),
    ];
    if options.from.is_some()
        && let Some((long, _)) = given.iter().find(|(_, given)| *given)
    {
        return Err(UsageError::syntax(format!("Option --{long} cannot be used with --from")));
    }
    if options.keep_identity && options.from.is_none() {
        return Err(UsageError::syntax("Option --keep-identity requires --from"));
    }
    Ok(options)
}

/// The parameter behind an option; none for what is accepted without effect.
fn setting(found: Found) -> Option<Setting> {
    let param = found.opt.param?;
    let (value, given) = found.value.map(|value| (value.stored, value.given)).unwrap_or_default();
    Some(Setting { param, value, given })
}

fn set(parsed: Parsed) -> Result<SetOptions, UsageError> {
    let mut options = SetOptions::default();
    for found in parsed.found {
        match found.opt.long {
            "save" => options.save = true,
            "force" => options.force = true,
            "reset_ub" => options.reset_ub = true,
            "setmode" => {
                let restart = found.value.is_some_and(|value| value.stored == "restart");
                options.mode = Some(if restart { SetMode::Restart } else { SetMode::Ignore });
            }
            _ => options.settings.extend(setting(found)),
        }
    }
    consistent(&options)?;
    Ok(options)
}

/// Rules about options of `set` taken together.
fn consistent(options: &SetOptions) -> Result<(), UsageError> {
    let has = |long: &str| options.settings.iter().any(|setting| setting.option() == long);
    let others = options.save || options.force || options.mode.is_some() || !options.settings.is_empty();
    if options.reset_ub && others {
        return Err(UsageError::syntax("Option --reset_ub must be used alone"));
    }
    if !options.save {
        needs_save(options)?;
    }
    let edits = ["mac", "host_ifname", "host_mac", "bridge", "mac_filter"];
    if !has("ifname") && edits.into_iter().any(has) {
        return Err(UsageError::syntax("Invalid usage.  Option --ifname not specified"));
    }
    let auto = options.settings.iter().any(|s| s.option() == "cpumask" && s.value == "auto");
    if auto && !has("nodemask") {
        return Err(UsageError::syntax("Option --cpumask auto requires --nodemask"));
    }
    if has("nodemask") && !has("cpumask") {
        return Err(UsageError::syntax("Option --nodemask requires --cpumask"));
    }
    Ok(())
}

/// Refuses what makes sense only with `--save`.
fn needs_save(options: &SetOptions) -> Result<(), UsageError> {
    let needy = options.settings.iter().find(|setting| setting.param.needs_save).map(Setting::option);
    let restart = options.mode == Some(SetMode::Restart);
    let control = options.force.then_some("force").or(restart.then_some("setmode restart"));
    match needy.or(control) {
        None => Ok(()),
        Some(long) => {
            let exit = if long == "name" { Exit::SetName } else { Exit::InvalidSyntax };
            Err(UsageError::with_exit(exit, format!("Option --{long} requires --save")))
        }
    }
}
