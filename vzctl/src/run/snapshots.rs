//! The verbs of snapshots.

use std::rc::Rc;

use ve::snapshot::{self, Listed};
use ve::{Error, Ve};

use crate::cli::{ListOptions, TakeOptions, Verb};
use crate::report::{Report, snapshots};

/// Does what the verb says.
pub(super) fn run(ve: &Ve<'_>, verb: &Verb, report: &Rc<Report>) -> Result<(), Error> {
    match verb {
        Verb::Snapshot(options) => snapshot::snapshot(ve, &take(options)).map(drop),
        Verb::SnapshotSwitch(id, options) => {
            let options = snapshot::SwitchOptions {
                skip_resume: options.skip_resume,
                must_resume: options.must_resume,
                skip_config: options.skip_config,
            };
            snapshot::switch(ve, *id, options)
        }
        Verb::SnapshotDelete(id) => snapshot::delete(ve, *id),
        Verb::SnapshotMount(id, target) => snapshot::mount(ve, *id, target),
        Verb::SnapshotUmount(id) => snapshot::umount(ve, *id),
        Verb::SnapshotList(options) => list(ve, options, report),
        _ => Ok(()),
    }
}

fn take(options: &TakeOptions) -> snapshot::Options {
    snapshot::Options {
        id: options.id,
        name: options.name.clone(),
        description: options.description.clone(),
        date: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string(),
        skip_suspend: options.skip_suspend,
        skip_config: options.skip_config,
    }
}

fn list(ve: &Ve<'_>, options: &ListOptions, report: &Rc<Report>) -> Result<(), Error> {
    if options.names {
        report.output(&snapshots::names());
        return Ok(());
    }
    let all: Vec<Listed> = snapshot::list(ve, options.of)?;
    report.output(&if options.json { snapshots::json(&all) } else { snapshots::table(&all, options) });
    Ok(())
}
