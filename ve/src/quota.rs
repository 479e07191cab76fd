//! Disk limits of a VE: when they begin to hold, change and end. `vzctl quotaon`, `quotaoff`, `quotainit`.

use std::path::{Path, PathBuf};

use templates::image::Usage;
use templates::layout::{self, Layout};
use templates::quota::{Bounds, Limits, Quota, QuotaError, Record, Report, Row, keeper};
use vzconf::{Config, Ctid, Exit, Paths};

use crate::error::{Error, Result};
use crate::node::{Ve, layout_of};

const NOT_ENABLED: &str = "Disk quota is not enabled, skipping operation";

fn of(ve: &Ve<'_>, private: &Path) -> Quota {
    Quota::new(&ve.node.paths, ve.ctid, &layout::limited(private))
}

/// The directory above, which is there before and after the private area.
fn above(private: &Path) -> &Path {
    private.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/"))
}

/// What a new VE's disk limits come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The project its files are given to; `None` where nothing counts them.
    pub(crate) project: Option<u32>,
    limits: Option<Limits>,
    /// A subvolume is limited when it is there.
    subvolume: bool,
}

/// What the disk limits of a new VE come to, before anything is made. Those that the file system does not keep are kept
/// by the image that it has then.
pub(crate) fn plan(
    ve: &Ve<'_>,
    config: &Config,
    private: &Path,
    (layout, image): (Layout, bool),
) -> Result<Planned> {
    let nothing = Planned { project: None, limits: None, subvolume: false };
    if image || !config.disk_quota() {
        return Ok(nothing);
    }
    if layout == Layout::Btrfs {
        let limits = Limits::of(config);
        if limits.is_some_and(|limits| limits.inodes.limit != 0) {
            ve.say(-1, "WARNING: btrfs limits no inodes; DISKINODES is stored only");
        }
        return Ok(Planned { project: None, limits, subvolume: true });
    }
    match keeper(above(private)) {
        Ok(_) => Ok(Planned { subvolume: false, project: Some(ve.ctid.get()), limits: Limits::of(config) }),
        Err(QuotaError::Unable { .. }) => Ok(nothing),
        Err(error) => Err(error.into()),
    }
}

/// Has the limits hold for an area that is about to be made.
pub(crate) fn begin(ve: &Ve<'_>, private: &Path, planned: Planned) -> Result<()> {
    if planned.project.is_none() {
        return Ok(());
    }
    let (quota, at) = (of(ve, private), above(private));
    if quota.usage(at)? != (0, 0) {
        // Files of a VE that had this number wait to be deleted, and would count as those of the new one.
        for trash in [ve.node.paths.vz().join("vztmp"), at.join(".vztmp")] {
            layout::sweep(&trash);
        }
        let (space, inodes) = quota.usage(at)?;
        if inodes != 0 {
            ve.say(-1, &format!(
                "WARNING: {inodes} files ({space} KiB) elsewhere on this disk belong to project {}, and count as the container's",
                ve.ctid
            ));
        }
    }
    if let Some(limits) = &planned.limits {
        quota.limit(at, limits)?;
    }
    Ok(())
}

/// The host's root, who fills a new area, is not held to limits: whether it is above them is asked afterwards.
pub(crate) fn check_filled(ve: &Ve<'_>, private: &Path, temp: &Path, planned: Planned) -> Result<()> {
    let Some(limits) = planned.limits else { return Ok(()) };
    if planned.subvolume {
        let tree = |area| layout::limited_by(Layout::Btrfs, area);
        let quota = Quota::new(&ve.node.paths, ve.ctid, &tree(private));
        return Ok(quota.limit(&tree(temp), &limits).map(drop)?);
    }
    let (space, inodes) = of(ve, private).usage(above(private))?;
    let above = |used: u64, limit: u64| limit != 0 && used > limit;
    if above(space, limits.space.limit) || above(inodes, limits.inodes.limit) {
        let message = format!(
            "Its files take {space} KiB and {inodes} inodes; DISKSPACE is {} KiB, DISKINODES {}",
            limits.space.limit, limits.inodes.limit
        );
        return Err(Error::refused(Exit::FsNoDiskSpace, message));
    }
    Ok(())
}

