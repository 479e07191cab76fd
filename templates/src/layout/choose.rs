//! Which layout a new private area gets.

use std::path::Path;
use std::str::FromStr;

use super::{Layout, overlay};

/// `VE_LAYOUT` names something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout '{0}' (known: auto, overlay, simfs)")]
pub struct UnknownLayout(String);

/// A wish for a layout: one of them, or the best that the file system allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// `auto`.
    Auto,
    /// This one.
    Only(Layout),
}

impl FromStr for Wish {
    type Err = UnknownLayout;

    fn from_str(word: &str) -> Result<Self, UnknownLayout> {
        match word {
            "auto" => Ok(Self::Auto),
            "overlay" => Ok(Self::Only(Layout::Overlay)),
            "simfs" => Ok(Self::Only(Layout::Simfs)),
            other => Err(UnknownLayout(other.to_owned())),
        }
    }
}

/// Picks the layout for a new private area below `parent`: overlay where the file system can carry
/// one, else a plain directory. That is tried once for each file system: `memory` is a file that is gone
/// after a reboot. The second value says why, for `--verbose`.
#[must_use]
pub fn choose(wish: Wish, parent: &Path, memory: &Path) -> (Layout, String) {
    match wish {
        Wish::Only(layout) => (layout, format!("layout {layout}, as asked for")),
        Wish::Auto => match overlay::supported_as_remembered(parent, memory) {
            Ok(()) => (Layout::Overlay, "layout overlay: the template's files are shared".to_owned()),
            Err(error) => {
                let why = format!("layout simfs: {} cannot carry an overlay ({error})", parent.display());
                (Layout::Simfs, why)
            }
        },
    }
}
