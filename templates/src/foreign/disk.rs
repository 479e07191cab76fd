//! Disks of containers: OpenVZ's `root.hdd` with its chain of images, and raw ones. Read by `qemu-img`.
//!
//! A file system that a stranger made is mounted from a copy, so that its journal can be taken in.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use serde_json::{Value, json};
use vzsys::block::{Cache, Loop};
use vzsys::mount::Detached;
use vzsys::{Call, SysError, spawn};

use crate::build::{BuildError, Event};
use crate::image::descriptor::{Descriptor, MAX, NONE};

const DESCRIPTOR: &str = "DiskDescriptor.xml";
/// How many images may lie on one another.
const CHAIN: usize = 64;
/// No disk of a container is larger.
const LARGEST: u64 = 64 << 40;
const SECTOR: u64 = 512;
/// Where the table of partitions is.
const HEAD: u64 = 1 << 20;

/// A disk that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct DiskError {
    /// The disk.
    pub path: PathBuf,
    /// Why not, and what to do.
    pub reason: String,
}

fn wrong(path: &Path, reason: impl Into<String>) -> BuildError {
    DiskError { path: path.to_owned(), reason: reason.into() }.into()
}

/// Whether a directory is a disk of OpenVZ's.
#[must_use]
pub fn is_disk(dir: &Path) -> bool {
    dir.join(DESCRIPTOR).is_file()
}

/// One image of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    file: String,
    plain: bool,
}

/// The chain of a descriptor, the image that is written to first.
fn chain(descriptor: &Descriptor) -> Result<Vec<Link>, String> {
    if descriptor.sectors.saturating_mul(SECTOR) > LARGEST {
        return Err("it says that it is larger than any disk".to_owned());
    }
    let image = |guid: &str| {
        let mut found = descriptor.images.iter().filter(|image| image.guid == guid);
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image),
            (None, _) => Err(format!("there is no image {}", guid.escape_debug())),
            (Some(_), Some(_)) => Err("it is split into several storages, which is not read".to_owned()),
        }
    };
    let mut at = match (&descriptor.top, descriptor.images.as_slice()) {
        (Some(top), _) => top.clone(),
        (None, [only]) => only.guid.clone(),
        (None, _) => return Err("it does not say which of its images is the current one".to_owned()),
    };
    let mut links = Vec::new();
    loop {
        let found = image(&at)?;
        let name = found.file.as_str();
        let plain = match found.kind.as_str() {
            "Compressed" => false,
            "Plain" => true,
            other => return Err(format!("images of the kind {} are not read", other.escape_debug())),
        };
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(format!("'{}' is no name of a file in it", name.escape_debug()));
        }
        links.push(Link { file: name.to_owned(), plain });
        let parent = descriptor.shots.iter().find(|shot| shot.guid == at).map(|shot| shot.parent.clone());
        match parent {
            Some(parent) if parent != NONE => at = parent,
            _ => break,
        }
        if links.len() == CHAIN {
            return Err("its images lie on one another without end".to_owned());
        }
    }
    match links.split_last() {
        Some((_, above)) if above.iter().any(|link| link.plain) => {
            Err("a raw image lies on another one".to_owned())
        }
        _ => Ok(links),
    }
}

/// The disk's file system in one file below `work`.
pub(super) fn flatten(
    dir: &Path,
    work: &Path,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, BuildError> {
    let path = dir.join(DESCRIPTOR);
    let mut text = String::new();
    let file = open(&path)?;
    file.take(MAX as u64 + 1).read_to_string(&mut text).call("read", || path.display().to_string())?;
    let descriptor = Descriptor::parse(&text).map_err(|reason| wrong(&path, reason))?;
    let links = chain(&descriptor).map_err(|reason| wrong(&path, reason))?;
    let mut node = Value::Null;
    for link in links.iter().rev() {
        let image = fs::canonicalize(dir).call("realpath", || dir.display().to_string())?.join(&link.file);
        // A link, a device or a pipe is no image of ours to read.
        open(&image)?;
        let file = json!({"driver": "file", "filename": image, "read-only": true, "locking": "off"});
        let mut this =
            json!({"driver": if link.plain { "raw" } else { "parallels" }, "file": file, "read-only": true});
        if !node.is_null() {
            this["backing"] = node;
        }
        node = this;
    }
    extract(dir, &node, work, say)
}

/// A raw image's file system in one file below `work`.
pub(super) fn copy(path: &Path, work: &Path, say: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf, BuildError> {
    open(path)?;
    let full = fs::canonicalize(path).call("realpath", || path.display().to_string())?;
    let file = json!({"driver": "file", "filename": full, "read-only": true, "locking": "off"});
    extract(path, &json!({"driver": "raw", "file": file, "read-only": true}), work, say)
}

/// A regular file, which is not waited for.
fn open(path: &Path) -> Result<File, BuildError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).call("open", || path.display().to_string())?;
    let stat = rustix::fs::fstat(&file).call("fstat", || path.display().to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong(path, "it is no regular file"));
    }
    Ok(File::from(file))
}

