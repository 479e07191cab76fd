//! Snapshots of private areas: what a VE's files were at some moment, kept, listed, gone back to, mounted, cloned.
//!
//! ```text
//! HOME/Snapshots.xml        which there are (OpenVZ's file)        HOME is PRIVATE; of simfs PRIVATE.snapshots,
//! HOME/dump/<id>.ve.conf    the configuration of that moment       because PRIVATE is the VE's own root
//! HOME/data/<id>/           simfs: the tree; btrfs: a subvolume
//! HOME/data/<id>.img        of an image
//! ```
//!
//! | | stopped | running |
//! |---|---|---|
//! | overlay | the upper directory becomes a layer, in no time | a copy of it becomes a layer |
//! | simfs | a copy of the tree, data shared where the file system can | the same |
//! | ploop, overlay in an image | a copy of the image, blocks shared where the file system can | a new image with a copy of the files |
//! | btrfs | a snapshot of the subvolume | the same |
//!
//! A live overlay cannot get another upper directory, so of a running VE a copy is taken ([`Live`]): while the VE runs,
//! then what changed meanwhile while it stands still, which takes as long as there is much of that.
//!
//! **Which file counts.** The data's own record (`layout.json` of an overlay) says where the VE stands and what there is;
//! `Snapshots.xml` is the list for people and for other programs. Each verb changes both by renames; who is killed
//! between them leaves a state that [`Snapshots::open`] mends: data that nobody lists are thrown away.

mod error;
mod id;
mod image;
mod layers;
mod live;
mod plain;
mod subvolume;
mod tree;
pub(crate) mod xml;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use vzconf::Ctid;
use vzsys::fault;
use vzsys::mount::Detached;

use crate::layout::Layout;
use crate::small_file;
pub use error::SnapshotError;
pub use id::{BadId, Id};
pub use live::{Frozen, Live, Point};
pub use subvolume::View;
pub use tree::{Item, Tree, TreeError};

use error::{Failed, Result};
use live::Places;

/// A list of so many bytes is none of ours.
const LIST_MAX: u64 = 16 << 20;
const LIST: &str = "Snapshots.xml";

/// Whose snapshots, and where. The caller holds the VE's lock for whatever changes anything.
#[derive(Debug, Clone, Copy)]
pub struct Area<'a> {
    /// The private area.
    pub private: &'a Path,
    /// How it is laid out.
    pub layout: Layout,
    /// Whose it is.
    pub ctid: Ctid,
    /// `TEMPLATE/base`.
    pub bases: &'a Path,
    /// Where trees wait for their deletion, such as `/vz/vztmp`.
    pub trash: &'a Path,
    /// Where empty images are kept until the next reboot.
    pub blanks: &'a Path,
}

/// How a layout keeps the data of snapshots. Each call changes the area by one step that counts; whatever a killed
/// call leaves, [`Keeper::mend`] removes or ends.
trait Keeper {
    /// Ends or undoes what a killed verb had begun. `listed` are the snapshots there are; the current one is
    /// returned where the data know it.
    fn mend(&self, listed: &Tree) -> Result<Option<Id>>;

    /// Keeps the files of a stopped VE.
    fn take(&self, id: Id) -> Result<()>;

    /// Where what a running VE writes lies, and what holds that.
    fn written(&self) -> Result<(PathBuf, Option<Detached>)>;

    /// Where the files of a running VE lie that a copy is taken of, and where the copy goes.
    fn copy_places(&self, id: Id) -> Result<Places>;

    /// The copy is whole: it is the data of this snapshot.
    fn adopt(&self, id: Id) -> Result<()>;

    /// The VE's files are those of this snapshot from now on; what they were is thrown away.
    fn switch(&self, id: Id) -> Result<()>;

    /// See [`Snapshots::stamp`].
    fn stamp(&self) -> Result<u64>;

    /// Throws the data away, as far as nobody else needs them. `current` is where the VE stands then.
    fn remove(&self, id: Id, current: Option<Id>) -> Result<()>;

    /// Makes one of what need not be apart any more; returns how often. The VE is stopped, and nobody reads its files.
    fn merge(&self) -> Result<u64> {
        Ok(0)
    }

    /// The files of a snapshot, to be read only.
    fn mount(&self, id: Id) -> Result<Detached>;

