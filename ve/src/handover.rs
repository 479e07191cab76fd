//! Who may run a VE while it moves to another host: records that survive a crash of either.
//!
//! ```text
//! /var/lib/vzctl/migrate/CTID.json    a move at work, or one that was interrupted
//! /var/lib/vzctl/migrate/owned/ID     this host took the VE over in the move ID, and its source may not know yet
//! /var/lib/vzctl/migrate/epochs/CTID  how often the VE has changed hands; and where it went, if a copy stayed here
//! ```
//! The source decides: `Leaving` with stage `Committed` is the point of no return. The destination takes over by
//! making `owned/ID`, and only after it was told that. docs/migration.md has the whole table.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vzconf::{Ctid, Exit, Paths};

use crate::error::{Error, Result};
use crate::node::Ve;
use crate::record::{read, remove, write};

const VERSION: u32 = 1;

/// A move, as one of its two hosts sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Version of this format.
    pub version: u32,
    /// Random, the same on both hosts: 32 hexadecimal digits.
    pub id: String,
    /// Whose.
    pub ctid: u32,
    /// The epoch in which the VE runs at the destination.
    pub epoch: u64,
    /// The other host, for people and for `vzmigrate --resolve`.
    pub peer: String,
    /// This host's part.
    pub part: Part,
}

/// What this host does in a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The VE goes away from here.
    Leaving(Leaving),
    /// The VE comes here.
    Arriving(Arriving),
}

/// The part of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// How far it is.
    pub stage: Leave,
    /// Options of the ssh program with which the destination was reached.
    pub ssh: Vec<String>,
    /// The VE ran.
    pub running: bool,
    /// Its root was mounted.
    pub mounted: bool,
    /// The area here is removed at the end.
    pub remove: bool,
    /// Its memory goes too.
    pub online: bool,
}

/// Stages of the source, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Leave {
    /// The VE is here and as it was.
    Copying,
    /// The VE is here, stopped or frozen by the move.
    Halted,
    /// The same, and the destination may have all of it.
    Offered,
    /// The VE is here and as it was; the destination may not know that the move was given up.
    Abandoned,
    /// The VE is the destination's, unless that says that it could not take it.
    Committed,
    /// The destination has it; what is left is to be removed here.
    Done,
}

/// The part of the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// How far it is.
    pub stage: Arrive,
    /// Where the private area is until the VE is this host's.
    pub staging: PathBuf,
    /// Where it will be.
    pub private: PathBuf,
    /// The template that it lies on.
    pub base: Option<String>,
    /// The dump of a suspended VE: where it is until then, and where it will be.
    pub dump: Option<(PathBuf, PathBuf)>,
    /// What is done with it then.
    pub then: Then,
    /// Where the memory of one that goes on here is, until it does.
    #[serde(default)]
    pub memory: Option<PathBuf>,
}

/// Stages of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arrive {
    /// The number is kept for it; without its source it is dropped.
    Reserved,
    /// All is here. Only the source's word, or its end, decides.
    Prepared,
}

/// What the destination does with a VE that is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// Start it: it ran.
    Start,
    /// Let it go on: it runs, and its memory comes with it.
    Resume,
    /// Mount its root: that was mounted.
    Mount,
    /// Nothing.
    Rest,
}

/// How often a VE has changed hands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// 0 for a VE that has always been here.
    pub number: u64,
    /// Where it went; a copy that stayed here is out of date.
    pub left_for: Option<String>,
}

fn dir(paths: &Paths) -> PathBuf {
    paths.state_dir().join("migrate")
}

/// The record of a VE's move, as long as there is one.
#[must_use]
pub fn path(paths: &Paths, ctid: Ctid) -> PathBuf {
    dir(paths).join(format!("{ctid}.json"))
}

/// Where a VE's configuration and scripts wait until it is this host's.
#[must_use]
pub fn luggage(paths: &Paths, ctid: Ctid) -> PathBuf {
    dir(paths).join(format!("{ctid}.luggage"))
}

impl Handover {
    /// A new record, not saved.
    #[must_use]
    pub fn new(id: String, ctid: Ctid, epoch: u64, peer: String, part: Part) -> Self {
        Self { version: VERSION, id, ctid: ctid.get(), epoch, peer, part }
    }

    /// The move that is, or was, at work on a VE. A damaged record is an error: nobody knows whose the VE is.
    ///
    /// # Errors
    /// Exit 3.
    pub fn load(paths: &Paths, ctid: Ctid) -> Result<Option<Self>> {
        let found: Option<Self> = read(&path(paths, ctid))?;
        match found {
            Some(handover) if handover.version != VERSION => Err(Error::refused(
                Exit::System,
                format!("{} is of another version", path(paths, ctid).display()),
            )),
            found => Ok(found),
        }
    }

    /// Writes the record: it is on the disk when this returns.
    ///
    /// # Errors
    /// Exit 3.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let ctid: Ctid = Ctid::new(self.ctid)?;
        write(&path(paths, ctid), self)
    }

    /// The move is over.
    ///
    /// # Errors
    /// Exit 3.
    pub fn forget(paths: &Paths, ctid: Ctid) -> Result<()> {
        remove(&path(paths, ctid))
    }

    /// Whether this host has taken the VE over in this move.
    #[must_use]
    pub fn is_owned(&self, paths: &Paths) -> bool {
        is_owned(paths, &self.id)
    }
}

