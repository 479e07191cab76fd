//! A VE that is made, from a template, from another VE or from a backup: how its number is kept and how it appears.
//!
//! ```text
//!  check ─▶ reserve: mark, directory, name ─▶ (PRIVATE.tmp is filled) ─▶ commit: CTID.conf, rename to PRIVATE, unmark
//! ```
//! The mark, `/var/lib/vzctl/creating/CTID`, is there from before the first thing that is made until after the last. Who
//! finds it and has the VE's lock knows that its writer was killed, and what that had made.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use templates::cache::Cache;
use templates::layout;
use vzconf::change::Changes;
use vzconf::{ConfFile, Config, Ctid, Exit, Paths, Script, names};
use vzsys::fault;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::{quota, scripts};

/// What making a VE makes, and what was there before it.
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
    /// Where a VE is to be, and what of it is there already: what is in the way of a new one is told.
    ///
    /// # Errors
    /// 22 and 23 without a place, 44 private area exists, 48 it cannot be made, 131 name.
    pub(crate) fn plan(ve: &Ve<'_>, config: &Config, name: Option<String>) -> Result<Self> {
        let private = config.ve_private().ok_or_else(|| {
            Error::refused(Exit::VePrivateNotSet, "VE_PRIVATE is not set in the configuration")
        })?;
        if config.ve_root().is_none() {
            return Err(Error::refused(Exit::VeRootNotSet, "VE_ROOT is not set in the configuration"));
        }
        let had_private = check_private(ve.ctid, &private)?;
        if let Some(name) = &name {
            names::check_free(&ve.node.paths, name, ve.ctid)?;
        }
        Ok(Self { private, had_private, had_config: ve.config.exists(), name, base: None })
    }

    /// The mark that was left, if there is one. Marks are not synced. A damaged one (the host lost its power) tells only
    /// that something was being made, and not what was there before: nothing is taken away but what can be nothing else.
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
            Err(_) => {
                let before = Self { had_private: true, had_config: true, ..Self::default() };
                ve.private().map(|private| Some(Self { private, ..before }))
            }
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

/// Absent, or an empty directory that is no mount point. Returns whether it was there.
///
/// # Errors
/// 44 for one that is not empty, 48 for what is no such directory.
pub(crate) fn check_private(ctid: Ctid, private: &Path) -> Result<bool> {
    let Ok(mut entries) = fs::read_dir(private) else {
        if fs::symlink_metadata(private).is_ok() {
            let message = format!("{} is there and is no directory", private.display());
            return Err(Error::refused(Exit::FsNewVePrvt, message));
        }
        return Ok(false);
    };
    if vzsys::mount::is_mount_point(private) {
        let message = format!("{} is a mount point", private.display());
        let hint =
            format!("Use a directory in it: vzctl create {ctid} --private {}/private", private.display());
        return Err(Error::advised(Exit::FsNewVePrvt, message, hint));
    }
    if entries.next().is_some() {
        let message = format!("Private area already exists in {}", private.display());
        return Err(Error::refused(Exit::FsPrvtAreaExist, message));
    }
    Ok(true)
}

/// Says what is wrong with the configuration of a VE that is to be made, and with what was asked for.
pub(crate) fn warn(ve: &Ve<'_>, config: &Config, changes: Option<&Changes>) {
    for warning in config.warnings().iter().chain(changes.into_iter().flat_map(Changes::warnings)) {
        ve.say(-1, &format!("Warning: {warning}"));
    }
}

/// Keeps the number: two creators with different lock directories cannot both have it. Returns where the private area is
/// to be filled; it is absent, and its limits hold.
pub(crate) fn reserve(ve: &Ve<'_>, mark: &Mark, limits: quota::Planned) -> Result<PathBuf> {
    mark.save(&ve.node.paths, ve.ctid)?;
    fault::point("creating.marked");
    if !mark.had_private {
        let made = fs::DirBuilder::new().mode(0o700).create(&mark.private);
        made.doing(Exit::FsNewVePrvt, || format!("cannot create {}", mark.private.display()))?;
    }
    if let Some(name) = &mark.name {
        names::assign(&ve.node.paths, ve.ctid, name, None)?;
    }
    let temp = mark.temp();
    discard(ve, &temp)?;
    quota::begin(ve, &mark.private, limits)?;
    fault::point("creating.reserved");
    Ok(temp)
}

/// Has the VE appear, whose private area is whole.
pub(crate) fn commit(ve: &Ve<'_>, mark: &Mark, limits: quota::Planned, file: &ConfFile) -> Result<()> {
    let temp = mark.temp();
    quota::check_filled(ve, &mark.private, &temp, limits)?;
    file.save(&ve.node.paths.ve_conf(ve.ctid))?;
    fault::point("creating.config");
    // COMMIT: the private area is there, whole.
    fs::rename(&temp, &mark.private)
        .doing(Exit::FsNewVePrvt, || format!("cannot rename {}", temp.display()))?;
    fault::point("creating.committed");
    let script = ve.node.paths.action_script(Script::Global(vzconf::Action::Create));
    if let Err(error) = scripts::run(ve, &script) {
        // The admin's script has the last word: the VE is not wanted as it is.
        let left = discard(ve, &mark.private).err().map(|e| crate::describe(&e));
        return Err(error.with_cleanup(left.into_iter().collect()));
    }
    for (_, retired) in crate::destroy::retirements(ve) {
        // `*.destroyed` files of an earlier VE of this number.
        let _ = fs::remove_file(retired);
    }
    remove(ve)
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
