//! The files of a VE, for reading from outside: running, mounted or neither.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use templates::layout::{self, Layout};
use templates::snapshot::View;
use vzconf::{Ctid, Exit, Lock};
use vzsys::mount::Detached;
use vzsys::process::ProcRef;

use crate::dismantle;
use crate::error::{Doing, Result};
use crate::node::{Node, Ve};
use crate::snapshot;

/// A verb may be at work on a VE that runs; most are short.
const BUSY: Duration = Duration::from_secs(30);

/// The root of a VE, held for as long as the value lives, whatever happens to the VE meanwhile.
#[derive(Debug)]
pub struct Tree {
    held: Held,
    /// Taken off every id in it.
    pub shift: u32,
    /// A stopped VE is not started under a reader: two overlays must not share their layers.
    lock: Option<Lock>,
    /// The init of a VE that changes the files while they are read.
    init: Option<ProcRef>,
}

#[derive(Debug)]
enum Held {
    /// What the VE itself sees.
    Root(Detached),
    /// What its files were at one moment.
    View(View),
}

/// Of which time the files in a tree are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nobody changes them.
    Stopped,
    /// They change while they are read.
    Live,
    /// Of one moment of a VE that runs.
    Snapshot,
}

impl Taken {
    /// The word in a backup.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Live => "live",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Tree {
    /// Where it can be read. (The dot: a name that may not be a symlink, as the one in /proc is.)
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.held {
            Held::Root(mount) => PathBuf::from(format!("{}/.", mount.proc_path())),
            Held::View(view) => view.path().unwrap_or_default(),
        }
    }

    /// The init of a VE that changes the files while they are read, if one does.
    #[must_use]
    pub fn init(&self) -> Option<ProcRef> {
        self.init
    }

    /// Of which time it is.
    #[must_use]
    pub fn taken(&self) -> Taken {
        match (&self.held, &self.lock) {
            (Held::View(_), _) => Taken::Snapshot,
            (Held::Root(_), Some(_)) => Taken::Stopped,
            (Held::Root(_), None) => Taken::Live,
        }
    }
}

/// Takes hold of a VE's root, and reads what it is of. A running VE goes on, and may be stopped; a stopped one is locked.
/// Where its layout can, the files of a running one are those of one moment.
///
/// # Errors
/// 14 no such VE, 9 somebody works on it, 43 no private area, 50 it cannot be mounted, 156 no moment could be kept.
pub fn tree(node: &Node, ctid: Ctid) -> Result<(Ve<'_>, Tree)> {
    let ve = node.ve(ctid)?;
    if let Some(tree) = of_running(&ve)? {
        return Ok((ve, tree));
    }
    let (lock, ve) = node.hold_existing(ctid, "reading")?;
    if ve.running().is_some() {
        lock.release()?;
        return self::tree(node, ctid);
    }
    dismantle::mend(&ve)?;
    let held = Held::Root(of_stopped(&ve)?);
    Ok((ve, Tree { held, shift: 0, lock: Some(lock), init: None }))
}

/// What a running VE's files are now, or, where that would take a copy, what they are while they are read.
fn of_running(ve: &Ve<'_>) -> Result<Option<Tree>> {
    if ve.running().is_none() {
        return Ok(None);
    }
    let private = ve.existing_private()?;
    if ve.layout(&private)? != Layout::Btrfs {
        return of_root(ve);
    }
    let lock = Lock::wait(&ve.node.global.lock_dir(), ve.ctid, Instant::now() + BUSY)?;
    let view = if ve.running().is_some() { snapshot::view(ve) } else { Ok(None) };
    lock.release()?;
    Ok(view?.map(|view| Tree { held: Held::View(view), shift: 0, lock: None, init: None }))
}

/// The root of a stopped VE, mounted or not. The caller has the lock.
pub(crate) fn of_stopped(ve: &Ve<'_>) -> Result<Detached> {
    if ve.mounted() {
        let root = ve.root()?;
        return Detached::copy_of(&root, false)
            .doing(Exit::FsCantMount, || format!("cannot open {}", root.display()));
    }
    let private = ve.existing_private()?;
    Ok(layout::mount_hidden(ve.layout(&private)?, &private, &ve.node.bases())?)
}

/// Its root is mounted with the ids that its state tells; what its files say is the VE's own word.
fn of_root(ve: &Ve<'_>) -> Result<Option<Tree>> {
    let Some(state) = ve.running() else { return Ok(None) };
    let mount = Detached::copy_of(&state.root, false)
        .doing(Exit::FsCantMount, || format!("cannot open {}", state.root.display()))?;
    let shift = state.ids.map_or(0, |ids| ids.base);
    Ok(Some(Tree { held: Held::Root(mount), shift, lock: None, init: Some(state.init) }))
}
