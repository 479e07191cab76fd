//! Which words may stand where the cursor is.

use std::ffi::OsString;

use super::sources::Sources;
use super::tools;
use crate::cli::{Containers, Opt, PLAIN, Values, WORDS, Word};

/// One word a shell may insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// What it is; empty if there is nothing to add.
    pub about: String,
}

impl Candidate {
    pub(super) fn new(word: impl Into<String>, about: impl Into<String>) -> Self {
        Self { word: word.into(), about: about.into() }
    }
}

/// What the shell proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// These words.
    Words(Vec<Candidate>),
    /// Paths of the host: the shell knows best.
    Paths,
}

const FLAGS: &[(&str, &str)] = &[
    ("--quiet", "print nothing"),
    ("--verbose", "print more"),
    ("--skiplock", "do not take the lock"),
    ("--dry-run", "show what would be done"),
    ("--version", "print the version"),
    ("--help", "print the usage"),
];

/// Completes a command line. `words` are those up to the cursor, the program's name first and the
/// word under the cursor (perhaps empty) last.
pub fn propose(sources: &Sources, words: &[OsString]) -> Proposal {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(|word| &**word).collect();
    let Some((program, rest)) = words.split_first() else { return Proposal::Words(Vec::new()) };
    let (current, before) = match rest.split_last() {
        Some((current, before)) => (*current, before),
        None => ("", rest),
    };
    let proposal = match program.rsplit('/').next().unwrap_or_default() {
        "vzlist" => vzlist(sources, before, current),
        "vztmpl" => vztmpl(sources, before),
        other => {
            tools::propose(sources, other, before, current).unwrap_or_else(|| vzctl(sources, before, current))
        }
    };
    match proposal {
        Proposal::Words(mut candidates) => {
            candidates.retain(|candidate| candidate.word.starts_with(current));
            Proposal::Words(candidates)
        }
        Proposal::Paths => Proposal::Paths,
    }
}

fn vzctl(sources: &Sources, before: &[&str], current: &str) -> Proposal {
    let flags = before.iter().take_while(|word| FLAGS.iter().any(|(flag, _)| flag == *word)).count();
    let Some((verb, rest)) = before[flags..].split_first() else {
        return Proposal::Words(verbs(current));
    };
    match *verb {
        "help" if rest.is_empty() => return Proposal::Words(verbs("")),
        "completion" if rest.is_empty() => {
            return fixed(&["bash", "zsh", "fish"]);
        }
        _ => {}
    }
    let Some(word) = Word::find(verb) else { return Proposal::Words(Vec::new()) };
    // bash hands `--opt=val` over in three words.
    let rest = rest.strip_suffix(&["="]).unwrap_or(rest);
    if let Some(values) = awaited(word, rest) {
        return value(sources, values);
    }
    if let Some((opt, _)) = current.split_once('=').filter(|_| !word.verbatim()) {
        return attached(sources, word, opt);
    }
    let operands = operands(word, rest);
    if word.verbatim() {
        return match operands.as_slice() {
            [] => Proposal::Words(containers(sources, word.containers)),
            [_] if word.name == "enter" => fixed(&["--exec"]),
            _ => Proposal::Words(Vec::new()),
        };
    }
    if current.starts_with('-') {
        return options(word, rest);
    }
    match operands.len() {
        0 => Proposal::Words(containers(sources, word.containers)),
        1 if word.name == "runscript" => Proposal::Paths,
        _ => options(word, rest),
    }
}

fn verbs(current: &str) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = WORDS.iter().map(|word| Candidate::new(word.name, word.about)).collect();
    all.extend(PLAIN.iter().map(|word| Candidate::new(*word, "")));
    // An alias is proposed only to who has begun to type it.
    if !current.is_empty() {
        let aliases = WORDS.iter().flat_map(|word| word.aliases.iter().map(|alias| (alias, word.about)));
        all.extend(aliases.map(|(alias, about)| Candidate::new(*alias, about)));
    }
    if current.starts_with('-') {
        all.extend(FLAGS.iter().map(|(flag, about)| Candidate::new(*flag, *about)));
    }
    all
}

/// The option whose value the cursor is on.
fn awaited(word: &Word, before: &[&str]) -> Option<Values> {
    let long = before.last()?.strip_prefix("--")?;
    let options = word.options();
    let opt = options.into_iter().find(|opt| opt.long == long || opt.aliases.contains(&long))?;
    opt.value.map(|_| opt.values())
}

/// The words that are neither an option nor its value.
fn operands<'a>(word: &Word, before: &[&'a str]) -> Vec<&'a str> {
    let mut operands = Vec::new();
    for (at, text) in before.iter().enumerate() {
        let is_value = awaited(word, &before[..at]).is_some();
        if !is_value && !text.starts_with('-') {
            operands.push(*text);
        }
    }
    operands
}

