//! The ids of a VE on the mounts that make up its root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use vzsys::idmap::{self, IdRange};
use vzsys::mount::Detached;

use super::LayoutError;

/// The ids of a VE in the form that mounts take them: a user namespace, made once for all layers.
pub(super) struct Mapping(Option<OwnedFd>);

impl Mapping {
    pub(super) fn of(ids: Option<IdRange>, private: &Path) -> Result<Self, LayoutError> {
        let namespace = ids.map(|ids| ids.user_namespace()).transpose();
        namespace.map(Self).map_err(LayoutError::mount(private))
    }

    /// A copy of the mount at `path`, ids mapped where the VE has its own.
    pub(super) fn layer(&self, path: &Path) -> Result<Detached, LayoutError> {
        let layer = Detached::copy_of(path, false).map_err(LayoutError::mount(path))?;
        self.map(layer, path)
    }

    /// The same for a mount that nobody else uses; `path` is for errors.
    pub(super) fn map(&self, layer: Detached, path: &Path) -> Result<Detached, LayoutError> {
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
