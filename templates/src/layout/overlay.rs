//! An overlay over a shared, unpacked template.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};
use vzconf::Exit;
use vzsys::apart::{lower_layers, with_layers};
use vzsys::idmap::{self, IdRange};
use vzsys::mount::{Detached, Opt};
use vzsys::{Call, SysError, fault};

use super::stack::{self, Stack, Store};
use super::{Empty, Kind, LayoutError, Mapping, New, Place};
use crate::archive::Progress;
use crate::dist::GuestRoot;
use crate::image::{self, Image};
use crate::small_file;

const RECORD: &str = "layout.json";
/// Has the same two directories in it.
const IMAGE: &str = "upper.img";
const LAYERS: [&str; 2] = ["upper", "work"];
/// Of 4096 snapshots, each on 60 layers, it has 10 MiB.
const RECORD_MAX: u64 = 16 << 20;
/// Any range will do to try whether ids can be mapped.
const PROBE_IDS: u32 = 0x1000_0000;

/// `layout.json` of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// `overlay`.
    pub layout: String,
    /// Name of the directory below `TEMPLATE/base`.
    pub base: String,
    /// What the VE writes lies in an image, `upper.img`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image: bool,
    /// What snapshots have put between the template and `upper/`.
    #[serde(flatten)]
    pub stack: Stack,
}

impl Record {
    /// Reads the record of a private area.
    ///
    /// # Errors
    /// [`LayoutError::Damaged`] for what is missing, unreadable or names a directory elsewhere.
    pub fn load(private: &Path) -> Result<Self, LayoutError> {
        let path = private.join(RECORD);
        let damaged = |reason: String| LayoutError::Damaged { path: path.clone(), reason };
        // A private area may be a VE's own root, which can hold anything under our names.
        let bytes = small_file::read(CWD, &path, RECORD_MAX).map_err(|error| damaged(error.to_string()))?;
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let plain = !record.base.is_empty() && !record.base.contains('/') && !record.base.starts_with('.');
        // Whoever knows version 1 only must not mount less than there is.
        let wanted = if record.stack.is_plain() { 1..=2 } else { 2..=3 };
        if !wanted.contains(&record.version) || !plain || !record.stack.is_sound() {
            return Err(damaged(format!("version {}, base '{}'", record.version, record.base)));
        }
        Ok(record)
    }

    /// Replaces the record of a private area: whole or not at all, and on the disk.
    ///
    /// # Errors
    /// [`LayoutError::Call`], exit 48.
    pub(crate) fn replace(&self, private: &Path) -> Result<(), LayoutError> {
        let mut record = self.clone();
        record.version = match &record.stack {
            stack if stack.is_plain() => 1,
            stack if stack.merge.is_none() => 2,
            // Whoever does not know of it must not mount what lies in two places.
            _ => 3,
        };
        record.save(private).map_err(failed(private))
    }

    fn save(&self, area: &Path) -> Result<(), SysError> {
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        let (path, temp) = (area.join(RECORD), area.join(format!("{RECORD}.tmp")));
        let file = fs::File::create(&temp).call("open", || temp.display().to_string())?;
        std::io::Write::write_all(&mut &file, &json).call("write", || temp.display().to_string())?;
        // What it speaks of must be there when it is; a new area appears by a rename, with all that is in it.
        file.sync_all().call("fsync", || temp.display().to_string())?;
        fs::rename(&temp, &path).call("rename", || path.display().to_string())?;
        let dir = fs::File::open(area).call("open", || area.display().to_string())?;
        dir.sync_all().call("fsync", || area.display().to_string())
    }
}

pub(super) fn is_there(private: &Path) -> bool {
    let plain = |name: &str| fs::symlink_metadata(private.join(name)).map(|meta| meta.file_type());
    let file = |name: &str| plain(name).is_ok_and(|kind| kind.is_file());
    let dir = |name: &&str| plain(name).is_ok_and(|kind| kind.is_dir());
    // A snapshot that was killed may have taken the upper directory away; the next mount makes a new one.
    let half = || Record::load(private).is_ok_and(|record| record.stack.shelve.is_some());
    file(RECORD) && (file(IMAGE) || LAYERS.iter().all(dir) || half())
}

