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
        put_one(name, place)?;
    }
    Ok(())
}

fn put_one(name: &str, place: &Path) -> Result<()> {
    Detached::copy_of(&Path::new(VIEWS).join(name), false)?.attach(place)
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
    for (name, place) in places {
        if remove_dead(place)? {
            put_one(name, place)?;
        }
    }
    Ok(())
}

/// Whether there was one.
fn remove_dead(place: &Path) -> Result<bool> {
    let mut found = false;
    while is_dead(place) {
        umount_lazy(place)?;
        found = true;
    }
    Ok(found)
}

/// Whether it is of a FUSE file system whose server is gone. The kernel remembers what a file is; how much room there
/// is, only the server can say.
fn is_dead(place: &Path) -> bool {
    matches!(statfs(place), Err(Errno::NOTCONN | Errno::CONNABORTED))
}
