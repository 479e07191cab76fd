//! Snapshots of overlays: lists of layers.

use vzsys::mount::Detached;

use super::error::{Failed, Result};
use super::live::Places;
use super::{Area, Id, Keeper, SnapshotError, Target, Tree, plain};
use crate::layout::merge;
use crate::layout::overlay::{self, Record};
use crate::layout::stack::{self, Merge, Store};

/// The layout `overlay`.
#[derive(Debug)]
pub(super) struct Layers<'a>(pub(super) Area<'a>);

impl Layers<'_> {
    fn store(&self) -> Store {
        Store::of(self.0.private)
    }

    /// Says that a layer will be needed, before anything else says so.
    fn announce(&self, id: Id) -> Result<String> {
        let layer = id.bare();
        self.store().add_refs([&layer], self.0.ctid).failed("note a layer")?;
        Ok(layer)
    }

    /// Whether one more layer is possible.
    fn check_depth(&self, record: &Record) -> Result<()> {
        let path = || self.0.private.to_owned();
        if record.stack.layers.len() < stack::MOST {
            Ok(())
        } else {
            Err(SnapshotError::TooDeep { path: path() })
        }
    }

    fn save(&self, record: &Record) -> Result<()> {
        Ok(record.replace(self.0.private)?)
    }

    /// Layers that nobody needs go.
    fn clean(&self, record: &Record) -> Result<()> {
        let trashes = self.store().keep_only(&record.stack.needed(), self.0.ctid, self.0.trash)?;
        Area::sweep(trashes);
        Ok(())
    }

    fn layers_of(&self, record: &Record, id: Id) -> Result<Vec<String>> {
        let missing = || SnapshotError::NoData { id, path: self.0.private.to_owned() };
        record.stack.snapshots.get(&id.bare()).cloned().ok_or_else(missing)
    }
}

impl Layers<'_> {
    /// The next two layers that can be one. `tried` are those that cannot.
    fn next_merge(&self, record: &Record, tried: &mut Vec<Merge>) -> Result<Option<Merge>> {
        let store = self.store();
        let is_own = |id: &String| store.is_only(id, self.0.ctid);
        for pair in record.stack.twins() {
            if tried.contains(&pair) || !is_own(&pair.from) || !is_own(&pair.into) {
                continue;
            }
            if self.can_merge(&store.layer(&pair.from), &store.layer(&pair.into))? {
                return Ok(Some(pair));
            }
            tried.push(pair);
        }
        Ok(None)
    }

    fn can_merge(&self, from: &std::path::Path, into: &std::path::Path) -> Result<bool> {
        merge::is_possible(from, into).map_err(|source| SnapshotError::Call {
            what: format!("look at the layers of {}", self.0.private.display()),
            source,
        })
    }

    /// What the VE has written since becomes part of its highest layer, which nobody else has.
    fn merge_upper(&self, record: &mut Record) -> Result<u64> {
        let upper = self.0.private.join("upper");
        let is_empty = std::fs::read_dir(&upper).failed_at("open", &upper)?.next().is_none();
        let Some(top) = record.stack.sole_top().filter(|_| !is_empty).cloned() else { return Ok(0) };
        if !self.store().is_only(&top, self.0.ctid) || !self.can_merge(&upper, &self.store().layer(&top))? {
            return Ok(0);
        }
        let from = self.announce(Id::random().failed("make an id")?)?;
        record.stack.shelve = Some(from.clone());
        record.stack.merge = Some(Merge { from, into: top });
        self.settle_merge(record)?;
        Ok(1)
    }

    fn settle_merge(&self, record: &mut Record) -> Result<()> {
        // COMMIT: from now on they are one; whoever comes next ends it.
        self.save(record)?;
        vzsys::fault::point("snapshot-delete.merging");
        *record = stack::settle(self.0.private)?;
        self.clean(record)
    }

    /// Makes an area with these layers, which it shares where both have them in the same place.
    fn clone_with(&self, record: &Record, layers: &[String], to: Target<'_>) -> Result<()> {
        let (own, other) = (self.store(), Store::of(to.area));
        let mut all = Vec::new();
        for layer in layers {
            // One of its own, or one that both can reach.
            if own.is(&other) || other.layer(layer).exists() {
                all.push(layer.clone());
                continue;
            }
            let copy = Id::random().failed("make an id")?.bare();
            other.add_refs([&copy], to.ctid).failed("note a layer")?;
            plain::copy(&own.layer(layer), &other.layer(&copy))?;
            all.push(copy);
        }
        other.add_refs(&all, to.ctid).failed("note the layers")?;
        vzsys::fault::point("clone.noted");
        let top = match all.first() {
            Some(top) => other.layer(top),
            None => self.0.bases.join(&record.base),
        };
        Ok(overlay::create_above(to.area, record, all, &top)?)
    }
}

