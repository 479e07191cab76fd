//! How much of the disk a VE may use, and by what that is kept.

use std::path::{Path, PathBuf};

use templates::layout::{self, Choice, LayoutError, Limits, Wanted, Wish};
use vzconf::Config;

use crate::error::{Error, Result};
use crate::node::Ve;

/// Where empty images are kept: `/run/vz/images`.
pub(crate) fn blanks(ve: &Ve<'_>) -> PathBuf {
    ve.node.paths.run_root().join("images")
}

/// The limits of a configuration that must be kept: none with `DISK_QUOTA=no`.
pub(crate) fn limits(config: &Config) -> Limits {
    if !config.disk_quota() {
        return Limits::default();
    }
    Limits {
        space: config.diskspace().map(|pair| pair.limit.saturating_mul(1024)),
        inodes: config.diskinodes().map(|pair| pair.limit),
    }
}

/// The layout for a private area to be made.
pub(crate) fn choose(ve: &Ve<'_>, config: &Config, wish: Wish, private: &Path) -> Result<Choice> {
    // The directory itself may be missing, and a dry run does not make it.
    let parent = private.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let memory = ve.node.paths.run_root().join("overlays");
    let mut limits = limits(config);
    if wish == Wish::Only(layout::Layout::Ploop) {
        // That is its size, kept or not.
        limits.space = config.diskspace().map(|pair| pair.limit.saturating_mul(1024));
    }
    layout::choose(&Wanted { wish, limits, parent, memory: &memory }).map_err(|error| match error {
        LayoutError::Unkept { .. } => {
            let hint = "Use --layout overlay or ploop, or give up the limits with DISK_QUOTA=no";
            Error::advised(error.exit(), error.to_string(), hint)
        }
        LayoutError::NoSize => {
            let hint =
                format!("Say how large it is: vzctl create {} --layout ploop --diskspace 10G", ve.ctid);
            Error::advised(error.exit(), format!("Error: {error}"), hint)
        }
        error => error.into(),
    })
}
