//! Why a command of a program other than vzctl did not succeed.

use std::error::Error;

use vzconf::Exit;

use super::Report;

/// How it ends then.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    pub(crate) fn advised(exit: Exit, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..Self::new(exit, text) }
    }

    /// With an error and its causes.
    pub(crate) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, ve::describe(error))
    }
}

impl From<ve::Error> for Failure {
    fn from(error: ve::Error) -> Self {
        Self { hint: error.hint().map(str::to_owned), ..Self::of(error.exit(), &error) }
    }
}

impl From<vzconf::Error> for Failure {
    fn from(error: vzconf::Error) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl Report {
    /// Tells it; returns what to exit with.
    pub(crate) fn fail(&self, failure: &Failure) -> Exit {
        self.error(&failure.text);
        if let Some(hint) = &failure.hint {
            self.hint(hint);
        }
        failure.exit
    }

    /// Says why something failed. Errors begin with a small letter; a capital one begins a sentence that is an
    /// interface itself.
    pub(super) fn error(&self, text: &str) {
        let kind = if text.starts_with(char::is_uppercase) { "" } else { "Error: " };
        self.line(-1, &format!("{kind}{text}"));
    }
}