/// The layout `overlay`.
#[derive(Debug)]
pub(super) struct Overlay;

impl Kind for Overlay {
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
        let base = new.cache.base(new.template, progress)?;
        let bases = new.cache.bases();
        new.make_dir()?;
        new.cache.add_ref(&base.id, new.ctid)?;
        let (area, blanks) = (new.area, new.blanks);
        fill(&Empty { area, base: Some((&bases, &base.id)), image: new.image, blanks, project: None })
    }

    fn prepare(&self, empty: &Empty<'_>) -> Result<(), LayoutError> {
        empty.make_dir()?;
        fill(empty)
    }

    fn mount(&self, at: Place<'_>, ids: Option<IdRange>) -> Result<Detached, LayoutError> {
        mount(at, ids, Sync::Kept)
    }

    fn mount_new(&self, at: Place<'_>) -> Result<Detached, LayoutError> {
        let record = Record::load(at.private)?;
        if !record.image {
            return mount(at, None, Sync::Left);
        }
        let own = open_image(at.private)?.mount_new()?;
        let top = PathBuf::from(own.proc_path());
        make_layers(&top, &at.bases.join(&record.base)).map_err(failed(at.private))?;
        let lower = Mapping::of(None, at.private)?.layer(&at.bases.join(&record.base))?;
        combine(&[lower], Some(&own), None, Vec::new()).map_err(LayoutError::mount(at.private))
    }

    fn finish_new(&self, private: &Path) -> Result<(), LayoutError> {
        if Record::load(private)?.image {
            Ok(open_image(private)?.settle()?)
        } else {
            forget_volatile(private)
        }
    }

    fn shell_like(&self, private: &Path, area: &Path) -> Result<PathBuf, LayoutError> {
        let record = Record { stack: Stack::default(), ..Record::load(private)? };
        let made = fs::DirBuilder::new().mode(0o700).create(area);
        made.call("mkdir", || area.display().to_string()).map_err(failed(area))?;
        record.replace(area)?;
        Ok(area.join(IMAGE))
    }

    fn image(&self, private: &Path) -> Result<Option<Image>, LayoutError> {
        if Record::load(private)?.image { open_image(private).map(Some) } else { Ok(None) }
    }

    /// The kernel syncs the whole file system below when the overlay ends.
    fn leave(&self, private: &Path) -> Option<OwnedFd> {
        in_use(private, FlockOperation::LockExclusive)
    }

    fn wait_idle(&self, private: &Path) {
        drop(in_use(private, FlockOperation::LockShared));
    }
}

/// What lies in the directory of an area.
fn fill(empty: &Empty<'_>) -> Result<(), LayoutError> {
    let area = empty.area;
    let (bases, id) = empty.base.unwrap_or((Path::new(""), ""));
    match empty.image {
        Some(size) => image::make(&area.join(IMAGE), size, empty.blanks)?,
        None => make_layers(area, &bases.join(id)).map_err(failed(area))?,
    }
    fault::point("overlay.made");
    let record = Record {
        version: 1,
        layout: "overlay".to_owned(),
        base: id.to_owned(),
        image: empty.image.is_some(),
        stack: Stack::default(),
    };
    record.save(area).map_err(failed(area))
}

fn open_image(private: &Path) -> Result<Image, LayoutError> {
    Ok(Image::open(&private.join(IMAGE))?)
}

fn failed(area: &Path) -> impl FnOnce(SysError) -> LayoutError {
    LayoutError::call(format!("cannot prepare {}", area.display()), Exit::FsNewVePrvt)
}

