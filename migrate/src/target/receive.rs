//! A pass over a tree, taken.

use templates::cache::{Arriving as ArrivingBase, Cache, CacheError};
use templates::replica::Replica;
use ve::Node;
use ve::handover::{Handover, Part};

use super::copy_failed;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::wire::Tree;

/// A tree that comes.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) replica: Replica,
    base: Option<ArrivingBase>,
}

impl Receiving {
    /// Opens the place where it goes.
    pub(super) fn begin(node: &Node, handover: &Handover, tree: Tree) -> Result<Self> {
        let Part::Arriving(arriving) = &handover.part else {
            return Err(Error::here(Exit::Copy, "nothing arrives here"));
        };
        let nothing = |what: &str| Error::here(Exit::Copy, format!("no {what} was announced"));
        let open = |path: &std::path::Path| Replica::new(path).map_err(|error| copy_failed(&error));
        match tree {
            Tree::Area => Ok(Self { replica: open(&arriving.staging)?, base: None }),
            Tree::Dump => {
                let (staged, _) = arriving.dump.as_ref().ok_or_else(|| nothing("dump"))?;
                Ok(Self { replica: open(staged)?, base: None })
            }
            Tree::Memory => {
                let memory = arriving.memory.as_ref().ok_or_else(|| nothing("memory"))?;
                Ok(Self { replica: open(memory)?, base: None })
            }
            Tree::Base => {
                let id = arriving.base.as_ref().ok_or_else(|| nothing("template"))?;
                let cache = Cache::open(&node.global.template_dir());
                let base = cache.arriving(id).map_err(|error| failed(&error))?;
                let base =
                    base.ok_or_else(|| Error::here(Exit::Copy, format!("the template {id} is here")))?;
                Ok(Self { replica: open(base.path())?, base: Some(base) })
            }
        }
    }

    /// All of it has come: onto the disk with it. Returns the bytes of files.
    pub(super) fn finish(self) -> Result<u64> {
        let bytes = self.replica.bytes();
        self.replica.sync().map_err(|error| copy_failed(&error))?;
        if let Some(base) = self.base {
            base.finish().map_err(|error| failed(&error))?;
        }
        Ok(bytes)
    }
}

fn failed(error: &CacheError) -> Error {
    Error::here(Exit::Copy, ve::describe(error))
}
