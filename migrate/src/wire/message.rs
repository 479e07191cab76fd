//! What the two sides say.

use serde::{Deserialize, Serialize};
use templates::replica::Op;
use ve::arrive::{Luggage, Problem, Subject};
use ve::handover::Then;

use crate::error::Failure;

/// From the source to the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// What speaks against taking this VE?
    Check {
        /// It.
        subject: Subject,
    },
    /// Keep its number and make a place.
    Reserve {
        /// The id of the move.
        id: String,
        /// The epoch in which it runs there.
        epoch: u64,
        /// This host's name, for people.
        from: String,
        /// Its configuration.
        luggage: Luggage,
        /// What was copied stays when the move fails.
        keep: bool,
    },
    /// A pass over a tree begins.
    Tree {
        /// Which.
        tree: Tree,
    },
    /// A step of the copy; pieces of files follow in frames of their own.
    Step(Op),
    /// The pass is over.
    PassEnd {
        /// All of it is to be on the disk only when the VE is [prepared][Ask::Prepare]: it stands still.
        later: bool,
    },
    /// All was sent: make it last. A VE that is to go on is made, and waits.
    Prepare {
        /// What is done with the VE once it is yours.
        then: Then,
    },
    /// The VE is yours.
    Go,
    /// What came for the VE while it stood still.
    Packets {
        /// With their headers.
        packets: Vec<Vec<u8>>,
    },
    /// The move is given up.
    Abort,
    /// This host has removed its own, or keeps it as a copy: nobody will ask again.
    Done {
        /// About which move.
        id: String,
    },
    /// How did the move `id` end on your side?
    Resolve {
        /// The id.
        id: String,
        /// Whose.
        ctid: u32,
        /// What this side knows: given away, or given up. `None` asks the source.
        verdict: Option<Verdict>,
    },
}

/// From the destination to the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Check`].
    Checked {
        /// What speaks against it.
        problems: Vec<Problem>,
        /// The base is missing and has to be sent.
        base_missing: bool,
    },
    /// To [`Ask::Reserve`], [`Ask::Tree`], [`Ask::Packets`] and [`Ask::Done`].
    Fine,
    /// To [`Ask::PassEnd`]: bytes of files that came in it.
    Passed {
        /// So many.
        bytes: u64,
    },
    /// To [`Ask::Prepare`].
    Prepared,
    /// To [`Ask::Go`].
    Running,
    /// The VE is not there: the move was given up, or failed after [`Ask::Go`] and was undone.
    Aborted {
        /// Why, where it was not asked for.
        failure: Option<Failure>,
        /// What could not be removed there.
        left: Vec<String>,
    },
    /// A line for the user.
    Said(Report),
    /// It failed; nothing is left there but what `left` says.
    Failed {
        /// Why.
        failure: Failure,
        /// What could not be removed there.
        left: Vec<String>,
    },
    /// To [`Ask::Resolve`].
    Resolved(Verdict),
}

/// A line that a verb of the destination says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// 0 is shown by default, 1 with `-v`, -1 is a warning.
    pub level: i32,
    /// The line.
    pub text: String,
}

/// The trees of a VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// The unpacked template.
    Base,
    /// The private area.
    Area,
    /// The dump of a suspended VE.
    Dump,
    /// The memory of one that goes on.
    Memory,
}

/// How a move ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The VE is the destination's.
    Given,
    /// The VE is the source's.
    Kept,
    /// Somebody is at work on it: ask again.
    Undecided,
}
