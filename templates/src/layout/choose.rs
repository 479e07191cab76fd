//! Which layout a new private area gets, and whether its files lie in an image.

use std::path::Path;
use std::str::FromStr;

use super::{Layout, LayoutError, btrfs, overlay};
use crate::image::{self, Size};
use crate::quota::{self, QuotaError};

/// `VE_LAYOUT` names something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout '{0}' (known: auto, overlay, simfs, ploop, btrfs)")]
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

    /// OpenVZ's modes of ploop (`ploop:raw`) say how its images were written; here there is one way.
    fn from_str(word: &str) -> Result<Self, UnknownLayout> {
        if word == "auto" {
            return Ok(Self::Auto);
        }
        let plain = match word {
            "ploop:expanded" | "ploop:plain" | "ploop:raw" => "ploop",
            word => word,
        };
        let known = Layout::ALL.into_iter().find(|layout| layout.word() == plain);
        known.map(Self::Only).ok_or_else(|| UnknownLayout(word.to_owned()))
    }
}

/// What a VE may use of the disk, as far as it is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, never exceeded.
    pub space: Option<u64>,
    /// Inodes, never exceeded.
    pub inodes: Option<u64>,
}

impl Limits {
    fn none(self) -> bool {
        self == Self::default()
    }

    /// An image that keeps them. Without a limit of its own it may grow to the size of the file system below.
    fn image(self, parent: &Path) -> Size {
        let whole = || rustix::fs::statvfs(parent).map_or(0, |stat| stat.f_blocks * stat.f_frsize);
        Size { bytes: self.space.unwrap_or_else(whole), inodes: self.inodes }
    }
}

/// What is known of a private area to be made.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What was asked for.
    pub wish: Wish,
    /// The limits that must be kept.
    pub limits: Limits,
    /// The directory that will hold it.
    pub parent: &'a Path,
    /// A file that is gone after a reboot: which file systems have been tried.
    pub memory: &'a Path,
}

/// What it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How it is laid out.
    pub layout: Layout,
    /// Its files lie in an image of this size.
    pub image: Option<Size>,
    /// Why, for `--verbose`.
    pub why: String,
}

/// Picks the layout for a new private area: an overlay where the file system can carry one, else a plain directory.
/// Limits that the file system does not keep are kept by an image.
///
/// # Errors
/// [`LayoutError::Unkept`] for a plain directory with limits that nothing would keep, [`LayoutError::NoSize`] for
/// the layout ploop without a limit.
pub fn choose(wanted: &Wanted<'_>) -> Result<Choice, LayoutError> {
    let Wanted { wish, limits, parent, memory } = *wanted;
    if let Some(choice) = subvolume(wish, parent)? {
        return Ok(choice);
    }
    if wish == Wish::Only(Layout::Ploop) {
        let size = limits.space.map(|bytes| Size { bytes, inodes: limits.inodes });
        let why = format!("layout ploop, as asked for{}", cached(parent));
        return Ok(Choice { layout: Layout::Ploop, image: Some(size.ok_or(LayoutError::NoSize)?), why });
    }
    let unkept = if limits.none() { None } else { kept_by(parent).err() };
    let image = unkept.as_ref().map(|_| limits.image(parent));
    let because = unkept.as_ref().map_or_else(String::new, |why| {
        format!("; what it writes is in an image, which keeps the limits: {why}{}", cached(parent))
    });
    match wish {
        Wish::Only(Layout::Simfs) => match unkept {
            Some(why) => Err(LayoutError::Unkept { path: parent.to_owned(), layout: Layout::Simfs, why }),
            None => Ok(Choice {
                layout: Layout::Simfs,
                image: None,
                why: "layout simfs, as asked for".to_owned(),
            }),
        },
        Wish::Only(layout) => {
            Ok(Choice { layout, image, why: format!("layout {layout}, as asked for{because}") })
        }
        // The image can carry an overlay whatever the file system below it is.
        Wish::Auto if image.is_some() => {
            let why = format!("layout overlay: the template's files are shared{because}");
            Ok(Choice { layout: Layout::Overlay, image, why })
        }
        Wish::Auto => Ok(unlimited(parent, memory)),
    }
}

