//! Where a container's root is, for `vztmpl create`.

use ve::Node;
use ve::tree::{Tree, tree};
use vzconf::{Ctid, Exit, Paths};

use super::Failure;

/// Takes hold of a container's root tree.
///
/// # Errors
/// Exit 14 for a container that does not exist, and as [`tree`].
pub(super) fn locate(paths: &Paths, ctid: Ctid) -> Result<Tree, Failure> {
    let failed = |error: ve::Error| Failure::of(error.exit(), &error);
    let warn = |level, text: &str| {
        if level < 0 {
            eprintln!("{text}");
        }
    };
    let node = Node::open(paths.clone(), Box::new(warn)).map_err(failed)?;
    let ve = node.ve(ctid).map_err(failed)?;
    if !ve.config.exists() {
        return Err(Failure::new(Exit::NoVeConfig, format!("container {ctid} does not exist")));
    }
    tree(&ve).map_err(failed)
}
