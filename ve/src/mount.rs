//! `vzctl mount` and `umount`: the root of a VE on the host.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use templates::image::How;
use templates::layout::{self, Layout};
use vzconf::{Action, Exit};
use vzsys::idmap::IdRange;
use vzsys::mount::{self as mounts, Attr, MountGuard, is_mount_point};

use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::quota;
use crate::scripts::{self, Order};

/// What `mount` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// It is mounted now.
    Now,
    /// It was mounted before.
    Already,
}

/// Mounts the root of a stopped VE, with the ids as they are on disk, for the admin to work in.
///
/// # Errors
/// 43 no private area, 49 no mount point, 50 not mounted, 79 script.
pub fn mount(ve: &Ve<'_>) -> Result<Mounted> {
    if ve.mounted() {
        return Ok(Mounted::Already);
    }
    with_scripts(ve, || for_the_admin(ve))?.keep();
    Ok(Mounted::Now)
}

/// For whom a root is mounted, and whether the action scripts of it run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripts {
    /// As the verbs `mount`, `start` and `umount` do.
    Run,
    /// For `runscript`, which only borrows the root.
    Skip,
}

/// Mounts the root for its VE; undone on drop.
pub(crate) fn mount_root(
    ve: &Ve<'_>,
    ids: Option<IdRange>,
    scripts: Scripts,
    check: Check,
) -> Result<MountGuard> {
    match scripts {
        Scripts::Run => with_scripts(ve, || bare(ve, ids, Attr::empty(), check)),
        Scripts::Skip => bare(ve, ids, Attr::empty(), check),
    }
}

/// Whether an image that was not unmounted cleanly is checked before it is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Check {
    /// It is.
    #[default]
    Run,
    /// It is not: `--skip-fsck`.
    Skip,
}

/// Whether limits of users and groups inside are to hold; told where they are asked for and cannot.
fn counts_users(ve: &Ve<'_>, private: &Path, kind: Layout) -> Result<bool> {
    let is_asked = ve.config.disk_quota() && ve.config.quotaugidlimit().is_some_and(|limit| limit != 0);
    let Some(image) = layout::image(kind, private)?.filter(|_| is_asked) else { return Ok(false) };
    let counts = image.count_users().map_err(layout::LayoutError::from)?;
    if !counts {
        ve.say(-1, "WARNING: this kernel keeps no limits of users inside an image (CONFIG_QFMT_V2); QUOTAUGIDLIMIT is stored only");
    }
    Ok(counts)
}

/// How the image of a VE is mounted, if it has one.
fn how(ve: &Ve<'_>, private: &Path, kind: Layout, check: Check) -> Result<How> {
    if layout::is_tree(kind, private)? {
        if ve.config.disk_quota() && ve.config.quotaugidlimit().is_some_and(|limit| limit != 0) {
            ve.say(1, "QUOTAUGIDLIMIT is stored only: limits of users inside are kept by images (ploop)");
        }
        return Ok(How::USUAL);
    }
    let options = ve.config.get("MOUNT_OPTS").unwrap_or_default();
    let mut how = How::parse(options).map_err(|error| {
        let hint = format!("Other ones: vzctl set {} --mount_opts OPTIONS --save", ve.ctid);
        Error::advised(Exit::FsCantMount, error.to_string(), hint)
    })?;
    how.skip_check = check == Check::Skip;
    how.user_quota = counts_users(ve, private, kind)?;
    Ok(how)
}

/// As `mount` leaves it, without scripts; undone on drop.
pub(crate) fn for_the_admin(ve: &Ve<'_>) -> Result<MountGuard> {
    // Users of the host can reach it there. A privileged VE's files are the host's root's by definition.
    let privileged = ve.config.local_uid() == Some(0);
    bare(ve, None, if privileged { Attr::empty() } else { layout::for_the_host() }, Check::Run)
}

fn bare(ve: &Ve<'_>, ids: Option<IdRange>, attrs: Attr, check: Check) -> Result<MountGuard> {
    let (private, root) = (ve.existing_private()?, ve.root()?);
    shut(ve, &private)?;
    fs::create_dir_all(&root)
        .doing(Exit::FsMpointCreate, || format!("cannot create the mount point {}", root.display()))?;
    let kind = ve.layout(&private)?;
    let how = how(ve, &private, kind, check)?;
    quota::on(ve, &private, kind)?;
    warn_if_reachable(ve, &private, kind);
    // An overlay that has no room for its work directory would be read-only.
    quota::widen(ve)?;
    let guard = layout::mount(kind, &private, &ve.node.bases(), &root, ids, attrs, &how)?;
    quota::settle(ve)?;
    vzsys::fault::point("mount.mounted");
    Ok(guard)
}

fn with_scripts(ve: &Ve<'_>, mount: impl FnOnce() -> Result<MountGuard>) -> Result<MountGuard> {
    // The scripts are told both; premount may be what makes the private area appear.
    ve.private().and(ve.root())?;
    scripts::on_host(ve, Action::Premount, Order::NodeFirst)?;
    let guard = mount()?;
    match scripts::on_host(ve, Action::Mount, Order::NodeFirst) {
        Ok(()) => Ok(guard),
        Err(error) => {
            Err(error.with_cleanup(guard.unmount().err().map(|e| e.to_string()).into_iter().collect()))
        }
    }
}