/// The directories of the upper layer; its top is what the VE sees as its own.
fn make_layers(dir: &Path, base: &Path) -> Result<(), SysError> {
    let top = fs::metadata(base).call("stat", || base.display().to_string())?;
    for (name, mode) in LAYERS.into_iter().zip([top.mode() & 0o7777, 0o700]) {
        let dir = dir.join(name);
        fs::create_dir(&dir).call("mkdir", || dir.display().to_string())?;
        chown(&dir, Some(top.uid()), Some(top.gid())).call("chown", || dir.display().to_string())?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode))
            .call("chmod", || dir.display().to_string())?;
    }
    Ok(())
}

/// A new area above these layers, the first of which is at `top`.
pub(crate) fn create_above(
    area: &Path,
    model: &Record,
    layers: Vec<String>,
    top: &Path,
) -> Result<(), LayoutError> {
    let make = || -> Result<(), SysError> {
        fs::DirBuilder::new().mode(0o700).create(area).call("mkdir", || area.display().to_string())?;
        stack::empty_like(top, &area.join("upper"))?;
        let work = area.join("work");
        fs::DirBuilder::new().mode(0o700).create(&work).call("mkdir", || work.display().to_string())
    };
    make().map_err(failed(area))?;
    Record { stack: Stack { layers, ..Stack::default() }, ..model.clone() }.replace(area)
}

/// Takes a lock on the area, which is a directory of the host; without one (it is gone) nobody uses it.
fn in_use(private: &Path, how: FlockOperation) -> Option<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let area = rustix::fs::open(private, flags, Mode::empty()).ok()?;
    flock(&area, how).ok()?;
    Some(area)
}

/// Whether what is written through an overlay reaches the disk when the VE asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Yes. The kernel also syncs the whole file system below when such an overlay is unmounted.
    Kept,
    /// No: for an area that is thrown away if anything happens (`volatile`, 5.10).
    Left,
}

impl Sync {
    fn options(self) -> Vec<Opt> {
        match self {
            Sync::Kept => Vec::new(),
            Sync::Left => vec![Opt::flag("volatile")],
        }
    }
}

/// Removes what a volatile overlay leaves so that nobody takes its upper directory for a good one.
fn forget_volatile(private: &Path) -> Result<(), LayoutError> {
    let mark = private.join("work/work/incompat");
    let removed = fs::remove_dir_all(&mark).call("rmdir", || mark.display().to_string());
    removed.map_err(LayoutError::mount(private))
}

fn mount(at: Place<'_>, ids: Option<IdRange>, sync: Sync) -> Result<Detached, LayoutError> {
    let Place { private, bases, how } = at;
    // The mount before may still be ending: overlays must not share their layers.
    let _ended = in_use(private, FlockOperation::LockShared);
    let record = stack::settle(private)?;
    if !is_there(private) {
        let reason = "upper and work are no directories".to_owned();
        return Err(LayoutError::Damaged { path: private.to_owned(), reason });
    }
    let base = bases.join(&record.base);
    if !base.is_dir() {
        return Err(LayoutError::Damaged {
            path: private.to_owned(),
            reason: format!("its template {} is missing", base.display()),
        });
    }
    let mapping = Mapping::of(ids, private)?;
    let own = match record.image {
        true => mapping.map(open_image(private)?.mount_as(how)?, private)?,
        false => mapping.layer(private)?,
    };
    let lower = lowers(private, &record.stack.layers, &base, &mapping)?;
    let mut options = sync.options();
    if lower.iter().any(|layer| device(layer) != device(&own)) && !is_32bit(&base) {
        // Or a file of the template has the numbers of the template's disk, and nobody finds what the VE watches by
        // the numbers that the kernel tells: a VE that watches a file could not be saved.
        options.push(Opt::value("xino", "on"));
    }
    combine(&lower, Some(&own), ids, options).map_err(LayoutError::mount(private))
}

fn device(layer: &Detached) -> Option<u64> {
    rustix::fs::fstat(layer).ok().map(|stat| stat.st_dev)
}

