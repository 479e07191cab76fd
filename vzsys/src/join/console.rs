//! A new console for a VE that runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::{Report, WAY_IN, become_root, end, hide, unshare};
use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::process::PidFd;
use crate::raw::{self, Cloned};

/// Gives a running VE a new console after the old one's master was lost, mounted on `/dev/console`. Programs that open
/// the console anew, as init systems do, use it. Returns the master.
///
/// # Errors
/// The errno of entering the VE or of its terminal or mount calls.
pub fn renew_console(init: &PidFd, user_namespace: bool) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    let Cloned::Parent { pidfd, .. } = raw::clone3(0, None, libc::SIGCHLD)? else {
        drop(ours);
        let failed = hide().and_then(|()| renew_inside(init, user_namespace, &theirs)).err();
        let _ = failed.map(|error| theirs.send(&Report::failed(&error), None));
        raw::exit_now(0)
    };
    drop(theirs);
    let in_time = ours.ready_by(Instant::now() + WAY_IN)?;
    let report = if in_time { ours.receive::<Report>() } else { Ok(None) };
    end(&PidFd::from_fd(pidfd))?;
    match report? {
        Some((Report::Terminal, Some(master))) => Ok(master),
        Some((Report::EnterFailed { error, .. }, _)) => Err(SysError::new("console", error, Errno::IO)),
        _ => Err(SysError::new("console", "the helper process ended", Errno::IO)),
    }
}

fn renew_inside(init: &PidFd, user_namespace: bool, channel: &Channel) -> Result<()> {
    let user = if user_namespace { libc::CLONE_NEWUSER } else { 0 };
    raw::setns(init.as_fd(), (user | libc::CLONE_NEWNS) as u64)?;
    become_root()?;
    raw::close_all_but(&[channel.as_fd(), init.as_fd()])?;
    // What is mounted for a moment is not to be seen by the VE.
    unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).call("mount", || "/, MS_REC|MS_PRIVATE")?;
    let (master, slave) = crate::launch::console()?;
    raw::setns(init.as_fd(), libc::CLONE_NEWNS as u64)?;
    let console = Path::new("/dev/console");
    crate::mount::umount_lazy(console)?;
    slave.attach(console)?;
    channel.send(&Report::Terminal, Some(master.as_fd()))
}
