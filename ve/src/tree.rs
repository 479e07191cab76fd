//! The files of a VE, for reading from outside: running, mounted or neither.

use std::path::PathBuf;

use templates::layout;
use vzconf::{Ctid, Exit, Lock};
use vzsys::mount::Detached;

use crate::dismantle;
use crate::error::{Doing, Result};
use crate::node::{Node, Ve};

/// The root of a VE, held for as long as the value lives, whatever happens to the VE meanwhile.
#[derive(Debug)]
pub struct Tree {
    mount: Detached,
    /// Taken off every id in it.
    pub shift: u32,
    /// A stopped VE is not started under a reader: two overlays must not share their layers.
    _lock: Option<Lock>,
}

impl Tree {
    /// Where it can be read. (The dot: a name that may not be a symlink, as the one in /proc is.)
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("{}/.", self.mount.proc_path()))
    }
}

/// Takes hold of a VE's root, and reads what it is of. A running VE goes on, and may be stopped; a stopped one is locked.
///
/// # Errors
/// 14 no such VE, 9 somebody works on the stopped VE, 43 no private area, 50 it cannot be mounted.
pub fn tree(node: &Node, ctid: Ctid) -> Result<(Ve<'_>, Tree)> {
    let ve = node.ve(ctid)?;
    if let Some(tree) = of_running(&ve)? {
        return Ok((ve, tree));
    }
    let (lock, ve) = node.hold_existing(ctid, "reading")?;
    if let Some(tree) = of_running(&ve)? {
        return Ok((ve, tree));
    }
    dismantle::mend(&ve)?;
    let mount = of_stopped(&ve)?;
    Ok((ve, Tree { mount, shift: 0, _lock: Some(lock) }))
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
fn of_running(ve: &Ve<'_>) -> Result<Option<Tree>> {
    let Some(state) = ve.running() else { return Ok(None) };
    let mount = Detached::copy_of(&state.root, false)
        .doing(Exit::FsCantMount, || format!("cannot open {}", state.root.display()))?;
    Ok(Some(Tree { mount, shift: state.ids.map_or(0, |ids| ids.base), _lock: None }))
}
