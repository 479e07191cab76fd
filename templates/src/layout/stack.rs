//! What lies between the template of an overlay and its upper directory: layers that nobody writes to any more.
//!
//! ```text
//! PARENT/.layers/<id>/            a layer: an upper directory of some time
//! PARENT/.layers/<id>.refs/<CTID> who needs it
//! ```
//! `PARENT` is where the private area is, so that an upper directory becomes a layer by a rename, and clones of a VE
//! outlive it. An area that is a file system of its own has its layers inside, `PRIVATE/layers`: those cannot be
//! shared.
//!
//! The record of an area changes by one rename. When that says that the upper directory is to be a layer
//! ([`Stack::shelve`]), it is one for everybody from then on: [`settle`] does what is left to do, whoever comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vzconf::{Ctid, Exit};
use vzsys::{Call, SysError};

use super::LayoutError;
use super::merge;
use super::overlay::Record;
use super::remove::discard;

/// The part of an overlay's record that snapshots change. Layers are named from the top down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Those of the VE now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Those of each snapshot, by its id without braces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<String, Vec<String>>,
    /// The snapshot that the VE stands on, by its id without braces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The upper directory is to become this layer; nobody may use the area before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelve: Option<String>,
    /// All of a layer, which is in no list any more, is to be moved into another; nobody may use the area before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

/// A layer that becomes part of the one that was right below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Which.
    pub from: String,
    /// Part of which.
    pub into: String,
}

/// How many layers an overlay has at most, the template and the upper directory not counted: what Linux 6.1 can be told,
/// because a VE moves between kernels. (More from 6.8 on, and then 500.)
pub(crate) const MOST: usize = 60;

impl Stack {
    /// Nothing but the template lies below.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Every layer that the VE or one of its snapshots needs.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<String> {
        let layers = self.layers.iter().chain(self.snapshots.values().flatten());
        let merged = self.merge.iter().flat_map(|merge| [&merge.from, &merge.into]);
        layers.chain(&self.shelve).chain(merged).cloned().collect()
    }

    /// Two layers that all who have one of them have right above one another.
    pub(crate) fn twins(&self) -> Vec<Merge> {
        let lists: Vec<&Vec<String>> = std::iter::once(&self.layers).chain(self.snapshots.values()).collect();
        let mut twins: Vec<Merge> = Vec::new();
        for pair in lists.iter().flat_map(|list| list.windows(2)) {
            let (from, into) = (&pair[0], &pair[1]);
            let always = lists.iter().all(|list| {
                let above = list.iter().position(|layer| layer == from);
                let below = list.iter().position(|layer| layer == into);
                above.map(|at| at + 1) == below
            });
            let merge = Merge { from: from.clone(), into: into.clone() };
            if always && !twins.contains(&merge) {
                twins.push(merge);
            }
        }
        twins
    }

    /// The highest layer of the VE, if no snapshot has it.
    pub(crate) fn sole_top(&self) -> Option<&String> {
        let top = self.layers.first()?;
        (!self.snapshots.values().flatten().any(|layer| layer == top)).then_some(top)
    }

    /// Takes a layer out of all lists.
    pub(crate) fn drop_layer(&mut self, id: &str) {
        let lists = std::iter::once(&mut self.layers).chain(self.snapshots.values_mut());
        lists.for_each(|list| list.retain(|layer| layer != id));
    }

    /// A record may come with an area from elsewhere: its names must not lead out of the store.
    pub(super) fn is_sound(&self) -> bool {
        let fine = |name: &String| name.parse::<crate::snapshot::Id>().is_ok() && !name.starts_with('{');
        let names = self.layers.iter().chain(self.snapshots.values().flatten());
        let merged = self.merge.iter().flat_map(|merge| [&merge.from, &merge.into]);
        names.chain(self.snapshots.keys()).chain(&self.current).chain(&self.shelve).chain(merged).all(fine)
    }
}

