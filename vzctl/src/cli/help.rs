//! The usage text and each verb's help.

use std::fmt::Write as _;

use clap::builder::StyledStr;

use super::VERSION;
use super::grammar;
use super::word::{WORDS, Word};

/// A help text, plain or coloured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelpText(StyledStr);

impl HelpText {
    /// The text; `color` with terminal sequences.
    pub fn render(&self, color: bool) -> String {
        if color { self.0.ansi().to_string() } else { self.0.to_string() }
    }
}

/// The line that names the version; clients read its third word.
pub fn version_line() -> String {
    format!("vzctl version {VERSION}\n")
}

/// The whole usage text, as `vzctl --help` and a bare `vzctl` print it.
///
/// Each verb's synopsis is one line: clients look for option names in the `set` line.
pub fn usage() -> HelpText {
    let mut text = version_line();
    text.push_str("Usage: vzctl [flags] <command> <ctid> [arguments]\n\n");
    for word in WORDS {
        let line = format!("vzctl {} <ctid> {}", word.name, word.synopsis);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str(
        "vzctl help [<command>] | vzctl <command> --help\n\
         vzctl completion bash|zsh|fish\n\n\
         Flags, before the command:\n\
         \x20 --quiet      Print nothing (the log file still gets it)\n\
         \x20 --verbose    Print more; repeatable\n\
         \x20 --skiplock   Do not take the container's lock\n\
         \x20 --dry-run    Show what would be done\n\
         \x20 --version    Print the version\n\n\
         <ctid> is a container's number, or its name.\n",
    );
    HelpText(text.into())
}

/// The help of the verb spelt so, `width` columns wide.
pub fn verb_help(verb: &str, width: usize) -> Option<HelpText> {
    Word::find(verb).map(|word| self::verb(word, Some(width)))
}

/// The canonical words of all verbs, in the order help shows them.
pub fn verb_words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|word| word.name)
}

/// The help of one verb, `width` columns wide (`None`: as wide as the terminal).
pub(crate) fn verb(word: &Word, width: Option<usize>) -> HelpText {
    let tail = if word.options().is_empty() { "" } else { " [options]" };
    let operands = match word.synopsis {
        synopsis if !synopsis.is_empty() && word.options().is_empty() => format!(" {synopsis}"),
        _ => tail.to_owned(),
    };
    let mut about = word.about.to_owned();
    if !word.aliases.is_empty() {
        let _ = write!(about, " (also: {})", word.aliases.join(", "));
    }
    let command = grammar::command(word)
        .override_usage(format!("vzctl {} <ctid|name>{operands}", word.name))
        .about(about)
        .max_term_width(100)
        .after_help(after(word))
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}\n");
    let mut command = match width {
        Some(width) => command.term_width(width),
        None => command,
    };
    HelpText(command.render_help())
}

fn after(word: &Word) -> String {
    let mut text = String::new();
    if !word.notes.is_empty() {
        let _ = write!(text, "{}\n\n", word.notes);
    }
    text.push_str("Examples:");
    for (command, effect) in word.examples {
        let _ = write!(text, "\n  {command}\n      {effect}");
    }
    text
}
