//! Private areas: where a VE's own files lie, and how they become its root.
//!
//! ```text
//! overlay   PRIVATE/layout.json   which template base lies below
//!           PRIVATE/upper/        what the VE changed
//!           PRIVATE/work/         overlayfs' own
//! simfs     PRIVATE/              the tree itself
//! ```
//!
//! Files lie on disk with the VE's own ids (its root is 0); mounting for a VE maps them to its range.

mod overlay;
mod remove;
mod simfs;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use vzconf::Exit;
use vzsys::SysError;
use vzsys::idmap::{self, IdRange};
use vzsys::mount::{Attr, Detached, MountGuard};

pub use overlay::Record;
use overlay::Sync;
pub use remove::{discard, sweep};

/// How a private area is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// An overlay over the unpacked template, which all its VEs share.
    Overlay,
    /// A plain directory with a copy of the template.
    Simfs,
}

impl Layout {
    /// The word in `VE_LAYOUT`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Simfs => "simfs",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// `VE_LAYOUT` names something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout '{0}' (known: auto, overlay, simfs)")]
pub struct UnknownLayout(String);

/// A wish for a layout: one of them, or the best that the file system allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// `auto`.
    Auto,
    /// This one.
    Only(Layout),
}

impl FromStr for Wish {
    type Err = UnknownLayout;

    fn from_str(word: &str) -> Result<Self, UnknownLayout> {
        match word {
            "auto" => Ok(Self::Auto),
            "overlay" => Ok(Self::Only(Layout::Overlay)),
            "simfs" => Ok(Self::Only(Layout::Simfs)),
            other => Err(UnknownLayout(other.to_owned())),
        }
    }
}

/// A private area could not be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Nothing is there.
    #[error("private area {path} does not exist")]
    Missing {
        /// The private area.
        path: PathBuf,
    },
    /// The file system cannot map ids.
    #[error(
        "the file system of {path} cannot be mounted with mapped ids (kernel 5.12 and ext4, xfs or btrfs can)"
    )]
    NoIdmap {
        /// The private area.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// `layout.json` is damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A system call failed.
    #[error("{what}")]
    Call {
        /// What was being done.
        what: String,
        /// The call.
        #[source]
        source: SysError,
        /// What vzctl's exit code says.
        exit: Exit,
    },
}

impl LayoutError {
    /// vzctl's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } => Exit::FsNoPrvt,
            Self::NoIdmap { .. } | Self::Damaged { .. } => Exit::FsCantMount,
            Self::Call { source, .. } if source.errno() == Errno::NOSPC => Exit::FsNoDiskSpace,
            Self::Call { exit, .. } => *exit,
        }
    }

    fn call(what: impl Into<String>, exit: Exit) -> impl FnOnce(SysError) -> Self {
        let what = what.into();
        move |source| Self::Call { what, source, exit }
    }

    fn mount(root: &Path) -> impl FnOnce(SysError) -> Self {
        Self::call(format!("cannot mount {}", root.display()), Exit::FsCantMount)
    }
}

/// Picks the layout for a new private area below `parent`: overlay where the file system can carry
/// one, else a plain directory. That is tried once for each file system: `memory` is a file that is gone
/// after a reboot. The second value says why, for `--verbose`.
#[must_use]
pub fn choose(wish: Wish, parent: &Path, memory: &Path) -> (Layout, String) {
    match wish {
        Wish::Only(layout) => (layout, format!("layout {layout}, as asked for")),
        Wish::Auto => match overlay::supported_as_remembered(parent, memory) {
            Ok(()) => (Layout::Overlay, "layout overlay: the template's files are shared".to_owned()),
            Err(error) => {
                let why = format!("layout simfs: {} cannot carry an overlay ({error})", parent.display());
                (Layout::Simfs, why)
            }
        },
    }
}

/// Prepares `area`, an existing empty directory, as an overlay over the template base `id`.
///
/// # Errors
/// [`LayoutError::Call`]; what was begun stays in `area`, which the caller throws away.
pub fn create_overlay(area: &Path, base: &Path, id: &str) -> Result<(), LayoutError> {
    overlay::create(area, base, id)
}

/// The template base below an overlay; `None` for a layout without one.
///
/// # Errors
/// [`LayoutError::Damaged`].
pub fn base_of(private: &Path) -> Result<Option<Record>, LayoutError> {
    if overlay::is_there(private) { overlay::Record::load(private).map(Some) } else { Ok(None) }
}

/// What the host mounts with the ids of the disk gives nobody rights: set-uid programs and device nodes are
/// the VE's root's.
#[must_use]
pub fn for_the_host() -> Attr {
    Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV
}

/// Mounts a private area at `root` with the ids of its VE, or as it lies on disk (`None`).
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
) -> Result<MountGuard, LayoutError> {
    if !private.is_dir() {
        return Err(LayoutError::Missing { path: private.to_owned() });
    }
    let mounted = match layout {
        Layout::Overlay => overlay::mount(private, bases, ids, Sync::Kept)?,
        Layout::Simfs => simfs::mount(private, ids)?,
    };
    mounted.set_attrs(attrs).and_then(|()| mounted.attach(root)).map_err(LayoutError::mount(root))?;
    Ok(MountGuard::new(root))
}

/// A private area as it lies on disk, mounted where nobody sees it.
///
/// # Errors
/// [`LayoutError`].
pub fn mount_hidden(layout: Layout, private: &Path, bases: &Path) -> Result<Detached, LayoutError> {
    let hidden = match layout {
        Layout::Overlay => overlay::mount(private, bases, None, Sync::Kept)?,
        Layout::Simfs => simfs::mount(private, None)?,
    };
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
    match layout {
        Layout::Overlay => overlay::in_use(private, FlockOperation::LockExclusive),
        Layout::Simfs => None,
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
    match layout {
        Layout::Overlay => {
            let tree = overlay::mount(private, bases, None, Sync::Left)?;
            let done = quiet(&tree, private).map_err(E::from).and_then(|()| work(&tree));
            drop(tree);
            overlay::forget_volatile(private)?;
            done
        }
        Layout::Simfs => work(&mount_hidden(layout, private, bases)?),
    }
}

/// The ids of a VE in the form that mounts take them: a user namespace, made once for all layers.
struct Mapping(Option<OwnedFd>);

impl Mapping {
    fn of(ids: Option<IdRange>, private: &Path) -> Result<Self, LayoutError> {
        let namespace = ids.map(|ids| ids.user_namespace()).transpose();
        namespace.map(Self).map_err(LayoutError::mount(private))
    }

    /// A copy of the mount at `path`, ids mapped where the VE has its own.
    fn layer(&self, path: &Path) -> Result<Detached, LayoutError> {
        let layer = Detached::copy_of(path, false).map_err(LayoutError::mount(path))?;
        if let Some(namespace) = &self.0 {
            layer.idmap(namespace.as_fd()).map_err(|source| {
                if idmap::unsupported(&source) {
                    LayoutError::NoIdmap { path: path.to_owned(), source }
                } else {
                    LayoutError::mount(path)(source)
                }
            })?;
        }
        Ok(layer)
    }
}
