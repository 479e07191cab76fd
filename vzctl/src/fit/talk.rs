//! How a tool speaks and asks.

use std::io::{BufRead, Write};

use super::Error;

/// What a tool says and hears.
pub struct Talk<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Standard input.
    pub input: &'a mut dyn BufRead,
}

impl std::fmt::Debug for Talk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Talk")
    }
}

impl Talk<'_> {
    /// Prints a result. At once, so that it stands before the complaints that follow.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub(super) fn print(&mut self, text: impl AsRef<[u8]>) -> Result<(), Error> {
        self.out.write_all(text.as_ref()).and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    /// Says a line on standard error. Values come from files of others, which must not steer the terminal.
    pub(super) fn complain(&mut self, line: &str) {
        let safe: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        // There is nowhere left to complain to when standard error is closed.
        let _ = writeln!(self.err, "{safe}");
    }

    /// Asks on standard error; `None` when there is no answer to come.
    pub(super) fn ask(&mut self, prompt: &str) -> Option<String> {
        let _ = self.err.write_all(prompt.as_bytes()).and_then(|()| self.err.flush());
        let mut line = Vec::new();
        match std::io::Read::take(&mut *self.input, LONGEST).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => Some(String::from_utf8_lossy(&line).into_owned()),
            _ => None,
        }
    }

    /// Asks for consent, which is what an empty answer is taken for.
    pub(super) fn agrees(&mut self) -> bool {
        while let Some(answer) = self.ask(" (y/n) [y] ") {
            match answer.chars().next() {
                Some('y' | '\n') => return true,
                Some('n') => return false,
                _ => {}
            }
        }
        false
    }
}

/// No answer is longer.
const LONGEST: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::super::testing::Session;

    #[test]
    fn consent_is_y_or_nothing_and_the_end_of_input_is_none() {
        for (typed, agreed, asked) in [
            ("y\n", true, 1),
            ("\n", true, 1),
            ("yes\n", true, 1),
            ("n\n", false, 1),
            ("what\nY\nn\n", false, 3),
            ("", false, 1),
            ("x", false, 2),
        ] {
            let mut session = Session::typing(typed);
            assert_eq!(session.run(|talk| talk.agrees()), agreed, "{typed:?}");
            assert_eq!(session.err().matches(" (y/n) [y] ").count(), asked, "{typed:?}");
        }
    }

    #[test]
    fn what_a_file_says_cannot_steer_the_terminal() {
        let mut session = Session::default();
        session.run(|talk| talk.complain("a\x1b]0;x\x07\nb"));
        assert_eq!(session.err(), "a\u{fffd}]0;x\u{fffd}\u{fffd}b\n");
    }
}
