//! How a move ended, for the other host that does not know.

use ve::handover::{self, Handover, Leave, Part};
use ve::interrupted::{self, Wake};
use ve::{Node, arrive, describe};
use vzconf::Ctid;

use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::wire::Verdict;

/// Tells it, and acts by it where that was waited for. Whoever is at work on the VE has the word.
pub(super) fn answer(node: &Node, id: &str, ctid: u32, theirs: Option<Verdict>) -> Result<Verdict> {
    let ctid = Ctid::new(ctid).map_err(|error| Error::here(Exit::Usage, error.to_string()))?;
    let _lock = match node.lock(ctid, "resolving") {
        Ok(lock) => lock,
        Err(error) if error.exit() == vzconf::Exit::Locked => return Ok(Verdict::Undecided),
        Err(error) => return Err(super::own(&error)),
    };
    let record = Handover::load(&node.paths, ctid).map_err(|error| super::own(&error))?;
    let record = record.filter(|record| record.id == id);
    match (theirs, record) {
        (Some(theirs), record) => as_destination(node, id, theirs, record),
        (None, record) => as_source(node, ctid, record),
    }
}

/// The source asks: it has given the VE away, or given the move up.
fn as_destination(node: &Node, id: &str, theirs: Verdict, record: Option<Handover>) -> Result<Verdict> {
    let Some(handover) = record.filter(|record| matches!(record.part, Part::Arriving(_))) else {
        // Settled long ago, or removed before anything was decided.
        return Ok(if handover::is_owned(&node.paths, id) { Verdict::Given } else { Verdict::Kept });
    };
    let Part::Arriving(arriving) = &handover.part else { return Ok(Verdict::Kept) };
    let owned = handover.is_owned(&node.paths);
    let whole = arriving.stage == handover::Arrive::Prepared;
    if owned || whole && theirs == Verdict::Given {
        match interrupted::take(node, &handover, Wake::Yes) {
            Ok(()) => return Ok(Verdict::Given),
            Err(error) => (node.say)(-1, &describe(&error)),
        }
    }
    let left = arrive::discard(node, &handover);
    if left.is_empty() { Ok(Verdict::Kept) } else { Err(Error::here(Exit::Copy, left.join("; "))) }
}

/// The destination asks: it has everything and waits for a word.
fn as_source(node: &Node, ctid: Ctid, record: Option<Handover>) -> Result<Verdict> {
    let Some(handover) = record else { return Ok(Verdict::Kept) };
    match &handover.part {
        Part::Leaving(leaving) if leaving.stage >= Leave::Committed => Ok(Verdict::Given),
        Part::Leaving(leaving) => {
            if leaving.stage < Leave::Abandoned {
                interrupted::keep(node, ctid, &handover, Wake::Yes).map_err(|error| super::own(&error))?;
            }
            // Whoever asks drops it now.
            Handover::forget(&node.paths, ctid).map_err(|error| super::own(&error))?;
            Ok(Verdict::Kept)
        }
        Part::Arriving(_) => Ok(Verdict::Kept),
    }
}
