//! A VE that goes to another host: what has to travel, and what is left to do here once it has arrived.

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use templates::image::Still;
use templates::layout::{self, Layout};
use vzconf::{Action, Exit, Script, names};

use crate::error::{Doing, Error, Result};
use crate::handover::{self, Epoch};
use crate::node::Ve;
use crate::{destroy, ids, snapshot};

/// The longest configuration or script that travels, in bytes.
pub const LONGEST: u64 = 1 << 20;

/// What of a VE has to travel besides its files.
#[derive(Debug, Clone)]
pub struct Luggage {
    /// Its configuration file as it is.
    pub conf: Vec<u8>,
    /// Its own action scripts.
    pub scripts: Vec<(Action, Vec<u8>)>,
    /// Its name.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Bridges that its devices are on.
    pub bridges: Vec<String>,
    /// Its private area, links resolved.
    pub area: PathBuf,
    /// How that is laid out.
    pub layout: Layout,
    /// Its files lie in an image.
    pub image: bool,
    /// The unpacked template that it lies on: its name, and where it is.
    pub base: Option<(String, PathBuf)>,
    /// The dump of a suspended VE.
    pub dump: Option<PathBuf>,
}

/// Gathers it.
///
/// # Errors
/// 14 without a configuration, 23 or 43 without a private area, 21 for one whose layout is unknown.
pub fn luggage(ve: &Ve<'_>) -> Result<Luggage> {
    let conf = short(&ve.node.paths.ve_conf(ve.ctid))?.ok_or_else(|| {
        Error::refused(Exit::NoVeConfig, format!("Container config file of {} does not exist", ve.ctid))
    })?;
    let mut scripts = Vec::new();
    for action in Action::ALL {
        let path = ve.node.paths.action_script(Script::Ve(ve.ctid, action));
        scripts.extend(short(&path)?.map(|text| (action, text)));
    }
    let private = ve.existing_private()?;
    let layout = ve.layout(&private)?;
    let area = fs::canonicalize(&private)
        .doing(Exit::FsNoPrvt, || format!("cannot resolve {}", private.display()))?;
    let base = if layout.shares_template() { layout::base_of(&private)? } else { None };
    Ok(Luggage {
        conf,
        scripts,
        name: ve.config.name().filter(|name| !name.is_empty()).map(str::to_owned),
        addresses: ve.config.ip_addresses().iter().map(|ip| ip.addr).collect(),
        bridges: ve.config.netif().into_iter().filter_map(|netif| netif.bridge).collect(),
        image: layout::image(layout, &private)?.is_some(),
        area,
        layout,
        base: base.map(|record| (record.base.clone(), ve.node.bases().join(record.base))),
        // What is there of one that runs is not of this life.
        dump: ve.config.dump_file().filter(|path| ve.running().is_none() && path.exists()),
    })
}

/// Why the private area of a VE cannot travel, as words that follow its number, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// `has snapshots, …`
    pub why: &'static str,
    /// What the admin can do.
    pub hint: String,
}

/// Whether it needs files that lie outside of its private area, and so would not travel with it (snapshots of a
/// plain directory, layers of an overlay that snapshots and clones share), or lies in a subvolume. The caller has the
/// lock: what a killed snapshot left is removed.
///
/// # Errors
/// As [`luggage`].
pub fn bound(ve: &Ve<'_>) -> Result<Option<Bound>> {
    let private = ve.existing_private()?;
    let shared = match ve.layout(&private)? {
        Layout::Overlay => {
            snapshot::mend(ve)?;
            layout::base_of(&private)?.is_some_and(|record| !record.stack.is_plain())
        }
        Layout::Simfs => !snapshot::list(ve, None)?.is_empty(),
        Layout::Ploop => false,
        Layout::Btrfs => {
            let hint = format!("Give it another layout first: vzctl convert {} --layout overlay", ve.ctid);
            return Ok(Some(Bound { why: "lies in a subvolume of btrfs, which cannot be moved yet", hint }));
        }
    };
    let why = "has snapshots, or shares layers with a clone; they cannot be moved yet";
    let hint = format!("vzctl snapshot-list {} shows them, vzctl snapshot-delete removes them", ve.ctid);
    Ok(shared.then_some(Bound { why, hint }))
}

