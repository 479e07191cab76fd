//! What processes watch by inotify, as an image directory has it.
//!
//! CRIU names a watched file by opening its handle on every mount of its file system. On a mount that does not show the
//! file it is told the name `/`, and believes it when the root of the container happens to have the same inode number on
//! another file system: `/run/systemd` is inode 2 of its file system, and the root of an ext4 is inode 2 too. The restore
//! then fails. So who knows better corrects the names.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

const FILES: &str = "files.img";
/// What all images, and this one, begin with.
const MAGIC: [u32; 2] = [0x5456_4319, 0x5630_3138];
// The numbers of fields in CRIU's `images/fdinfo.proto`, `fsnotify.proto` and `fh.proto`.
const ENTRY_INOTIFY: u32 = 13;
const INOTIFY_WATCH: u32 = 5;
const WATCH_INODE: u32 = 2;
const WATCH_DEVICE: u32 = 5;
const WATCH_HANDLE: u32 = 7;
const HANDLE_PATH: u32 = 4;
const HANDLE_MOUNT: u32 = 5;

/// A file that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The device number of its file system, major and minor.
    pub device: (u32, u32),
    /// Its inode number.
    pub inode: u64,
    /// What it is called in its mount namespace.
    pub path: String,
}

/// A name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The path, absolute.
    pub path: String,
    /// A mount of the mount namespace in which that is its path.
    pub mount: u32,
}

/// Corrects the names of what is watched in an image directory that is not listed yet; `None` of `name` for one that is
/// right.
///
/// # Errors
/// [`Error::Image`] when it is no image of CRIU's, [`Error::File`].
pub fn correct(images: &Path, name: &mut dyn FnMut(&Watched) -> Option<Name>) -> Result<()> {
    let path = images.join(FILES);
    let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
    let bad = || Error::Image { path: images.to_owned(), reason: format!("{FILES} cannot be understood") };
    match corrected(&bytes, name).ok_or_else(bad)? {
        Some(bytes) => fs::write(&path, bytes).map_err(Error::file("write", &path)),
        None => Ok(()),
    }
}

/// The image with other names; the inner `None` when all are right, the outer one when it is none.
fn corrected(image: &[u8], name: &mut dyn FnMut(&Watched) -> Option<Name>) -> Other {
    let (magic, mut rest) = image.split_at_checked(8)?;
    if magic != MAGIC.map(u32::to_le_bytes).concat() {
        return None;
    }
    let (mut new, mut changed) = (magic.to_vec(), false);
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (entry, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let other = replace(entry, ENTRY_INOTIFY, &mut |file| {
            replace(file, INOTIFY_WATCH, &mut |watch| renamed(watch, name))
        })?;
        changed |= other.is_some();
        let entry = other.as_deref().unwrap_or(entry);
        new.extend(u32::try_from(entry.len()).ok()?.to_le_bytes());
        new.extend(entry);
        rest = after;
    }
    Some(changed.then_some(new))
}

fn renamed(watch: &[u8], name: &mut dyn FnMut(&Watched) -> Option<Name>) -> Other {
    let number = |field| Some(fields(watch)?.iter().find(|f| f.number == field)?.value);
    let device = u32::try_from(number(WATCH_DEVICE)?).ok()?;
    let inode = number(WATCH_INODE)?;
    replace(watch, WATCH_HANDLE, &mut |handle| {
        let fields = fields(handle)?;
        let Some(path) = fields.iter().find(|f| f.number == HANDLE_PATH) else { return Some(None) };
        let path = String::from_utf8_lossy(path.bytes).into_owned();
        // The kernel's own form of a device number.
        let device = (device >> 20, device & 0xf_ffff);
        let Some(name) = name(&Watched { device, inode, path }) else { return Some(None) };
        let kept = fields.iter().filter(|f| ![HANDLE_PATH, HANDLE_MOUNT].contains(&f.number));
        let mut new: Vec<u8> = kept.flat_map(|f| f.raw).copied().collect();
        put_bytes(&mut new, HANDLE_PATH, name.path.as_bytes());
        put_varint(&mut new, u64::from(HANDLE_MOUNT << 3));
        put_varint(&mut new, u64::from(name.mount));
        Some(Some(new))
    })
}

/// One field of a message, as protobuf writes it.
struct Field<'a> {
    number: u32,
    /// All of it.
    raw: &'a [u8],
    /// Of a number.
    value: u64,
    /// Of a string or message.
    bytes: &'a [u8],
}

fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (tag, after) = varint(message)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let (mut value, mut bytes) = (0, &[][..]);
        let rest = match tag & 7 {
            0 => {
                let (number, rest) = varint(after)?;
                value = number;
                rest
            }
            1 => after.split_at_checked(8)?.1,
            2 => {
                let (length, rest) = varint(after)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = content;
                rest
            }
            5 => after.split_at_checked(4)?.1,
            _ => return None,
        };
        fields.push(Field { number, raw: &message[..message.len() - rest.len()], value, bytes });
        message = rest;
    }
    Some(fields)
}

/// Another message in place of one, if that is not right; the outer `None` for one that cannot be understood.
type Other = Option<Option<Vec<u8>>>;

/// The message with some of its messages of one kind replaced. Fields that nobody here knows stay as they are.
fn replace(message: &[u8], number: u32, with: &mut dyn FnMut(&[u8]) -> Other) -> Other {
    let (mut new, mut changed) = (Vec::with_capacity(message.len()), false);
    for field in fields(message)? {
        let other = if field.number == number { with(field.bytes)? } else { None };
        match other {
            Some(bytes) => {
                put_bytes(&mut new, number, &bytes);
                changed = true;
            }
            None => new.extend(field.raw),
        }
    }
    Some(changed.then_some(new))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(out: &mut Vec<u8>, field: u32, value: u64) {
        put_varint(out, u64::from(field << 3));
        put_varint(out, value);
    }

    fn watch(device: u64, inode: u64, path: &str) -> Vec<u8> {
        let mut handle = Vec::new();
        number(&mut handle, 1, 12);
        put_bytes(&mut handle, HANDLE_PATH, path.as_bytes());
        number(&mut handle, HANDLE_MOUNT, 163);
        // One that we do not know.
        number(&mut handle, 99, 7);
        let mut watch = Vec::new();
        number(&mut watch, WATCH_INODE, inode);
        number(&mut watch, WATCH_DEVICE, device);
        put_bytes(&mut watch, WATCH_HANDLE, &handle);
        watch
    }

    fn image(watches: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        number(&mut file, 1, 0x2c);
        watches.iter().for_each(|watch| put_bytes(&mut file, INOTIFY_WATCH, watch));
        let mut image = MAGIC.map(u32::to_le_bytes).concat();
        let (mut inotify, mut other) = (Vec::new(), Vec::new());
        number(&mut inotify, 1, 8);
        put_bytes(&mut inotify, ENTRY_INOTIFY, &file);
        number(&mut other, 1, 1);
        for entry in [other, inotify] {
            image.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            image.extend(entry);
        }
        image
    }

    fn seen(image: &[u8]) -> Vec<Watched> {
        let mut seen = Vec::new();
        corrected(image, &mut |watched| {
            seen.push(watched.clone());
            None
        });
        seen
    }

    #[test]
    fn a_name_is_corrected_and_everything_else_stays() {
        let before = image(&[watch(0x38, 2, "/"), watch(0x0070_0001, 2, "/")]);
        let run = |watched: &Watched| {
            (watched.device == (0, 0x38)).then(|| Name { path: "/run/systemd".to_owned(), mount: 5 })
        };
        let after = corrected(&before, &mut |watched| run(watched)).unwrap().unwrap();
        let want = |device, path: &str| Watched { device, inode: 2, path: path.to_owned() };
        assert_eq!(seen(&after), [want((0, 0x38), "/run/systemd"), want((7, 1), "/")]);
        // And back again.
        let back = |watched: &Watched| {
            (watched.path == "/run/systemd").then(|| Name { path: "/".to_owned(), mount: 163 })
        };
        let back = corrected(&after, &mut |watched| back(watched)).unwrap().unwrap();
        assert_eq!((seen(&back), back.len()), (seen(&before), before.len()));
        assert_eq!(corrected(&before, &mut |_| None), Some(None));
    }

    #[test]
    fn what_is_cut_off_is_no_image() {
        let whole = image(&[watch(0x38, 2, "/")]);
        for length in 0..whole.len() {
            let cut = corrected(&whole[..length], &mut |_| None);
            // After the head and after the first entry it could have ended.
            assert!(cut.is_none() || [8, 14].contains(&length), "{length}");
        }
        assert_eq!(corrected(&[0; 16], &mut |_| None), None);
    }
}