/// Has the configured limits hold for an area that is about to be mounted. A tree that was not counted before is gone
/// through once.
pub(crate) fn on(ve: &Ve<'_>, private: &Path, layout: Layout) -> Result<()> {
    let quota = of(ve, private);
    let Some(limits) = Limits::of(&ve.config) else { return off(ve, private) };
    if !layout::is_tree(layout, private)? {
        return off(ve, private);
    }
    must_keep(ve, &layout::limited(private))?;
    if !quota.is_counted() {
        count(ve, &quota)?;
    }
    quota.limit(quota.tree(), &limits)?;
    vzsys::fault::point("quota.limited");
    Ok(())
}

/// Gives a VE that is about to be set up a little more, so that one whose disk is full starts; [`settle`] takes it back.
pub(crate) fn widen(ve: &Ve<'_>) -> Result<()> {
    let private = ve.private()?;
    let quota = of(ve, &private);
    match quota.record() {
        Some(record) => Ok(quota.widen(&record.limits)?),
        None => Ok(()),
    }
}

/// Has the limits hold as they are, once a VE is set up.
pub(crate) fn settle(ve: &Ve<'_>) -> Result<()> {
    let private = ve.private()?;
    let quota = of(ve, &private);
    match quota.record() {
        Some(record) => Ok(quota.limit(quota.tree(), &record.limits).map(drop)?),
        None => Ok(()),
    }
}

/// A limit that nothing keeps must not look like one that holds.
fn must_keep(ve: &Ve<'_>, private: &Path) -> Result<()> {
    match keeper(private) {
        Ok(_) => Ok(()),
        Err(error @ QuotaError::Unable { .. }) => {
            let hint = format!("Without limits: vzctl set {} --diskquota no --save", ve.ctid);
            Err(Error::advised(Exit::DqOn, error.to_string(), hint))
        }
        Err(error) => Err(error.into()),
    }
}

fn count(ve: &Ve<'_>, quota: &Quota) -> Result<()> {
    ve.say(0, "Counting the container's files (once)");
    vzsys::fault::point("quota.counting");
    Ok(quota.count(&mut |files| (ve.node.progress)("Counting files", files, 0))?)
}

/// Has no limit hold any more, if one did.
pub(crate) fn off(ve: &Ve<'_>, private: &Path) -> Result<()> {
    let quota = of(ve, private);
    if quota.record().is_none() {
        return Ok(());
    }
    let at = if quota.tree().is_dir() { quota.tree() } else { above(private) };
    Ok(quota.lift(at)?)
}

/// Limits that were changed and go back unless kept.
#[derive(Debug)]
pub(crate) struct LimitGuard(Option<(Quota, Option<Record>)>);

impl LimitGuard {
    /// The new limits stay.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for LimitGuard {
    fn drop(&mut self) {
        if let Some((quota, before)) = self.0.take() {
            // The cause is what counts; the next start sets them anew.
            let _ = quota.put_back(before);
        }
    }
}

/// Changes the limits of a running VE at once.
pub(crate) fn change(ve: &Ve<'_>) -> Result<LimitGuard> {
    let private = ve.private()?;
    let (quota, Some(limits)) = (of(ve, &private), Limits::of(&ve.config)) else {
        return Ok(LimitGuard(None));
    };
    if !layout::is_tree(ve.layout(&private)?, &private)? {
        return Ok(LimitGuard(None));
    }
    must_keep(ve, &layout::limited(&private))?;
    if !quota.is_counted() {
        let hint = format!("They are from the next start on: vzctl restart {}", ve.ctid);
        return Err(Error::advised(Exit::DqSet, "The container's files are not counted yet", hint));
    }
    let before = quota.limit(quota.tree(), &limits)?;
    Ok(LimitGuard(Some((quota, before))))
}

/// `vzctl quotaon`: has the configured limits hold, as `mount` and `start` do.
///
/// # Errors
/// 60 when they cannot, or with `DISK_QUOTA=no`; 63, 64 for a limit that is not configured.
pub fn quotaon(ve: &Ve<'_>) -> Result<()> {
    let Some(private) = ready(ve, Exit::DqOn)? else { return Ok(()) };
    let quota = of(ve, &private);
    let limits = limits(ve)?;
    must_keep(ve, &layout::limited(&private))?;
    if !quota.is_counted() {
        must_rest(ve, Exit::DqOn)?;
        count(ve, &quota)?;
    }
    quota.limit(quota.tree(), &limits).map(drop).map_err(|error| as_exit(error, Exit::DqOn))
}