/// A subvolume, where it is asked for, or the file system has any: btrfs keeps its limit.
fn subvolume(wish: Wish, parent: &Path) -> Result<Option<Choice>, LayoutError> {
    let why = match (wish, btrfs::supported(parent)) {
        (Wish::Only(Layout::Btrfs), false) => return Err(LayoutError::NoBtrfs { path: parent.to_owned() }),
        (Wish::Only(Layout::Btrfs), true) => "layout btrfs, as asked for",
        (Wish::Auto, true) => "layout btrfs: a snapshot of the template",
        _ => return Ok(None),
    };
    Ok(Some(Choice { layout: Layout::Btrfs, image: None, why: why.to_owned() }))
}

/// That is tried once for each file system.
fn unlimited(parent: &Path, memory: &Path) -> Choice {
    match overlay::supported_as_remembered(parent, memory) {
        Ok(()) => {
            let why = "layout overlay: the template's files are shared".to_owned();
            Choice { layout: Layout::Overlay, image: None, why }
        }
        Err(error) => {
            let why = format!("layout simfs: {} cannot carry an overlay ({error})", parent.display());
            Choice { layout: Layout::Simfs, image: None, why }
        }
    }
}

/// What is to be said of an image there besides.
fn cached(parent: &Path) -> String {
    match image::direct_io(parent) {
        Ok(()) => String::new(),
        Err(error) => {
            format!("; its pages are in memory twice, because direct I/O is not possible there ({error})")
        }
    }
}

/// Whether the file system of a directory keeps limits of a tree in it; the error says why not.
fn kept_by(parent: &Path) -> Result<(), String> {
    quota::keeper(parent).map(drop).map_err(|error| match error {
        QuotaError::Unable { why, .. } => why,
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vzconf::Exit;

    fn chosen(word: &str, limits: Limits) -> Result<Choice, LayoutError> {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("memory");
        choose(&Wanted { wish: word.parse().unwrap(), limits, parent: dir.path(), memory: &memory })
    }

    #[test]
    fn a_limit_is_kept_by_an_image_or_refused_aloud() {
        let limits = Limits { space: Some(64 << 20), inodes: None };
        for word in ["auto", "overlay"] {
            let choice = chosen(word, limits).unwrap();
            assert_eq!(choice.layout, Layout::Overlay);
            assert_eq!(choice.image, Some(Size { bytes: 64 << 20, inodes: None }));
            assert!(choice.why.contains("keeps the limits"), "{}", choice.why);
            assert_eq!(chosen(word, Limits::default()).unwrap().image, None);
        }
        let error = chosen("simfs", limits).unwrap_err();
        assert_eq!(error.exit(), Exit::DqOn);
        assert!(chosen("simfs", Limits::default()).unwrap().image.is_none());
        let inodes = chosen("auto", Limits { space: None, inodes: Some(1000) }).unwrap().image.unwrap();
        assert!(inodes.bytes > 64 << 20 && inodes.inodes == Some(1000));
    }

    #[test]
    fn ploop_has_all_its_modes_and_needs_a_size() {
        let limits = Limits { space: Some(64 << 20), inodes: Some(5000) };
        for word in ["ploop", "ploop:raw", "ploop:plain", "ploop:expanded"] {
            let choice = chosen(word, limits).unwrap();
            assert_eq!((choice.layout, choice.image.unwrap().inodes), (Layout::Ploop, Some(5000)));
        }
        assert_eq!(chosen("ploop", Limits::default()).unwrap_err().exit(), Exit::DiskspaceNotSet);
        for word in ["zfs", "ploop:", "simfs:raw", "ploop:auto", ""] {
            assert!(word.parse::<Wish>().is_err(), "{word}");
        }
    }
}
