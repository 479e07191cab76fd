//! Private areas: where a VE's own files lie, and how they become its root.
//!
//! ```text
//! overlay   PRIVATE/layout.json   which template base lies below
//!           PRIVATE/upper/        what the VE changed since its last snapshot
//!           PRIVATE/../.layers/   what it had changed before, shared with snapshots and clones
//!           PRIVATE/work/         overlayfs' own
//!    or     PRIVATE/upper.img     an image with both, where the file system keeps no limit
//! ploop     PRIVATE/root.hdd/     DiskDescriptor.xml, and an image with the whole tree
//! simfs     PRIVATE/              the tree itself
//! btrfs     PRIVATE/root/         a subvolume, the tree itself
//! ```
//!
//! Files lie on disk with the VE's own ids (its root is 0); mounting for a VE maps them to its range.
//!
//! A layout is one file here: an implementation of [`Kind`], named once in [`Layout::kind`].

pub(crate) mod btrfs;
mod choose;
mod error;
mod mapping;
pub(crate) mod merge;
pub(crate) mod overlay;
mod ploop;
mod remove;
mod simfs;
pub(crate) mod stack;

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use vzconf::{Ctid, Exit};
use vzsys::Call;
use vzsys::idmap::IdRange;
use vzsys::mount::{Attr, Detached, MountGuard};
use vzsys::quota::{Project, set_project};

use crate::archive::Progress;
use crate::cache::{Cache, Template};
use crate::image::{How, Image, Mounts, Resized, Size};
pub use choose::{Choice, Limits, UnknownLayout, Wanted, Wish, choose};
pub use error::LayoutError;
use mapping::Mapping;
pub use overlay::Record;
pub use remove::{discard, sweep};
pub use stack::Stack;

/// How a private area is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// An overlay over the unpacked template, which all its VEs share.
    Overlay,
    /// A plain directory with a copy of the template.
    Simfs,
    /// An image of a file system with a copy of the template.
    Ploop,
    /// A subvolume of btrfs, a snapshot of the unpacked template.
    Btrfs,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 4] = [Self::Overlay, Self::Simfs, Self::Ploop, Self::Btrfs];

    /// The word in `VE_LAYOUT`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Simfs => "simfs",
            Self::Ploop => "ploop",
            Self::Btrfs => "btrfs",
        }
    }

    /// The one place that knows which file implements which layout.
    fn kind(self) -> &'static dyn Kind {
        match self {
            Self::Overlay => &overlay::Overlay,
            Self::Simfs => &simfs::Simfs,
            Self::Ploop => &ploop::Ploop,
            Self::Btrfs => &btrfs::Btrfs,
        }
    }

    /// Whether its VEs lie on top of an unpacked template that must stay.
    #[must_use]
    pub fn shares_template(self) -> bool {
        self == Self::Overlay
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A private area, and where the unpacked templates are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The private area.
    pub private: &'a Path,
    /// `TEMPLATE/base`.
    pub bases: &'a Path,
    /// How an image of it is mounted.
    pub how: &'a How,
}

/// A private area to be made.
#[derive(Debug)]
pub struct New<'a> {
    /// Where: it does not exist yet, its parent does. What a failure leaves there the caller throws away.
    pub area: &'a Path,
    /// Where its template is.
    pub cache: &'a Cache,
    /// What it holds at first.
    pub template: &'a Template,
    /// For whom.
    pub ctid: Ctid,
    /// Its own files lie in an image that holds so much. The layout `ploop` needs one, `simfs` has none.
    pub image: Option<Size>,
    /// Where empty images are kept until the next reboot.
    pub blanks: &'a Path,
    /// The project that all files of the area belong to (`quota`), where its file system counts them.
    pub project: Option<u32>,
}

impl New<'_> {
    /// Makes the directory of the area, for root alone.
    fn make_dir(&self) -> Result<(), LayoutError> {
        make_dir(self.area, self.project)
    }
}

impl Empty<'_> {
    fn make_dir(&self) -> Result<(), LayoutError> {
        make_dir(self.area, self.project)
    }
}

fn make_dir(area: &Path, project: Option<u32>) -> Result<(), LayoutError> {
    let what = || area.display().to_string();
    let make = || {
        fs::DirBuilder::new().mode(0o700).create(area).call("mkdir", what)?;
        match project {
            Some(id) => {
                let dir = fs::File::open(area).call("open", what)?;
                set_project(dir.as_fd(), Project { id, inherited: true })
            }
            None => Ok(()),
        }
    };
    make().map_err(LayoutError::call(format!("cannot create {}", area.display()), Exit::FsNewVePrvt))
}

/// A private area without content, to be made.
#[derive(Debug, Clone, Copy)]
pub struct Empty<'a> {
    /// Where: it does not exist yet, its parent does. What a failure leaves there the caller throws away.
    pub area: &'a Path,
    /// `TEMPLATE/base`, and the name of the unpacked template that an overlay is to lie on.
    pub base: Option<(&'a Path, &'a str)>,
    /// As in [`New`].
    pub image: Option<Size>,
    /// As in [`New`].
    pub blanks: &'a Path,
    /// As in [`New`].
    pub project: Option<u32>,
}

