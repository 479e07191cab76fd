//! `vzctl destroy`.

use std::fs;
use std::path::{Path, PathBuf};

use templates::cache::Cache;
use templates::layout::{self, Layout};
use vzconf::{Action, Exit, Script};
use vzsys::fault;

use crate::dismantle;
use crate::error::{Doing, Error, Result};
use crate::ids;
use crate::life;
use crate::node::Ve;
use crate::quota;
use crate::snapshot;

/// Destroys a stopped VE: its private area goes at once out of the way and is deleted in the
/// background; its config and scripts stay as `*.destroyed`.
///
/// # Errors
/// 9 a backup is being made, 32 running, 41 mounted, 52 when the private area cannot be moved away.
pub fn destroy(ve: &Ve<'_>) -> Result<()> {
    if ve.running().is_some() {
        return Err(Error::refused(Exit::VeRunning, "Container is currently running. Stop it first."));
    }
    dismantle::mend(ve)?;
    if ve.mounted() {
        return Err(Error::refused(Exit::FsMounted, "Container is currently mounted (umount first)"));
    }
    // A backup reads what would go.
    let _nobody_reads = crate::backup::alone(ve)?;
    snapshot::umount_all(ve)?;
    let private = ve.private()?;
    ve.say(0, &format!("Destroying container private area: {}", private.display()));
    if let Some(trash) = remove_private(ve, &private)? {
        // At once: what follows may fail, and the space is to be freed all the same.
        vzsys::spawn::in_background(|| layout::sweep(&trash));
    }
    quota::off(ve, &private)?;
    crate::creating::discard(ve, Path::new(&format!("{}.tmp", private.display())))?;
    fault::point("destroy.private");
    retire_config(ve)?;
    fault::point("destroy.config");
    vzconf::names::remove_all(&ve.node.paths, ve.ctid)?;
    if let Some(dump) = ve.config.dump_file() {
        remove_dump(&dump)?;
    }
    let _ = fs::remove_file(snapshot::conf_before_switch(ve));
    let _ = ve.root().map(fs::remove_dir);
    let _ = fs::remove_file(ve.node.paths.state_dir().join("veip").join(ve.ctid.to_string()));
    crate::creating::remove(ve)?;
    life::forget(&ve.node.paths, ve.ctid);
    crate::handover::set_epoch(&ve.node.paths, ve.ctid, &crate::handover::Epoch::default())?;
    ids::release(&ve.node.paths.idmap_dir(), ve.ctid);
    ve.say(0, "Container private area was destroyed");
    Ok(())
}

/// Returns where the area waits for its deletion. A symbolic link is removed alone: what it points to
/// was put there by the admin.
fn remove_private(ve: &Ve<'_>, private: &Path) -> Result<Option<PathBuf>> {
    let meta = match fs::symlink_metadata(private) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            forget_snapshots(ve, private)?;
            return Ok(None);
        }
        Err(error) => {
            return Err(error).doing(Exit::FsDelPrvt, || format!("cannot read {}", private.display()));
        }
    };
    if meta.is_symlink() {
        let target = fs::read_link(private).unwrap_or_default();
        fs::remove_file(private).doing(Exit::FsDelPrvt, || format!("cannot remove {}", private.display()))?;
        ve.say(
            -1,
            &format!(
                "WARNING: {} was a symbolic link; remove {} yourself",
                private.display(),
                target.display()
            ),
        );
        return Ok(None);
    }
    // A plain copy is the VE's own root, and what it says there of a template is its own word.
    let shares = ve.layout(private).is_ok_and(Layout::shares_template);
    let base = shares.then(|| layout::base_of(private).ok().flatten()).flatten();
    let trash = layout::discard(private, &ve.node.paths.vz().join("vztmp"))?;
    forget_snapshots(ve, private)?;
    if let Some(record) = base {
        Cache::open(&ve.config.template_dir()).drop_ref(&record.base, ve.ctid)?;
    }
    Ok(Some(trash))
}

/// What its snapshots have beside the private area, which is gone.
pub(crate) fn forget_snapshots(ve: &Ve<'_>, private: &Path) -> Result<()> {
    for layout in Layout::ALL {
        let place = snapshot::Place::new(ve, private, layout);
        place.area(ve).forget().map_err(snapshot::failed(Exit::FsDelPrvt))?;
    }
    Ok(())
}

/// The config and action scripts of a VE, and what a destroy renames them to.
pub(crate) fn retirements(ve: &Ve<'_>) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let paths = &ve.node.paths;
    let scripts = Action::ALL.map(|action| paths.action_script(Script::Ve(ve.ctid, action)));
    scripts.into_iter().chain([paths.ve_conf(ve.ctid)]).map(|path| {
        let mut retired = path.clone().into_os_string();
        retired.push(".destroyed");
        (path, PathBuf::from(retired))
    })
}

fn retire_config(ve: &Ve<'_>) -> Result<()> {
    for (path, retired) in retirements(ve) {
        match fs::rename(&path, &retired) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).doing(Exit::System, || format!("cannot rename {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn remove_dump(dump: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(dump) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(dump),
        Ok(_) => fs::remove_file(dump),
        Err(_) => return Ok(()),
    };
    done.doing(Exit::System, || format!("cannot remove the dump {}", dump.display()))
}
