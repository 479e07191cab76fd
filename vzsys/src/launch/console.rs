//! The VE's console: a pseudo-terminal in a devpts of its own, whose master goes to vzmon.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::mount::MountAttrFlags;
use rustix::pty::{ptsname, unlockpt};

use crate::error::{Call, Result};
use crate::idmap::IdRange;
use crate::mount::{Detached, Opt, umount_lazy};

/// Where the console's file system is for a moment, upon the VE's own.
const PLACE: &str = "/dev/pts";
/// How either side of a terminal is opened.
const SIDE: OFlags = OFlags::RDWR.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens the console and mounts it on `/dev/console`; returns its master. Inside, after the change of root, when nobody
/// looks at `/dev/pts`.
pub(super) fn open_console() -> Result<OwnedFd> {
    let (master, slave) = console()?;
    umount_lazy(Path::new(PLACE))?;
    slave.attach(Path::new("/dev/console"))?;
    Ok(master)
}

/// A pseudo-terminal for a console: its master, and its slave as a mount. Its file system, which is left at `/dev/pts`,
/// has nothing else in it: it is not the one where the VE's programs open terminals. Services of systemd's have copies
/// of that mount in mount namespaces of their own; a restore could not tell whether they are of the console or of a
/// terminal of theirs if there was one file system for both.
pub(crate) fn console() -> Result<(OwnedFd, Detached)> {
    let options = [Opt::value("mode", "0620"), Opt::value("ptmxmode", "0600"), Opt::value("gid", 5)];
    let (pts, master) = devpts(&options)?;
    // A file of a mount that is attached nowhere cannot be copied before Linux 6.15.
    pts.attach(Path::new(PLACE))?;
    let slave = Detached::copy_of(&Path::new(PLACE).join("0"), false)?;
    Ok((master, slave))
}

/// A new file system of terminals, and the master of the first.
fn devpts(options: &[Opt]) -> Result<(Detached, OwnedFd)> {
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = Detached::new("devpts", "devpts", options, attrs)?;
    let master = openat(pts.as_fd(), "ptmx", SIDE, Mode::empty()).call("openat", || "ptmx")?;
    unlockpt(&master).call("ioctl", || "TIOCSPTLCK")?;
    Ok((pts, master))
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
    let (mount, master) = devpts(&options)?;
    let slave = first_slave(&mount)?;
    Ok(Terminal { master, slave, mount })
}

/// A pseudo-terminal of a file system of its own: its master and its slave, which has no path. As root of the VE.
pub(crate) fn own_pty() -> Result<(OwnedFd, OwnedFd)> {
    let (mount, master) = devpts(&[Opt::value("mode", "0620"), Opt::value("gid", 5)])?;
    Ok((master, first_slave(&mount)?))
}

fn first_slave(mount: &Detached) -> Result<OwnedFd> {
    openat(mount.as_fd(), "0", SIDE, Mode::empty()).call("openat", || "pts/0")
}

/// A pseudo-terminal of the mount namespace we are in: its master and its slave.
pub(crate) fn open_pty() -> Result<(OwnedFd, OwnedFd)> {
    let master = open("/dev/pts/ptmx", SIDE, Mode::empty())
        .or_else(|_| open("/dev/ptmx", SIDE, Mode::empty()))
        .call("open", || "/dev/ptmx")?;
    unlockpt(&master).call("ioctl", || "TIOCSPTLCK")?;
    let name = ptsname(&master, Vec::new()).call("ioctl", || "TIOCGPTN")?;
    let slave = open(&name, SIDE, Mode::empty()).call("open", || name.to_string_lossy())?;
    Ok((master, slave))
}