/// First the beginning, to see where the file system is; then that alone.
fn extract(
    what: &Path,
    node: &Value,
    work: &Path,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, BuildError> {
    say(Event::Line(&format!("Reading the disk {}", what.display())));
    let part = |offset: u64, size: Option<u64>| {
        let mut part = json!({"driver": "raw", "offset": offset, "file": node});
        if let Some(size) = size {
            part["size"] = json!(size);
        }
        part
    };
    let head = work.join("head.raw");
    convert(what, &part(0, Some(HEAD)), &head)?;
    let bytes = fs::read(&head).call("read", || head.display().to_string())?;
    let _ = fs::remove_file(&head);
    let found = file_system(&bytes).map_err(|reason| wrong(what, reason))?;
    let image = work.join("disk.raw");
    convert(what, &part(found.offset, found.size), &image)?;
    Ok(image)
}

fn convert(what: &Path, node: &Value, to: &Path) -> Result<(), BuildError> {
    let mut command = spawn::command("qemu-img")
        .map_err(|_| BuildError::NoProgram { program: "qemu-img", package: "qemu-utils" })?;
    // Formats are named, never guessed: an image cannot make qemu open another file.
    command.args(["convert", "-O", "raw"]).arg(format!("json:{node}")).arg(to);
    let (status, _, said) = spawn::feed(command, b"")?;
    if status.success() {
        return Ok(());
    }
    let _ = fs::remove_file(to);
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    Err(wrong(what, format!("qemu-img cannot read it: {}", said.trim())))
}

/// Where on a disk its file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    offset: u64,
    /// To the end where it is not said.
    size: Option<u64>,
}

