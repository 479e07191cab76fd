//! The mark of a create at work: `/var/lib/vzctl/creating/CTID`.
//!
//! It is there from before the first thing that a create makes until after the last. Who finds it and has
//! the VE's lock knows that its writer was killed, and what that had made.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use templates::cache::Cache;
use templates::layout;
use vzconf::{Ctid, Exit, Paths, names};

use crate::error::{Doing, Result};
use crate::node::Ve;
use crate::quota;

/// What a create makes, and what was there before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The private area; it is filled under this name with `.tmp`.
    pub(crate) private: PathBuf,
    /// The private area was there before, empty.
    pub(crate) had_private: bool,
    /// The configuration was there before.
    pub(crate) had_config: bool,
    /// The name that is assigned.
    pub(crate) name: Option<String>,
    /// `TEMPLATE`, and the unpacked template that the VE lies on.
    pub(crate) base: Option<(PathBuf, String)>,
}

impl Mark {
    /// The mark that a create left, if there is one. A damaged one (the host lost its power) tells only
    /// that there was a create; what it made lies where the configuration puts it.
    fn load(ve: &Ve<'_>) -> Result<Option<Self>> {
        let path = path(&ve.node.paths, ve.ctid);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).doing(Exit::System, || format!("cannot read {}", path.display()));
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(mark) => Ok(Some(mark)),
            Err(_) => ve.private().map(|private| Some(Self { private, ..Self::default() })),
        }
    }

    /// Writes the mark.
    pub(crate) fn save(&self, paths: &Paths, ctid: Ctid) -> Result<()> {
        let path = path(paths, ctid);
        let what = || format!("cannot create {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).doing(Exit::System, what)?;
        }
        let temp = path.with_extension("tmp");
        fs::write(&temp, serde_json::to_vec(self).unwrap_or_default()).doing(Exit::System, what)?;
        fs::rename(&temp, &path).doing(Exit::System, what)
    }

    /// Where the private area is filled.
    pub(crate) fn temp(&self) -> PathBuf {
        let mut path = self.private.clone().into_os_string();
        path.push(".tmp");
        PathBuf::from(path)
    }

    /// The area stands under its own name, whole: that was the last step.
    fn committed(&self, ve: &Ve<'_>) -> bool {
        let filled = fs::read_dir(&self.private).is_ok_and(|mut dir| dir.next().is_some());
        filled && ve.node.paths.ve_conf(ve.ctid).exists()
    }

    /// Removes what was made; returns what could not be removed.
    pub(crate) fn undo(&self, ve: &Ve<'_>) -> Vec<String> {
        let mut done = vec![discard(ve, &self.temp()), quota::off(ve, &self.private)];
        if !self.had_private {
            done.push(gone(fs::remove_dir(&self.private), &self.private));
        }
        if !self.had_config {
            let conf = ve.node.paths.ve_conf(ve.ctid);
            done.push(gone(fs::remove_file(&conf), &conf));
        }
        if let Some(name) = &self.name {
            done.push(names::assign(&ve.node.paths, ve.ctid, "", Some(name)).map_err(Into::into));
        }
        done.push(crate::destroy::forget_snapshots(ve, &self.private));
        if let Some((templates, base)) = &self.base {
            done.push(Cache::open(templates).drop_ref(base, ve.ctid).map_err(Into::into));
        }
        // As long as something is left the next verb tries again.
        if done.iter().all(Result::is_ok) {
            done.push(remove(ve));
        }
        done.into_iter().filter_map(|done| done.err().map(|error| crate::describe(&error))).collect()
    }
}

fn path(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("creating").join(ctid.to_string())
}

/// Not there counts as removed. (A read-only file system says that it is one before it says that.)
fn gone(done: std::io::Result<()>, path: &Path) -> Result<()> {
    match done {
        Err(error) if fs::symlink_metadata(path).is_ok() => {
            Err(error).doing(Exit::System, || format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the mark: the VE is whole, or gone.
pub(crate) fn remove(ve: &Ve<'_>) -> Result<()> {
    let path = path(&ve.node.paths, ve.ctid);
    gone(fs::remove_file(&path), &path)
}

/// Whether a create was killed, or is at work, on this VE.
#[must_use]
pub fn is_marked(paths: &Paths, ctid: Ctid) -> bool {
    path(paths, ctid).exists()
}

/// Mends what a killed create left: what had not become a VE is removed. The caller has the lock.
/// Returns whether anything was removed. A VE without a mark costs one look-up.
///
/// # Errors
/// 3 or 52, naming what could not be removed.
pub fn mend(ve: &Ve<'_>) -> Result<bool> {
    let Some(mark) = Mark::load(ve)? else { return Ok(false) };
    if mark.committed(ve) {
        remove(ve)?;
        return Ok(false);
    }
    ve.say(-1, "WARNING: removing what an interrupted create left behind");
    let left = mark.undo(ve);
    if left.is_empty() {
        return Ok(true);
    }
    let message = format!("what an interrupted create of container {} left cannot be removed", ve.ctid);
    Err(crate::Error::refused(Exit::System, message).with_cleanup(left))
}

/// Moves a directory away, if it is there, and deletes it in the background.
pub(crate) fn discard(ve: &Ve<'_>, path: &Path) -> Result<()> {
    if path.exists() {
        let trash = layout::discard(path, &ve.node.paths.vz().join("vztmp"))?;
        vzsys::spawn::in_background(|| layout::sweep(&trash));
    }
    Ok(())
}
