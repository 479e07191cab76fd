//! Snapshots of areas whose files lie in an image (`ploop`, and overlays with an image for what they write): images.
//!
//! ```text
//! PRIVATE/data/<id>.img         a snapshot
//! PRIVATE/data/<id>.img.part    one in the making
//! ```
//! Of a stopped VE the image is copied, with its blocks shared where the file system can. Of a running one the files are
//! copied into a new image: the mounted file system is one for both.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use vzsys::Call;
use vzsys::mount::Detached;

use super::error::{Failed, Result};
use super::layers::sync_file_system;
use super::live::{Copied, Places};
use super::{Area, Id, Keeper, SnapshotError, Target, Tree};
use crate::image::{self, Image, Size};
use crate::layout::{self, Layout, LayoutError, overlay};

/// An area with an image.
#[derive(Debug)]
pub(super) struct Whole<'a>(pub(super) Area<'a>);

/// Whether the files of an area lie in an image.
pub(super) fn is_one(area: &Area<'_>) -> bool {
    match area.layout {
        Layout::Ploop => true,
        Layout::Overlay => overlay::Record::load(area.private).is_ok_and(|record| record.image),
        Layout::Simfs | Layout::Btrfs => false,
    }
}

impl Whole<'_> {
    fn data(&self) -> PathBuf {
        self.0.private.join("data")
    }

    fn file(&self, id: Id) -> PathBuf {
        self.data().join(format!("{}.img", id.bare()))
    }

    fn part(&self, id: Id) -> PathBuf {
        self.data().join(format!("{}.img.part", id.bare()))
    }

    fn own(&self) -> Result<Image> {
        let missing = || LayoutError::Missing { path: self.0.private.to_owned() };
        Ok(layout::image(self.0.layout, self.0.private)?.ok_or_else(missing)?)
    }

    fn make_data(&self) -> Result<()> {
        let data = self.data();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).failed_at("make", &data)
    }

    fn existing(&self, id: Id) -> Result<PathBuf> {
        let path = self.file(id);
        if path.is_file() { Ok(path) } else { Err(SnapshotError::NoData { id, path }) }
    }

    /// Copies an image that nobody changes.
    fn copy(from: &Path, to: &Path) -> Result<()> {
        let what = || format!("copy {} to {}", from.display(), to.display());
        let _ = fs::remove_file(to);
        let source = File::open(from).failed(what())?;
        let target = fs::OpenOptions::new().write(true).read(true).create_new(true).open(to).failed(what())?;
        image::copy(&source, &target, &mut |_, _| ()).failed(what())?;
        target.sync_all().failed(what())
    }

    /// An empty image as large as the one of the VE.
    fn empty_like(&self, mounted: &Detached, path: &Path) -> Result<Detached> {
        let shown =
            rustix::fs::fstatvfs(mounted).call("fstatvfs", || "the image").failed("look at the image")?;
        let size = Size { bytes: shown.f_blocks * shown.f_frsize, inodes: Some(shown.f_files) };
        let _ = fs::remove_file(path);
        image::make(path, size, self.0.blanks).map_err(LayoutError::from)?;
        Ok(Image::open(path).and_then(|image| image.mount()).map_err(LayoutError::from)?)
    }
}

/// (The dot: a name that may not be a symlink, as the one in /proc is.)
fn top(mounted: &Detached) -> PathBuf {
    PathBuf::from(format!("{}/.", mounted.proc_path()))
}

impl Whole<'_> {
    /// Where the VE's files are in an image. An overlay has its own directories there; nobody sees the work directory.
    fn within(&self, mounted: &Detached) -> PathBuf {
        match self.0.layout {
            Layout::Overlay => top(mounted).join("upper"),
            _ => top(mounted),
        }
    }

    /// From the mounted image of the VE to a new one.
    fn places(&self, file: &Path) -> Result<Places> {
        let own = self.own()?;
        // In the new image it would be an I/O error.
        let used = own.usage().map_err(LayoutError::from)?.used;
        own.expect_room(used).map_err(LayoutError::from)?;
        let from = own.mount().map_err(LayoutError::from)?;
        let to = self.empty_like(&from, file)?;
        if self.0.layout == Layout::Overlay {
            let work = top(&to).join("work");
            fs::DirBuilder::new().mode(0o700).create(&work).failed_at("make", &work)?;
        }
        let whole = self.0.layout != Layout::Overlay;
        let copied = Copied { from: self.within(&from), to: self.within(&to), whole, held: vec![from, to] };
        Ok(Places::Copy(copied))
    }
}

impl Keeper for Whole<'_> {
    fn mend(&self, listed: &Tree) -> Result<Option<Id>> {
        layout::note_size(self.0.layout, self.0.private)?;
        for entry in fs::read_dir(self.data()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id: Option<Id> = name.strip_suffix(".img").and_then(|name| name.parse().ok());
            if id.is_none_or(|id| listed.get(id).is_none()) {
                self.0.discard(&entry.path())?;
            }
        }
        Ok(None)
    }

    fn take(&self, id: Id) -> Result<()> {
        self.make_data()?;
        let own = self.own()?;
        Self::copy(own.path(), &self.part(id))?;
        self.adopt(id)
    }

    fn written(&self) -> Result<(PathBuf, Option<Detached>)> {
        let mounted = self.own()?.mount().map_err(LayoutError::from)?;
        Ok((self.within(&mounted), Some(mounted)))
    }

    fn copy_places(&self, id: Id) -> Result<Places> {
        self.make_data()?;
        self.places(&self.part(id))
    }

    fn adopt(&self, id: Id) -> Result<()> {
        let (part, file) = (self.part(id), self.file(id));
        fs::rename(&part, &file).failed_at("rename", &part)
    }

    fn switch(&self, id: Id) -> Result<()> {
        let from = self.existing(id)?;
        let own = self.own()?.path().to_owned();
        let next = self.data().join("next.img.part");
        Self::copy(&from, &next)?;
        vzsys::fault::point("snapshot-switch.copied");
        // COMMIT: the VE has the files of the snapshot.
        fs::rename(&next, &own).failed_at("replace", &own)?;
        Ok(layout::note_size(self.0.layout, self.0.private)?)
    }

    fn stamp(&self) -> Result<u64> {
        super::inode(self.own()?.path())
    }

    fn remove(&self, id: Id, _current: Option<Id>) -> Result<()> {
        self.0.discard(&self.file(id))
    }

    fn mount(&self, id: Id) -> Result<Detached> {
        let image = Image::open(&self.existing(id)?).map_err(LayoutError::from)?;
        let mounted = image.mount().map_err(LayoutError::from)?;
        if self.0.layout != Layout::Overlay {
            return Ok(mounted);
        }
        Ok(overlay::mount_upper(self.0.private, self.0.bases, &mounted)?)
    }

    fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()> {
        let from = of.map_or_else(|| Ok(self.own()?.path().to_owned()), |id| self.existing(id))?;
        Self::copy(&from, &layout::shell_like(self.0.layout, self.0.private, to.area)?)
    }

    fn clone_places(&self, to: Target<'_>) -> Result<Places> {
        self.places(&layout::shell_like(self.0.layout, self.0.private, to.area)?)
    }

    fn clone_copied(&self, to: Target<'_>) -> Result<()> {
        Ok(layout::note_size(self.0.layout, to.area)?)
    }

    fn tells(&self) -> std::result::Result<(), String> {
        if self.0.layout == Layout::Overlay { overlay::tells_changes(self.0.private) } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        sync_file_system(self.0.private)
    }
}
