//! A VE that goes on here: all of it is made before anybody has decided, and waits.

use std::path::Path;

use criu::Images;
use templates::replica::Digests;
use vzconf::Exit;

use super::{number, own, place, prepared};
use crate::error::{Error, Result};
use crate::handover::{Arriving, Handover, Part, Then};
use crate::node::{Node, Ve};
use crate::restore::{self, Go};
use crate::saved::Saved;
use crate::{life, start};

/// Makes the VE of its files and its memory, all of which have come; `known` are the hashes of the memory's files, and
/// `durable` waits until all of it is on the disk, or tells why it is not. When it is whole and nothing of it has run, its
/// record says so and `decide` is asked whether it is this host's now; then it runs.
///
/// # Errors
/// As [`restore::restore`]; the host is then as it was but for what came.
pub fn resume(
    node: &Node,
    handover: &mut Handover,
    known: &Digests,
    durable: &mut dyn FnMut() -> std::result::Result<(), String>,
    decide: &mut dyn FnMut() -> bool,
) -> Result<()> {
    let (memory, saved) = can(handover)?;
    place(node, handover)?;
    let ve = node.ve(number(handover.ctid)?)?;
    // Its lives go on being counted here.
    life::set(&node.paths, ve.ctid, saved.life)?;
    let options = restore::Options { known: Some(known), ..options(&memory) };
    restore::restore(&ve, options, &mut |_| {
        vzsys::fault::point("arrive.restored");
        durable().map_err(|why| Error::refused(Exit::System, why))?;
        prepared(node, handover, Then::Resume)?;
        if !decide() {
            return Ok(Go::Abort);
        }
        own(node, handover)?;
        Ok(Go::Run)
    })
    .map(drop)
}

fn options(images: &Path) -> restore::Options<'_> {
    restore::Options {
        images,
        known: None,
        disk_is_as_saved: false,
        disconnected: false,
        frozen: false,
        skip_remount: false,
    }
}

/// Whether there is something to go on from.
pub(super) fn can(handover: &Handover) -> Result<(std::path::PathBuf, Saved)> {
    let lost = || Error::refused(Exit::Restore, "the memory of the container is not here");
    let Part::Arriving(Arriving { memory: Some(memory), .. }) = &handover.part else { return Err(lost()) };
    let saved =
        Images::peek::<Saved>(memory).map_err(|source| Error::Criu { source, exit: Exit::Restore })?;
    Ok((memory.clone(), saved))
}

/// Once more, after whoever held it was killed. One that has run here since begins anew: its disk is not as it was.
pub(super) fn again(ve: &Ve<'_>, arriving: &Arriving) -> Result<()> {
    let memory = arriving.memory.as_deref();
    let saved = memory.and_then(|memory| Images::peek::<Saved>(memory).ok());
    if let (Some(memory), Some(saved)) = (memory, saved)
        && life::current(&ve.node.paths, ve.ctid) <= saved.life
    {
        return restore::restore(ve, options(memory), &mut |_| Ok(Go::Run)).map(drop);
    }
    ve.say(-1, "WARNING: the container has run here since, and its memory is gone: it starts from its disk");
    start::start(ve, start::Options { force: true, ..start::Options::default() })
}