/// Where the layers of an area are.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn of(private: &Path) -> Self {
        let private = fs::canonicalize(private).unwrap_or_else(|_| private.to_owned());
        let parent = private.parent().unwrap_or(Path::new("/"));
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        // One that is gone had them beside it.
        let other = device(&private).is_some_and(|own| Some(own) != device(parent));
        let apart = vzsys::mount::is_mount_point(&private) || other;
        Self { dir: if apart { private.join("layers") } else { parent.join(".layers") } }
    }

    /// Whether the layers of both are in the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.dir == other.dir
    }

    /// The tree of a layer.
    pub(crate) fn layer(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    fn refs(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.refs"))
    }

    /// Makes the store, if it is not there, and keeps others from counting references while the value lives.
    fn lock(&self) -> vzsys::Result<File> {
        let what = || self.dir.display().to_string();
        loop {
            // Its files are set-uid programs of VEs: nothing for the host's users.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
            made.call("mkdir", what)?;
            let Ok(dir) = File::open(&self.dir) else { continue };
            dir.lock().call("flock", what)?;
            // Whoever had it before may have removed it as empty.
            let same = |meta: fs::Metadata| dir.metadata().is_ok_and(|own| own.ino() == meta.ino());
            if fs::metadata(&self.dir).is_ok_and(same) {
                return Ok(dir);
            }
        }
    }

    /// Notes that a VE needs these layers: before its record says so.
    pub(crate) fn add_refs<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a String>,
        ctid: Ctid,
    ) -> vzsys::Result<()> {
        let lock = self.lock()?;
        for id in ids {
            let refs = self.refs(id);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&refs);
            made.call("mkdir", || refs.display().to_string())?;
            let path = refs.join(ctid.to_string());
            File::create(&path).call("open", || path.display().to_string())?;
        }
        lock.sync_all().call("fsync", || self.dir.display().to_string())
    }

    /// Whether no other VE needs this layer.
    pub(crate) fn is_only(&self, id: &str, ctid: Ctid) -> bool {
        let mut names =
            fs::read_dir(self.refs(id)).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.all(|name| name.to_str() == Some(&ctid.to_string()))
    }

    /// Takes back what a VE does not need any more, and throws away what nobody does. The rest of this store is
    /// others'. `trash` is as for [`discard`]; returned are the places to [`sweep`](super::sweep).
    pub(crate) fn keep_only(
        &self,
        needed: &BTreeSet<String>,
        ctid: Ctid,
        trash: &Path,
    ) -> Result<Vec<PathBuf>, LayoutError> {
        if !self.dir.is_dir() {
            return Ok(Vec::new());
        }
        let failed =
            || LayoutError::call(format!("cannot clean up {}", self.dir.display()), Exit::DeleteSnapshot);
        let _lock = self.lock().map_err(failed())?;
        let mut trashes = Vec::new();
        for id in self.referred(ctid) {
            if needed.contains(&id) {
                continue;
            }
            let refs = self.refs(&id);
            let path = refs.join(ctid.to_string());
            fs::remove_file(&path).call("unlink", || path.display().to_string()).map_err(failed())?;
            // Not empty: somebody else needs it.
            if fs::remove_dir(&refs).is_ok() {
                // (The second one is beside a copy that was not finished.)
                for tree in [self.layer(&id), self.layer(&format!("{id}.links"))] {
                    if tree.exists() {
                        trashes.push(discard(&tree, trash)?);
                    }
                }
            }
        }
        let _ = fs::remove_dir(&self.dir);
        Ok(trashes)
    }

    /// The layers that a VE has said it needs.
    fn referred(&self, ctid: Ctid) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| name.strip_suffix(".refs").map(str::to_owned));
        ids.filter(|id| self.refs(id).join(ctid.to_string()).exists()).collect()
    }
}

/// Reads the record of an area and does what it says is to be done. The caller holds the VE's lock, and the area is
/// not mounted.
///
/// # Errors
/// [`LayoutError`].
pub(crate) fn settle(private: &Path) -> Result<Record, LayoutError> {
    let mut record = Record::load(private)?;
    if let Some(layer) = record.stack.shelve.take() {
        shelve(private, &Store::of(private).layer(&layer)).map_err(LayoutError::call(
            format!("cannot put the upper directory of {} into its place", private.display()),
            Exit::FsCantMount,
        ))?;
        record.replace(private)?;
    }
    if let Some(pair) = record.stack.merge.take() {
        let store = Store::of(private);
        merge::merge(&store.layer(&pair.from), &store.layer(&pair.into)).map_err(LayoutError::call(
            format!("cannot merge two layers of {}", private.display()),
            Exit::MergeSnapshot,
        ))?;
        vzsys::fault::point("snapshot-delete.merged");
        record.replace(private)?;
    }
    Ok(record)
}

/// Makes the upper directory a layer and an empty one in its place. Any step may have been done before.
fn shelve(private: &Path, layer: &Path) -> vzsys::Result<()> {
    let (upper, next) = (private.join("upper"), private.join("upper.next"));
    if fs::symlink_metadata(layer).is_err() {
        empty_like(&upper, &next)?;
        fs::rename(&upper, layer).call("rename", || upper.display().to_string())?;
        vzsys::fault::point("snapshot.shelved");
    }
    if fs::symlink_metadata(&next).is_ok() {
        fs::rename(&next, &upper).call("rename", || next.display().to_string())?;
    }
    Ok(())
}

/// Whether a VE, which is not mounted, has written nothing since its upper directory was put upon its layers: what it is
/// they say alone.
pub(crate) fn is_untouched(private: &Path, stack: &Stack) -> vzsys::Result<bool> {
    let Some(top) = stack.layers.first() else { return Ok(false) };
    let (upper, top) = (private.join("upper"), Store::of(private).layer(top));
    let entries = fs::read_dir(&upper).call("open", || upper.display().to_string())?.count();
    let like = |path: &Path| -> vzsys::Result<_> {
        let of = fs::symlink_metadata(path).call("stat", || path.display().to_string())?;
        Ok((of.uid(), of.gid(), of.mode(), crate::mirror::plain_xattrs(path)?))
    };
    Ok(entries == 0 && like(&upper)? == like(&top)?)
}

/// An empty directory with the owner, mode and extended attributes of another: it is the top of the VE's root.
pub(super) fn empty_like(model: &Path, path: &Path) -> vzsys::Result<()> {
    let what = || path.display().to_string();
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(SysError::from_io("mkdir", what(), &error));
        }
        _ => {}
    }
    let top = fs::symlink_metadata(model).call("stat", || model.display().to_string())?;
    chown(path, Some(top.uid()), Some(top.gid())).call("chown", what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(top.mode() & 0o7777)).call("chmod", what)?;
    crate::mirror::copy_xattrs(model, path, crate::mirror::Which::Plain)
}
