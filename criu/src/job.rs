//! What CRIU is asked to do, in our terms.

use crate::error::{Error, Result};
use crate::talk::{Answer, Criu, MORE_FD, Stage};
use crate::wire::{CgroupMode, InheritFd, Kind, NetworkLock, Opts, PageServer, Request};

/// The name of its log in the image directory.
pub const DUMP_LOG: &str = "dump.log";
/// The same of a restore.
pub const RESTORE_LOG: &str = "restore.log";
/// For how long CRIU may take to stop all tasks, in seconds.
const TIMEOUT: u32 = 180;
const NEWNET: u32 = 0x4000_0000;
/// Errors and warnings. What it says beyond that costs time while the VE stands still.
const LOG_LEVEL: i32 = 2;

/// Something of a VE that is not in its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum External {
    /// A mount, by its place in the VE at a dump, by `key` at a restore.
    Mount {
        /// What it is called in the images.
        key: String,
        /// At a dump its place in the VE, at a restore what is mounted there, as CRIU sees it.
        path: String,
    },
    /// A terminal whose master is outside.
    Terminal {
        /// Its number.
        device: u64,
        /// The device number of its file system.
        on: u64,
    },
}

impl External {
    /// A terminal's name in the images.
    #[must_use]
    pub fn terminal_key(device: u64, on: u64) -> String {
        format!("tty[{device:x}:{on:x}]")
    }
}

/// A dump.
#[derive(Debug, Clone)]
pub struct Dump {
    /// The VE's init.
    pub pid: i32,
    /// Where the VE's root is mounted on the host.
    pub root: String,
    /// The directory of the freezer.
    pub freezer: Option<String>,
    /// What is not dumped.
    pub external: Vec<External>,
    /// The tasks run on when the stage [`Stage::PostDump`] was answered with yes.
    pub leave_running: bool,
    /// Deleted files larger than this, in bytes, cannot be saved.
    pub ghost_limit: u32,
    /// Names of what is watched by inotify on a file system that cannot tell them.
    pub watched: Vec<String>,
    /// The images of the pre-dump before, as a path from the image directory; with it memory is tracked.
    pub parent: Option<String>,
    /// Memory goes to a page server through a descriptor, the first of [`crate::Setting::fds`], not to the directory.
    pub pages_to_fd: bool,
}

/// A restore.
#[derive(Debug, Clone)]
pub struct Restore {
    /// Where the VE's root is mounted on the host.
    pub root: String,
    /// What stands for what was not dumped.
    pub external: Vec<External>,
    /// Keys of the descriptors of [`crate::Setting::fds`], in order.
    pub inherit: Vec<String>,
    /// How much it writes into its log: [`log_level`] of whoever asked for the restore.
    pub log_level: i32,
}

impl Criu {
    /// Dumps a VE.
    ///
    /// # Errors
    /// Why not. The tasks then run on, unless they are frozen by their cgroup.
    pub fn dump(&mut self, dump: &Dump, on: &mut dyn FnMut(Stage) -> Answer) -> Result<()> {
        let opts = Opts {
            pid: Some(dump.pid),
            root: Some(dump.root.clone()),
            leave_running: Some(dump.leave_running),
            freeze_cgroup: dump.freezer.clone(),
            timeout: Some(TIMEOUT),
            tcp_skip_in_flight: Some(true),
            ghost_limit: Some(dump.ghost_limit),
            irmap_scan_paths: dump.watched.clone(),
            log_file: Some(DUMP_LOG.to_owned()),
            external: dump.external.iter().map(at_dump).collect(),
            parent_img: dump.parent.clone(),
            track_mem: dump.parent.is_some().then_some(true),
            ps: dump.pages_to_fd.then(page_server),
            ..common(self.images())
        };
        let request = Request { kind: Kind::Dump.into(), opts: Some(opts), ..Request::default() };
        self.ask(&request, on).map(drop)
    }

    /// Restores a VE, whose init becomes our child.
    ///
    /// # Errors
    /// Why not. Nothing of it is left, unless CRIU died.
    pub fn restore(&mut self, restore: &Restore, on: &mut dyn FnMut(Stage) -> Answer) -> Result<i32> {
        let inherit = restore.inherit.iter().zip(MORE_FD..);
        let opts = Opts {
            root: Some(restore.root.clone()),
            rst_sibling: Some(true),
            log_level: Some(restore.log_level),
            log_file: Some(RESTORE_LOG.to_owned()),
            external: restore.external.iter().filter_map(at_restore).collect(),
            inherit_fd: inherit.map(|(key, fd)| InheritFd { key: key.clone(), fd }).collect(),
            ..common(self.images())
        };
        let request = Request { kind: Kind::Restore.into(), opts: Some(opts), ..Request::default() };
        let answer = self.ask(&request, on)?;
        answer
            .restore
            .as_ref()
            .map(|restore| restore.pid)
            .ok_or_else(|| Error::OutOfTurn(format!("{answer:?}")))
    }
}

fn common(images: String) -> Opts {
    Opts {
        images_dir_fd: -1,
        images_dir: Some(images),
        log_level: Some(log_level()),
        notify_scripts: Some(true),
        tcp_established: Some(true),
        file_locks: Some(true),
        link_remap: Some(true),
        evasive_devices: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Soft.into()),
        // We hold and wire the network ourselves.
        network_lock: Some(NetworkLock::Skip.into()),
        empty_ns: Some(NEWNET),
        ..Opts::default()
    }
}

/// How much CRIU writes into its log: errors and warnings; `VZ_CRIU_LOG=4` in the environment makes it all, which costs
/// time.
#[must_use]
pub fn log_level() -> i32 {
    std::env::var("VZ_CRIU_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LOG_LEVEL)
}

fn page_server() -> PageServer {
    PageServer { fd: Some(MORE_FD), ..PageServer::default() }
}

fn at_dump(external: &External) -> String {
    match external {
        External::Mount { key, path } => format!("mnt[{path}]:{key}"),
        External::Terminal { device, on } => External::terminal_key(*device, *on),
    }
}

fn at_restore(external: &External) -> Option<String> {
    match external {
        External::Mount { key, path } => Some(format!("mnt[{key}]:{path}")),
        External::Terminal { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_external_is_named_as_criu_does() {
        let mount = External::Mount { key: "dev".to_owned(), path: "/dev".to_owned() };
        assert_eq!(at_dump(&mount), "mnt[/dev]:dev");
        let mount = External::Mount { key: "dev".to_owned(), path: "/run/x/dev".to_owned() };
        assert_eq!(at_restore(&mount).unwrap(), "mnt[dev]:/run/x/dev");
        let terminal = External::Terminal { device: 0x8800, on: 0x2f };
        assert_eq!((at_dump(&terminal).as_str(), at_restore(&terminal)), ("tty[8800:2f]", None));
    }
}