    /// Whether changes of the files of a running VE are told where they lie.
    fn tells(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Makes a new area from a snapshot, or from what the stopped VE is (`None`).
    fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()>;

    /// Where the files of a running VE are copied from and to, for a new area.
    fn clone_places(&self, to: Target<'_>) -> Result<Places>;

    /// Makes the new area, now that the copy is whole.
    fn clone_copied(&self, _to: Target<'_>) -> Result<()> {
        Ok(())
    }

    /// The disk has what was written until now.
    fn sync(&self) -> Result<()>;
}

/// A private area that is to be made from another one.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Where: it does not exist yet, its parent does. What a failure leaves the caller throws away, and says
    /// [`Area::forget`].
    pub area: &'a Path,
    /// For whom.
    pub ctid: Ctid,
    /// A new id, for what may be needed between the two.
    pub id: Id,
}

impl<'a> Area<'a> {
    fn keeper(self) -> Box<dyn Keeper + 'a> {
        match self.layout {
            _ if image::is_one(&self) => Box::new(image::Whole(self)),
            Layout::Overlay | Layout::Ploop => Box::new(layers::Layers(self)),
            Layout::Simfs => Box::new(plain::Plain(self)),
            Layout::Btrfs => Box::new(subvolume::Subvolumes(self)),
        }
    }

    /// Where the list is, and what belongs to it.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        match self.layout {
            // The VE must not write its own list.
            Layout::Simfs => {
                let mut path = self.private.as_os_str().to_owned();
                path.push(".snapshots");
                PathBuf::from(path)
            }
            Layout::Overlay | Layout::Ploop | Layout::Btrfs => self.private.to_owned(),
        }
    }

    fn list(&self) -> PathBuf {
        self.home().join(LIST)
    }

    /// Where the configuration of a snapshot is kept.
    #[must_use]
    pub fn conf(&self, id: Id) -> PathBuf {
        self.home().join("dump").join(format!("{id}.ve.conf"))
    }

    /// Where the memory of a snapshot is kept, if it has any.
    #[must_use]
    pub fn dump(&self, id: Id) -> PathBuf {
        self.home().join("dump").join(id.to_string())
    }

    fn sweep(places: Vec<PathBuf>) {
        for place in places {
            vzsys::spawn::in_background(|| crate::layout::sweep(&place));
        }
    }

    fn discard(&self, path: &Path) -> Result<()> {
        if fs::symlink_metadata(path).is_ok() {
            Self::sweep(vec![crate::layout::discard(path, self.trash)?]);
        }
        Ok(())
    }

    /// Everything beside the private area that belongs to its snapshots goes: the VE is destroyed. The private area
    /// itself is the caller's.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn forget(&self) -> Result<()> {
        match self.layout {
            Layout::Simfs => self.discard(&self.home()),
            Layout::Btrfs => Ok(()),
            Layout::Overlay | Layout::Ploop => {
                let nothing = std::collections::BTreeSet::new();
                let store = crate::layout::stack::Store::of(self.private);
                Self::sweep(store.keep_only(&nothing, self.ctid, self.trash)?);
                Ok(())
            }
        }
    }
}

/// The snapshots of a VE.
#[derive(Debug)]
pub struct Snapshots<'a> {
    area: Area<'a>,
    tree: Tree,
}

/// Where what a running VE writes lies.
#[derive(Debug)]
pub struct Written {
    /// A directory of the host; there as long as the value lives.
    pub path: PathBuf,
    /// Why changes are not told there, if that is known.
    pub tells: std::result::Result<(), String>,
    _held: Option<Detached>,
}

/// What a new snapshot is to be called.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// Its id.
    pub id: Id,
    /// Its name; may be empty.
    pub name: &'a str,
    /// What it is for; may be empty.
    pub description: &'a str,
    /// `YYYY-MM-DD HH:MM:SS`.
    pub date: &'a str,
}

impl<'a> Snapshots<'a> {
    /// Reads the list, and changes nothing. No list is an empty one.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`].
    pub fn read(area: Area<'a>) -> Result<Self> {
        let path = area.list();
        let tree = match read_plain(&path) {
            Ok(text) => xml::parse(&text).map_err(|reason| SnapshotError::Damaged { path, reason })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Tree::default(),
            Err(error) => return Err(SnapshotError::Damaged { path, reason: error.to_string() }),
        };
        Ok(Self { area, tree })
    }

