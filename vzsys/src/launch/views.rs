//! The files that stand for the kernel's in a VE: where they are put.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::io::Errno;

use super::furnish::mount_point;
use crate::error::Result;
use crate::mount::{Detached, umount_lazy};
use crate::raw;

/// Where a VE has its own numbers, by the names of OpenVZ's kernel.
const VIEWS: &str = "/run/vz/proc";

/// The directory of views, and its files over the kernel's. What this kernel does not have needs no other.
pub(super) fn put(places: &[(String, PathBuf)], views: &Detached) -> Result<()> {
    mount_point("/run/vz")?;
    mount_point(VIEWS)?;
    views.attach(Path::new(VIEWS))?;
    for (name, place) in places.iter().filter(|(_, place)| place.exists()) {
        copy(name)?.attach(place)?;
    }
    Ok(())
}

fn copy(name: &str) -> Result<Detached> {
    Detached::copy_of(&Path::new(VIEWS).join(name), false)
}

/// Puts them into a VE that runs, in place of those that nobody serves any more; whatever else is there is the VE's
/// own doing, and stays. For a process that has nothing else to do: it is in the VE's mount namespace from then on.
/// What the VE has made of its paths leads nowhere but into the VE.
///
/// # Errors
/// The errno of setns(2), umount2(2) or of the calls that mount.
pub fn put_again(init: BorrowedFd<'_>, places: &[(String, PathBuf)], views: &Detached) -> Result<()> {
    raw::setns(init, raw::CLONE_NEWNS)?;
    remove_dead(Path::new(VIEWS))?;
    mount_point("/run/vz")?;
    mount_point(VIEWS)?;
    views.attach(Path::new(VIEWS))?;
    // All that somebody has to answer comes first. If he dies, the dead ones are still there, by which the next knows
    // what to put back.
    let dead = places.iter().filter(|(_, place)| is_dead(place));
    let copies = dead.map(|(name, place)| Ok((copy(name)?, place))).collect::<Result<Vec<_>>>()?;
    for (copy, place) in copies {
        remove_dead(place)?;
        copy.attach(place)?;
    }
    Ok(())
}

fn remove_dead(place: &Path) -> Result<()> {
    while is_dead(place) {
        umount_lazy(place)?;
    }
    Ok(())
}

/// Whether it is of a FUSE file system whose server is gone. The kernel remembers what a file is; how much room there
/// is, only the server can say.
fn is_dead(place: &Path) -> bool {
    matches!(statfs(place), Err(Errno::NOTCONN | Errno::CONNABORTED))
}
