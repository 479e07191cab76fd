//! The tables of the host, as `/proc/user_beancounters`, `/proc/bc` and `/proc/vz` had them, by their paths: what is
//! served below `/run/vz/proc`.

use std::fs::File;
use std::path::PathBuf;

use beancounters::node_text::{self, Info, Quota, QuotaRow, Stat};
use beancounters::{Beancounter, CpuTime, IoMeter, Resource, text};
use templates::quota::{Report, Row};
use vzconf::{Ctid, Mask, Paths};

use crate::accounts::Accounts;
use crate::cgroup;
use crate::node::Node;
use crate::state::State;

/// A file of the host. Directories are the parts of the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostFile {
    /// `user_beancounters`
    UserBeancounters,
    /// `bc/resources`
    BcResources,
    /// `bc/CTID/resources`
    Resources(Ctid),
    /// `bc/CTID/ioprio`
    Ioprio(Ctid),
    /// `bc/CTID/ioacct`
    Ioacct(Ctid),
    /// `vz/veinfo`
    Veinfo,
    /// `vz/vestat`
    Vestat,
    /// `vz/vzquota`
    Vzquota,
    /// `vz/version`
    Version,
    /// `vz/vswap`: that it exists says that RAM and swap can be limited.
    Vswap,
}

/// Where they are served.
#[must_use]
pub fn place(paths: &Paths) -> PathBuf {
    paths.run_root().join("proc")
}

/// Whoever serves them holds the lock on this.
///
/// # Errors
/// Those of mkdir(2) and open(2).
pub fn lock(paths: &Paths) -> std::io::Result<File> {
    std::fs::create_dir_all(paths.run_root())?;
    File::create(lock_path(paths))
}

pub(crate) fn lock_path(paths: &Paths) -> PathBuf {
    paths.run_root().join("proc.lock")
}

/// Starts to serve them, if nobody does. Whoever reads them at once may come too early; without them nothing else
/// fails.
pub(crate) fn serve(node: &Node) {
    if lock(&node.paths).is_ok_and(|lock| lock.try_lock().is_ok()) {
        cgroup::start_aside(node, &["proc"]);
    }
}

impl HostFile {
    /// The files that are always there.
    pub const FIXED: [(&'static str, Self); 7] = [
        ("user_beancounters", Self::UserBeancounters),
        ("bc/resources", Self::BcResources),
        ("vz/veinfo", Self::Veinfo),
        ("vz/vestat", Self::Vestat),
        ("vz/vzquota", Self::Vzquota),
        ("vz/version", Self::Version),
        ("vz/vswap", Self::Vswap),
    ];

    /// Those in `bc/CTID` of a VE that runs.
    #[must_use]
    pub fn of(ctid: Ctid) -> [(&'static str, Self); 3] {
        [("resources", Self::Resources(ctid)), ("ioprio", Self::Ioprio(ctid)), ("ioacct", Self::Ioacct(ctid))]
    }

    /// What it says now; `None` when its VE does not run any more.
    #[must_use]
    pub fn read(self, accounts: &Accounts) -> Option<String> {
        Some(match self {
            Self::UserBeancounters => text::user_beancounters(&accounts.all()),
            Self::BcResources => text::bc_resources(&accounts.all()),
            Self::Resources(ctid) => text::resources_of(&accounts.of(ctid)?),
            Self::Ioprio(ctid) => format!("prio: {}\n", accounts.ioprio(ctid)?),
            Self::Ioacct(ctid) => {
                let io = IoMeter::default().read(&accounts.cgroup(ctid)?).unwrap_or_default();
                node_text::ioacct(io.read_bytes, io.written_bytes)
            }
            Self::Veinfo => node_text::veinfo(&infos(accounts)),
            Self::Vestat => node_text::vestat(&stats(accounts)),
            Self::Vzquota => node_text::vzquota(&quotas(accounts)),
            Self::Version => format!("{}\n", env!("CARGO_PKG_VERSION")),
            Self::Vswap => "Version: 1.0\n".to_owned(),
        })
    }
}

fn infos(accounts: &Accounts) -> Vec<Info> {
    let info = |one: &Beancounter| {
        let addresses = Ctid::new(one.id).map(|ctid| accounts.addresses(ctid)).unwrap_or_default();
        Info { id: one.id, numproc: one[Resource::Numproc].held, addresses }
    };
    accounts.all().iter().map(info).collect()
}

fn stats(accounts: &Accounts) -> Vec<Stat> {
    let cpus = online_cpus();
    let stat = |(ctid, state): (Ctid, State)| {
        let cpu = accounts.measure(ctid, &state, |meter| CpuTime::of(meter.cgroup()))?;
        Some(Stat { id: ctid.get(), user: cpu.user, system: cpu.system, uptime: state.uptime(), cpus })
    };
    accounts.running().into_iter().filter_map(stat).collect()
}

/// The youngest first, as in the kernel's list.
fn quotas(accounts: &Accounts) -> Vec<Quota> {
    let row = |row: Row, grace| QuotaRow {
        usage: row.usage,
        soft: row.bounds.barrier,
        hard: row.bounds.limit,
        grace,
        expires: row.expires.unwrap_or(0),
    };
    let quota = |(ctid, _): (Ctid, State)| {
        let (path, report) = accounts.quota(ctid)?;
        let Report { space, inodes, grace } = report;
        Some(Quota { id: ctid.get(), path, space: row(space, grace), inodes: row(inodes, grace) })
    };
    accounts.running().into_iter().filter_map(quota).collect()
}

fn online_cpus() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let mask: Option<Mask> = online.and_then(|list| list.trim().parse().ok());
    mask.map_or(1, |mask| u32::try_from(mask.iter().count()).unwrap_or(1))
}
