//! Where a container's root is, for `vztmpl create`.

use std::any::Any;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use templates::cache::Cache;
use templates::layout::{self, Layout};
use vzconf::{Config, Ctid, Exit, Paths};

use super::Failure;

/// A container's root tree, readable for as long as this lives.
pub struct VeRoot {
    /// The tree.
    pub path: PathBuf,
    /// Taken off every id in it.
    pub shift: u32,
    /// What holds it there, such as a mount.
    pub hold: Box<dyn Any>,
}

impl std::fmt::Debug for VeRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VeRoot").field("path", &self.path).field("shift", &self.shift).finish_non_exhaustive()
    }
}

/// Finds the root: what is mounted on VE_ROOT, else the private area.
///
/// # Errors
/// Exit 14 for a container that does not exist, 43 for one without private area.
pub fn locate(paths: &Paths, ctid: Ctid) -> Result<VeRoot, Failure> {
    let config = Config::load(paths, ctid).map_err(|error| Failure::of(error.exit(), &error))?;
    if !config.exists() {
        return Err(Failure::new(Exit::NoVeConfig, format!("container {ctid} does not exist")));
    }
    if let Some(root) = config.ve_root().filter(|root| is_mounted(root)) {
        // Mounted with the container's ids: its root owns the root directory.
        let shift = std::fs::metadata(&root).map_or(0, |meta| meta.uid());
        return Ok(VeRoot { path: root, shift, hold: Box::new(()) });
    }
    let private =
        config.ve_private().ok_or_else(|| Failure::new(Exit::VePrivateNotSet, "VE_PRIVATE is not set"))?;
    if !private.is_dir() {
        let text = format!("private area {} of container {ctid} not found", private.display());
        return Err(Failure::new(Exit::FsNoPrvt, text));
    }
    let bases = Cache::open(&config.template_dir()).bases();
    let mounted = layout::mount_hidden(Layout::detect(&private), &private, &bases);
    let mounted = mounted.map_err(|error| Failure::of(error.exit(), &error))?;
    // The dot: a name that may not be a symlink, as the one in /proc is.
    Ok(VeRoot {
        path: PathBuf::from(format!("{}/.", mounted.proc_path())),
        shift: 0,
        hold: Box::new(mounted),
    })
}

fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let (Some(here), Some(above)) = (device(path), path.parent().and_then(device)) else { return false };
    if here.0 != above.0 {
        return true;
    }
    // A plain directory mounted from the same file system: only the table of mounts tells.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == real))
}
