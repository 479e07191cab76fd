//! What an interrupted move left, mended by the next verb, which holds the VE's lock: its owner is dead.

use vzconf::{Ctid, Exit, Paths};

use crate::error::{Error, Result};
use crate::handover::{self, Arrive, Handover, Leave, Leaving, Part, Then};
use crate::node::Node;
use crate::{arrive, depart, marker, mount, start};

/// Whether the verb is itself about running or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The VE is brought back to what it was before the move.
    Yes,
    /// It is left as it is: the verb starts it, stops it or destroys it.
    No,
}

/// Whether a move was begun, or is at work, on this VE.
#[must_use]
pub fn is_marked(paths: &Paths, ctid: Ctid) -> bool {
    handover::path(paths, ctid).exists()
}

/// Mends what can be mended without asking the other host. A VE that never moved costs one look-up.
///
/// # Errors
/// 9 when only the other host, or the admin, can tell whose the VE is; else as the verb that is needed.
pub fn mend(node: &Node, ctid: Ctid, wake: Wake) -> Result<()> {
    let Some(handover) = Handover::load(&node.paths, ctid)? else { return Ok(()) };
    match &handover.part {
        Part::Leaving(leaving) => match leaving.stage {
            Leave::Copying | Leave::Halted | Leave::Offered => {
                warn(node, ctid, &format!("the move to {} was interrupted; it stays here", handover.peer));
                keep(node, ctid, &handover, wake)
            }
            Leave::Abandoned => Ok(()),
            Leave::Committed => Err(in_doubt(&handover, &format!("has moved to {}", handover.peer))),
            Leave::Done => {
                warn(node, ctid, &format!("has moved to {}; removing what is left here", handover.peer));
                retire(node, ctid, &handover, leaving)
            }
        },
        Part::Arriving(arriving) if handover.is_owned(&node.paths) || arriving.stage == Arrive::Reserved => {
            if handover.is_owned(&node.paths) {
                warn(
                    node,
                    ctid,
                    &format!("its move here from {} was interrupted; finishing it", handover.peer),
                );
                return take(node, &handover, wake);
            }
            warn(node, ctid, "removing what an interrupted move here left behind");
            let left = arrive::discard(node, &handover);
            if left.is_empty() { Ok(()) } else { Err(refused(Exit::System, left.join("; "), None)) }
        }
        Part::Arriving(_) => Err(in_doubt(&handover, &format!("is moving here from {}", handover.peer))),
    }
}

fn warn(node: &Node, ctid: Ctid, text: &str) {
    (node.say)(-1, &format!("WARNING: container {ctid}: {text}"));
}

fn in_doubt(handover: &Handover, what: &str) -> Error {
    let hint = format!("Interrupted? Then: vzmigrate --resolve {}", handover.ctid);
    refused(Exit::Locked, format!("Container {} {what}", handover.ctid), Some(hint))
}

fn refused(exit: Exit, message: String, hint: Option<String>) -> Error {
    Error::Refused { message, hint, exit }
}

/// The VE stays: it is as it was, and whoever may have all of it is told later.
///
/// # Errors
/// 3, and as [`revive`].
pub fn keep(node: &Node, ctid: Ctid, handover: &Handover, wake: Wake) -> Result<()> {
    let Part::Leaving(leaving) = &handover.part else { return Ok(()) };
    if leaving.stage >= Leave::Offered {
        let abandoned = Leaving { stage: Leave::Abandoned, ..leaving.clone() };
        Handover { part: Part::Leaving(abandoned), ..handover.clone() }.save(&node.paths)?;
    } else {
        Handover::forget(&node.paths, ctid)?;
    }
    if leaving.online {
        marker::take_over(&node.ve(ctid)?)?;
    }
    if wake == Wake::Yes { revive(node, ctid, leaving) } else { Ok(()) }
}

/// Brings it back to what it was before it was halted.
///
/// # Errors
/// As [`start::start`] and [`mount::mount`].
pub fn revive(node: &Node, ctid: Ctid, leaving: &Leaving) -> Result<()> {
    let ve = node.ve(ctid)?;
    if leaving.running && ve.running().is_none() {
        start::start(&ve, start::Options { force: true, ..start::Options::default() })?;
    } else if leaving.mounted && !ve.mounted() {
        mount::mount(&ve)?;
    }
    Ok(())
}

/// The other host has it: removes it here.
///
/// # Errors
/// As [`depart::retire`].
pub fn retire(node: &Node, ctid: Ctid, handover: &Handover, leaving: &Leaving) -> Result<()> {
    let ve = node.ve(ctid)?;
    if leaving.online {
        marker::give_up(&ve)?;
    }
    depart::retire(&ve, &handover.peer, handover.epoch, !leaving.remove)?;
    Handover::forget(&node.paths, ctid)
}

/// The VE is this host's.
///
/// # Errors
/// As [`arrive::settle`], and as the verb that brings it back to what it was.
pub fn take(node: &Node, handover: &Handover, wake: Wake) -> Result<()> {
    arrive::settle(node, handover)?;
    let resumes = matches!(&handover.part, Part::Arriving(arriving) if arriving.then == Then::Resume);
    if wake == Wake::Yes || resumes {
        arrive::wake(node, handover)?;
    }
    arrive::conclude(node, handover)
}