/// Whether this host has taken a VE over in the move `id`.
#[must_use]
pub fn is_owned(paths: &Paths, id: &str) -> bool {
    is_id(id) && dir(paths).join("owned").join(id).exists()
}

/// Takes the VE over: from here on it is this host's.
///
/// # Errors
/// Exit 3; it is not then.
pub fn own(paths: &Paths, handover: &Handover) -> Result<()> {
    if !is_id(&handover.id) {
        return Err(Error::refused(Exit::System, "the id of a move is 32 hexadecimal digits"));
    }
    write(&dir(paths).join("owned").join(&handover.id), &(handover.ctid, handover.epoch))
}

/// The source knows that this host has the VE; or this host could not take it after all.
///
/// # Errors
/// Exit 3.
pub fn disown(paths: &Paths, id: &str) -> Result<()> {
    if is_id(id) { remove(&dir(paths).join("owned").join(id)) } else { Ok(()) }
}

/// Whether a text is the id of a move, and so can be a file's name.
#[must_use]
pub fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// How often a VE has changed hands.
///
/// # Errors
/// Exit 3 for a record that cannot be read.
pub fn epoch(paths: &Paths, ctid: Ctid) -> Result<Epoch> {
    Ok(read(&dir(paths).join("epochs").join(ctid.to_string()))?.unwrap_or_default())
}

/// Notes it.
///
/// # Errors
/// Exit 3.
pub fn set_epoch(paths: &Paths, ctid: Ctid, epoch: &Epoch) -> Result<()> {
    let path = dir(paths).join("epochs").join(ctid.to_string());
    if *epoch == Epoch::default() { remove(&path) } else { write(&path, epoch) }
}

/// Whether the VE may be started, or made, on this host. The first line of a refusal is the one that scripts know.
/// `force` starts a copy that its VE has left behind.
///
/// # Errors
/// Exit 9 while it moves, 105 for a copy that is out of date.
pub fn check(ve: &Ve<'_>, force: bool) -> Result<()> {
    let paths = &ve.node.paths;
    let resolve = || format!("Interrupted? Then: vzmigrate --resolve {}", ve.ctid);
    match Handover::load(paths, ve.ctid)? {
        Some(Handover { part: Part::Leaving(leaving), peer, .. }) if leaving.stage >= Leave::Committed => {
            let message = format!("Container already locked\nContainer {} has moved to {peer}", ve.ctid);
            return Err(Error::advised(Exit::Locked, message, resolve()));
        }
        Some(handover) if matches!(handover.part, Part::Arriving(_)) && !handover.is_owned(paths) => {
            let message = format!(
                "Container already locked\nContainer {} is moving here from {}",
                ve.ctid, handover.peer
            );
            return Err(Error::advised(Exit::Locked, message, resolve()));
        }
        _ => {}
    }
    let Epoch { number, left_for: Some(host) } = epoch(paths, ve.ctid)? else { return Ok(()) };
    if force {
        return set_epoch(paths, ve.ctid, &Epoch { number: number + 1, left_for: None });
    }
    let message = format!(
        "Container start disabled\nContainer {} moved to {host}; this copy of it is out of date",
        ve.ctid
    );
    let hint = format!("Make sure that it is gone there, then: vzctl start {} --force", ve.ctid);
    Err(Error::advised(Exit::VeStartDisabled, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(stage: Leave) -> Handover {
        let part = Part::Leaving(Leaving {
            stage,
            ssh: Vec::new(),
            running: true,
            mounted: true,
            remove: true,
            online: false,
        });
        Handover::new("0123456789abcdef0123456789abcdef".into(), Ctid::new(101).unwrap(), 1, "b".into(), part)
    }

    #[test]
    fn a_record_is_read_back_and_forgotten_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, ctid) = (Paths::under(dir.path()), Ctid::new(101).unwrap());
        assert_eq!(Handover::load(&paths, ctid).unwrap(), None);
        let record = leaving(Leave::Committed);
        record.save(&paths).unwrap();
        assert_eq!(Handover::load(&paths, ctid).unwrap(), Some(record.clone()));
        assert!(!record.is_owned(&paths));
        own(&paths, &record).unwrap();
        assert!(record.is_owned(&paths));
        disown(&paths, &record.id).unwrap();
        disown(&paths, &record.id).unwrap();
        assert!(!record.is_owned(&paths));
        Handover::forget(&paths, ctid).unwrap();
        Handover::forget(&paths, ctid).unwrap();
        assert_eq!(Handover::load(&paths, ctid).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, ctid) = (Paths::under(dir.path()), Ctid::new(101).unwrap());
        leaving(Leave::Copying).save(&paths).unwrap();
        std::fs::write(path(&paths, ctid), "{").unwrap();
        assert!(Handover::load(&paths, ctid).is_err());
    }

    #[test]
    fn an_id_is_a_file_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        for bad in
            ["", "../../etc/passwd", "0123456789abcdef0123456789abcde/", "x123456789abcdef0123456789abcdef"]
        {
            assert!(!is_id(bad) && !is_owned(&paths, bad), "{bad}");
            disown(&paths, bad).unwrap();
        }
    }
}
