//! What VEs use of the disk, as its file system counts it.

use vzconf::{Config, Paths};

use crate::list::row::{Disk, Row};

/// Fills in usage, and of a running VE the limits in force, which a `set` without `--save` may have changed. What is
/// not counted stays as configured.
pub(super) fn fill(row: &mut Row, paths: &Paths, config: &Config, runs: bool) {
    let Some(report) = ve::quota::report(paths, row.ctid, config) else { return };
    for (shown, found) in [(&mut row.diskspace, report.space), (&mut row.diskinodes, report.inodes)] {
        let limited = runs && found.bounds.limit != 0;
        let in_force = || Disk { usage: 0, soft: found.bounds.barrier, hard: found.bounds.limit };
        let disk = if limited { in_force() } else { shown.unwrap_or_default() };
        *shown = Some(Disk { usage: found.usage, ..disk });
    }
}
