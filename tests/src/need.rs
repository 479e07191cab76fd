//! What a test needs of its host beyond what every host has. A need that is not met is asked of the host,
//! not of its version: the test is then skipped, and says so.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::inside::skip;
use crate::run::command;

/// One need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Pure cgroup v2 with all controllers, as Debian has it.
    V2,
    /// Project quotas on the file system of `/vz`.
    ProjectQuota,
    /// Soft-dirty bits of pages.
    SoftDirty,
    /// BPF programs at functions for security modules.
    BpfLsm,
    /// Modules of the running kernel.
    Modules,
    /// CRIU, working.
    Criu,
    /// Loop devices, of which another may be made.
    Loops,
    /// A whole machine with systemd that may be changed: a virtual one.
    Machine,
}

impl Need {
    /// As it is told when it is not met.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::ProjectQuota => "prjquota",
            Self::SoftDirty => "soft-dirty",
            Self::BpfLsm => "bpf-lsm",
            Self::Modules => "modules",
            Self::Criu => "criu",
            Self::Loops => "loop devices",
            Self::Machine => "machine",
        }
    }

    /// Whether this host has it.
    #[must_use]
    pub fn is_met(self) -> bool {
        match self {
            Self::V2 => has_v2(),
            Self::ProjectQuota => has_project_quota(),
            Self::SoftDirty => has_soft_dirty().unwrap_or(false),
            Self::BpfLsm => vzsys::bpf::FileGate::supported(),
            Self::Modules => has_modules(),
            Self::Criu => command("criu", &["check"]).output().is_ok_and(|output| output.status.success()),
            Self::Loops => command("losetup", &["-f"]).output().is_ok_and(|output| output.status.success()),
            Self::Machine => std::env::var_os(MACHINE).is_some(),
        }
    }
}

/// Set where a test may change the whole machine.
const MACHINE: &str = "VZTESTS_MACHINE";

/// Whether this host lacks any of these; then says which, and the test is to return.
#[must_use]
pub fn lacks(needs: &[Need]) -> bool {
    let missing: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.word()).collect();
    if !missing.is_empty() {
        skip(&missing.join(", "));
    }
    !missing.is_empty()
}

fn has_v2() -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &&str| controllers.split_whitespace().any(|word| word == *name);
    ["cpu", "cpuset", "io", "memory", "pids"].iter().all(has)
}

fn has_project_quota() -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_vz = table.lines().rfind(|line| line.split(' ').nth(4) == Some("/vz"));
    of_vz.is_some_and(|line| line.contains("prjquota") || line.contains("pquota"))
}

/// A page that was written after the bits were cleared has its bit; without the feature none ever has.
fn has_soft_dirty() -> Option<bool> {
    const DIRTY: u64 = 1 << 55;
    const PAGE: usize = 4096;
    let mut pages = vec![1_u8; 4 * PAGE];
    fs::write("/proc/self/clear_refs", "4").ok()?;
    pages[2 * PAGE] = 2;
    let index = (pages.as_ptr() as usize + 2 * PAGE) / PAGE;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entry, index as u64 * 8).ok()?;
    Some(u64::from_ne_bytes(entry) & DIRTY != 0 && pages[2 * PAGE] == 2)
}

fn has_modules() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Path::new("/proc/modules").exists() && Path::new("/lib/modules").join(release.trim()).is_dir()
}
