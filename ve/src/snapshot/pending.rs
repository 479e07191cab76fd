//! A switch that is under way: `/var/lib/vzctl/switching/CTID`. Whoever finds it and has the VE's lock knows that its
//! writer was killed, and has configuration, files and dump of one moment again: of the snapshot, if the VE has its files
//! already, else of before.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use templates::snapshot::{Id, Snapshots};
use vzconf::{Ctid, Exit, Paths};

use super::{Place, failed};
use crate::error::{Doing, Result, describe};
use crate::node::Ve;
use crate::record;

/// What was before a switch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    id: String,
    /// What the files were ([`Snapshots::stamp`]).
    stamp: u64,
    /// The configuration, where that is switched too.
    conf: Option<String>,
    /// Where the memory of the suspended VE was, and where it is put aside.
    pub(super) dump: Option<(PathBuf, PathBuf)>,
}

fn path(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("switching").join(ctid.to_string())
}

impl Pending {
    /// Says that a switch begins; the VE is stopped.
    ///
    /// # Errors
    /// 159 when the files cannot be looked at, 3 when it cannot be said.
    pub(super) fn begin(ve: &Ve<'_>, all: &Snapshots<'_>, id: Id, with_conf: bool) -> Result<Self> {
        let stamp = all.stamp().map_err(failed(Exit::SwitchSnapshot))?;
        let conf = ve.node.paths.ve_conf(ve.ctid);
        let read = || {
            fs::read_to_string(&conf)
                .doing(Exit::SwitchSnapshot, || format!("cannot read {}", conf.display()))
        };
        let conf = with_conf.then(read).transpose()?;
        let dump = ve.config.dump_file().filter(|dump| fs::symlink_metadata(dump).is_ok());
        let dump = dump.map(|dump| {
            let mut aside = dump.clone().into_os_string();
            aside.push(".switched");
            (dump, PathBuf::from(aside))
        });
        let pending = Self { id: id.to_string(), stamp, conf, dump };
        record::write(&path(&ve.node.paths, ve.ctid), &pending)?;
        Ok(pending)
    }

    /// It is over.
    ///
    /// # Errors
    /// 3.
    pub(super) fn end(ve: &Ve<'_>) -> Result<()> {
        record::remove(&path(&ve.node.paths, ve.ctid))
    }
}

/// Mends a switch that was killed; returns whether there was any. A VE without one costs one look-up.
///
/// # Errors
/// 3, 159: then it is told again by the next verb.
pub(crate) fn mend(ve: &Ve<'_>) -> Result<bool> {
    let Some(pending) = record::read::<Pending>(&path(&ve.node.paths, ve.ctid))? else { return Ok(false) };
    let place = match Place::of(ve) {
        Ok(place) => place,
        // Nothing is left of the VE that could be of two moments.
        Err(_) => return Pending::end(ve).map(|()| true),
    };
    let all = Snapshots::open(place.area(ve)).and_then(|all| all.stamp().map(|stamp| (all, stamp)));
    let (mut all, stamp) = match all {
        Ok(found) => found,
        Err(error) => {
            // Who wants to destroy it may.
            let why = describe(&failed(Exit::SwitchSnapshot)(error));
            ve.say(
                -1,
                &format!(
                    "WARNING: the switch to {} was interrupted, and cannot be mended: {why}",
                    pending.id
                ),
            );
            return Ok(false);
        }
    };
    if stamp == pending.stamp {
        ve.say(
            0,
            &format!("The switch to snapshot {} was interrupted; the container stays as it was", pending.id),
        );
        if let Some(conf) = &pending.conf {
            record::store(&ve.node.paths.ve_conf(ve.ctid), conf.as_bytes())?;
        }
        if let Some((dump, aside)) =
            pending.dump.as_ref().filter(|(_, aside)| fs::symlink_metadata(aside).is_ok())
        {
            criu::rename(aside, dump)
                .map_err(|source| crate::Error::Criu { source, exit: Exit::SwitchSnapshot })?;
        }
    } else {
        ve.say(
            0,
            &format!(
                "The switch to snapshot {} was interrupted after its files; it is finished now",
                pending.id
            ),
        );
        if let Ok(id) = pending.id.parse::<Id>() {
            all.note_switch(id).map_err(failed(Exit::SwitchSnapshot))?;
        }
        if let Some((_, aside)) = &pending.dump {
            crate::destroy::remove_dump(aside)?;
        }
    }
    Pending::end(ve).map(|()| true)
}
