//! The files of containers of other managers, gathered into one archive that a private area is made from.
//!
//! ```text
//! tree      ────────────────────────────────┐
//! root.hdd  ─ qemu-img ─▶ disk.raw ─ mount ─┼─ pack, ids shifted back ─▶ archive ─▶ Template
//! raw image ─ qemu-img ─▶ disk.raw ─ mount ─┘                              ▲
//! archive (vzdump) ────────────────────────────────────────────────────────┘ as it is
//! ```
//!
//! The source is only read. What is made is in a workshop of the cache, and goes with the value.

mod disk;

use std::path::{Path, PathBuf};

use vzsys::Call;

use crate::archive::{Compression, Pack};
use crate::build::{BuildError, Event, describe};
use crate::cache::{Cache, Template, Workshop};

pub use disk::{DiskError, is_disk};

/// Where the files of a container are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A directory that is its root.
    Tree(PathBuf),
    /// An archive of its root.
    Archive(PathBuf),
    /// `root.hdd`: a directory with a `DiskDescriptor.xml`.
    Disk(PathBuf),
    /// An image of a file system, or of a disk with one.
    Image(PathBuf),
}

impl Files {
    /// What lies at a path.
    ///
    /// # Errors
    /// The errno of stat(2).
    pub fn at(path: &Path) -> Result<Self, vzsys::SysError> {
        let meta = std::fs::metadata(path).call("stat", || path.display().to_string())?;
        if meta.is_dir() {
            return Ok(if is_disk(path) { Self::Disk(path.to_owned()) } else { Self::Tree(path.to_owned()) });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let archive = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lzo"];
        Ok(if archive.iter().any(|end| name.ends_with(end)) {
            Self::Archive(path.to_owned())
        } else {
            Self::Image(path.to_owned())
        })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Tree(path) | Self::Archive(path) | Self::Disk(path) | Self::Image(path) => path,
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tree(_) => "directory",
            Self::Archive(_) => "archive",
            Self::Disk(_) => "ploop disk",
            Self::Image(_) => "image",
        }
    }
}

/// Files that were gathered.
#[derive(Debug)]
pub struct Gathered {
    /// As a template that is in no cache.
    pub template: Template,
    _work: Workshop,
}

/// Gathers the files of a container into an archive; `shift` is taken off all ids. `name` is what the template is
/// called: it tells the distribution where the files do not.
///
/// # Errors
/// [`BuildError`]; nothing is left.
pub fn gather(
    cache: &Cache,
    files: &Files,
    shift: u32,
    name: &str,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Gathered, BuildError> {
    let work = cache.workshop()?;
    let archive = match files {
        Files::Archive(path) => archive(path)?,
        Files::Tree(path) => pack(path, shift, &work, say)?,
        Files::Disk(_) | Files::Image(_) => {
            let image = match files {
                Files::Disk(path) => disk::flatten(path, work.path(), say)?,
                _ => disk::copy(files.path(), work.path(), say)?,
            };
            let mounted = disk::mount(&image)?;
            // As a directory of its own: the last component of a path is not followed.
            let root = PathBuf::from(format!("{}/.", mounted.proc_path()));
            // What others put beside the root of a container's disk.
            let packed = pack(&root, shift, &work, say)?;
            drop(mounted);
            std::fs::remove_file(&image).call("unlink", || image.display().to_string())?;
            packed
        }
    };
    let stat = std::fs::metadata(&archive).call("stat", || archive.display().to_string())?;
    let template = Template::unlisted(name, archive, &stat);
    Ok(Gathered { template, _work: work })
}

fn archive(path: &Path) -> Result<PathBuf, BuildError> {
    if path.extension().is_some_and(|end| end == "lzo") {
        let reason = format!(
            "{} is compressed by lzop, which is not read; unpack it first with: lzop -d {0}",
            path.display()
        );
        return Err(BuildError::BadOption { reason });
    }
    Ok(path.to_owned())
}

/// What is really to be taken off: a configuration may say that ids are shifted where only a mount shifts them.
fn real_shift(root: &Path, told: u32) -> Result<u32, BuildError> {
    // A file system's own root is root's, whoever made it: what is in it tells more. No link is followed.
    let owner = ["etc", "usr", "bin"].iter().find_map(|name| std::fs::symlink_metadata(root.join(name)).ok());
    let owner = owner.map_or_else(|| std::fs::metadata(root), Ok);
    let owner = owner.call("stat", || root.display().to_string())?;
    match std::os::unix::fs::MetadataExt::uid(&owner) {
        0 => Ok(0),
        uid if uid == told => Ok(told),
        uid => {
            let reason = format!(
                "the root of the container's files belongs to user {uid}, not to {told}; if all ids are shifted \
                 by that, give --shift {uid}"
            );
            Err(BuildError::BadOption { reason })
        }
    }
}

fn pack(
    root: &Path,
    shift: u32,
    work: &Workshop,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, BuildError> {
    let shift = real_shift(root, shift)?;
    let path = work.path().join("files.tar");
    let mut tell = |progress| say(Event::Progress(progress));
    Pack::new().shift(shift).hollow(&["proc", "sys", "dev", "run", "lost+found"]).progress(&mut tell).into(
        root,
        &path,
        Compression::None,
    )?;
    Ok(path)
}

/// One small file of an archive; `None` if it has none of that name.
///
/// # Errors
/// [`BuildError`] for an archive that cannot be read, or a file of more than `limit` bytes.
pub fn member(archive: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, BuildError> {
    Ok(crate::archive::member(archive, name.as_bytes(), limit)?)
}

/// The distribution that a tree is of, as a template's name; `None` if it does not tell.
#[must_use]
pub fn distribution(root: &Path) -> Option<String> {
    let found = describe(root);
    let name = [found.distribution, found.version, found.arch];
    let name: Vec<String> = name.into_iter().filter(|part| !part.is_empty()).collect();
    let name = name.join("-");
    crate::cache::check_name(&name).ok().map(|()| name)
}