/// Numbers of inodes that are told from each other across file systems have 64 bits. Old 32-bit programs cannot take
/// them: stat(2) fails.
fn is_32bit(base: &Path) -> bool {
    GuestRoot::open(base).is_ok_and(|root| crate::dist::is_32bit(&root))
}

/// The layers of an area from the top down, the template last.
fn lowers(
    private: &Path,
    layers: &[String],
    base: &Path,
    mapping: &Mapping,
) -> Result<Vec<Detached>, LayoutError> {
    let store = Store::of(private);
    let mut all = Vec::new();
    for layer in layers {
        let path = store.layer(layer);
        if !path.is_dir() {
            let reason = format!("its layer {} is missing", path.display());
            return Err(LayoutError::Damaged { path: private.to_owned(), reason });
        }
        all.push(mapping.layer(&path)?);
    }
    all.push(mapping.layer(base)?);
    Ok(all)
}

/// What an area was when these were its layers, to be read only.
///
/// # Errors
/// [`LayoutError`].
pub(crate) fn mount_layers(
    private: &Path,
    bases: &Path,
    layers: &[String],
    ids: Option<IdRange>,
) -> Result<Detached, LayoutError> {
    let record = Record::load(private)?;
    let mapping = Mapping::of(ids, private)?;
    let lower = lowers(private, layers, &bases.join(&record.base), &mapping)?;
    match <[Detached; 1]>::try_from(lower) {
        Ok([only]) => {
            only.set_attrs(vzsys::mount::Attr::MOUNT_ATTR_RDONLY).map_err(LayoutError::mount(private))?;
            Ok(only)
        }
        // An overlay needs two directories; without an upper one it is read-only.
        Err(lower) => combine(&lower, None, ids, Vec::new()).map_err(LayoutError::mount(private)),
    }
}

/// The layers are named through descriptors: nobody sees where their mapped copies are attached. Mounted
/// with the VE root's file-system ids, because overlayfs makes its work directories as whoever mounts it, and
/// the host's root has no id in a mapped layer.
fn combine(
    lower: &[Detached],
    own: Option<&Detached>,
    ids: Option<IdRange>,
    more: Vec<Opt>,
) -> Result<Detached, SysError> {
    let mut options = lower_layers(lower);
    if let Some(path) = own.map(Detached::proc_path) {
        options.push(Opt::value("upperdir", format!("{path}/upper")));
        options.push(Opt::value("workdir", format!("{path}/work")));
    }
    options.extend(more);
    let layers: Vec<&Detached> = lower.iter().chain(own).collect();
    with_layers(&layers, || {
        idmap::as_ve_root(ids, || Detached::new("overlay", "overlay", &options, MountAttrFlags::empty()))
    })
}

/// Whether an overlay's upper directory may lie below `parent`. `memory` holds the device numbers and types
/// of file systems that have been tried and can, one in a line.
pub(super) fn supported_as_remembered(parent: &Path, memory: &Path) -> Result<(), SysError> {
    let path = || parent.display().to_string();
    let kind = rustix::fs::statfs(parent).call("statfs", path)?.f_type;
    let this = format!("{:x} {kind:x}", fs::metadata(parent).call("stat", path)?.dev());
    if fs::read_to_string(memory).is_ok_and(|known| known.lines().any(|line| line == this)) {
        return Ok(());
    }
    supported(parent)?;
    // Not remembered, it is tried again.
    let _ = memory.parent().map(fs::create_dir_all);
    let file = fs::OpenOptions::new().create(true).append(true).open(memory);
    let _ = file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{this}\n").as_bytes()));
    Ok(())
}

/// The same, tried out.
fn supported(parent: &Path) -> Result<(), SysError> {
    let dir = tempfile::Builder::new().prefix(".overlay-probe").tempdir_in(parent);
    let dir = dir.call("mkdir", || parent.display().to_string())?;
    for name in ["upper", "work", "lower"] {
        fs::create_dir(dir.path().join(name)).call("mkdir", || name)?;
    }
    // With mapped ids, as a VE will have it: overlayfs takes such layers since 5.19 only.
    let ids = IdRange::at(PROBE_IDS);
    let userns = ids.user_namespace()?;
    let mapped = |path: &Path| -> Result<Detached, SysError> {
        let layer = Detached::copy_of(path, false)?;
        layer.idmap(userns.as_fd()).map(|()| layer)
    };
    let (lower, own) = (mapped(&dir.path().join("lower"))?, mapped(dir.path())?);
    combine(&[lower], Some(&own), Some(ids), Sync::Left.options()).map(drop)
}