    /// Reads the list, and mends what a killed verb left.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(area: Area<'a>) -> Result<Self> {
        let mut all = Self::read(area)?;
        if let Some(current) = all.keeper().mend(&all.tree)?
            && all.tree.current() != Some(current)
            && all.tree.switch(current).is_ok()
        {
            all.save()?;
        }
        all.drop_orphans()?;
        Ok(all)
    }

    /// The list.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Where they are.
    #[must_use]
    pub fn area(&self) -> Area<'a> {
        self.area
    }

    fn keeper(&self) -> Box<dyn Keeper + 'a> {
        self.area.keeper()
    }

    /// Whether a snapshot may be called so.
    ///
    /// # Errors
    /// [`SnapshotError::Tree`].
    pub fn check(&self, label: Label<'_>) -> Result<()> {
        Ok(self.tree.check(label.id, label.name, label.description)?)
    }

    /// Keeps the files of a stopped VE, and its configuration if that is given.
    ///
    /// # Errors
    /// [`SnapshotError`]; then there is no such snapshot.
    pub fn take(&mut self, label: Label<'_>, conf: Option<&[u8]>) -> Result<()> {
        self.check(label)?;
        self.prepare(label.id, conf)?;
        fault::point("snapshot.prepared");
        self.keeper().take(label.id)?;
        fault::point("snapshot.taken");
        self.commit(label)
    }

    /// Begins to take the files of a running VE.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin(&self, label: Label<'_>, conf: Option<&[u8]>) -> Result<Live> {
        self.check(label)?;
        self.prepare(label.id, conf)?;
        let places = self.keeper().copy_places(label.id)?;
        fault::point("snapshot.begun");
        Live::begin(places, self.keeper().tells())
    }

    /// What was taken of a running VE is this snapshot. The VE may go on before.
    ///
    /// # Errors
    /// [`SnapshotError`]; then there is no such snapshot.
    pub fn keep(&mut self, live: Frozen, label: Label<'_>) -> Result<()> {
        live.seal()?;
        self.keeper().sync()?;
        fault::point("snapshot.copied");
        self.keeper().adopt(label.id)?;
        fault::point("snapshot.adopted");
        self.commit(label)
    }

    /// Makes a new area from a snapshot, or from what the stopped VE is now (`None`). What can be shared is.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()> {
        if let Some(id) = of {
            self.tree.get(id).ok_or(TreeError::Missing(id))?;
        }
        self.keeper().clone_kept(of, to)
    }

    /// Begins to make a new area from a running VE.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin_clone(&self, to: Target<'_>) -> Result<Live> {
        let keeper = self.keeper();
        Live::begin(keeper.clone_places(to)?, keeper.tells())
    }

    /// Makes it, with what was taken.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn finish_clone(&self, live: Frozen, to: Target<'_>) -> Result<()> {
        live.seal()?;
        self.keeper().clone_copied(to)
    }

    /// Where what the running VE writes lies, for somebody who wants to be told of it. Changes nothing, and needs no lock.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn written(&self) -> Result<Written> {
        let keeper = self.keeper();
        let (path, held) = keeper.written()?;
        Ok(Written { path, tells: keeper.tells(), _held: held })
    }

    /// Begins to take the files of a running VE for somebody who only reads them for a while. `None` where that is not
    /// done in one step.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin_view(&self, id: Id) -> Result<Option<Live>> {
        match self.area.layout {
            Layout::Btrfs => subvolume::Subvolumes(self.area)
                .view_place(id)
                .and_then(|place| Live::begin(place, Ok(())).map(Some)),
            Layout::Overlay | Layout::Simfs | Layout::Ploop => Ok(None),
        }
    }

    /// What was taken, to be read only; it is in no list, and goes when it is dropped.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn finish_view(&self, live: Frozen, id: Id) -> Result<View> {
        live.seal()?;
        subvolume::Subvolumes(self.area).view(id)
    }

    /// Removes what a failed snapshot left.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn give_up(self) -> Result<()> {
        Self::open(self.area).map(drop)
    }

    /// The files of the VE are those of a snapshot from now on. It is stopped and not mounted.
    ///
    /// # Errors
    /// [`SnapshotError`]; then nothing has changed.
    pub fn switch(&mut self, id: Id) -> Result<()> {
        self.tree.get(id).ok_or(TreeError::Missing(id))?;
        self.keeper().switch(id)?;
        fault::point("snapshot-switch.switched");
        self.tree.switch(id)?;
        self.save()
    }

    /// Deletes a snapshot. What grew out of it stays as it is.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn remove(&mut self, id: Id) -> Result<()> {
        self.tree.remove(id)?;
        // COMMIT: nobody finds it any more.
        self.save()?;
        fault::point("snapshot-delete.unlisted");
        self.keeper().remove(id, self.tree.current())?;
        fault::point("snapshot-delete.removed");
        self.drop_orphans()
    }

    /// A number of what the files of the stopped VE are: another one after a switch, and at no other time but by a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn stamp(&self) -> Result<u64> {
        self.keeper().stamp()
    }

    /// Notes a switch that was killed after the VE had the files of the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn note_switch(&mut self, id: Id) -> Result<()> {
        if self.tree.current() == Some(id) {
            return Ok(());
        }
        self.tree.switch(id)?;
        self.save()
    }

    /// Makes one layer of two that are needed together only: what the upper one hides of the lower one is free then. The VE
    /// is stopped and not mounted, nor is any of its snapshots, and nobody reads its files. Returns how many layers less
    /// there are.
    ///
    /// # Errors
    /// [`SnapshotError`]; the next verb goes on with it.
    pub fn merge(&self) -> Result<u64> {
        self.keeper().merge()
    }

    /// The files of a snapshot, to be read only, mounted where nobody sees them.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn mount(&self, id: Id) -> Result<Detached> {
        self.tree.get(id).ok_or(TreeError::Missing(id))?;
        let mount = self.keeper().mount(id)?;
        read_only(&mount).map(|()| mount)
    }

    /// The configuration of a snapshot, as it was kept.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`]; one that was taken without it has `None`.
    pub fn conf(&self, id: Id) -> Result<Option<String>> {
        let path = self.area.conf(id);
        match read_plain(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SnapshotError::Damaged { path, reason: error.to_string() }),
        }
    }

    fn prepare(&self, id: Id, conf: Option<&[u8]>) -> Result<()> {
        let home = self.area.home();
        let make = |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make(&home).failed_at("make", &home)?;
        let Some(conf) = conf else { return Ok(()) };
        let dir = home.join("dump");
        make(&dir).failed_at("make", &dir)?;
        write_whole(&self.area.conf(id), conf)
    }

    fn commit(&mut self, label: Label<'_>) -> Result<()> {
        self.tree.add(label.id, label.name, label.description, label.date)?;
        // COMMIT: it is listed.
        self.save()?;
        fault::point("snapshot.listed");
        Ok(())
    }

    fn save(&self) -> Result<()> {
        write_whole(&self.area.list(), xml::render(&self.tree).as_bytes())
    }

    /// Removes configurations and memory of snapshots that are not listed.
    fn drop_orphans(&self) -> Result<()> {
        let dir = self.area.home().join("dump");
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let word = name.split_inclusive('}').next().unwrap_or_default();
            if word.parse::<Id>().is_ok_and(|id| self.tree.get(id).is_none()) {
                crate::removal::remove(&entry.path()).failed_at("remove", &entry.path())?;
            }
        }
        Ok(())
    }
}

/// Nothing in it is for the host to run, open or change.
fn read_only(mount: &Detached) -> Result<()> {
    let attrs = crate::layout::for_the_host() | vzsys::mount::Attr::MOUNT_ATTR_RDONLY;
    vzsys::raw::mount_attrs(mount.as_fd(), u64::from(attrs.bits()), 0).failed("mount the snapshot")
}

/// An area may come from elsewhere, and so anything that is read in it.
fn read_plain(path: &Path) -> std::io::Result<String> {
    let bytes = small_file::read(CWD, path, LIST_MAX)?;
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Writes a file: whole or not at all, and on the disk.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".snapshot.").tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(dir)?.sync_all()
    };
    write().failed_at("write", path)
}

/// The number of an inode that a switch replaces.
fn inode(path: &Path) -> Result<u64> {
    fs::symlink_metadata(path)
        .map(|meta| std::os::unix::fs::MetadataExt::ino(&meta))
        .failed_at("look at", path)
}

#[cfg(test)]
mod tests;
