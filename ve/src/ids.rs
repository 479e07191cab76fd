//! Which host ids a VE gets: `/var/lib/vzctl/idmap/SLOT` holds the CTID that owns the range
//! `SLOT × 65536`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use vzconf::{Config, Ctid, Exit};
use vzsys::idmap::{IdRange, RANGE};

use crate::error::{Doing, Error, Result};

/// Slots given out: host ids 0x1000_0000 to 0x6FFF_FFFF, which systemd's uid table leaves to
/// containers and where no distribution puts users.
const FIRST: u32 = 0x1000;
const COUNT: u32 = 0x6000;

/// The ids of a VE: its own range, the one that `LOCAL_UID` names, or none for `LOCAL_UID=0`.
///
/// # Errors
/// Exit 21 for a bad `LOCAL_UID`, 6 when all ranges are taken, 3 when they cannot be recorded.
pub(crate) fn claim(config: &Config, ctid: Ctid) -> Result<Option<IdRange>> {
    range(config, || claim_slot(&config.paths().idmap_dir(), ctid))
}

/// As the configuration says it; without its word, of the slot that is asked for.
fn range(config: &Config, slot: impl FnOnce() -> Result<u32>) -> Result<Option<IdRange>> {
    // A range in vz.conf, as OpenVZ's had one, would be shared by all VEs; only "none" can be meant there.
    let own = config.own("LOCAL_UID").is_some();
    match config.local_uid().filter(|base| own || *base == 0) {
        Some(0) => Ok(None),
        Some(base) if base.checked_add(RANGE).is_some() => Ok(Some(IdRange::at(base))),
        Some(base) => Err(Error::refused(
            Exit::InvalidValue,
            format!("LOCAL_UID={base} leaves no room for {RANGE} ids"),
        )),
        None => slot().map(|slot| Some(IdRange::at(slot * RANGE))),
    }
}

/// The ids that [`claim`] would give; nothing is recorded.
///
/// # Errors
/// As [`claim`].
pub(crate) fn wanted(config: &Config, ctid: Ctid) -> Result<Option<IdRange>> {
    let dir = config.paths().idmap_dir();
    let is_free = |slot: &u32| owner(&slot_path(&dir, *slot)).is_none_or(|owner| owner == ctid);
    range(config, || Ok(slots(ctid).find(is_free).unwrap_or(FIRST)))
}

/// All of them, the one that a number wishes for first.
fn slots(ctid: Ctid) -> impl Iterator<Item = u32> {
    (0..COUNT).map(move |step| FIRST + (ctid.get() % COUNT + step) % COUNT)
}

fn claim_slot(dir: &Path, ctid: Ctid) -> Result<u32> {
    let what = || format!("cannot record the ids of container {ctid} in {}", dir.display());
    fs::create_dir_all(dir).doing(Exit::System, what)?;
    for slot in slots(ctid) {
        let path = slot_path(dir, slot);
        loop {
            match owner(&path) {
                Some(owner) if owner == ctid => return Ok(slot),
                Some(_) => break,
                None => match take(dir, &path, ctid) {
                    Ok(()) => return Ok(slot),
                    // Somebody was faster: look who.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error).doing(Exit::System, what),
                },
            }
        }
    }
    Err(Error::refused(Exit::Resource, format!("all {COUNT} ranges of ids are taken ({})", dir.display())))
}

fn slot_path(dir: &Path, slot: u32) -> PathBuf {
    dir.join(format!("{slot:x}"))
}

fn owner(path: &Path) -> Option<Ctid> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The slot file appears with its content or not at all (link(2) refuses to replace).
fn take(dir: &Path, path: &Path, ctid: Ctid) -> std::io::Result<()> {
    let mut temp = tempfile::Builder::new().prefix(".claim").tempfile_in(dir)?;
    writeln!(temp, "{ctid}")?;
    match fs::hard_link(temp.path(), path) {
        // A file without a readable owner is what a crash of the host may leave.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && owner(path).is_none() => {
            fs::remove_file(path)?;
            fs::hard_link(temp.path(), path)
        }
        done => done,
    }
}

/// Gives the range back.
pub(crate) fn release(dir: &Path, ctid: Ctid) {
    let wish = ctid.get() % COUNT;
    for step in 0..COUNT {
        let path = slot_path(dir, FIRST + (wish + step) % COUNT);
        match owner(&path) {
            Some(owner) if owner == ctid => drop(fs::remove_file(&path)),
            Some(_) => {}
            // Ranges are taken at the first free slot: nothing of this VE lies beyond one. (One that was
            // freed before it may hide a later one; it is then found by its owner at the next claim.)
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ve_keeps_its_own_range_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Ctid::new(101).unwrap(), Ctid::new(101 + COUNT).unwrap());
        let first = claim_slot(dir.path(), a).unwrap();
        assert_eq!(claim_slot(dir.path(), a).unwrap(), first);
        let second = claim_slot(dir.path(), b).unwrap();
        assert_ne!(first, second);
        release(dir.path(), a);
        assert_eq!(claim_slot(dir.path(), Ctid::new(101).unwrap()).unwrap(), first);
        assert_eq!(claim_slot(dir.path(), b).unwrap(), second);
    }

    #[test]
    fn an_unreadable_slot_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let ctid = Ctid::new(7).unwrap();
        fs::write(slot_path(dir.path(), FIRST + 7), "").unwrap();
        assert_eq!(claim_slot(dir.path(), ctid).unwrap(), FIRST + 7);
        assert_eq!(owner(&slot_path(dir.path(), FIRST + 7)), Some(ctid));
    }
}