/// Where a running VE's memory of about so many bytes is put before it goes.
///
/// # Errors
/// 46 when there is no room for it.
pub fn memory(ve: &Ve<'_>, bytes: u64) -> Result<PathBuf> {
    let place = crate::fit::place_before(ve, bytes).ok_or_else(|| {
        Error::refused(Exit::FsNoDiskSpace, format!("there is no room for its memory, {} MiB", bytes >> 20))
    })?;
    crate::mount::shut(ve, &place)?;
    Ok(place)
}

/// It is of no use any more.
///
/// # Errors
/// 3.
pub fn forget_memory(place: &Path) -> Result<()> {
    let failed = |source| Error::Criu { source, exit: Exit::System };
    criu::remove(&criu::temporary(place)).map_err(failed)
}

/// Has a running VE's file system write what it has, so that the next pass over its files, or its freeze, has less to do.
pub fn flush(ve: &Ve<'_>) {
    let root = ve.root().ok().and_then(|root| fs::File::open(root).ok());
    // What fails here is met by the freeze.
    let _ = root.map(rustix::fs::syncfs);
}

/// Stops what writes into the image of a VE whose processes stand still; `None` when its files lie in a directory.
///
/// # Errors
/// 152.
pub fn still(ve: &Ve<'_>) -> Result<Option<Still>> {
    let private = ve.existing_private()?;
    let image = layout::image(ve.layout(&private)?, &private)?;
    Ok(image.map(|image| image.still()).transpose().map_err(layout::LayoutError::from)?)
}

/// Lets an image go on that whoever made it [still] left so.
pub(crate) fn let_go(ve: &Ve<'_>) -> Result<()> {
    let private = ve.existing_private()?;
    match layout::image(ve.layout(&private)?, &private)? {
        Some(image) => Ok(image.let_go().map_err(layout::LayoutError::from)?),
        None => Ok(()),
    }
}

/// Waits until a VE that was stopped has written everything that it had to write.
///
/// # Errors
/// 152 when its image stays mounted.
pub fn quiesce(ve: &Ve<'_>) -> Result<()> {
    let private = ve.existing_private()?;
    Ok(layout::idle(ve.layout(&private)?, &private)?)
}

/// The content of a file; `None` when there is none.
fn short(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(Exit::System, || format!("cannot read {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .doing(Exit::System, || format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::refused(Exit::System, format!("{} is larger than 1 MiB", path.display())));
    }
    Ok(Some(bytes))
}

/// The VE is another host's: removes what is left of it here, or, with `keep`, leaves its files and renames its
/// configuration to `CTID.conf.migrated`. May be done again after it was interrupted.
///
/// # Errors
/// As [`destroy::destroy`].
pub fn retire(ve: &Ve<'_>, to: &str, epoch: u64, keep: bool) -> Result<()> {
    let paths = &ve.node.paths;
    // A connection that nobody answers any more keeps its network, and so the device, for minutes.
    crate::net::detach(ve, netns::Devices::Delete)?;
    if !keep {
        if ve.config.exists() || ve.private().is_ok_and(|private| private.exists()) {
            destroy::destroy(ve)?;
        }
        return handover::set_epoch(paths, ve.ctid, &Epoch::default());
    }
    handover::set_epoch(paths, ve.ctid, &Epoch { number: epoch, left_for: Some(to.to_owned()) })?;
    names::remove_all(paths, ve.ctid)?;
    let conf = paths.ve_conf(ve.ctid);
    let kept = PathBuf::from(format!("{}.migrated", conf.display()));
    match fs::rename(&conf, &kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).doing(Exit::System, || format!("cannot rename {}", conf.display()));
        }
        _ => {}
    }
    ids::release(&paths.idmap_dir(), ve.ctid);
    Ok(())
}
