//! Writes PAX archives: plain ustar headers, with extended records only for what does not fit.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use vzsys::{Call, SysError};

use super::error::{ArchiveError, Fault};
use super::format::{Compression, Encoder};
use super::stream::{BLOCK, padding};
use super::{acl, pax, sparse};

const BUFFER: usize = 256 << 10;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink to this.
    Symlink(Vec<u8>),
    /// Another name of the entry with this path.
    HardLink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes as the kernel has them, ACLs among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of root's, without attributes.
    #[must_use]
    pub fn new(path: &str, kind: EntryKind, mode: u32) -> Self {
        Self { path: path.as_bytes().to_vec(), kind, mode, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }
}

/// An archive being written. Dropped before [`Writer::finish`], it leaves a file without an end.
pub struct Writer {
    path: PathBuf,
    out: BufWriter<Encoder>,
    /// Bytes that the current entry still lacks.
    due: u64,
    /// Its padding.
    pad: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates the file, which must not exist.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn create(path: &Path, compression: Compression) -> Result<Self, ArchiveError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.call("open", || path.display().to_string());
        Self::over(file.map_err(|error| Fault::from(error).at(path, None))?, path, compression)
    }

    /// Writes into an open file or pipe, which errors call `name`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn over(file: File, name: &Path, compression: Compression) -> Result<Self, ArchiveError> {
        let encoder = compression.encoder(file).call("open", || name.display().to_string());
        let encoder = encoder.map_err(|error| Fault::from(error).at(name, None))?;
        Ok(Self { path: name.to_owned(), out: BufWriter::with_capacity(BUFFER, encoder), due: 0, pad: 0 })
    }

    /// Writes an entry with its data, which must be empty for all but files.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn add(&mut self, entry: &Entry, data: &[u8]) -> Result<(), ArchiveError> {
        let whole = |this: &mut Self| {
            this.begin(entry, data.len() as u64, None, 0)?;
            this.write(data)?;
            this.end()
        };
        whole(self).map_err(|fault| fault.at(&self.path, Some(&entry.path)))
    }

    /// Begins an entry of which `size` bytes follow; of a sparse file, those of its segments.
    pub(super) fn begin(
        &mut self,
        entry: &Entry,
        size: u64,
        map: Option<&sparse::Map>,
        shift: u32,
    ) -> Result<(), Fault> {
        let map_text = map.map(sparse::map_text).unwrap_or_default();
        let stored = size + map_text.len() as u64;
        let mut records = Vec::new();
        let name = self.name(entry, map, &mut records);
        let header = header(entry, &name, stored, &mut records);
        attributes(entry, shift, &mut records);
        if !records.is_empty() {
            let mut pax = Entry::new("", EntryKind::File, 0o644);
            pax.mtime = (entry.mtime.0.max(0), 0);
            let mut block = header_block(&pax, b"./PaxHeaders/member", records.len() as u64);
            block[156] = b'x';
            seal(&mut block);
            self.raw(&block)?;
            self.raw(&records)?;
            self.zeros(padding(records.len() as u64))?;
        }
        self.raw(&header)?;
        self.raw(&map_text)?;
        self.due = size;
        self.pad = padding(size);
        Ok(())
    }

    /// The name in the header; a name that does not fit there goes into a record.
    fn name(&self, entry: &Entry, map: Option<&sparse::Map>, records: &mut Vec<u8>) -> Vec<u8> {
        let mut name = [b"./", entry.path.as_slice()].concat();
        if entry.kind == EntryKind::Directory && !entry.path.is_empty() {
            name.push(b'/');
        }
        if let Some(map) = map {
            pax::push(records, b"GNU.sparse.major", b"1");
            pax::push(records, b"GNU.sparse.minor", b"0");
            pax::push(records, b"GNU.sparse.name", &name);
            pax::push(records, b"GNU.sparse.realsize", map.size.to_string().as_bytes());
            return b"./GNUSparseFile.0/member".to_vec();
        }
        name
    }

    /// Data of the current entry; more than announced is dropped (the file grew meanwhile).
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let n = usize::try_from(self.due).unwrap_or(usize::MAX).min(bytes.len());
        self.due -= n as u64;
        self.raw(&bytes[..n])
    }

    /// Ends the current entry; what is missing (the file shrank meanwhile) reads as zeros.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        let (due, pad) = (std::mem::take(&mut self.due), std::mem::take(&mut self.pad));
        self.zeros(due)?;
        self.zeros(pad)
    }

    fn zeros(&mut self, mut n: u64) -> Result<(), Fault> {
        while n > 0 {
            let piece = n.min(BLOCK as u64);
            self.raw(&[0; BLOCK][..usize::try_from(piece).unwrap_or(BLOCK)])?;
            n -= piece;
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.out.write_all(bytes).call("write", || self.path.display().to_string())?)
    }

    /// Writes the end mark, and the file to disk.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        let path = self.path.clone();
        let close = |this: Self| -> std::io::Result<File> {
            let file = this.out.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?;
            match file.sync_all() {
                // A pipe has no disk.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(file),
                done => done.map(|()| file),
            }
        };
        self.zeros(2 * BLOCK as u64).map_err(|fault| fault.at(&path, None))?;
        let closed = close(self).map_err(|error| SysError::from_io("write", path.display(), &error));
        closed.map(drop).map_err(|error| Fault::from(error).at(&path, None))
    }
}

