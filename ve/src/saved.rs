//! What is saved of a VE beside CRIU's images: all that CRIU does not carry.

use std::path::{Path, PathBuf};

use beancounters::{Branches, Hierarchies, Layout, Record, VeCgroup};
use criu::{External, Images};
use serde::{Deserialize, Serialize};
use templates::archive::{Compression, Durability, Limits, Pack, Unpack};
use vzconf::{Ctid, Exit};
use vzsys::idmap::IdRange;
use vzsys::launch::Confinement;
use vzsys::mount::{Detached, MountGuard};

use crate::error::{Doing, Error, Result};
use crate::externals::{Externals, Kept};
use crate::life;
use crate::node::Ve;
use crate::state::{State, StopWay};

/// The tree of the VE's `/dev`, among the images.
const DEV: &str = "vz-dev.tar";
/// No VE's `/dev` is larger, or has more in it: they are the limits of its file system.
const DEV_LIMITS: Limits = Limits { bytes: 1 << 20, entries: 4096, path: 4095, xattrs: 1 << 16 };

/// The state of a VE that was saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// Version of this format.
    pub version: u32,
    /// Whose.
    pub ctid: u32,
    /// Which of its lives: a later one has changed the disk.
    pub life: u64,
    /// When, in seconds since 1970.
    pub at: f64,
    /// CRIU's version.
    pub criu: String,
    /// The host's kernel.
    pub kernel: String,
    /// How the host mounts its cgroups.
    pub cgroups: String,
    /// The VE's ids, which are in the images.
    pub ids: Option<IdRange>,
    /// What its processes are confined by.
    pub confinement: Confinement,
    /// How its guest is asked to end.
    pub stop: StopWay,
    /// Whether its guest tells when it is up.
    pub tells_ready: bool,
    /// For how long it has run, in seconds.
    pub uptime: f64,
    /// What of its mounts is not in the images.
    pub externals: Externals,
    /// The cgroups that it has made.
    pub branches: Branches,
    /// Its counters.
    pub record: Option<String>,
}

impl Saved {
    /// Saves a VE that stands still; its `/dev` goes into the images.
    pub(crate) fn of(
        ve: &Ve<'_>,
        state: &State,
        externals: Externals,
        images: &Images,
        criu: &criu::Program,
        cgroup: &VeCgroup,
    ) -> Result<Saved> {
        let base = state.ids.map_or(0, |ids| ids.base);
        save_dev(state.init.pid, base, images)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(Saved {
            version: 1,
            ctid: ve.ctid.get(),
            life: life::current(&ve.node.paths, ve.ctid),
            at: now.map_or(0.0, |now| now.as_secs_f64()),
            criu: criu.version.to_string(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroups: layout_word(cgroup.hierarchies().layout()).to_owned(),
            ids: state.ids,
            confinement: state.confinement.clone(),
            stop: state.stop.clone(),
            tells_ready: state.tells_ready,
            uptime: state.uptime().as_secs_f64(),
            externals,
            branches: Branches::of(cgroup, base)?,
            record: Record::save(&ve.run_dir()),
        })
    }

    /// Checks that this VE can be made of it, on this host.
    pub(crate) fn check(&self, ctid: Ctid, ids: Option<IdRange>, path: &Path) -> Result<()> {
        let refuse = |reason: String| {
            let message = format!("the dump {} cannot be restored: {reason}", path.display());
            Err(Error::refused(Exit::Restore, message))
        };
        if self.version != 1 {
            return refuse(format!("it has format {}, and this version reads 1", self.version));
        }
        if self.ctid != ctid.get() {
            return refuse(format!("it is of container {}", self.ctid));
        }
        if self.ids != ids {
            let text = |ids: Option<IdRange>| ids.map_or("none".to_owned(), |ids| ids.base.to_string());
            return refuse(format!(
                "its user ids begin at {}, here the container's begin at {}",
                text(self.ids),
                text(ids)
            ));
        }
        let here = layout_word(Hierarchies::detect()?.layout());
        if self.cgroups != here {
            return refuse(format!("it is of a host with {} cgroups, this one has {here}", self.cgroups));
        }
        Ok(())
    }
}

pub(crate) fn layout_word(layout: Layout) -> &'static str {
    match layout {
        Layout::Unified => "unified",
        Layout::Hybrid => "hybrid",
        Layout::Legacy => "legacy",
    }
}

fn save_dev(init: i32, base: u32, images: &Images) -> Result<()> {
    use std::os::fd::AsRawFd;
    let what = || "cannot save the /dev of the container".to_owned();
    let dev = Kept::open_dev(init).doing(Exit::Chkpnt, what)?;
    // The dot, because a link is not followed there.
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", dev.as_raw_fd()));
    Pack::new().shift(base).into(&root, &images.path().join(DEV), Compression::None).map_err(|source| {
        Error::refused(Exit::Chkpnt, format!("{}: {}", what(), crate::describe(&source)))
    })?;
    Ok(())
}

/// The saved `/dev`, as a mount that is attached nowhere. `place` is a directory of ours.
pub(crate) fn dev_of(images: &Path, ids: Option<IdRange>, place: &Path) -> Result<Detached> {
    let what = || "cannot make the /dev of the container".to_owned();
    let dev = vzsys::launch::empty_dev(ids).doing(Exit::Restore, what)?;
    let at = place.join("dev");
    std::fs::create_dir_all(&at).doing(Exit::Restore, what)?;
    dev.attach(&at).doing(Exit::Restore, what)?;
    let guard = MountGuard::new(&at);
    let unpack = Unpack::new(images.join(DEV)).limits(DEV_LIMITS).durability(Durability::Lazy);
    unpack.into_dir(&at).map_err(|source| {
        Error::refused(Exit::Restore, format!("{}: {}", what(), crate::describe(&source)))
    })?;
    let base = ids.map_or(0, |ids| ids.base);
    let tree = rustix::fs::open(
        &at,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    )
    .map_err(std::io::Error::from)
    .doing(Exit::Restore, what)?;
    if base > 0 {
        use std::os::fd::AsFd;
        vzsys::launch::shift_ids(tree.as_fd(), base).doing(Exit::Restore, what)?;
    }
    drop(tree);
    let copy = Detached::copy_of(&at, false).doing(Exit::Restore, what)?;
    guard.unmount().doing(Exit::Restore, what)?;
    Ok(copy)
}

/// What CRIU is told of them at a dump.
pub(crate) fn at_dump(externals: &Externals) -> Vec<External> {
    let mounts = externals
        .mounts
        .iter()
        .map(|kept| External::Mount { key: kept.key(), path: kept.place.display().to_string() });
    let console = externals.console.map(|(device, on)| External::Terminal { device, on });
    mounts.chain(console).collect()
}