fn options(word: &Word, before: &[&str]) -> Proposal {
    let given = |opt: &Opt| before.iter().any(|word| word.strip_prefix("--") == Some(opt.long));
    let options = word.options().into_iter().filter(|opt| !opt.hidden() && (opt.repeats() || !given(opt)));
    let mut all: Vec<_> = options.map(|opt| Candidate::new(format!("--{}", opt.long), opt.help)).collect();
    all.push(Candidate::new("--help", "help of this command"));
    Proposal::Words(all)
}

fn fixed(words: &[&str]) -> Proposal {
    Proposal::Words(words.iter().map(|word| Candidate::new(*word, "")).collect())
}

fn value(sources: &Sources, values: Values) -> Proposal {
    let words = match values {
        Values::Free => return Proposal::Words(Vec::new()),
        Values::Path => return Proposal::Paths,
        Values::Of(words) => return fixed(words),
        Values::Template => sources.templates(),
        Values::Sample => sources.samples(),
        Values::HostDevice => sources.devices(),
    };
    Proposal::Words(words.into_iter().map(|word| Candidate::new(word, "")).collect())
}

/// Values for `--opt=`; the shell compares with the whole word.
fn attached(sources: &Sources, word: &Word, opt: &str) -> Proposal {
    let Some(Proposal::Words(mut all)) = awaited(word, &[opt]).map(|values| value(sources, values)) else {
        return Proposal::Words(Vec::new());
    };
    for candidate in &mut all {
        candidate.word.insert_str(0, &format!("{opt}="));
    }
    Proposal::Words(all)
}

/// CTIDs and names of the containers in question.
pub(super) fn containers(sources: &Sources, which: Containers) -> Vec<Candidate> {
    let ids = match which {
        Containers::New => return vec![Candidate::new(sources.next().to_string(), "next free CTID")],
        Containers::Any => sources.all(),
        Containers::Running => sources.running(),
        Containers::Stopped => sources.stopped(),
    };
    let names = sources.names();
    let name_of = |id: &u32| names.iter().find(|(_, of)| of == id).map_or("", |(name, _)| name.as_str());
    let mut all: Vec<_> = ids.iter().map(|id| Candidate::new(id.to_string(), name_of(id))).collect();
    let named = names.iter().filter(|(_, id)| ids.contains(id));
    all.extend(named.map(|(name, id)| Candidate::new(name.clone(), format!("CTID {id}"))));
    all
}

const VZLIST: &[(&str, &str)] = &[
    ("--all", "all containers"),
    ("--stopped", "those that are not running"),
    ("--name", "names instead of IDs"),
    ("--hostname", "filter by host name"),
    ("--name_filter", "filter by name"),
    ("--description", "filter by description"),
    ("--output", "fields"),
    ("--sort", "sort by a field"),
    ("--no-header", "no headings"),
    ("--no-trim", "long values in full"),
    ("--json", "JSON"),
    ("--list", "the names of all fields"),
    ("--help", "help"),
];

fn vzlist(sources: &Sources, before: &[&str], current: &str) -> Proposal {
    match before.last() {
        Some(&("-o" | "--output")) => fields(current, ','),
        Some(&("-s" | "--sort")) => fields(current, '-'),
        Some(&("-h" | "--hostname" | "-N" | "--name_filter" | "-d" | "--description")) => {
            Proposal::Words(Vec::new())
        }
        _ if current.starts_with('-') => {
            Proposal::Words(VZLIST.iter().map(|(option, about)| Candidate::new(*option, *about)).collect())
        }
        _ => Proposal::Words(containers(sources, Containers::Any)),
    }
}

/// Field names, after what is typed already up to the last `separator`.
fn fields(current: &str, separator: char) -> Proposal {
    let done = current.rfind(separator).map_or("", |at| &current[..at + separator.len_utf8()]);
    let candidates = crate::list::field_table().iter();
    let candidates = candidates.map(|field| Candidate::new(format!("{done}{}", field.name), field.about));
    Proposal::Words(candidates.collect())
}

const VZTMPL: &[(&str, &str)] = &[
    ("list", "templates in the cache"),
    ("info", "what is known about a template"),
    ("build", "make a template"),
    ("import", "make a template of a directory or archive"),
    ("create", "make a template of a container"),
    ("export", "write a template as an OCI image"),
    ("verify", "check a template's archive"),
    ("rm", "remove a template"),
];

fn vztmpl(sources: &Sources, before: &[&str]) -> Proposal {
    match before {
        [] => Proposal::Words(VZTMPL.iter().map(|(verb, about)| Candidate::new(*verb, *about)).collect()),
        ["export", _] => Proposal::Paths,
        ["info" | "rm" | "verify" | "export", ..] => value(sources, Values::Template),
        ["create"] => Proposal::Words(containers(sources, Containers::Any)),
        ["import"] => Proposal::Paths,
        _ => Proposal::Words(Vec::new()),
    }
}
