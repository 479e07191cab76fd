//! What is left of a VE whose init has ended, and how it goes away. Every step may find its part done
//! already: this is also how a verb mends what a killed one left behind.

use netns::Devices;

use crate::cgroup;
use crate::error::{Result, describe};
use crate::mount::{self, Busy};
use crate::net;
use crate::node::Ve;
use crate::restore;
use crate::state;

/// What happens to the mounted root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// It is unmounted, with the umount scripts.
    Unmount,
    /// It stays mounted (`stop --skip-umount`).
    Keep,
}

/// Takes down all that a started VE has on the host: processes, network, root, cgroups, state. Goes on
/// after a failure; returns what could not be done.
pub(crate) fn dismantle(ve: &Ve<'_>, root: Root) -> Vec<String> {
    // Deleting a device waits for the kernel; with the last process its namespace goes, and the device
    // with it. What is freed at once is what others may want: addresses and routes.
    take_down(ve, root, Devices::LeaveToNamespace)
}

fn take_down(ve: &Ve<'_>, root: Root, devices: Devices) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |done: Result<()>| failures.extend(done.err().map(|error| describe(&error)));
    note(cgroup::kill(ve));
    note(net::detach(ve, devices));
    if root == Root::Unmount {
        note(mount::umount_root(ve, Busy::Detach));
    }
    note(cgroup::remove(ve));
    // Last: while the state is there, a verb knows that there is something to mend.
    note(state::forget(&ve.node.paths, ve.ctid));
    failures
}

/// Mends a VE that does not run: removes what an ended or killed one left. Returns whether there was
/// anything. A VE that was never started costs one look-up.
pub(crate) fn mend(ve: &Ve<'_>) -> Result<bool> {
    if ve.running().is_some() || !ve.run_dir().exists() {
        return Ok(false);
    }
    ve.say(1, "Removing what an earlier run left behind");
    restore::mend(ve)?;
    for failure in take_down(ve, Root::Unmount, Devices::Delete) {
        ve.say(-1, &format!("WARNING: {failure}"));
    }
    Ok(true)
}
