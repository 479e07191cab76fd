//! A whole file system in an image, where OpenVZ's ploop had its own. The image is a raw one: any tool can mount it.
//!
//! ```text
//! PRIVATE/root.hdd/DiskDescriptor.xml   names the image, in the words of OpenVZ's tools
//! PRIVATE/root.hdd/root.hds             the image
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, openat};
use vzconf::Exit;
use vzsys::idmap::IdRange;
use vzsys::mount::Detached;
use vzsys::{Call, SysError, fault};

use super::{Empty, Kind, LayoutError, Mapping, New, Place};
use crate::archive::{Progress, Unpack};
use crate::cache::CacheError;
use crate::image::descriptor::{self, Descriptor};
use crate::image::{self, Image};
use crate::small_file;

const DISK: &str = "root.hdd";
const DESCRIPTOR: &str = "DiskDescriptor.xml";
const IMAGE: &str = "root.hds";
/// Says that we made it: attributes of this kind are set in the host's user namespace only.
const MARK: &str = "trusted.vz.layout";

/// The layout `ploop`.
#[derive(Debug)]
pub(super) struct Ploop;

impl Kind for Ploop {
    fn create(&self, new: &New<'_>, progress: &mut dyn FnMut(Progress)) -> Result<(), LayoutError> {
        let tree = prepare(new.area, new.image.ok_or(LayoutError::NoSize)?, new.blanks)?;
        fault::point("ploop.made");
        let dir = PathBuf::from(format!("{}/.", tree.proc_path()));
        let unpacked =
            Unpack::new(&new.template.path).needed(new.template.unpacked()).progress(progress).into_dir(&dir);
        unpacked.map(drop).map_err(|error| CacheError::from(error).into())
    }

    fn prepare(&self, empty: &Empty<'_>) -> Result<(), LayoutError> {
        prepare(empty.area, empty.image.ok_or(LayoutError::NoSize)?, empty.blanks).map(drop)
    }

    fn mount(&self, at: Place<'_>, ids: Option<IdRange>) -> Result<Detached, LayoutError> {
        let mapping = Mapping::of(ids, at.private)?;
        mapping.map(open(at.private)?.mount_as(at.how)?, at.private)
    }

    fn mount_new(&self, at: Place<'_>) -> Result<Detached, LayoutError> {
        Ok(open(at.private)?.mount_new()?)
    }

    fn finish_new(&self, private: &Path) -> Result<(), LayoutError> {
        Ok(open(private)?.settle()?)
    }

    fn shell_like(&self, private: &Path, area: &Path) -> Result<PathBuf, LayoutError> {
        let length = open(private)?.length()?;
        let disk = make_disk(area)?;
        describe(&disk, &Descriptor::plain(IMAGE, length))?;
        Ok(disk.join(IMAGE))
    }

    fn image(&self, private: &Path) -> Result<Option<Image>, LayoutError> {
        open(private).map(Some)
    }

    fn note_size(&self, private: &Path) -> Result<(), LayoutError> {
        let (found, image) = opened(private)?;
        let wanted =
            Descriptor { sectors: Descriptor::plain(IMAGE, image.length()?).sectors, ..found.clone() };
        if found == wanted { Ok(()) } else { describe(&private.join(DISK), &wanted) }
    }
}

/// Whether an area is one, as far as the area tells. A VE whose root is a plain directory can make its own look so,
/// and would then have the host mount an image of its making: believed is a mark that no VE can set.
pub(super) fn is_there(private: &Path) -> Result<bool, LayoutError> {
    let kind = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.file_type());
    let disk = private.join(DISK);
    let looks = kind(&disk).is_ok_and(|kind| kind.is_dir())
        && kind(&disk.join(DESCRIPTOR)).is_ok_and(|kind| kind.is_file());
    if !looks {
        return Ok(false);
    }
    let mut value = [0; 16];
    match rustix::fs::lgetxattr(&disk, MARK, &mut value) {
        Ok(length) if value.get(..length) == Some(b"ploop") => Ok(true),
        _ => Err(LayoutError::Unsure { path: disk }),
    }
}

/// The directories of an area.
fn make_disk(area: &Path) -> Result<PathBuf, LayoutError> {
    let disk = area.join(DISK);
    for dir in [area, &disk] {
        let made = DirBuilder::new().mode(0o700).create(dir).call("mkdir", || dir.display().to_string());
        made.map_err(failed(area))?;
    }
    // Where the file system has no attributes, the configuration says it alone.
    let _ = rustix::fs::lsetxattr(&disk, MARK, b"ploop", XattrFlags::empty());
    Ok(disk)
}

