//! Limits of the users and groups inside a VE (`QUOTAUGIDLIMIT`), kept by the ext4 of its image.

use templates::image::Users;
use templates::layout::{self, LayoutError};
use vzconf::{Config, Ctid};

use crate::error::Result;
use crate::node::layout_of;

/// The users and groups of a VE with this configuration, running or not; `None` when nobody counts what they have: it has no
/// image, it was not started since `QUOTAUGIDLIMIT` is set, or the kernel keeps no such limits. Its image stays mounted
/// while the value lives.
///
/// # Errors
/// 152 the image cannot be mounted.
pub fn of(config: &Config, ctid: Ctid) -> Result<Option<Users>> {
    let Some(private) = config.ve_private().filter(|private| private.is_dir()) else { return Ok(None) };
    let Some(image) = layout::image(layout_of(config, ctid, &private)?, &private)? else { return Ok(None) };
    Ok(image.users().map_err(LayoutError::from)?)
}
