//! The exit codes of vzmigrate.

use serde::{Deserialize, Serialize};
use ve::arrive::Obstacle;

/// What vzmigrate exits with. The numbers are OpenVZ's: scripts test them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// Bad command line, or the lock cannot be made.
    Usage = 1,
    /// Live migration of a container that does not run.
    NotRunning = 2,
    /// The destination cannot be reached.
    Connect = 4,
    /// Files could not be copied.
    Copy = 6,
    /// The container could not be started, restored or mounted on the destination.
    Start = 7,
    /// The container could not be stopped or suspended here.
    Stop = 8,
    /// A container of that number is on the destination.
    Exists = 9,
    /// There is no such container, or no vz.conf, here.
    Missing = 10,
    /// An address is in use on the destination.
    Address = 12,
    /// A quota could not be set on the destination.
    Quota = 13,
    /// Something that is needed is not available on the destination.
    Module = 14,
    /// The name could not be given on the destination.
    Name = 15,
    /// The layout is not possible on the destination.
    Layout = 16,
    /// CRIU is missing or too old.
    CriuVersion = 17,
    /// The processors do not fit.
    Cpu = 18,
    /// vz.conf of the destination cannot be used.
    RemoteConf = 19,
    /// The container is locked, here or there.
    Locked = 20,
}

impl Exit {
    /// The process exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<Obstacle> for Exit {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Exists => Self::Exists,
            Obstacle::Locked => Self::Locked,
            Obstacle::Name => Self::Name,
            Obstacle::Address => Self::Address,
            Obstacle::Space => Self::Copy,
            Obstacle::Layout => Self::Layout,
            Obstacle::Ipv6 | Obstacle::Bridge | Obstacle::Kernel => Self::Module,
            Obstacle::Criu => Self::CriuVersion,
            Obstacle::Processor => Self::Cpu,
        }
    }
}