/// Looks for a file system at the beginning, else for the first partition of a table (GPT, MBR).
fn file_system(head: &[u8]) -> Result<Found, String> {
    let word = |at: usize, size: usize| -> u64 {
        head.get(at..at + size)
            .unwrap_or_default()
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let ext = word(1080, 2) == 0xef53;
    if ext || head.starts_with(b"XFSB") || head.get(0x10040..0x10048) == Some(b"_BHRfS_M") {
        return Ok(Found { offset: 0, size: None });
    }
    let part = |first: u64, sectors: u64| {
        let bytes = (first.checked_mul(SECTOR), sectors.checked_mul(SECTOR));
        match bytes {
            (Some(offset), Some(size))
                if first > 0 && sectors > 0 && offset.saturating_add(size) <= LARGEST =>
            {
                Ok(Found { offset, size: Some(size) })
            }
            _ => Err("its table of partitions is damaged".to_owned()),
        }
    };
    if head.get(512..520) == Some(b"EFI PART") {
        let table = usize::try_from(word(512 + 72, 8).saturating_mul(SECTOR)).unwrap_or(usize::MAX);
        let (count, size) = (word(512 + 80, 4).min(128), word(512 + 84, 4).clamp(128, 4096));
        for number in 0..count {
            let at = table.saturating_add(usize::try_from(number * size).unwrap_or(0));
            if at.saturating_add(128) > head.len() {
                break;
            }
            if head[at..at + 16].iter().any(|byte| *byte != 0) {
                let (first, last) = (word(at + 32, 8), word(at + 40, 8));
                return part(first, last.saturating_sub(first).saturating_add(1));
            }
        }
        return Err("it has no partition".to_owned());
    }
    if word(510, 2) == 0xaa55 && word(446 + 4, 1) != 0 {
        return part(word(446 + 8, 4), word(446 + 12, 4));
    }
    Err("there is no file system on it that is known (ext4, xfs, btrfs)".to_owned())
}

/// Mounts a copied file system where nobody sees it.
pub(super) fn mount(image: &Path) -> Result<Detached, BuildError> {
    let name = || image.display().to_string();
    let file = File::options().read(true).write(true).open(image).call("open", name)?;
    let device = Loop::attach(std::os::fd::AsFd::as_fd(&file), 512, Cache::Around)?;
    let attrs = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let source = device.path().display().to_string();
    let mut last: Option<SysError> = None;
    for kind in ["ext4", "xfs", "btrfs"] {
        match Detached::new(kind, &source, &[], attrs) {
            Ok(mounted) => return Ok(mounted),
            Err(error) => last = last.or(Some(error)),
        }
    }
    let why = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(wrong(image, format!("its file system cannot be mounted{why}; e2fsck may mend the original")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::descriptor::{ImageFile, Shot};

    fn descriptor(images: &[(&str, &str, &str)], shots: &[(&str, &str)], top: Option<&str>) -> Descriptor {
        Descriptor {
            sectors: 2048,
            images: images
                .iter()
                .map(|(guid, kind, file)| ImageFile {
                    guid: (*guid).to_owned(),
                    kind: (*kind).to_owned(),
                    file: (*file).to_owned(),
                })
                .collect(),
            shots: shots
                .iter()
                .map(|(guid, parent)| Shot { guid: (*guid).to_owned(), parent: (*parent).to_owned() })
                .collect(),
            top: top.map(str::to_owned),
        }
    }

    #[test]
    fn a_chain_goes_from_the_current_image_to_the_first() {
        let images = [("{a}", "Compressed", "root.hds"), ("{b}", "Compressed", "root.hds.{b}")];
        let shots = [("{a}", NONE), ("{b}", "{a}")];
        let files = |top| {
            let links = chain(&descriptor(&images, &shots, top)).unwrap();
            links.into_iter().map(|link| link.file).collect::<Vec<_>>()
        };
        assert_eq!(files(Some("{b}")), ["root.hds.{b}", "root.hds"]);
        assert_eq!(files(Some("{a}")), ["root.hds"]);
        assert_eq!(chain(&descriptor(&images[..1], &[], None)).unwrap().len(), 1);
    }

    #[test]
    fn chains_that_lie_are_refused() {
        let one = [("{a}", "Compressed", "x")];
        for (images, shots, top) in [
            (&one[..], &[("{a}", "{a}")][..], Some("{a}")),
            (&one, &[("{a}", "{b}")], Some("{a}")),
            (&one, &[], Some("{c}")),
            (&[("{a}", "Compressed", "../x")], &[], None),
            (&[("{a}", "Compressed", "/etc/shadow")], &[], None),
            (&[("{a}", "Compressed", "..")], &[], None),
            (&[("{a}", "Weird", "x")], &[], None),
            (&[("{a}", "Compressed", "x"), ("{a}", "Compressed", "y")], &[], Some("{a}")),
            (&[("{a}", "Compressed", "x"), ("{b}", "Compressed", "y")], &[], None),
        ] {
            chain(&descriptor(images, shots, top)).unwrap_err();
        }
        let mut large = descriptor(&one, &[], None);
        large.sectors = u64::MAX;
        chain(&large).unwrap_err();
    }

    #[test]
    fn file_systems_are_found_with_and_without_a_table() {
        let mut head = vec![0; HEAD as usize];
        assert!(file_system(&head).is_err());
        head[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(file_system(&head).unwrap(), Found { offset: 0, size: None });
        let mut gpt = vec![0; HEAD as usize];
        gpt[512..520].copy_from_slice(b"EFI PART");
        gpt[584] = 2;
        gpt[592] = 128;
        gpt[596] = 128;
        gpt[1024] = 1;
        gpt[1056..1058].copy_from_slice(&2048_u16.to_le_bytes());
        gpt[1064..1066].copy_from_slice(&4095_u16.to_le_bytes());
        assert_eq!(file_system(&gpt).unwrap(), Found { offset: 1 << 20, size: Some(1 << 20) });
        let mut mbr = vec![0; HEAD as usize];
        mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
        (mbr[450], mbr[455], mbr[459]) = (0x83, 8, 8);
        assert_eq!(file_system(&mbr).unwrap(), Found { offset: 1 << 20, size: Some(1 << 20) });
    }

    proptest! {
        #[test]
        fn damaged_tables_are_errors_and_no_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..2048), gpt: bool, at in 0usize..2048, value: u8
        ) {
            let mut head = bytes;
            if gpt && head.len() > 600 {
                head[512..520].copy_from_slice(b"EFI PART");
            }
            if at < head.len() {
                head[at] = value;
            }
            let _ = file_system(&head);
        }
    }
}
