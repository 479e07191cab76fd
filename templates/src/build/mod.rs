//! Making templates: from packages, from the host's busybox, from a tree or tarball, from a container.
//!
//! Everything is made in a directory of its own beside the cache, and appears there by a rename.

mod debian;
mod error;
mod import;
mod inspect;
mod recipe;
mod sources;
mod tiny;

use std::path::{Path, PathBuf};

pub use debian::debian;
pub use error::BuildError;
pub(crate) use import::pack;
pub use import::{Identity, Snapshot, import, snapshot};
pub(crate) use inspect::{describe, is_static, machine};
pub use recipe::{Init, Options, Recipe};
pub use tiny::{NAME as TINY, tiny};

use crate::archive::{Compression, Progress};
use crate::cache::{Cache, CacheError, Metadata, Template, Workshop, check_name};

/// Whether a template of the same name may be replaced. Containers made from it keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It is an error.
    No,
    /// It may.
    Yes,
}

/// What there is to tell while a template is made.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A line, such as a builder prints.
    Line(&'a str),
    /// How far packing or unpacking is.
    Progress(Progress),
}

/// A template in the making.
#[derive(Debug)]
pub(crate) struct Maker<'a> {
    cache: &'a Cache,
    name: &'a str,
    work: Workshop,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(cache: &'a Cache, name: &'a str, replace: Replace) -> Result<Self, BuildError> {
        check_name(name)?;
        if replace == Replace::No && cache.find(name).is_ok() {
            return Err(CacheError::Exists { name: name.to_owned() }.into());
        }
        Ok(Self { cache, name, work: cache.workshop()? })
    }

    /// A directory for what is needed meanwhile.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    fn tarball(&self) -> PathBuf {
        self.work.path().join("tarball")
    }

    fn publish(self, compression: Compression, metadata: Metadata) -> Result<Template, BuildError> {
        Ok(self.cache.publish(self.name, &self.tarball(), compression, metadata)?)
    }
}
