//! Command lines whose options may have values.

use super::Error;

/// One option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Its letter.
    pub(super) short: char,
    /// Its long form.
    pub(super) long: &'static str,
    /// Whether a value follows.
    pub(super) value: bool,
}

/// A tool's options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    /// The tool's name.
    pub(super) program: &'static str,
    /// Its options.
    pub(super) options: &'static [Known],
    /// How many operands it takes at most.
    pub(super) operands: usize,
}

/// A command line, understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    given: Vec<(char, String)>,
    /// What is no option.
    pub(super) operands: Vec<String>,
}

impl Words {
    /// Whether an option is given.
    pub(super) fn has(&self, option: char) -> bool {
        self.value(option).is_some()
    }

    /// The value of an option, the last if it is given more than once.
    pub(super) fn value(&self, option: char) -> Option<&str> {
        self.given.iter().rev().find(|(short, _)| *short == option).map(|(_, value)| value.as_str())
    }
}

impl Grammar {
    /// Reads a command line: `-rv yes`, `-n5`, `--all 2`, `--all=2`; `--` ends the options. `None` asks for help.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(super) fn read(&self, words: &[String]) -> Result<Option<Words>, Error> {
        let mut read = Words::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some("") => read.operands.extend(words.by_ref().cloned()),
                Some("help") => return Ok(None),
                Some(long) => read.given.push(self.long(long, || words.next())?),
                None => match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                    Some(letters) => {
                        if self.short(letters, &mut read, || words.next())? {
                            return Ok(None);
                        }
                    }
                    None => read.operands.push(word.clone()),
                },
            }
        }
        match read.operands.get(self.operands) {
            None => Ok(Some(read)),
            Some(extra) => Err(self.refuse(format!("unexpected argument: {extra}"))),
        }
    }

    /// A command line that does not do.
    pub(super) fn refuse(&self, complaint: impl Into<String>) -> Error {
        Error::Usage { program: self.program, complaint: complaint.into() }
    }

    /// An option's value that is none of those it can have.
    pub(super) fn invalid(&self, option: char, value: &str) -> Error {
        self.refuse(format!("Invalid argument for -{option}: {value}"))
    }

    fn long<'a>(
        &self,
        word: &str,
        next: impl FnOnce() -> Option<&'a String>,
    ) -> Result<(char, String), Error> {
        let (name, inside) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let known = self.options.iter().find(|known| known.long == name);
        let known = known.ok_or_else(|| self.refuse(format!("unrecognized option: --{name}")))?;
        let value = match (known.value, inside) {
            (false, None) => String::new(),
            (false, Some(_)) => return Err(self.refuse(format!("--{name} takes no value"))),
            (true, Some(value)) => value.to_owned(),
            (true, None) => next().cloned().ok_or_else(|| self.refuse(format!("--{name} needs a value")))?,
        };
        Ok((known.short, value))
    }

    /// A word of letters; tells whether help is among them.
    fn short<'a>(
        &self,
        letters: &str,
        read: &mut Words,
        next: impl FnOnce() -> Option<&'a String>,
    ) -> Result<bool, Error> {
        for (at, letter) in letters.char_indices() {
            if letter == 'h' {
                return Ok(true);
            }
            let known = self.options.iter().find(|known| known.short == letter);
            let known = known.ok_or_else(|| self.refuse(format!("unrecognized option: -{letter}")))?;
            if !known.value {
                read.given.push((letter, String::new()));
                continue;
            }
            let rest = &letters[at + letter.len_utf8()..];
            let value = if rest.is_empty() { next().map(String::as_str) } else { Some(rest) };
            let value = value.ok_or_else(|| self.refuse(format!("-{letter} needs a value")))?;
            read.given.push((letter, value.to_owned()));
            break;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::words;
    use super::*;

    const GRAMMAR: Grammar = Grammar {
        program: "vzx",
        options: &[
            Known { short: 'r', long: "repair", value: false },
            Known { short: 'n', long: "number", value: true },
        ],
        operands: 1,
    };

    #[test]
    fn options_have_values_in_every_usual_form() {
        for (line, given, operands) in [
            ("", vec![], vec![]),
            ("-rn 5 file", vec![('r', ""), ('n', "5")], vec!["file"]),
            ("-n5 -r", vec![('n', "5"), ('r', "")], vec![]),
            ("--number=5 --repair", vec![('n', "5"), ('r', "")], vec![]),
            ("--number 5 -n 6", vec![('n', "5"), ('n', "6")], vec![]),
            ("-n -1", vec![('n', "-1")], vec![]),
            ("-- -r", vec![], vec!["-r"]),
            ("-", vec![], vec!["-"]),
        ] {
            let read = GRAMMAR.read(&words(line)).unwrap().unwrap();
            let given: Vec<_> = given.into_iter().map(|(option, value)| (option, value.to_owned())).collect();
            let last = given.iter().rev().find(|(option, _)| *option == 'n').map(|(_, value)| value.clone());
            assert_eq!(read.value('n'), last.as_deref(), "{line}");
            assert_eq!((read.given, read.operands), (given, words(&operands.join(" "))), "{line}");
        }
        for line in ["-h", "-rh", "--help --nonsense", "file --help"] {
            assert_eq!(GRAMMAR.read(&words(line)).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("-x", "-x"),
            ("--number", "--number"),
            ("-n", "-n"),
            ("--repair=yes", "--repair"),
            ("--nu 5", "--nu"),
            ("a b", "b"),
        ] {
            let error = GRAMMAR.read(&words(line)).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("vzx --help"), "{line}: {error}");
        }
    }
}
