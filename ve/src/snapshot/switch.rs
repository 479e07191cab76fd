//! `vzctl snapshot-switch`.

use std::fs;
use std::path::{Path, PathBuf};

use templates::snapshot::{Id, Snapshots};
use vzconf::{ConfFile, Exit};
use vzsys::fault;

use super::pending::Pending;
use super::{Place, failed, known};
use crate::dismantle;
use crate::error::{Doing, Error, Result};
use crate::mount;
use crate::node::Ve;
use crate::stop;

/// How to go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Leave the memory of the snapshot alone.
    pub skip_resume: bool,
    /// A snapshot without memory is an error.
    pub must_resume: bool,
    /// Keep the configuration as it is.
    pub skip_config: bool,
}

/// What belongs to the VE's place on this host, and not to what was kept of it.
const OF_THE_PLACE: [&str; 7] =
    ["VE_ROOT", "VE_PRIVATE", "VE_LAYOUT", "TEMPLATE", "LOCAL_UID", "LOCAL_GID", "NAME"];

/// Makes the files and the configuration of a VE those of a snapshot. What they were is lost. A running VE is killed,
/// and is stopped afterwards.
///
/// # Errors
/// 159; the VE is as it was, but for being stopped if it had been stopped already.
pub fn switch(ve: &Ve<'_>, id: Id, options: Options) -> Result<()> {
    const EXIT: Exit = Exit::SwitchSnapshot;
    let place = Place::of(ve)?;
    let mut all = Snapshots::open(place.area(ve)).map_err(failed(EXIT))?;
    known(&all, id, EXIT)?;
    check_memory(&all, id, options)?;
    let conf = if options.skip_config { None } else { all.conf(id).map_err(failed(EXIT))? };
    // Nothing is stopped for what could not be put back.
    drop(all.mount(id).map_err(failed(EXIT))?);
    ve.say(0, &format!("Switching to snapshot {id}"));
    stop(ve)?;
    fault::point("snapshot-switch.stopped");
    let memory = Pending::begin(ve, &all, id, conf.is_some())?.dump;
    if let Some((dump, aside)) = &memory {
        put_aside(dump, aside)?;
    }
    let before = conf.as_deref().map(|conf| put_back(ve, conf)).transpose()?;
    fault::point("snapshot-switch.config");
    if let Err(error) = all.switch(id) {
        let path = ve.node.paths.ve_conf(ve.ctid);
        let restored = before.map_or(Ok(()), |before| before.save(&path));
        let mut left: Vec<String> = restored.err().map(|error| error.to_string()).into_iter().collect();
        if let Some((dump, aside)) = &memory {
            left.extend(fs::rename(aside, dump).err().map(|error| format!("{}: {error}", aside.display())));
        }
        if left.is_empty() {
            left.extend(Pending::end(ve).err().map(|error| crate::describe(&error)));
        }
        return Err(failed(EXIT)(error).with_cleanup(left));
    }
    if let Some((_, aside)) = &memory {
        crate::destroy::remove_dump(aside)?;
    }
    Pending::end(ve)?;
    super::merge(ve, &all, EXIT)?;
    ve.say(0, &format!("Container was switched to snapshot {id}"));
    Ok(())
}

fn check_memory(all: &Snapshots<'_>, id: Id, options: Options) -> Result<()> {
    let dump = all.area().dump(id);
    if dump.exists() && !options.skip_resume {
        let message =
            format!("snapshot {id} has memory ({}), which this version cannot resume", dump.display());
        let hint = "Its files alone: add --skip-resume";
        return Err(Error::advised(Exit::SwitchSnapshot, message, hint));
    }
    if options.must_resume {
        let message = format!("snapshot {id} has no memory to resume");
        return Err(Error::advised(Exit::SwitchSnapshot, message, "Its files alone: without --must-resume"));
    }
    Ok(())
}

/// Its memory and what it has written since go anyway.
fn stop(ve: &Ve<'_>) -> Result<()> {
    if ve.running().is_some() {
        stop::stop(ve, stop::Options { fast: true, skip_umount: false })?;
    }
    dismantle::mend(ve)?;
    if ve.mounted() {
        mount::umount(ve)?;
    }
    Ok(())
}

/// The memory of a suspended VE belongs to the files that it had: whatever happens next, it must not be resumed with
/// others.
fn put_aside(dump: &Path, aside: &Path) -> Result<()> {
    crate::destroy::remove_dump(aside)?;
    // For good: the files may be on another disk, and change next.
    criu::rename(dump, aside).map_err(|source| Error::Criu { source, exit: Exit::SwitchSnapshot })
}

/// `CTID.conf.old`.
pub(crate) fn conf_before(ve: &Ve<'_>) -> PathBuf {
    ve.node.paths.ve_conf(ve.ctid).with_extension("conf.old")
}

/// Writes the configuration of the snapshot, and keeps the one before as `CTID.conf.old`; returns that.
fn put_back(ve: &Ve<'_>, conf: &str) -> Result<ConfFile> {
    let path = ve.node.paths.ve_conf(ve.ctid);
    let before = ConfFile::load(&path)?;
    let kept = conf_before(ve);
    fs::copy(&path, &kept).doing(Exit::SwitchSnapshot, || format!("cannot write {}", kept.display()))?;
    merged(&before, conf)?.save(&path)?;
    Ok(before)
}

/// A kept configuration in the place of another one.
fn merged(before: &ConfFile, kept: &str) -> Result<ConfFile> {
    let mut file = ConfFile::parse(kept);
    for key in OF_THE_PLACE {
        match before.get(key) {
            Some(value) => file.set(key, value)?,
            None => {
                file.remove(key);
            }
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_configuration_does_not_move_the_container() {
        let before = ConfFile::parse("VE_PRIVATE=\"/vz/private/$VEID\"\nRAM=\"1\"\nNAME=\"web\"\n");
        let kept = "RAM=\"2\"\nVE_PRIVATE=\"/etc\"\nNAME=\"old\"\nLOCAL_UID=\"0\"\nHOSTNAME=\"h\"\n";
        let file = merged(&before, kept).unwrap();
        let get = |key| file.get(key);
        assert_eq!((get("VE_PRIVATE"), get("RAM")), (Some("/vz/private/$VEID"), Some("2")));
        assert_eq!((get("NAME"), get("LOCAL_UID"), get("HOSTNAME")), (Some("web"), None, Some("h")));
    }
}