fn header(entry: &Entry, name: &[u8], stored: u64, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut block = header_block(entry, name, stored);
    if name.len() > 100 && !split_name(&mut block, name) {
        pax::push(records, b"path", name);
    }
    let (kind, link): (u8, &[u8]) = match &entry.kind {
        EntryKind::File => (b'0', b""),
        EntryKind::HardLink(to) => (b'1', to),
        EntryKind::Symlink(to) => (b'2', to),
        EntryKind::Char(..) => (b'3', b""),
        EntryKind::Block(..) => (b'4', b""),
        EntryKind::Directory => (b'5', b""),
        EntryKind::Fifo => (b'6', b""),
    };
    block[156] = kind;
    let link = if kind == b'1' { [b"./", link].concat() } else { link.to_vec() };
    let fit = link.len().min(100);
    block[157..157 + fit].copy_from_slice(&link[..fit]);
    if link.len() > 100 {
        pax::push(records, b"linkpath", &link);
    }
    if let EntryKind::Char(major, minor) | EntryKind::Block(major, minor) = entry.kind {
        for (at, key, value) in [(329, &b"SCHILY.devmajor"[..], major), (337, b"SCHILY.devminor", minor)] {
            if !octal(&mut block[at..at + 8], value.into()) {
                pax::push(records, key, value.to_string().as_bytes());
            }
        }
    }
    for (key, value, most) in [
        (&b"uid"[..], u64::from(entry.uid), 0o7_777_777),
        (b"gid", entry.gid.into(), 0o7_777_777),
        (b"size", stored, 0o77_777_777_777),
    ] {
        if value > most {
            pax::push(records, key, value.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || !(0..=0o77_777_777_777).contains(&seconds) {
        pax::push(records, b"mtime", pax::time_text(seconds, nanos).as_bytes());
    }
    seal(&mut block);
    block
}

fn attributes(entry: &Entry, shift: u32, records: &mut Vec<u8>) {
    for (name, value) in &entry.xattrs {
        let acl = match name.as_slice() {
            acl::ACCESS => Some(&b"SCHILY.acl.access"[..]),
            acl::DEFAULT => Some(&b"SCHILY.acl.default"[..]),
            _ => None,
        };
        match acl.and_then(|key| acl::text(value, shift).map(|text| (key, text))) {
            Some((key, text)) => pax::push(records, key, text.as_bytes()),
            None => pax::push(records, &[XATTR, name].concat(), value),
        }
    }
}

fn header_block(entry: &Entry, name: &[u8], stored: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let fit = name.len().min(100);
    block[..fit].copy_from_slice(&name[..fit]);
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    // What does not fit is in a record, which counts.
    octal(&mut block[108..116], entry.uid.into());
    octal(&mut block[116..124], entry.gid.into());
    octal(&mut block[124..136], stored);
    octal(&mut block[136..148], u64::try_from(entry.mtime.0).unwrap_or(0));
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], 0);
    octal(&mut block[337..345], 0);
    seal(&mut block);
    block
}

/// Uses the prefix field for a name of up to 255 bytes.
fn split_name(block: &mut [u8; BLOCK], name: &[u8]) -> bool {
    let Some(slash) = (name.len().saturating_sub(101)..name.len().min(156)).find(|&at| name[at] == b'/')
    else {
        return false;
    };
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    if rest.is_empty() || rest.len() > 100 || prefix.is_empty() {
        return false;
    }
    block[..100].fill(0);
    block[..rest.len()].copy_from_slice(rest);
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    true
}

/// Octal digits and a NUL. What does not fit stays 0.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let fits = text.len() <= digits;
    let text = if fits { text } else { "0".repeat(digits) };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
    fits
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