/// What an area with this image was, to be read only.
///
/// # Errors
/// [`LayoutError`].
pub(crate) fn mount_upper(private: &Path, bases: &Path, image: &Detached) -> Result<Detached, LayoutError> {
    let record = Record::load(private)?;
    let upper =
        Detached::copy_at(image.as_fd(), Path::new("upper"), false).map_err(LayoutError::mount(private))?;
    let base = Mapping::of(None, private)?.layer(&bases.join(&record.base))?;
    combine(&[upper, base], None, None, Vec::new()).map_err(LayoutError::mount(private))
}

/// Whether the kernel tells of writes through an overlay where its upper directory lies, in a place such as `private`:
/// tried out, because kernels before did not.
///
/// # Errors
/// Why not.
pub(crate) fn tells_changes(private: &Path) -> Result<(), String> {
    let told = || -> Result<bool, SysError> {
        let dir = tempfile::Builder::new().prefix(".overlay-probe").tempdir_in(private);
        let dir = dir.call("mkdir", || private.display().to_string())?;
        for name in ["upper", "work", "lower"] {
            fs::create_dir(dir.path().join(name)).call("mkdir", || name)?;
        }
        let file = dir.path().join("upper/file");
        fs::write(&file, "x").call("write", || file.display().to_string())?;
        let layer = |path: &Path| Detached::copy_of(path, false);
        let (lower, own) = (layer(&dir.path().join("lower"))?, layer(dir.path())?);
        let overlay = combine(&[lower], Some(&own), None, Sync::Left.options())?;
        let mut watch = crate::changes::Watch::start(&dir.path().join("upper"))?;
        let through = format!("{}/file", overlay.proc_path());
        fs::write(&through, "more").call("write", || &through)?;
        let wanted = Path::new("file");
        Ok(match watch.drain()? {
            crate::changes::Drained::Changes(all) => all.iter().any(|change| change.path == wanted),
            crate::changes::Drained::Lost => false,
        })
    };
    match told() {
        Ok(true) => Ok(()),
        Ok(false) => Err("this kernel does not tell of writes through an overlay".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_ve_puts_under_our_names_is_no_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let (area, other) = (dir.path().join("area"), dir.path().join("other"));
        for path in [&area, &other] {
            create_in(path);
        }
        assert!(is_there(&area) && Record::load(&area).is_ok());
        for name in ["upper", "work", RECORD] {
            let path = area.join(name);
            if path.is_dir() {
                fs::remove_dir(&path).unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            }
            symlink(other.join(name), &path).unwrap();
            assert!(!is_there(&area), "{name} is a link");
            let at = Place { private: &area, bases: dir.path(), how: &crate::image::How::USUAL };
            assert!(mount(at, None, Sync::Kept).is_err(), "{name} is a link");
            fs::remove_file(&path).unwrap();
            if name == RECORD {
                fs::copy(other.join(name), &path).unwrap();
            } else {
                fs::create_dir(&path).unwrap()
            }
        }
        fs::remove_file(area.join(RECORD)).unwrap();
        symlink("/dev/zero", area.join(RECORD)).unwrap();
        assert!(Record::load(&area).is_err());
    }

    fn create_in(area: &Path) {
        fs::create_dir(area).unwrap();
        make_layers(area, Path::new("/")).unwrap();
        let (layout, base) = ("overlay".to_owned(), "base".to_owned());
        let record = Record { version: 1, layout, base, image: false, stack: Stack::default() };
        record.save(area).unwrap();
    }
}
