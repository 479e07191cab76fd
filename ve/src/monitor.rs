//! What `vzctl` and `vzmon` say to one another.
//!
//! `vzctl` starts a `vzmon` for each VE that it starts, gives it an [`Order`], and releases init
//! through it. Afterwards the channel is closed and both go their ways.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vzsys::channel::Channel;
use vzsys::idmap::IdRange;
use vzsys::launch::{LaunchError, LaunchPlan, Stage};
use vzsys::process::ProcRef;

use crate::externals::Externals;

/// All that a monitor has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Whose monitor it is.
    pub ctid: u32,
    /// `/run/vz/CTID`: holds the console's socket.
    pub run_dir: PathBuf,
    /// The program that mends and restarts the VE when its init has ended.
    pub vzctl: PathBuf,
    /// What to do first.
    pub task: Task,
}

/// How a monitor gets its VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Start it.
    Launch(Box<LaunchPlan>),
    /// Watch one that runs, whose monitor died.
    Adopt {
        /// Its init.
        init: ProcRef,
        /// Whether it has a user namespace.
        user_namespace: bool,
    },
    /// Restore it. Its `/dev` comes with this message.
    Restore(Box<RestorePlan>),
}

/// All that a monitor has to know to restore a VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The program of CRIU.
    pub criu: PathBuf,
    /// The image directory.
    pub images: PathBuf,
    /// Where the VE's root is mounted.
    pub root: PathBuf,
    /// The VE's ids.
    pub ids: Option<IdRange>,
    /// What is to be mounted anew.
    pub externals: Externals,
    /// A directory of ours, in which CRIU sees what is mounted.
    pub place: PathBuf,
    /// As in a launch.
    pub signals: Option<u64>,
    /// As in a launch.
    pub lockable: Option<u64>,
    /// Whether its processes stand still at the end.
    pub frozen: bool,
    /// How much CRIU writes into its log.
    pub log_level: i32,
}

/// `vzmon` to whoever answers what its VE asks, and outlives it. For a supervisor the socket that it listens at comes
/// with this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Whose calls it answers.
    pub ctid: u32,
    /// `/run/vz/CTID`.
    pub run_dir: PathBuf,
    /// The VE's init; with it the supervisor ends.
    pub init: ProcRef,
    /// The host's number of the VE's root.
    pub base: u32,
    /// Whether it keeps load averages.
    pub load: bool,
}

/// Where a VE's supervisor takes the listeners of new sessions.
#[must_use]
pub fn supervisor_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("notify.sock")
}

/// `vzctl` to `vzmon`.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToMonitor {
    /// The first message.
    Order(Order),
    /// The network of a VE that is restored is there.
    Wired,
    /// Let init run.
    Release,
}

/// `vzmon` to `vzctl`.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromMonitor {
    /// Init exists, in its namespaces, and waits.
    Cloned {
        /// Its pid on the host.
        pid: i32,
        /// Whether it gets files of its own in `/proc`.
        views: bool,
    },
    /// Its mounts, console and names are ready.
    Furnished,
    /// Init runs (or the running VE has been adopted).
    Started,
    /// It failed; no process is left.
    Failed(LaunchError),
}

/// `vzctl`'s end of the channel.
#[derive(Debug)]
pub struct Monitor {
    channel: Channel,
}

impl Monitor {
    /// Wraps the channel to a monitor that was just started and gives it its order.
    ///
    /// # Errors
    /// The call that failed, as a failed clone.
    pub fn order(channel: Channel, order: Order) -> Result<Self, LaunchError> {
        Self::order_with(channel, order, None)
    }

    /// The same with a descriptor.
    ///
    /// # Errors
    /// The call that failed, as a failed clone.
    pub fn order_with(
        channel: Channel,
        order: Order,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Self, LaunchError> {
        channel.send(&ToMonitor::Order(order), fd).map_err(|error| lost(error.to_string()))?;
        Ok(Self { channel })
    }

    /// Tells that the network of a VE that is restored is there.
    ///
    /// # Errors
    /// The call that failed.
    pub fn wired(&self) -> Result<(), LaunchError> {
        send(&self.channel, &ToMonitor::Wired)
    }

    /// The pid of the cloned init, and whether it gets files of its own in `/proc`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn cloned(&self) -> Result<(i32, bool), LaunchError> {
        match self.next()? {
            FromMonitor::Cloned { pid, views } => Ok((pid, views)),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until init is furnished.
    ///
    /// # Errors
    /// The stage that failed.
    pub fn furnished(&self) -> Result<(), LaunchError> {
        match self.next()? {
            FromMonitor::Furnished => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets init run and waits until it does.
    ///
    /// # Errors
    /// Why it does not.
    pub fn release(&self) -> Result<(), LaunchError> {
        send(&self.channel, &ToMonitor::Release)?;
        self.started()
    }

    /// Waits until init runs, or is adopted.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn started(&self) -> Result<(), LaunchError> {
        match self.next()? {
            FromMonitor::Started => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn next(&self) -> Result<FromMonitor, LaunchError> {
        let received = self.channel.receive::<FromMonitor>().map_err(|error| lost(error.to_string()))?;
        match received {
            Some((FromMonitor::Failed(error), _)) => Err(error),
            Some((message, _)) => Ok(message),
            None => Err(lost("vzmon ended (is it installed beside vzctl?)".to_owned())),
        }
    }
}

fn send(channel: &Channel, message: &ToMonitor) -> Result<(), LaunchError> {
    channel.send(message, None).map_err(|error| lost(error.to_string()))
}

fn lost(error: String) -> LaunchError {
    LaunchError { stage: Stage::Clone, error }
}

fn unexpected(message: &FromMonitor) -> LaunchError {
    lost(format!("vzmon said {message:?} out of turn"))
}