/// Closes the directory that holds `path` to all but the host's root, making it where it is missing. A
/// VE's files lie on disk with its own ids: a set-uid program of its root would be one of the host's root
/// to any user who can reach it. Directories outside of `/vz` that exist already are the admin's.
///
/// # Errors
/// The call that failed, exit 3.
pub(crate) fn shut(ve: &Ve<'_>, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let what = || format!("cannot close {} to other users", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(Exit::System, what)?;
    let vz = ve.node.paths.vz();
    if dir == vz || !dir.starts_with(vz) {
        return Ok(());
    }
    let mode = fs::metadata(dir).doing(Exit::System, what)?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).doing(Exit::System, what)
}

/// Says so when users of the host can reach the files of a VE: outside of `/vz` the directories above are
/// the admin's to close. The directory of an overlay is closed itself; that of a plain copy is the VE's own
/// root, which must be open.
pub(crate) fn warn_if_reachable(ve: &Ve<'_>, private: &Path, kind: Layout) {
    // It may be about to be made.
    let parent = private.parent().and_then(|dir| fs::canonicalize(dir).ok());
    let resolved = fs::canonicalize(private).ok();
    let Some(private) = resolved.or_else(|| Some(parent?.join(private.file_name()?))) else { return };
    let own = usize::from(kind == Layout::Simfs);
    // Nobody but root enters a directory without these, whatever lies below it.
    let closed = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o011 == 0);
    if private.ancestors().skip(own).any(closed) {
        return;
    }
    let dir = private.parent().unwrap_or(&private).display();
    ve.say(
        -1,
        &format!(
            "WARNING: all users of this host can reach {}, where a set-user-ID program of the container's root \
             would make them root of the host; close the directory above it: chmod 0700 {dir}",
            private.display()
        ),
    );
}

/// Unmounts the root of a stopped VE and all that is mounted below it.
///
/// # Errors
/// 40 not mounted, 32 running, 51 busy, 79 script (the root stays mounted).
pub fn umount(ve: &Ve<'_>) -> Result<()> {
    if ve.running().is_some() {
        return Err(Error::refused(Exit::VeRunning, "Container is running -- stop it first"));
    }
    if !ve.mounted() {
        return Err(Error::refused(Exit::FsNotMounted, "CT is not mounted"));
    }
    umount_root(ve, Busy::Refuse)
}

/// What to do with a root that somebody on the host still uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Fail: the admin is working in it.
    Refuse,
    /// Take it out of sight; it goes when its last user goes. The VE has ended, and must be able to
    /// start again whoever sits in its directory.
    Detach,
}

/// Unmounts with scripts; a root that is not mounted is no error.
pub(crate) fn umount_root(ve: &Ve<'_>, busy: Busy) -> Result<()> {
    let root = ve.root()?;
    if is_mount_point(&root) {
        scripts::on_host(ve, Action::Umount, Order::VeFirst)?;
        let held = (busy == Busy::Detach).then(|| hold(ve, &root)).flatten();
        let unmounted = umount_tree(&root, busy);
        held.into_iter().for_each(vzsys::spawn::close_in_background);
        scripts::on_host(ve, Action::Postumount, Order::VeFirst)?;
        unmounted?;
    }
    Ok(())
}

/// What keeps an overlay alive past its unmount, so that it ends in the background: the kernel then syncs the
/// whole disk, for all VEs on it. The next mount of the area waits for that.
fn hold(ve: &Ve<'_>, root: &Path) -> Option<Vec<OwnedFd>> {
    let private = ve.private().ok()?;
    let lock = layout::leave(ve.layout(&private).ok()?, &private)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Some(vec![rustix::fs::open(root, flags, Mode::empty()).ok()?, lock])
}

/// Unmounts what is mounted at and below `root`, last mounted first.
pub(crate) fn umount_tree(root: &Path, busy: Busy) -> Result<()> {
    let failed = || format!("cannot unmount {}", root.display());
    // Several mounts may be stacked on one another.
    while is_mount_point(root) {
        for path in below(root)? {
            let done = match busy {
                Busy::Refuse => mounts::umount(&path),
                Busy::Detach => mounts::umount_lazy(&path),
            };
            done.doing(Exit::FsCantUmount, failed)?;
        }
    }
    Ok(())
}

/// Mount points at and below `root` from the mount table, last first; `root` itself always.
fn below(root: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .doing(Exit::FsCantUmount, || "cannot read the mount table".to_owned())?;
    let canonical = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut paths = parse_below(&table, &canonical);
    if paths.is_empty() {
        paths.push(canonical);
    }
    Ok(paths)
}

fn parse_below(table: &str, root: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut paths: Vec<PathBuf> = points.filter(|path| path.starts_with(root)).collect();
    paths.reverse();
    paths
}

/// The kernel writes blanks, tabs, newlines and backslashes of paths as `\ooo`.
pub(crate) fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).and_then(|o| std::str::from_utf8(o).ok());
        match octal.filter(|_| bytes[i] == b'\\').and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_root_come_last_first_and_its_neighbours_do_not() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n\
            2 1 0:5 / /vz/root/101 rw - overlay o rw\n\
            3 2 0:6 / /vz/root/101/a\\040b rw - tmpfs t rw\n\
            4 1 0:7 / /vz/root/1010 rw - overlay o rw\n";
        let paths = parse_below(table, Path::new("/vz/root/101"));
        assert_eq!(paths, [PathBuf::from("/vz/root/101/a b"), PathBuf::from("/vz/root/101")]);
    }
}
