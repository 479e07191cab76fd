//! `vzubc -w`: shown again and again, until a signal ends it.
//!
//! The terminal is left as it is but for what is written to it, so there is nothing to put back.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use super::super::{Answer, Error};
use super::options::Watch;

/// Shows what `show` says every so often; ends with its first error, or when nobody reads on.
///
/// # Errors
/// That of `show`, and of standard output.
pub(super) fn watch(
    how: &Watch,
    words: &[String],
    mut show: impl FnMut() -> Result<String, Error>,
) -> Result<Answer, Error> {
    let mut before: Option<String> = None;
    loop {
        let text = show()?;
        let mut out = io::stdout();
        let screen = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
        let title = how.title.then(|| title(how, words));
        let frame = match screen {
            Some(size) => {
                let size = (usize::from(size.ws_row), usize::from(size.ws_col));
                let marked = match before.as_ref().filter(|_| how.differences) {
                    Some(before) => Marked::Against(before),
                    None => Marked::Nothing,
                };
                paint(title.as_deref(), &text, marked, size)
            }
            None => title.into_iter().map(|title| format!("{title}\n\n")).collect::<String>() + &text + "\n",
        };
        match out.write_all(frame.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Answer::default()),
            Err(error) => return Err(Error::io("write to standard output", error)),
        }
        before = Some(text);
        std::thread::sleep(how.interval);
    }
}

fn title(how: &Watch, words: &[String]) -> String {
    let command: Vec<String> = words.iter().map(|word| word.replace(char::is_control, "\u{fffd}")).collect();
    let now = jiff::Zoned::now().strftime("%a %b %e %H:%M:%S %Y").to_string();
    format!("Every {:.1}s: vzubc {}  {now}", how.interval.as_secs_f64(), command.join(" "))
}

/// What is highlighted.
#[derive(Debug, Clone, Copy)]
enum Marked<'a> {
    Nothing,
    /// What is not as in this text.
    Against(&'a str),
}

/// A screen of the text: from its top left corner, each line cleared to its end, and what is below too.
fn paint(title: Option<&str>, text: &str, marked: Marked<'_>, (rows, columns): (usize, usize)) -> String {
    // A terminal that does not know its size shows what it can.
    let (rows, columns) =
        (if rows == 0 { usize::MAX } else { rows }, if columns == 0 { usize::MAX } else { columns });
    let mut frame = String::from("\x1b[H");
    let heading = title.iter().flat_map(|title| [(*title).to_owned(), String::new()]);
    let mut old = match marked {
        Marked::Against(old) => Some(old.lines()),
        Marked::Nothing => None,
    };
    let body = text.lines().map(|line| match &mut old {
        Some(old) => mark(&cut(line, columns), old.next().unwrap_or_default()),
        None => cut(line, columns),
    });
    let lines = heading.map(|line| cut(&line, columns)).chain(body);
    for (at, line) in lines.take(rows).enumerate() {
        // No line break after the last: it would scroll the first away.
        let _ = write!(frame, "{}{line}\x1b[K", if at == 0 { "" } else { "\r\n" });
    }
    frame.push_str("\x1b[J");
    frame
}

/// As much of a line as fits; sequences that colour it take no room.
fn cut(line: &str, columns: usize) -> String {
    let (mut text, mut width, mut in_sequence) = (String::new(), 0, false);
    for c in line.chars() {
        if in_sequence {
            in_sequence = !c.is_ascii_alphabetic();
        } else if c == '\x1b' {
            in_sequence = true;
        } else {
            width += 1;
            if width > columns {
                continue;
            }
        }
        text.push(c);
    }
    text
}

fn mark(line: &str, old: &str) -> String {
    let (mut text, mut old, mut on) = (String::new(), old.chars(), false);
    for c in line.chars() {
        let differs = old.next() != Some(c);
        if differs != on {
            text.push_str(if differs { "\x1b[7m" } else { "\x1b[27m" });
            on = differs;
        }
        text.push(c);
    }
    if on {
        text.push_str("\x1b[27m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_filled_and_no_more() {
        let frame = paint(Some("a title"), "one\ntwo\nthree\n", Marked::Nothing, (4, 5));
        assert_eq!(frame, "\x1b[Ha tit\x1b[K\r\n\x1b[K\r\none\x1b[K\r\ntwo\x1b[K\x1b[J");
        assert_eq!(paint(None, "a\n", Marked::Nothing, (0, 0)), "\x1b[Ha\x1b[K\x1b[J");
    }

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut("\x1b[1;31mabcdef\x1b[0;39m", 3), "\x1b[1;31mabc\x1b[0;39m");
    }

    #[test]
    fn what_changed_is_highlighted() {
        assert_eq!(mark("abXXe", "abcde"), "ab\x1b[7mXX\x1b[27me");
        assert_eq!(mark("abc", "ab"), "ab\x1b[7mc\x1b[27m");
        let frame = paint(None, "a 1\nb 2\n", Marked::Against("a 1\nb 3\n"), (9, 9));
        assert!(frame.contains("a 1\x1b[K") && frame.contains("b \x1b[7m2\x1b[27m\x1b[K"), "{frame:?}");
    }
}
