//! A new user's home directory, with what `/etc/skel` has.

use std::path::Path;

use super::error::{DistError, Kind};
use super::root::{Durability, GuestRoot};

const SKELETON: &str = "/etc/skel";
const DEPTH: usize = 8;

/// Who a new home belongs to, in the guest's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Makes the home unless something is there already.
pub(super) fn make_home(root: &GuestRoot, home: &str, mode: u32, owner: Owner) -> Result<bool, DistError> {
    if root.exists(home) || root.link_target(home).is_some() {
        return Ok(false);
    }
    root.make_dirs(Path::new(home), 0o755)?;
    copy(root, SKELETON, home, owner, DEPTH)?;
    root.give(Path::new(home), owner, Some(mode))?;
    Ok(true)
}

fn copy(root: &GuestRoot, from: &str, to: &str, owner: Owner, depth: usize) -> Result<(), DistError> {
    for name in root.list(from) {
        let (source, target) = (format!("{from}/{name}"), format!("{to}/{name}"));
        if let Some(link) = root.link_target(&source) {
            root.symlink(&link.to_string_lossy(), &target)?;
            root.give(Path::new(&target), owner, None)?;
            continue;
        }
        match root.kind(&source)? {
            Some(Kind::File) => {
                let content = root.read(&source)?.unwrap_or_default();
                root.write(&target, &content, 0o644, Durability::Lazy)?;
            }
            Some(Kind::Directory) if depth > 0 => {
                root.make_dirs(Path::new(&target), 0o755)?;
                copy(root, &source, &target, owner, depth - 1)?;
            }
            // Nothing else belongs in a skeleton.
            _ => continue,
        }
        let mode = root.mode(Path::new(&source))?;
        root.give(Path::new(&target), owner, Some(mode))?;
    }
    Ok(())
}
