//! Starting a VE's init, in named stages.
//!
//! ```text
//!  vzctl                 vzmon (parent, outside, privileged)        init (child, inside)
//!  ── LaunchPlan ──────▶ make /dev, open cgroups
//!                        clone3 into cgroup + new namespaces ─────▶ waits for its id maps
//!  ◀─────── Cloned{pid}  write uid_map, gid_map ── MapsWritten ───▶ becomes root of the VE
//!  plumbs the network,                                              joins cgroups, time namespace,
//!  writes host name,                                                mounts, pivots, opens console
//!  DNS, runs scripts     ◀──────────────── Console + master fd ────
//!                        ◀──────────────── Furnished | Failed ─────  waits
//!  ◀─────── Furnished
//!  saves state
//!  ── Release ─────────▶ ───────────────── Release ───────────────▶ drops capabilities, seccomp,
//!        (a VE with a supervisor)  ◀─ Listener + fd ── Served ────▶
//!                                                                   exec: the channel closes
//!  ◀─────── Started      ◀──────────────── (end of channel) ───────
//! ```
//!
//! The child waits, the parent furnishes, one message releases init. A closed channel means "do not
//! start": whoever dies, init never runs half-configured.

mod command;
mod console;
mod devices;
mod furnish;
mod init;
mod views;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::error::{Call, Result};
use crate::idmap::{self, IdRange};
use crate::limits::Lent;
use crate::mount::Detached;
use crate::process::PidFd;
use crate::raw::{self, Cloned};
use crate::seccomp::Nesting;
use crate::trap::Trapped;

pub use command::{ImageCommand, OWN_COMMAND, OWN_INIT};
pub use console::{Terminal, own_terminal};
pub(crate) use console::{console, open_pty, own_pty};
pub use devices::{Device, DeviceKind, empty as empty_dev, shift as shift_ids};
pub use views::put_again;

/// What every process of a VE is confined by; the same for init and for `vzctl exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The capabilities that stay in the bounding set, as a bit mask.
    pub capabilities: u64,
    /// Whether nested namespaces are refused.
    pub nesting: Nesting,
    /// A 32-bit guest: uname(2) says i686.
    pub personality_32: bool,
    /// How many bytes each process may lock in memory; `None` leaves it as it is.
    #[serde(default)]
    pub lockable: Option<u64>,
    /// What its supervisor answers.
    #[serde(default)]
    pub trapped: Trapped,
}

/// A file written into the VE's fresh `/run` before init runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Path below `/run`.
    pub path: PathBuf,
    /// What it holds; for [`RunFileKind::Link`] the target.
    pub content: String,
    /// File or symbolic link.
    pub kind: RunFileKind,
}

/// What a [`RunFile`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunFileKind {
    /// A regular file, mode 0644.
    Plain,
    /// A regular file, mode 0755.
    Executable,
    /// A symbolic link.
    Link,
}

/// The cgroup mount that the guest's init understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupView {
    /// cgroup2 at `/sys/fs/cgroup`.
    Unified,
    /// `name=systemd` (v1) at `/sys/fs/cgroup/systemd`, for systemd before 233.
    Named,
}

/// All that is needed to start a VE's init; pure data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Where the root file system is mounted on the host, ids mapped already.
    pub root: PathBuf,
    /// The VE's ids; `None` for a privileged VE without a user namespace.
    pub ids: Option<IdRange>,
    /// `/proc/sys/kernel/hostname` of the VE.
    pub hostname: String,
    /// v1 `tasks` files that init joins by writing itself.
    pub cgroup_tasks: Vec<PathBuf>,
    /// The v2 directory that init is cloned into.
    pub cgroup_unified: Option<PathBuf>,
    /// The cgroup file system that init finds.
    pub cgroup_view: CgroupView,
    /// Device nodes below `/dev`, besides the usual ones.
    pub devices: Vec<Device>,
    /// Names of files in the views' file system, and the paths that they are put on.
    #[serde(default)]
    pub views: Vec<(String, PathBuf)>,
    /// Paths hidden from the VE: files by `/dev/null`, directories by an empty read-only one.
    pub masked: Vec<PathBuf>,
    /// Paths made read-only.
    pub read_only: Vec<PathBuf>,
    /// Files for `/run`.
    pub run_files: Vec<RunFile>,
    /// Limits of init and all that it starts.
    pub confinement: Confinement,
    /// Programs to try as init, in order.
    pub init: Vec<PathBuf>,
    /// Arguments after argv[0], which is `init`.
    pub arguments: Vec<String>,
    /// The whole environment of init.
    pub environment: Vec<String>,
    /// How many signals may be queued in the VE, for all its users together; `None` is the host's usual number.
    pub signals: Option<u64>,
}

