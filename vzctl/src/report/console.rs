//! The console: which stream, how much, and whether with colour.

use std::io::{self, IsTerminal as _, Write};

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Stream {
    /// Errors (levels below 0) go to stderr, the rest to stdout.
    pub(super) fn of(level: i32) -> Self {
        if level < 0 { Self::Err } else { Self::Out }
    }
}

/// Whether lines may carry colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    /// Colour only on a terminal that has it, and not against the user's wish (<https://no-color.org>).
    pub(super) fn detect(stream: Stream) -> Self {
        let terminal = match stream {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Err => io::stderr().is_terminal(),
        };
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if terminal && !unwanted && !dumb { Self::Coloured } else { Self::Plain }
    }
}

const RESET: &str = "\x1b[0m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const FAINT: &str = "\x1b[2m";

/// A message as the console shows it. What a container may have written into it must not steer the terminal.
pub(super) fn dressed(paint: Paint, message: &str) -> String {
    let safe: String = message
        .chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect();
    if paint == Paint::Plain {
        return safe;
    }
    for (word, colour) in [("Error:", RED), ("WARNING:", YELLOW), ("Warning:", YELLOW)] {
        if let Some(rest) = safe.strip_prefix(word) {
            return format!("{colour}{word}{RESET}{rest}");
        }
    }
    safe
}

/// A hint as the console shows it.
pub(super) fn faint(paint: Paint, message: &str) -> String {
    let message = dressed(Paint::Plain, message);
    match paint {
        Paint::Plain => message,
        Paint::Coloured => format!("{FAINT}{message}{RESET}"),
    }
}

/// Writes a text as it is. Nobody to tell if it fails: a closed pipe is the reader's choice.
pub(super) fn write(stream: Stream, text: &str) {
    let _ = match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
        Stream::Err => io::stderr().lock().write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(dressed(Paint::Plain, "a\x1b]0;x\x07\tb\nc"), "a\u{fffd}]0;x\u{fffd}\tb\nc");
    }

    #[test]
    fn colour_marks_only_the_leading_word() {
        assert_eq!(dressed(Paint::Coloured, "Error: no"), "\x1b[1;31mError:\x1b[0m no");
        assert_eq!(dressed(Paint::Coloured, "fine"), "fine");
        assert_eq!(dressed(Paint::Plain, "Error: no"), "Error: no");
    }

    #[test]
    fn levels_choose_the_stream() {
        assert_eq!([-2, -1, 0, 3].map(Stream::of), [Stream::Err, Stream::Err, Stream::Out, Stream::Out]);
    }
}
