//! A whole machine as a node: what concerns the host's own systemd, its mounts and its modules.

use std::fs::File;
use std::path::PathBuf;

use crate::ctid;
use crate::inside::configure;
use crate::need::{Need, lacks};
use crate::node::Node;

/// Runs a test's body on this machine itself, if it is one that may be changed. Afterwards every VE is
/// destroyed.
///
/// # Panics
/// When the body does.
pub fn on_machine(body: impl FnOnce(&Node)) {
    if lacks(&[Need::Machine]) {
        return;
    }
    // One at a time: there is only this machine.
    let _alone = ctid::locked(File::create("/run/vztests-machine").unwrap());
    configure();
    let node = Node::new(PathBuf::from("/vz"), ctid::claim());
    body(&node);
    node.destroy_all();
}