impl Keeper for Layers<'_> {
    fn mend(&self, listed: &Tree) -> Result<Option<Id>> {
        // (Of a mounted area nothing is left to do.)
        let mut record = stack::settle(self.0.private)?;
        let before = record.clone();
        let is_listed = |id: &String| id.parse().is_ok_and(|id| listed.get(id).is_some());
        record.stack.snapshots.retain(|id, _| is_listed(id));
        if !record.stack.current.as_ref().is_some_and(is_listed) {
            record.stack.current = listed.current().map(Id::bare);
        }
        if record != before {
            self.save(&record)?;
        }
        self.clean(&record)?;
        Ok(record.stack.current.and_then(|id| id.parse().ok()))
    }

    fn take(&self, id: Id) -> Result<()> {
        let mut record = stack::settle(self.0.private)?;
        self.check_depth(&record)?;
        let layer = self.announce(id)?;
        record.stack.layers.insert(0, layer.clone());
        record.stack.snapshots.insert(layer.clone(), record.stack.layers.clone());
        record.stack.current = Some(layer.clone());
        record.stack.shelve = Some(layer);
        self.save(&record)?;
        vzsys::fault::point("snapshot.recorded");
        stack::settle(self.0.private)?;
        Ok(())
    }

    fn written(&self) -> Result<(std::path::PathBuf, Option<Detached>)> {
        Ok((self.0.private.join("upper"), None))
    }

    fn copy_places(&self, id: Id) -> Result<Places> {
        self.check_depth(&Record::load(self.0.private)?)?;
        let layer = self.announce(id)?;
        Ok(Places::copy(self.0.private.join("upper"), self.store().layer(&layer)))
    }

    fn adopt(&self, id: Id) -> Result<()> {
        let mut record = Record::load(self.0.private)?;
        let layers = std::iter::once(id.bare()).chain(record.stack.layers.iter().cloned()).collect();
        record.stack.snapshots.insert(id.bare(), layers);
        record.stack.current = Some(id.bare());
        self.save(&record)
    }

    fn switch(&self, id: Id) -> Result<()> {
        let mut record = stack::settle(self.0.private)?;
        record.stack.layers = self.layers_of(&record, id)?;
        record.stack.current = Some(id.bare());
        // What the VE has written since becomes a layer that nobody needs.
        let dropped = self.announce(Id::random().failed("make an id")?)?;
        record.stack.shelve = Some(dropped);
        // COMMIT: the VE stands on the snapshot.
        self.save(&record)?;
        vzsys::fault::point("snapshot-switch.recorded");
        let record = stack::settle(self.0.private)?;
        self.clean(&record)
    }

    fn stamp(&self) -> Result<u64> {
        // One that is to become a layer does so first.
        stack::settle(self.0.private)?;
        super::inode(&self.0.private.join("upper"))
    }

    fn remove(&self, id: Id, current: Option<Id>) -> Result<()> {
        let mut record = Record::load(self.0.private)?;
        record.stack.snapshots.remove(&id.bare());
        record.stack.current = current.map(Id::bare);
        self.save(&record)?;
        self.clean(&record)
    }

    fn merge(&self) -> Result<u64> {
        let mut record = stack::settle(self.0.private)?;
        let (mut merged, mut tried) = (0, Vec::new());
        while let Some(pair) = self.next_merge(&record, &mut tried)? {
            record.stack.drop_layer(&pair.from);
            record.stack.merge = Some(pair);
            self.settle_merge(&mut record)?;
            merged += 1;
        }
        Ok(merged + self.merge_upper(&mut record)?)
    }

    fn mount(&self, id: Id) -> Result<Detached> {
        let record = Record::load(self.0.private)?;
        let layers = self.layers_of(&record, id)?;
        Ok(overlay::mount_layers(self.0.private, self.0.bases, &layers, None)?)
    }

    fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()> {
        let mut record = stack::settle(self.0.private)?;
        if let Some(id) = of {
            return self.clone_with(&record, &self.layers_of(&record, id)?, to);
        }
        if stack::is_untouched(self.0.private, &record.stack).failed_at("compare", self.0.private)? {
            return self.clone_with(&record, &record.stack.layers, to);
        }
        self.check_depth(&record)?;
        // What the VE has written until now becomes a layer of both.
        let layer = self.announce(to.id)?;
        record.stack.layers.insert(0, layer.clone());
        record.stack.shelve = Some(layer);
        self.save(&record)?;
        vzsys::fault::point("clone.shelved");
        let record = stack::settle(self.0.private)?;
        self.clone_with(&record, &record.stack.layers, to)
    }

    fn clone_places(&self, to: Target<'_>) -> Result<Places> {
        self.check_depth(&Record::load(self.0.private)?)?;
        let (layer, store) = (to.id.bare(), Store::of(to.area));
        store.add_refs([&layer], to.ctid).failed("note a layer")?;
        Ok(Places::copy(self.0.private.join("upper"), store.layer(&layer)))
    }

    fn clone_copied(&self, to: Target<'_>) -> Result<()> {
        let record = Record::load(self.0.private)?;
        let layers: Vec<String> =
            std::iter::once(to.id.bare()).chain(record.stack.layers.iter().cloned()).collect();
        self.clone_with(&record, &layers, to)
    }

    fn tells(&self) -> std::result::Result<(), String> {
        overlay::tells_changes(self.0.private)
    }

    fn sync(&self) -> Result<()> {
        sync_file_system(self.0.private)
    }
}

/// Waits until the disk has what was written to it.
pub(super) fn sync_file_system(path: &std::path::Path) -> Result<()> {
    let dir = std::fs::File::open(path).failed_at("open", path)?;
    rustix::fs::syncfs(&dir).map_err(std::io::Error::from).failed_at("sync the file system of", path)
}
