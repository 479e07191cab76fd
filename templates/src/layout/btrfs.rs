//! A subvolume of btrfs, made as a snapshot of the unpacked template.
//!
//! ```text
//! PRIVATE/root/   the subvolume: the tree itself
//! ```

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::btrfs::Access;
use vzsys::idmap::IdRange;
use vzsys::mount::Detached;
use vzsys::{Call, SysError, btrfs, fault};

use super::{Empty, Kind, LayoutError, Mapping, New, Place};
use crate::archive::{Durability, Progress, Unpack};
use crate::cache::CacheError;

/// The name of the subvolume in its area.
pub(crate) const ROOT: &str = "root";
/// Says that we made it: attributes of this kind are set in the host's user namespace only.
const MARK: &str = "trusted.vz.layout";

/// The layout `btrfs`.
#[derive(Debug)]
pub(super) struct Btrfs;

impl Kind for Btrfs {
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
        let base = new.cache.base(new.template, &mut *progress)?;
        new.make_dir()?;
        let failed =
            || LayoutError::call(format!("cannot prepare {}", new.area.display()), Exit::FsNewVePrvt);
        if !snapshot(&base.path, new.area).map_err(failed())? {
            // Another file system, or a template that was unpacked before there was this layout.
            make(new.area).map_err(failed())?;
            let unpacked = Unpack::new(&new.template.path)
                .needed(new.template.unpacked())
                .durability(Durability::Lazy)
                .progress(progress)
                .into_dir(&tree(new.area));
            unpacked.map_err(CacheError::from)?;
        }
        fault::point("btrfs.made");
        mark(new.area).map_err(failed())
    }

    fn prepare(&self, empty: &Empty<'_>) -> Result<(), LayoutError> {
        make_area(empty.area)
    }

    fn mount(&self, at: Place<'_>, ids: Option<IdRange>) -> Result<Detached, LayoutError> {
        Mapping::of(ids, at.private)?.layer(&tree(at.private))
    }

    fn limited(&self, private: &Path) -> PathBuf {
        tree(private)
    }
}

/// Makes an area with an empty subvolume.
fn make_area(area: &Path) -> Result<(), LayoutError> {
    make_shell(area)?;
    make_tree(area)
}

/// Makes an area without its subvolume. Returns whether that of `other` can be shared with it.
pub(crate) fn make_shell_like(other: &Path, area: &Path) -> Result<bool, LayoutError> {
    let parent = area.parent().unwrap_or(Path::new("/"));
    if !supported(parent) {
        return Err(LayoutError::NoBtrfs { path: parent.to_owned() });
    }
    make_shell(area)?;
    let opened = File::open(other).and_then(|other| Ok((other, File::open(area)?)));
    Ok(opened.is_ok_and(|(other, area)| btrfs::is_same(other.as_fd(), area.as_fd())))
}

fn make_shell(area: &Path) -> Result<(), LayoutError> {
    let made = DirBuilder::new().mode(0o700).create(area);
    made.call("mkdir", || area.display().to_string())
        .map_err(LayoutError::call(format!("cannot create {}", area.display()), Exit::FsNewVePrvt))
}

/// Makes the subvolume of an area anew, empty.
pub(crate) fn make_tree(area: &Path) -> Result<(), LayoutError> {
    make(area)
        .and_then(|()| mark(area))
        .map_err(LayoutError::call(format!("cannot prepare {}", area.display()), Exit::FsNewVePrvt))
}

/// The subvolume of an area.
pub(crate) fn tree(private: &Path) -> PathBuf {
    private.join(ROOT)
}

/// Whether an area is one: believed is a mark that no VE can set, because a plain copy may look like one.
pub(super) fn is_there(private: &Path) -> bool {
    let tree = tree(private);
    let mut value = [0; 16];
    fs::symlink_metadata(&tree).is_ok_and(|meta| meta.is_dir())
        && rustix::fs::lgetxattr(&tree, MARK, &mut value)
            .is_ok_and(|length| value.get(..length) == Some(b"btrfs"))
}

/// Whether areas below a directory can be subvolumes.
pub(super) fn supported(parent: &Path) -> bool {
    File::open(parent).is_ok_and(|dir| btrfs::is_btrfs(dir.as_fd()))
}

fn mark(area: &Path) -> vzsys::Result<()> {
    let tree = tree(area);
    rustix::fs::lsetxattr(&tree, MARK, b"btrfs", XattrFlags::empty())
        .map_err(|errno| SysError::new("lsetxattr", tree.display(), errno))
}

fn make(area: &Path) -> vzsys::Result<()> {
    let dir = File::open(area).call("open", || area.display().to_string())?;
    btrfs::create(dir.as_fd(), OsStr::new(ROOT))?;
    let tree = tree(area);
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).call("chmod", || tree.display().to_string())
}

/// `false` when a snapshot of the base is not possible.
fn snapshot(base: &Path, area: &Path) -> vzsys::Result<bool> {
    let of = File::open(base).call("open", || base.display().to_string())?;
    if !btrfs::is_subvolume(of.as_fd()) {
        return Ok(false);
    }
    let dir = File::open(area).call("open", || area.display().to_string())?;
    match btrfs::snapshot(of.as_fd(), dir.as_fd(), OsStr::new(ROOT), Access::Write) {
        Err(error) if matches!(error.errno(), Errno::XDEV | Errno::INVAL) => Ok(false),
        done => done.map(|()| true),
    }
}
