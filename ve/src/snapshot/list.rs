//! `vzctl snapshot-list`.

use std::path::PathBuf;

use templates::snapshot::{Id, Item, Snapshots};
use vzconf::Exit;

use super::{Place, failed, known, shown};
use crate::error::Result;
use crate::node::Ve;

/// One snapshot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The snapshot.
    pub item: Item,
    /// The VE stands on it.
    pub current: bool,
    /// Where it is mounted.
    pub target: Option<PathBuf>,
    /// The file system that is mounted there.
    pub device: Option<String>,
}

/// The snapshots of a VE: all, or one with all that it grew out of. Changes nothing, and takes no lock.
///
/// # Errors
/// 167.
pub fn list(ve: &Ve<'_>, of: Option<Id>) -> Result<Vec<Listed>> {
    let place = Place::of(ve)?;
    let all = Snapshots::read(place.area(ve)).map_err(failed(Exit::ListSnapshot))?;
    let tree = all.tree();
    let items: Vec<&Item> = match of {
        Some(id) => {
            known(&all, id, Exit::ListSnapshot)?;
            tree.chain(id)
        }
        None => tree.items().iter().collect(),
    };
    let listed = items.into_iter().map(|item| {
        let target = shown::target(ve, item.id);
        Listed {
            item: item.clone(),
            current: tree.current() == Some(item.id),
            device: target.as_ref().map(|_| place.layout.word().to_owned()),
            target,
        }
    });
    Ok(listed.collect())
}
