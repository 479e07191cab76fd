//! The VE's console: a pseudo-terminal of its own devpts, whose master goes to vzmon.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::mount::MountAttrFlags;
use rustix::pty::{ptsname, unlockpt};

use crate::error::{Call, Result};
use crate::idmap::IdRange;
use crate::mount::{Detached, Opt};

/// Opens a new pseudo-terminal of the devpts at `/dev/pts` and mounts its slave on `/dev/console`.
/// Inside, after the change of root.
pub(super) fn open_console() -> Result<OwnedFd> {
    let (master, slave) = open_pty()?;
    Detached::copy_of(Path::new(&slave), false)?.attach(Path::new("/dev/console"))?;
    Ok(master)
}

/// A terminal of a file system of its own, which is mounted nowhere.
#[derive(Debug)]
pub struct Terminal {
    /// The side that types and reads.
    pub master: OwnedFd,
    /// The side of the programs.
    pub slave: OwnedFd,
    /// The file system; the slave is its file `0`.
    pub mount: Detached,
}

/// A console for a VE that is restored: its own `devpts` is not there yet.
///
/// # Errors
/// The errno of fsopen(2), open(2) or of the terminal's ioctls.
pub fn own_terminal(ids: Option<IdRange>) -> Result<Terminal> {
    let base = ids.map_or(0, |ids| ids.base);
    let options = [
        Opt::value("mode", "0620"),
        Opt::value("ptmxmode", "0600"),
        Opt::value("uid", base),
        Opt::value("gid", base + 5),
    ];
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = Detached::new("devpts", "devpts", &options, attrs)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(pts.as_fd(), "ptmx", flags, Mode::empty()).call("openat", || "ptmx")?;
    unlockpt(&master).call("ioctl", || "TIOCSPTLCK")?;
    let slave = openat(pts.as_fd(), "0", flags, Mode::empty()).call("openat", || "pts/0")?;
    Ok(Terminal { master, slave, mount: pts })
}

/// A pseudo-terminal of the mount namespace we are in: its master and the path of its slave.
pub(crate) fn open_pty() -> Result<(OwnedFd, String)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())
        .or_else(|_| open("/dev/ptmx", flags, Mode::empty()))
        .call("open", || "/dev/ptmx")?;
    unlockpt(&master).call("ioctl", || "TIOCSPTLCK")?;
    let name = ptsname(&master, Vec::new()).call("ioctl", || "TIOCGPTN")?;
    Ok((master, name.to_string_lossy().into_owned()))
}
