//! A pass over a tree, taken.

use templates::cache::{Arriving as ArrivingBase, Cache, CacheError};
use templates::replica::{Digests, Op, Replica, Sink};
use ve::Node;
use ve::handover::{Handover, Part};
use vzsys::spawn::Beside;

use super::copy_failed;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::wire::Tree;

/// A tree that comes.
#[derive(Debug)]
pub(super) struct Receiving {
    replica: Replica,
    base: Option<ArrivingBase>,
    /// Of what is memory: its hashes.
    digests: Option<Digests>,
}

/// What came of a tree.
#[derive(Debug)]
pub(super) struct Received {
    /// Bytes of files.
    pub(super) bytes: u64,
    pub(super) digests: Option<Digests>,
    /// Puts it onto the disk.
    pub(super) syncing: Option<Beside>,
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
            Tree::Area => Ok(Self { replica: open(&arriving.staging)?, base: None, digests: None }),
            Tree::Dump => {
                let (staged, _) = arriving.dump.as_ref().ok_or_else(|| nothing("dump"))?;
                Ok(Self { replica: open(staged)?, base: None, digests: None })
            }
            Tree::Memory => {
                let memory = arriving.memory.as_ref().ok_or_else(|| nothing("memory"))?;
                Ok(Self { replica: open(memory)?, base: None, digests: Some(Digests::default()) })
            }
            Tree::Base => {
                let id = arriving.base.as_ref().ok_or_else(|| nothing("template"))?;
                let cache = Cache::open(&node.global.template_dir());
                let base = cache.arriving(id).map_err(|error| failed(&error))?;
                let base =
                    base.ok_or_else(|| Error::here(Exit::Copy, format!("the template {id} is here")))?;
                Ok(Self { replica: open(base.path())?, base: Some(base), digests: None })
            }
        }
    }

    /// Takes a step.
    pub(super) fn op(&mut self, op: Op) -> Result<()> {
        if let Some(digests) = &mut self.digests {
            digests.op(&op);
        }
        self.replica.op(op).map_err(|error| copy_failed(&error))
    }

    /// Takes a piece of a file.
    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(digests) = &mut self.digests {
            digests.data(offset, bytes);
        }
        self.replica.data(offset, bytes).map_err(|error| copy_failed(&error))
    }

    /// All of it has come: onto the disk with it, now or beside what follows.
    pub(super) fn finish(self, later: bool) -> Result<Received> {
        let bytes = self.replica.bytes();
        let syncing = if later { self.replica.sync_beside().ok() } else { None };
        if syncing.is_none() {
            self.replica.sync().map_err(|error| copy_failed(&error))?;
        }
        if let Some(base) = self.base {
            base.finish().map_err(|error| failed(&error))?;
        }
        Ok(Received { bytes, digests: self.digests, syncing })
    }
}

fn failed(error: &CacheError) -> Error {
    Error::here(Exit::Copy, ve::describe(error))
}