/// Makes `area`, with an empty file system, which is mounted.
fn prepare(area: &Path, size: image::Size, blanks: &Path) -> Result<Detached, LayoutError> {
    let disk = make_disk(area)?;
    image::make(&disk.join(IMAGE), size, blanks)?;
    let length = Image::open(&disk.join(IMAGE))?.length()?;
    describe(&disk, &Descriptor::plain(IMAGE, length))?;
    // Whoever looks at the root of a VE expects what its template has there.
    let tree = Image::open(&disk.join(IMAGE))?.mount_new()?;
    let lost = rustix::fs::unlinkat(&tree, "lost+found", rustix::fs::AtFlags::REMOVEDIR);
    lost.call("rmdir", || format!("{}, lost+found", area.display())).map_err(failed(area))?;
    Ok(tree)
}

fn failed(area: &Path) -> impl FnOnce(SysError) -> LayoutError {
    LayoutError::call(format!("cannot prepare {}", area.display()), Exit::FsNewVePrvt)
}

/// Writes the descriptor, in place of one that is there.
fn describe(disk: &Path, descriptor: &Descriptor) -> Result<(), LayoutError> {
    let (path, temp) = (disk.join(DESCRIPTOR), disk.join("DiskDescriptor.xml.new"));
    let write = || {
        let mut file = File::create(&temp)?;
        file.write_all(descriptor.text()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, &path)
    };
    write()
        .call("write", || path.display().to_string())
        .map_err(LayoutError::call(format!("cannot write {}", path.display()), Exit::CreateImage))
}

/// The image of an area.
fn open(private: &Path) -> Result<Image, LayoutError> {
    opened(private).map(|(_, image)| image)
}

/// The same, with what is said of it. No link in it is followed: it may be what a VE says of itself.
fn opened(private: &Path) -> Result<(Descriptor, Image), LayoutError> {
    let path = private.join(DISK);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let disk = openat(CWD, &path, flags, Mode::empty()).call("open", || path.display().to_string());
    let disk = disk.map_err(|error| damaged(&path, error.to_string()))?;
    let text = read(&disk).map_err(|error| damaged(&path.join(DESCRIPTOR), error.to_string()))?;
    let found = Descriptor::parse(&text).map_err(|reason| damaged(&path.join(DESCRIPTOR), reason))?;
    let [only] = found.images.as_slice() else {
        let reason = format!(
            "it has {} images on top of one another; vzctl import reads such disks",
            found.images.len()
        );
        return Err(damaged(&path.join(DESCRIPTOR), reason));
    };
    if only.kind != "Plain" {
        let reason = format!("its image is of type '{}', not a raw one", only.kind.escape_default());
        return Err(damaged(&path.join(DESCRIPTOR), reason));
    }
    if only.file.contains('/') || only.file.starts_with('.') {
        let reason = format!("'{}' is no name of a file beside it", only.file.escape_default());
        return Err(damaged(&path.join(DESCRIPTOR), reason));
    }
    let image = Image::open_at(&disk, &only.file, &path.join(&only.file))?;
    Ok((found, image))
}

fn damaged(path: &Path, reason: String) -> LayoutError {
    LayoutError::Damaged { path: path.to_owned(), reason }
}

fn read(disk: &OwnedFd) -> std::io::Result<String> {
    let bytes = small_file::read(disk, Path::new(DESCRIPTOR), descriptor::MAX as u64)?;
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Size;

    #[test]
    fn an_area_is_read_as_it_was_written_and_no_link_in_it_followed() {
        let dir = tempfile::tempdir().unwrap();
        let area = dir.path().join("area");
        prepare(&area, Size { bytes: 16 << 20, inodes: None }, &dir.path().join("blanks")).unwrap();
        assert!(is_there(&area).unwrap());
        let length = fs::metadata(area.join(DISK).join(IMAGE)).unwrap().len();
        assert_eq!(opened(&area).unwrap().0.sectors * 512, length);
        rustix::fs::lremovexattr(area.join(DISK), MARK).unwrap();
        assert!(matches!(is_there(&area), Err(LayoutError::Unsure { .. })));
        let tree =
            Ploop.mount(Place { private: &area, bases: &area, how: &image::How::USUAL }, None).unwrap();
        assert_eq!(fs::read_dir(format!("{}/.", tree.proc_path())).unwrap().count(), 0);
        drop(tree);
        let (disk, other) = (area.join(DISK), dir.path().join("other"));
        for name in [IMAGE, DESCRIPTOR] {
            fs::rename(disk.join(name), &other).unwrap();
            std::os::unix::fs::symlink(&other, disk.join(name)).unwrap();
            assert!(open(&area).is_err(), "{name} is a link");
            fs::remove_file(disk.join(name)).unwrap();
            fs::rename(&other, disk.join(name)).unwrap();
        }
        for file in ["../root.hdd/root.hds", "/etc/passwd", "."] {
            let mut bad = Descriptor::plain(IMAGE, 0);
            file.clone_into(&mut bad.images[0].file);
            fs::write(disk.join(DESCRIPTOR), bad.text().unwrap()).unwrap();
            assert!(matches!(open(&area), Err(LayoutError::Damaged { .. })), "{file}");
        }
    }
}