/// A step of the launch, named in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Stage {
    /// Making the VE's /dev on the host's side.
    #[error("making /dev")]
    Devices,
    /// Cloning init.
    #[error("creating the namespaces")]
    Clone,
    /// Becoming root of the VE.
    #[error("becoming root of the container")]
    Identity,
    /// Joining cgroups.
    #[error("joining the cgroups")]
    Cgroups,
    /// The time namespace.
    #[error("setting up the time namespace")]
    Time,
    /// Mounts and the change of root.
    #[error("mounting the file systems")]
    Mounts,
    /// The console.
    #[error("opening the console")]
    Console,
    /// Host name.
    #[error("setting the host name")]
    Hostname,
    /// No init program there.
    #[error("looking for init")]
    FindInit,
    /// Capabilities, seccomp and the rest, just before exec.
    #[error("confining init")]
    Confine,
    /// execve(2) of init.
    #[error("executing init")]
    Exec,
    /// CRIU, in place of all the others.
    #[error("restoring the processes")]
    Restore,
}

/// Init to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The console's master comes with this message.
    Console,
    /// All is ready; init waits for [`ToInit::Release`].
    Furnished,
    /// Where its calls stop comes with this message; it waits for [`ToInit::Served`].
    Listener,
    /// It went wrong, and init is gone.
    Failed {
        /// Where.
        stage: Stage,
        /// The call and its errno, as text.
        error: String,
    },
}

/// Parent to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// The id maps are there.
    MapsWritten,
    /// Execute init.
    Release,
    /// Its calls are being answered.
    Served,
}

/// A failed launch: where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{stage}: {error}")]
pub struct LaunchError {
    /// The stage that failed.
    pub stage: Stage,
    /// The call and its errno, as text.
    pub error: String,
}

pub(crate) trait AtStage<T> {
    fn at(self, stage: Stage) -> std::result::Result<T, LaunchError>;
}

impl<T> AtStage<T> for Result<T> {
    fn at(self, stage: Stage) -> std::result::Result<T, LaunchError> {
        self.map_err(|error| LaunchError { stage, error: error.to_string() })
    }
}

/// A cloned init that is furnishing itself, or waits to be released.
#[derive(Debug)]
pub struct Waiting {
    /// Its pid on the host.
    pub pid: i32,
    /// Refers to it for good.
    pub pidfd: PidFd,
    /// Its channel.
    pub channel: Channel,
}

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;

/// Clones init by the plan and writes its id maps. The caller must be single-threaded and root; it
/// becomes init's parent. Does not wait for init to be furnished. `views` is a file system that is served from now on:
/// init looks its files up. `cloned` is told its pid before it opens anything.
///
/// # Errors
/// The stage and call that failed; nothing is left behind.
pub fn clone_init(
    plan: &LaunchPlan,
    views: Option<&Detached>,
    cloned: impl FnOnce(i32),
) -> std::result::Result<Waiting, LaunchError> {
    let dev = devices::make(plan).at(Stage::Devices)?;
    let root = Detached::copy_of(&plan.root, true).at(Stage::Mounts)?;
    let (tasks, unified) = open_cgroups(plan).at(Stage::Cgroups)?;
    let (ours, theirs) = Channel::pair().at(Stage::Clone)?;
    let mut flags = NAMESPACES as u64;
    if plan.ids.is_some() {
        flags |= libc::CLONE_NEWUSER as u64;
    }
    let cgroup = unified.as_ref().map(AsFd::as_fd);
    // A user namespace is born with the limit of whoever makes it, and keeps it for all its users together (5.14).
    let signals = plan.signals.map(|number| Lent::at_least(Resource::Sigpending, number));
    let _signals = signals.transpose().at(Stage::Clone)?;
    // Inside it can only be lowered. Where we may not raise it either, the host's own is what they get.
    let lockable = plan.confinement.lockable.map(|bytes| Lent::at_least(Resource::Memlock, bytes));
    let _lockable = lockable.and_then(Result::ok);
    // The kernel counts namespaces and processes per owner of the user namespace: each VE has its own.
    let child = match plan.ids {
        Some(ids) => idmap::clone_as_owner(ids.base, flags, cgroup),
        None => raw::clone3(flags, cgroup, libc::SIGCHLD),
    };
    match child.at(Stage::Clone)? {
        Cloned::Child => {
            drop(ours);
            init::run(plan, init::Trees { root: &root, dev: &dev, views }, tasks, &theirs)
        }
        Cloned::Parent { pid, pidfd } => {
            let waiting = Waiting { pid, pidfd: PidFd::from_fd(pidfd), channel: ours };
            drop(theirs);
            cloned(pid);
            let ready = plan.ids.map_or(Ok(()), |ids| ids.write_maps(pid));
            ready.and_then(|()| waiting.channel.send(&ToInit::MapsWritten, None)).at(Stage::Identity)?;
            Ok(waiting)
        }
    }
}

fn open_cgroups(plan: &LaunchPlan) -> Result<(Vec<OwnedFd>, Option<OwnedFd>)> {
    let mut tasks = Vec::new();
    for path in &plan.cgroup_tasks {
        let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        tasks.push(fd.call("open", || path.display().to_string())?);
    }
    let unified = match &plan.cgroup_unified {
        Some(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Some(rustix::fs::open(path, flags, Mode::empty()).call("open", || path.display().to_string())?)
        }
        None => None,
    };
    Ok((tasks, unified))
}