/// What a layout does. An area is given by its path; the caller holds the VE's lock.
trait Kind: fmt::Debug + Sync {
    /// Makes a new area.
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError>;

    /// Makes a new area that holds nothing, or the bare template below.
    fn prepare(&self, empty: &Empty<'_>) -> Result<(), LayoutError>;

    /// The root of an area, with the ids of its VE or as they lie on disk (`None`), mounted nowhere yet. What the
    /// mount needs besides (a device, other mounts) ends by itself when it does: nobody else would be there to end
    /// it when a verb is killed.
    fn mount(&self, at: Place<'_>, ids: Option<IdRange>) -> Result<Detached, LayoutError>;

    /// The same for an area in the making, which is thrown away if anything happens before it is ready.
    fn mount_new(&self, at: Place<'_>) -> Result<Detached, LayoutError> {
        self.mount(at, None)
    }

    /// After [`Kind::mount_new`], once that mount is gone.
    fn finish_new(&self, _private: &Path) -> Result<(), LayoutError> {
        Ok(())
    }

    /// As [`idle`], but for an image.
    fn wait_idle(&self, _private: &Path) {}

    /// The image with what the VE wrote.
    fn image(&self, _private: &Path) -> Result<Option<Image>, LayoutError> {
        Ok(None)
    }

    /// After that image got another size, perhaps.
    fn note_size(&self, _private: &Path) -> Result<(), LayoutError> {
        Ok(())
    }

    /// As [`shell_like`].
    fn shell_like(&self, private: &Path, _area: &Path) -> Result<PathBuf, LayoutError> {
        Err(LayoutError::Damaged { path: private.to_owned(), reason: "it has no image".to_owned() })
    }

    /// As [`limited_by`].
    fn limited(&self, private: &Path) -> PathBuf {
        private.to_owned()
    }

    /// As [`leave`].
    fn leave(&self, _private: &Path) -> Option<OwnedFd> {
        None
    }
}

/// Makes a private area from a template; `progress` is told how far that is, where it takes time.
///
/// # Errors
/// [`LayoutError`]; what was begun stays, which the caller throws away.
pub fn create(layout: Layout, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
    layout.kind().create(new, progress)
}

/// Makes a private area without content; [`furnish`] then gives it some.
///
/// # Errors
/// As [`create`].
pub fn prepare(layout: Layout, empty: &Empty<'_>) -> Result<(), LayoutError> {
    layout.kind().prepare(empty)
}

/// The image that holds what the VE wrote, and limits it; `None` where its files lie in a directory.
///
/// # Errors
/// [`LayoutError::Damaged`], [`LayoutError::Image`].
pub fn image(layout: Layout, private: &Path) -> Result<Option<Image>, LayoutError> {
    layout.kind().image(private)
}

/// Whether an area is a tree of the host's file system, which limits it (`quota`): there is no image that does.
///
/// # Errors
/// As [`image`].
pub fn is_tree(layout: Layout, private: &Path) -> Result<bool, LayoutError> {
    Ok(image(layout, private)?.is_none())
}

/// Where in an area that is a tree of the host's file system the VE's own files are, if the kernel tells what changes there
/// ([`crate::changes`]).
///
/// # Errors
/// Why it does not.
pub fn tells(layout: Layout, private: &Path) -> Result<&'static str, String> {
    match layout {
        _ if image(layout, private).map_err(|error| error.to_string())?.is_some() => {
            Err("its files lie in an image".to_owned())
        }
        Layout::Overlay => overlay::tells_changes(private).map(|()| "upper"),
        Layout::Simfs => Ok(""),
        Layout::Ploop | Layout::Btrfs => Err(format!("its layout is {layout}")),
    }
}

/// The tree of an area whose limits the host's file system keeps: a subvolume, or the area itself.
#[must_use]
pub fn limited(private: &Path) -> PathBuf {
    if btrfs::is_there(private) { btrfs::tree(private) } else { private.to_owned() }
}

/// The same of an area in the making with this layout.
#[must_use]
pub fn limited_by(layout: Layout, private: &Path) -> PathBuf {
    layout.kind().limited(private)
}

/// Gives that image another size, as [`Image::resize`]. `None` where there is no image.
///
/// # Errors
/// As [`Image::resize`].
pub fn resize(
    layout: Layout,
    private: &Path,
    size: Size,
    blanks: &Path,
    mounts: Mounts,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Option<Resized>, LayoutError> {
    let Some(image) = image(layout, private)? else { return Ok(None) };
    let done = image.resize(size, blanks, mounts, tell)?;
    note_size(layout, private)?;
    Ok(Some(done))
}

/// Has what an area says of its image be as large as that is.
///
/// # Errors
/// As [`image`], or the file that cannot be written.
pub(crate) fn note_size(layout: Layout, private: &Path) -> Result<(), LayoutError> {
    layout.kind().note_size(private)
}

/// Makes a new area as one whose files lie in an image, without that image; returns where that belongs.
pub(crate) fn shell_like(layout: Layout, private: &Path, area: &Path) -> Result<PathBuf, LayoutError> {
    layout.kind().shell_like(private, area)
}

/// The template base below an overlay; `None` for a layout without one.
///
/// # Errors
/// [`LayoutError::Damaged`].
pub fn base_of(private: &Path) -> Result<Option<Record>, LayoutError> {
    if overlay::is_there(private) { overlay::Record::load(private).map(Some) } else { Ok(None) }
}

/// The layout of an area that no configuration tells of; `noted` says whether the host noted that this VE lies on top
/// of a base. A plain copy is the VE's own root, which may be made to look like anything: its own word is not
/// believed.
///
/// # Errors
/// [`LayoutError::Unsure`].
pub fn detect(private: &Path, noted: impl FnOnce(&str) -> bool) -> Result<Layout, LayoutError> {
    if base_of(private).ok().flatten().is_some_and(|record| noted(&record.base)) {
        return Ok(Layout::Overlay);
    }
    if btrfs::is_there(private) {
        return Ok(Layout::Btrfs);
    }
    Ok(if ploop::is_there(private)? { Layout::Ploop } else { Layout::Simfs })
}

/// What the host mounts with the ids of the disk gives nobody rights: set-uid programs and device nodes are
/// the VE's root's.
#[must_use]
pub fn for_the_host() -> Attr {
    Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV
}

/// Mounts a private area at `root` with the ids of its VE, or as it lies on disk (`None`). `how` is for one whose files
/// lie in an image.
///
/// # Errors
/// [`LayoutError`]; nothing stays mounted.
pub fn mount(
    layout: Layout,
    private: &Path,
    bases: &Path,
    root: &Path,
    ids: Option<IdRange>,
    attrs: Attr,
    how: &How,
) -> Result<MountGuard, LayoutError> {
    if !private.is_dir() {
        return Err(LayoutError::Missing { path: private.to_owned() });
    }
    let mounted = layout.kind().mount(Place { private, bases, how }, ids)?;
    let (set, clear) = how.attrs().unwrap_or_default();
    vzsys::raw::mount_attrs(mounted.as_fd(), u64::from(attrs.bits()) | set, clear)
        .and_then(|()| mounted.attach(root))
        .map_err(LayoutError::mount(root))?;
    Ok(MountGuard::new(root))
}

/// A private area as it lies on disk, mounted where nobody sees it.
///
/// # Errors
/// [`LayoutError`].
pub fn mount_hidden(layout: Layout, private: &Path, bases: &Path) -> Result<Detached, LayoutError> {
    let hidden = layout.kind().mount(Place { private, bases, how: &How::USUAL }, None)?;
    quiet(&hidden, private).map(|()| hidden)
}

/// Nothing in it is for the host to run or open.
fn quiet(hidden: &Detached, private: &Path) -> Result<(), LayoutError> {
    hidden.set_attrs(for_the_host()).map_err(LayoutError::mount(private))
}

/// Says that the mount of this area goes on ending for as long as the value lives, which may be in another
/// process; the next mount waits. `None` where ending takes no time.
#[must_use]
pub fn leave(layout: Layout, private: &Path) -> Option<OwnedFd> {
    layout.kind().leave(private)
}

/// Waits until an area that was unmounted holds all that was written into it.
///
/// # Errors
/// [`LayoutError::Image`] when it stays mounted.
pub fn idle(layout: Layout, private: &Path) -> Result<(), LayoutError> {
    layout.kind().wait_idle(private);
    match layout.kind().image(private)? {
        Some(image) => Ok(image.idle()?),
        None => Ok(()),
    }
}

/// Has all that was written into an image be in its file, where that may have no room: only now would anybody be told.
fn flush(layout: Layout, private: &Path) -> Result<(), LayoutError> {
    match image(layout, private)? {
        Some(image) => Ok(image.flush()?),
        None => Ok(()),
    }
}

/// Works in the tree of a private area that is being made and is thrown away if anything fails: what is
/// written need not have reached the disk before the area appears.
///
/// # Errors
/// [`LayoutError`], or what `work` returned.
pub fn furnish<T, E: From<LayoutError>>(
    layout: Layout,
    private: &Path,
    bases: &Path,
    work: impl FnOnce(&Detached) -> Result<T, E>,
) -> Result<T, E> {
    let tree = layout.kind().mount_new(Place { private, bases, how: &How::USUAL })?;
    let done = quiet(&tree, private).map_err(E::from).and_then(|()| work(&tree));
    let done = done.and_then(|done| flush(layout, private).map(|()| done).map_err(E::from));
    drop(tree);
    let finished = layout.kind().finish_new(private);
    let done = done?;
    finished?;
    Ok(done)
}
