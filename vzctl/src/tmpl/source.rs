//! Where a container's root is, for `vztmpl create`.

use ve::Node;
use ve::tree::{Tree, tree};
use vzconf::{Ctid, Paths};

use super::Failure;

/// Takes hold of a container's root tree.
///
/// # Errors
/// As [`tree`], among them exit 14 for a container that does not exist.
pub(super) fn locate(paths: &Paths, ctid: Ctid) -> Result<Tree, Failure> {
    let failed = |error: ve::Error| Failure::of(error.exit(), &error);
    let warn = |level, text: &str| {
        if level < 0 {
            eprintln!("{text}");
        }
    };
    let node = Node::open(paths.clone(), Box::new(warn)).map_err(failed)?;
    tree(&node, ctid).map(|(_, tree)| tree).map_err(failed)
}
