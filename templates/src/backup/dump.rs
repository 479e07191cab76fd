//! Names of a classic dump, and taking out of a tree what a dump has put in.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use vzsys::Call;

use crate::archive::open_root;

/// The name of a new dump without what tells its format, as Proxmox's and OpenVZ's vzdump made it (UTC).
#[must_use]
pub fn dump_name(ctid: u32, created: i64) -> String {
    let time = jiff::Timestamp::from_second(created).unwrap_or_default();
    format!("vzdump-openvz-{ctid}-{}", time.strftime("%Y_%m_%d-%H_%M_%S"))
}

/// Removes `etc/vzdump` from an unpacked tree; `etc` keeps its time.
///
/// # Errors
/// The call that failed.
pub fn forget_dump(tree: &Path) -> vzsys::Result<()> {
    let root = open_root(tree)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A link in its place is the tree's own, and so is what it leads to.
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let etc = match fs::openat2(&root, "etc", flags, Mode::empty(), how) {
        Ok(etc) => etc,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(vzsys::SysError::new("openat2", "etc", errno)),
    };
    let stat = fs::fstat(&etc).call("fstat", || "etc")?;
    crate::removal::remove_at(etc.as_fd(), OsStr::new("vzdump"))?;
    let omit = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    #[allow(clippy::unnecessary_cast)] // its type differs between kernels' headers
    let before = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    let times = Timestamps { last_access: omit, last_modification: before };
    fs::futimens(&etc, &times).call("utimensat", || "etc")
}
