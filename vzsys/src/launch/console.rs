//! The VE's console: a pseudo-terminal of its own devpts, whose master goes to vzmon.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{ptsname, unlockpt};

use crate::error::{Call, Result};
use crate::mount::Detached;

/// Opens a new pseudo-terminal of the devpts at `/dev/pts` and mounts its slave on `/dev/console`.
/// Inside, after the change of root.
pub(super) fn open_console() -> Result<OwnedFd> {
    let (master, slave) = open_pty()?;
    Detached::copy_of(Path::new(&slave), false)?.attach(Path::new("/dev/console"))?;
    Ok(master)
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
