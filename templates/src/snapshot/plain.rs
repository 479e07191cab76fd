//! Snapshots of plain directories: trees beside the private area.
//!
//! ```text
//! HOME/data/<id>/        a snapshot
//! HOME/data/<id>.part/   one in the making
//! HOME/next/             the tree that the VE is to have, while it is switched
//! HOME/switching         to which snapshot, and the inode number of that tree
//! ```

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use vzsys::mount::Detached;

use super::error::{Failed, Result};
use super::layers::sync_file_system;
use super::live::Places;
use super::{Area, Id, Keeper, SnapshotError, Target, Tree, read_plain, write_whole};
use crate::mirror::Mirror;

/// The layout `simfs`.
#[derive(Debug)]
pub(super) struct Plain<'a>(pub(super) Area<'a>);

const PART: &str = ".part";

/// Copies a tree that nobody changes.
pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    let mut mirror = Mirror::new(from, to).failed(what())?;
    mirror.compare(|_| {}).and_then(|()| mirror.finish()).failed(what())?;
    mirror.seal().failed(what())?;
    Ok(())
}

impl Plain<'_> {
    fn data(&self) -> PathBuf {
        self.0.home().join("data")
    }

    fn make_data(&self) -> Result<()> {
        let data = self.data();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).failed_at("make", &data)
    }

    fn tree(&self, id: Id) -> PathBuf {
        self.data().join(id.bare())
    }

    fn part(&self, id: Id) -> PathBuf {
        self.data().join(format!("{}{PART}", id.bare()))
    }

    fn existing(&self, id: Id) -> Result<PathBuf> {
        let path = self.tree(id);
        if path.is_dir() { Ok(path) } else { Err(SnapshotError::NoData { id, path }) }
    }

    /// Which switch is under way, if its tree has become the VE's.
    fn switched(&self) -> Option<Id> {
        let text = read_plain(&self.0.home().join("switching")).ok()?;
        let (id, inode) = text.trim().split_once(' ')?;
        let now = fs::symlink_metadata(self.0.private).ok()?.ino();
        (inode.parse() == Ok(now)).then(|| id.parse().ok())?
    }

    /// What a switch needed beside the tree goes.
    fn end_switch(&self) -> Result<()> {
        let home = self.0.home();
        self.0.discard(&home.join("next"))?;
        self.0.discard(&home.join("next.links"))?;
        let mark = home.join("switching");
        crate::removal::remove(&mark).failed_at("remove", &mark)
    }
}

impl Keeper for Plain<'_> {
    fn mend(&self, listed: &Tree) -> Result<Option<Id>> {
        let entries = fs::read_dir(self.data()).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let id: Option<Id> = name.to_str().and_then(|name| name.parse().ok());
            if id.is_none_or(|id| listed.get(id).is_none()) {
                self.0.discard(&entry.path())?;
            }
        }
        let switched = self.switched();
        if self.0.home().join("switching").exists() || self.0.home().join("next").exists() {
            self.end_switch()?;
        }
        Ok(switched)
    }

    fn take(&self, id: Id) -> Result<()> {
        self.make_data()?;
        copy(self.0.private, &self.part(id))?;
        self.sync()?;
        self.adopt(id)
    }

    fn written(&self) -> Result<(PathBuf, Option<Detached>)> {
        Ok((self.0.private.to_owned(), None))
    }

    fn copy_places(&self, id: Id) -> Result<Places> {
        self.make_data()?;
        Ok(Places::copy(self.0.private.to_owned(), self.part(id)))
    }

    fn adopt(&self, id: Id) -> Result<()> {
        let (part, tree) = (self.part(id), self.tree(id));
        fs::rename(&part, &tree).failed_at("rename", &part)
    }

    fn switch(&self, id: Id) -> Result<()> {
        let from = self.existing(id)?;
        let next = self.0.home().join("next");
        self.end_switch()?;
        copy(&from, &next)?;
        self.sync()?;
        let inode = fs::metadata(&next).failed_at("look at", &next)?.ino();
        write_whole(&self.0.home().join("switching"), format!("{} {inode}\n", id.bare()).as_bytes())?;
        vzsys::fault::point("snapshot-switch.copied");
        // COMMIT: the VE has the files of the snapshot.
        renameat_with(CWD, &next, CWD, self.0.private, RenameFlags::EXCHANGE)
            .map_err(std::io::Error::from)
            .failed_at("exchange the files of", self.0.private)?;
        vzsys::fault::point("snapshot-switch.exchanged");
        self.0.discard(&next)
    }

    fn stamp(&self) -> Result<u64> {
        super::inode(self.0.private)
    }

    fn remove(&self, id: Id, _current: Option<Id>) -> Result<()> {
        self.0.discard(&self.tree(id))
    }

    fn mount(&self, id: Id) -> Result<Detached> {
        let tree = self.existing(id)?;
        Detached::copy_of(&tree, false).failed_at("mount", &tree)
    }

    fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()> {
        let from = of.map_or_else(|| Ok(self.0.private.to_owned()), |id| self.existing(id))?;
        copy(&from, to.area)
    }

    fn clone_places(&self, to: Target<'_>) -> Result<Places> {
        Ok(Places::copy(self.0.private.to_owned(), to.area.to_owned()))
    }

    fn sync(&self) -> Result<()> {
        sync_file_system(&self.0.home())
    }
}
