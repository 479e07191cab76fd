//! Command lines of flags and operands.

use super::Error;

/// A tool's flags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    /// The tool's name.
    pub(super) program: &'static str,
    /// Its flags: the letter and the long form.
    pub(super) flags: &'static [(char, &'static str)],
    /// How many operands it takes at most.
    pub(super) operands: usize,
    /// What it exits with for a command line that is none of its.
    pub(super) exit: u8,
}

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The help is wanted.
    Help,
    /// The work: the letters of the flags that are given, and the operands.
    Work {
        /// Flags.
        flags: Vec<char>,
        /// Operands.
        operands: Vec<String>,
    },
}

impl Grammar {
    /// Reads a command line: flags may be bundled (`-vA`), `--` ends them.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(super) fn read(&self, words: &[String]) -> Result<Request, Error> {
        let (mut flags, mut operands, mut open) = (Vec::new(), Vec::new(), true);
        for word in words {
            match word.strip_prefix("--") {
                Some("") if open => open = false,
                Some("help") if open => return Ok(Request::Help),
                Some(long) if open => flags.push(self.long(long)?),
                _ => match word.strip_prefix('-').filter(|letters| open && !letters.is_empty()) {
                    Some(letters) => {
                        for letter in letters.chars() {
                            if letter == 'h' {
                                return Ok(Request::Help);
                            }
                            flags.push(self.short(letter)?);
                        }
                    }
                    None => operands.push(word.clone()),
                },
            }
        }
        match operands.get(self.operands) {
            None => Ok(Request::Work { flags, operands }),
            Some(extra) => Err(self.refuse(format!("unexpected argument: {extra}"))),
        }
    }

    /// A command line that does not do.
    pub(super) fn refuse(&self, complaint: impl Into<String>) -> Error {
        Error::Usage { program: self.program, complaint: complaint.into(), exit: self.exit }
    }

    fn long(&self, word: &str) -> Result<char, Error> {
        let found = self.flags.iter().find(|(_, long)| *long == word);
        found.map(|(letter, _)| *letter).ok_or_else(|| self.refuse(format!("unrecognized option: --{word}")))
    }

    fn short(&self, letter: char) -> Result<char, Error> {
        let known = self.flags.iter().any(|(short, _)| *short == letter);
        if known { Ok(letter) } else { Err(self.refuse(format!("unrecognized option: -{letter}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAMMAR: Grammar =
        Grammar { program: "vzx", flags: &[('v', "verbose"), ('A', "absolute")], operands: 1, exit: 2 };

    fn read(line: &str) -> Result<Request, Error> {
        GRAMMAR.read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_bundled_and_spelt_out() {
        for (line, flags, operands) in [
            ("", "", vec![]),
            ("-vA 5", "vA", vec!["5"]),
            ("5 --absolute -v", "Av", vec!["5"]),
            ("-- -v", "", vec!["-v"]),
            ("-", "", vec!["-"]),
        ] {
            let operands = operands.into_iter().map(str::to_owned).collect();
            assert_eq!(
                read(line).unwrap(),
                Request::Work { flags: flags.chars().collect(), operands },
                "{line}"
            );
        }
        assert_eq!(read("-vh").unwrap(), Request::Help);
        assert_eq!(read("--help --nonsense").unwrap(), Request::Help);
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (line, named) in [("-vx", "-x"), ("--verb", "--verb"), ("1 2", "2")] {
            let error = read(line).unwrap_err();
            assert!(error.to_string().contains(named) && error.exit() == 2, "{line}: {error}");
        }
    }
}
