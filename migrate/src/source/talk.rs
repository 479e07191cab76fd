//! Asking and being answered.

use std::io::{Read, Write};

use templates::replica::{Op, ReplicaError, Sink};

use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::wire::{Answer, Ask, Link, Received, WireError};

/// The source's end of a connection.
pub(crate) struct Talk<'a, R: Read, W: Write> {
    link: &'a mut Link<R, W>,
    peer: &'a str,
    observer: &'a dyn Observer,
    /// What is being sent, of how many bytes.
    label: &'static str,
    total: u64,
    sent: u64,
}

impl<'a, R: Read, W: Write> Talk<'a, R, W> {
    pub(crate) fn new(link: &'a mut Link<R, W>, peer: &'a str, observer: &'a dyn Observer) -> Self {
        Self { link, peer, observer, label: "", total: 0, sent: 0 }
    }

    /// Asks, and waits for the answer. What the other side says meanwhile is passed on.
    pub(crate) fn call(&mut self, ask: &Ask) -> Result<Answer> {
        let asked = self.link.send(ask).and_then(|()| self.link.flush());
        if let Err(error) = asked {
            return Err(self.last_words(error));
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        loop {
            match self.link.receive::<Answer>() {
                Ok(Received::Message(Answer::Said(report))) => {
                    // Lines of its verbs are details of one move.
                    let level = if report.level < 0 { report.level } else { report.level + 1 };
                    self.observer.say(level, &format!("{}: {}", self.peer, report.text));
                }
                Ok(Received::Message(Answer::Failed { failure, left })) => {
                    self.left(&left);
                    return Err(Error::There { peer: self.peer.to_owned(), failure });
                }
                Ok(Received::Message(answer)) => return Ok(answer),
                Ok(Received::Piece(_)) => {
                    return Err(WireError::Protocol("a piece of a file".to_owned()).into());
                }
                Err(WireError::Interrupted) => return Err(Error::Interrupted),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the move up; whether the other side says that it has removed everything. It may have been about to
    /// answer something else.
    pub(crate) fn call_off(&mut self) -> bool {
        if self.link.send(&Ask::Abort).and_then(|()| self.link.flush()).is_err() {
            return false;
        }
        loop {
            match self.answer() {
                Ok(Answer::Aborted { left, .. }) => {
                    self.left(&left);
                    return true;
                }
                Ok(_) => {}
                Err(error) => return matches!(error, Error::There { .. }),
            }
        }
    }

    /// What could not be removed there.
    pub(crate) fn left(&self, left: &[String]) {
        for text in left {
            self.observer.say(-1, &format!("WARNING: {}: left behind: {text}", self.peer));
        }
    }

    /// The other side may have said why it takes no more.
    fn last_words(&mut self, error: WireError) -> Error {
        match error {
            WireError::Closed => match self.answer() {
                Err(said @ Error::There { .. }) => said,
                _ => WireError::Closed.into(),
            },
            WireError::Interrupted => Error::Interrupted,
            other => other.into(),
        }
    }

    /// A line for the user.
    pub(crate) fn say(&self, level: i32, text: &str) {
        self.observer.say(level, text);
    }

    /// A copy of something of about so many bytes begins.
    pub(crate) fn copying(&mut self, label: &'static str, total: u64) {
        (self.label, self.total, self.sent) = (label, total, 0);
        self.observer.progress(label, 0, total);
    }

    /// A copy failed: here, or there.
    pub(crate) fn copy_failed(&mut self, error: ReplicaError) -> Error {
        match error {
            ReplicaError::Sink(inner) => match inner.downcast::<WireError>() {
                Ok(wire) => self.last_words(*wire),
                Err(other) => Error::here(crate::exit::Exit::Copy, other.to_string()),
            },
            other => Error::here(crate::exit::Exit::Copy, format!("cannot read the files: {other}")),
        }
    }
}

fn wire(error: WireError) -> ReplicaError {
    ReplicaError::Sink(Box::new(error))
}

impl<R: Read, W: Write> Sink for Talk<'_, R, W> {
    fn op(&mut self, op: Op) -> std::result::Result<(), ReplicaError> {
        self.link.send(&Ask::Step(op)).map_err(wire)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), ReplicaError> {
        self.link.send_piece(offset, bytes).map_err(wire)?;
        self.sent += bytes.len() as u64;
        self.observer.progress(self.label, self.sent, self.total);
        Ok(())
    }
}

/// An answer to another question.
pub(crate) fn unexpected(answer: &Answer) -> Error {
    let text: String = format!("{answer:?}").chars().take(60).collect();
    WireError::Protocol(format!("the answer {text}")).into()
}
