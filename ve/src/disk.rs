//! How much of the disk a VE may use, and by what that is kept.

use std::path::{Path, PathBuf};

use templates::image::{Mounts, Resized, Size};
use templates::layout::{self, Choice, LayoutError, Limits, Wanted, Wish};
use vzconf::change::{Changed, Changes};
use vzconf::{Config, Exit};

use crate::dismantle;
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
            let hint = format!(
                "Say how large it is: vzctl set {} --diskspace 10G --save, or create --diskspace 10G",
                ve.ctid
            );
            Error::advised(error.exit(), format!("Error: {error}"), hint)
        }
        error => error.into(),
    })
}

/// Gives what is free in a VE's image back to the file system below, running or not.
///
/// # Errors
/// 43 no private area, 152 the image cannot be mounted, 166.
pub fn compact(ve: &Ve<'_>) -> Result<()> {
    dismantle::mend(ve)?;
    let private = ve.existing_private()?;
    let Some(image) = layout::image(ve.layout(&private)?, &private)? else {
        ve.say(0, "Compact only makes sense for ploop containers");
        return crate::snapshot::compact(ve);
    };
    let before = image.taken().map_err(LayoutError::from)?;
    let gained = image.compact().map_err(LayoutError::from)?;
    let kib = |bytes: u64| bytes >> 10;
    ve.say(0, &format!("Image was compacted: {} KiB of {} KiB were given back", kib(gained), kib(before)));
    Ok(())
}

/// Whether a VE's files lie in an image, whose size is DISKSPACE.
#[must_use]
pub fn has_image(ve: &Ve<'_>) -> bool {
    let Ok(private) = ve.existing_private() else { return false };
    ve.layout(&private).and_then(|kind| Ok(layout::image(kind, &private)?)).is_ok_and(|image| image.is_some())
}

/// What of a change of limits an image cannot do is refused before anything is done.
pub(crate) fn check(ve: &Ve<'_>, changes: &Changes, changed: &[Changed]) -> Result<()> {
    let touched = |key: &str| changed.iter().any(|change| change.key == key);
    if !(touched("DISKSPACE") || touched("DISKINODES")) || !has_image(ve) {
        return Ok(());
    }
    if touched("DISKSPACE") && !changes.save {
        let message = "The size of an image is changed for good: --diskspace needs --save";
        return Err(Error::refused(Exit::InvalidSyntax, message));
    }
    if touched("DISKINODES") {
        let message = "WARNING: the number of inodes of an image grows and shrinks with its size; --diskinodes is stored \
                       for the next image (vzctl convert)";
        ve.say(-1, message);
    }
    Ok(())
}

/// Makes the image of a VE as large as its new configuration says; without an image there is nothing to do.
pub(crate) fn follow(ve: &Ve<'_>, changed: &[Changed]) -> Result<()> {
    if !changed.iter().any(|change| change.key == "DISKSPACE") || !has_image(ve) {
        return Ok(());
    }
    let Some(pair) = ve.config.diskspace() else { return Ok(()) };
    let private = ve.existing_private()?;
    let mut tell = |done, all| (ve.node.progress)("Copying the image", done, all);
    let inodes = ve.config.diskinodes().map(|pair| pair.limit);
    let size = Size { bytes: pair.limit.saturating_mul(1024), inodes };
    let mounts = if ve.running().is_some() || ve.mounted() { Mounts::Stay } else { Mounts::End };
    let done = layout::resize(ve.layout(&private)?, &private, size, &blanks(ve), mounts, &mut tell)?;
    match done {
        Some(Resized::Grown) => ve.say(0, &format!("Image was enlarged to {} KiB", pair.limit)),
        Some(Resized::Shrunk) => ve.say(0, &format!("Image was reduced to {} KiB", pair.limit)),
        Some(Resized::Unchanged) | None => {}
    }
    Ok(())
}
