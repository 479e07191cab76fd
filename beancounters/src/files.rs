//! The number of open files: a gate of BPF programs for all VEs of the host.
use vzconf::{Ctid, Pair};
use vzsys::SysError;
use vzsys::bpf::FileGate;

use crate::error::{Error, Result};
use crate::limit_plan::Unenforced;
use crate::limits::{Param, finite};
use crate::reading::Reading;
use crate::resource::Resource;

/// Has the files of VEs counted that start from now on, where the kernel can.
///
/// # Errors
/// The call that failed. The VE starts all the same, and its files are counted as on other kernels.
pub fn count_files() -> std::result::Result<(), SysError> {
    FileGate::put_up().map(drop)
}

/// Forgets what was counted for a VE that has ended.
///
/// # Errors
/// [`Error::Inside`].
pub fn forget_files(ctid: Ctid) -> Result<()> {
    let forgotten = FileGate::find().and_then(|gate| gate.map_or(Ok(()), |gate| gate.dismiss(ctid.get())));
    forgotten.map_err(failed(ctid))
}

/// What a shell and its libraries need, and some more.
const SPARE: u64 = 64;

/// The gate, if a VE that runs has so few files left to open that the admin could not come in.
#[must_use]
pub fn short_of_files(ctid: Ctid, init: i32) -> Option<FileGate> {
    let gate = FileGate::find().ok()??;
    gate.is_short(ctid.get(), init, SPARE).unwrap_or(false).then_some(gate)
}

/// Sets the limit of a VE that runs or is about to; says why if it cannot be held.
pub(crate) fn limit(init: i32, ctid: Ctid, pair: Pair) -> Result<Option<Unenforced>> {
    let most = finite(pair);
    if let Some(gate) = FileGate::find().map_err(failed(ctid))?
        && gate.limit(ctid.get(), init, most).map_err(failed(ctid))?
    {
        return Ok(None);
    }
    Ok(most.map(|_| Unenforced { param: Param::Numfile, why: why_not().to_owned() }))
}

fn why_not() -> &'static str {
    match FileGate::supported() {
        true => "from the next start of the container, if it has a user namespace",
        false => "no BPF programs for security modules",
    }
}

/// What the gate has counted, if it counts for this VE.
pub(crate) fn count(init: i32, ctid: Ctid, reading: &mut Reading) {
    let Ok(Some(gate)) = FileGate::find() else { return };
    let Ok(Some(tally)) = gate.tally(ctid.get(), init) else { return };
    reading.hold(Resource::Numfile, tally.count);
    reading.reach(Resource::Numfile, tally.peak);
    reading.fail(Resource::Numfile, tally.failed);
}

fn failed(ctid: Ctid) -> impl Fn(SysError) -> Error {
    move |source| Error::Inside { param: Param::Numfile, ctid, source }
}