/// `vzctl quotaoff`: no limit holds for a stopped VE, until it is mounted or started.
///
/// # Errors
/// 66 when it is mounted, when they cannot be lifted, or with `DISK_QUOTA=no`.
pub fn quotaoff(ve: &Ve<'_>) -> Result<()> {
    let Some(private) = ready(ve, Exit::DqOff)? else { return Ok(()) };
    must_rest(ve, Exit::DqOff)?;
    let quota = of(ve, &private);
    quota.lift(quota.tree()).map_err(|error| as_exit(error, Exit::DqOff))
}

/// `vzctl quotainit`: counts the files of a stopped VE anew, and has the configured limits hold.
///
/// # Errors
/// 61 when it is mounted, when nothing can count them, or with `DISK_QUOTA=no`; 63, 64 for a limit that is not configured.
pub fn quotainit(ve: &Ve<'_>) -> Result<()> {
    let Some(private) = ready(ve, Exit::DqInit)? else { return Ok(()) };
    let quota = of(ve, &private);
    let limits = limits(ve)?;
    must_rest(ve, Exit::DqInit)?;
    count(ve, &quota)?;
    Ok(quota.limit(quota.tree(), &limits).map(drop)?)
}

/// The private area; `None` where there is nothing to do.
fn ready(ve: &Ve<'_>, exit: Exit) -> Result<Option<PathBuf>> {
    if !ve.config.disk_quota() {
        return Err(Error::refused(exit, NOT_ENABLED));
    }
    let private = ve.existing_private()?;
    if layout::is_tree(ve.layout(&private)?, &private)? {
        return Ok(Some(private));
    }
    ve.say(0, "The image of the container keeps its disk limits, skipping operation");
    Ok(None)
}

fn limits(ve: &Ve<'_>) -> Result<Limits> {
    let missing = |exit, key| Error::refused(exit, format!("{key} is not set in the configuration"));
    if ve.config.diskspace().is_none() {
        return Err(missing(Exit::DiskspaceNotSet, "DISKSPACE"));
    }
    if ve.config.diskinodes().is_none() {
        return Err(missing(Exit::DiskinodesNotSet, "DISKINODES"));
    }
    Limits::of(&ve.config).ok_or_else(|| missing(Exit::DiskspaceNotSet, "DISKSPACE"))
}

/// Nobody may work in a tree that is gone through.
fn must_rest(ve: &Ve<'_>, exit: Exit) -> Result<()> {
    if ve.running().is_none() && !ve.mounted() {
        return Ok(());
    }
    let hint = format!("vzctl stop {}; vzctl umount {}", ve.ctid, ve.ctid);
    Err(Error::advised(exit, "The container is running or mounted", hint))
}

fn as_exit(error: QuotaError, exit: Exit) -> Error {
    match error {
        unable @ QuotaError::Unable { .. } => Error::refused(exit, unable.to_string()),
        other => other.into(),
    }
}

/// Looks after a barrier that a running VE exceeds: lowers its limit when the time is up. For its monitor, every few
/// seconds; nobody is there to be told of a failure, and the next look tries again.
pub fn tend(ctid: Ctid) {
    let _ = templates::quota::tend(&Paths::host(), ctid);
}

/// The trees whose limits are in force, of the VEs named.
pub(crate) fn in_force(paths: &Paths, ctid: Ctid) -> Option<(PathBuf, Report)> {
    let tree = Quota::in_force(paths, ctid)?;
    Some((tree.tree().to_owned(), tree.report().ok().flatten()?))
}

/// What a VE with this configuration has of the disk, and its limits as they are now; `None` when nobody counts that. Of an
/// image it is what its file system has.
#[must_use]
pub fn report(paths: &Paths, ctid: Ctid, config: &Config) -> Option<Report> {
    let private = config.ve_private()?;
    let layout = layout_of(config, ctid, &private).ok()?;
    match layout::image(layout, &private).ok()? {
        Some(image) => image.usage().ok().map(of_image),
        None => Quota::new(paths, ctid, &layout::limited(&private)).report().ok().flatten(),
    }
}

/// The size of an image is its limit, at once.
fn of_image(usage: Usage) -> Report {
    let row = |usage, limit| Row { usage, bounds: Bounds { barrier: limit, limit }, expires: None };
    Report {
        space: row(usage.used.div_ceil(1024), usage.bytes / 1024),
        inodes: row(usage.inodes_used, usage.inodes),
        grace: 0,
    }
}
