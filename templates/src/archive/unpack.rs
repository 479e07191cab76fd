//! Unpacking an archive into a directory that appears whole or not at all.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use vzsys::Call;

use super::error::{ArchiveError, Fault};
use super::place::{Placer, open_root};
use super::reader::{Kind, Member, Reader};
use super::stream::Stream;
use super::{Limits, Progress, Summary};
use crate::removal;

/// How often progress is told, in unpacked bytes.
const TELL: u64 = 4 << 20;

/// Whether the tree must survive a power cut when [`Unpack::into`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The kernel writes it when it likes.
    #[default]
    Lazy,
    /// The file system is synced before the tree appears.
    Synced,
}

/// One archive about to be unpacked. Needs root, for owners and devices.
///
/// ```no_run
/// # fn main() -> Result<(), templates::archive::ArchiveError> {
/// let summary = templates::archive::Unpack::new("/vz/template/cache/tiny.tar.zst")
///     .progress(&mut |p| eprintln!("{} of {}", p.read, p.total))
///     .into("/vz/private/101".as_ref())?;
/// # Ok(()) }
/// ```
pub struct Unpack<'a> {
    archive: PathBuf,
    /// What errors call it.
    name: PathBuf,
    limits: Limits,
    needed: Option<u64>,
    durability: Durability,
    progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl std::fmt::Debug for Unpack<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpack").field("archive", &self.archive).finish_non_exhaustive()
    }
}

impl<'a> Unpack<'a> {
    /// With the default limits, and the size estimated from the file.
    #[must_use]
    pub fn new(archive: impl Into<PathBuf>) -> Self {
        let archive = archive.into();
        Self {
            name: archive.clone(),
            archive,
            limits: Limits::default(),
            needed: None,
            durability: Durability::default(),
            progress: None,
        }
    }

    /// The name that errors use instead: where the archive was copied from.
    #[must_use]
    pub fn named(mut self, name: &Path) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The unpacked size in bytes, where it is known.
    #[must_use]
    pub fn needed(mut self, bytes: Option<u64>) -> Self {
        self.needed = bytes;
        self
    }

    /// Whether to sync.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whom to tell how far it is.
    #[must_use]
    pub fn progress(mut self, progress: &'a mut dyn FnMut(Progress)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Unpacks into `dest`, which must not exist: in `DEST.tmp` first (a stale one is removed; the caller holds
    /// the lock), renamed when complete. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ArchiveError`] with the archive's and the member's name; nothing is left then.
    pub fn into(mut self, dest: &Path) -> Result<Summary, ArchiveError> {
        let archive = self.name.clone();
        let blame = |fault: Fault| fault.at(&archive, None);
        if fs::symlink_metadata(dest).is_ok() {
            return Err(blame(Fault::Exists { path: dest.to_owned() }));
        }
        let temporary = temporary(dest);
        removal::remove(&temporary).map_err(|error| blame(error.into()))?;
        let made = fs::create_dir(&temporary).call("mkdir", || temporary.display().to_string());
        made.map_err(|error| blame(error.into()))?;
        let result = self.fill(&temporary).and_then(|summary| {
            fs::rename(&temporary, dest)
                .call("rename", || dest.display().to_string())
                .map_err(|error| blame(error.into()))?;
            Ok(summary)
        });
        if result.is_err() {
            // The first error counts; what stays is removed by the next try.
            let _ = removal::remove(&temporary);
        }
        result
    }

    /// Unpacks into `dest`, an existing empty directory.
    ///
    /// # Errors
    /// As [`Unpack::into`]; `dest` is empty again then.
    pub fn into_dir(mut self, dest: &Path) -> Result<Summary, ArchiveError> {
        let result = self.fill(dest);
        if result.is_err() {
            for entry in fs::read_dir(dest).into_iter().flatten().flatten() {
                let _ = removal::remove(&entry.path());
            }
        }
        result
    }

    fn fill(&mut self, dir: &Path) -> Result<Summary, ArchiveError> {
        let archive = self.name.clone();
        let needed = self.check_space(dir).map_err(|fault| fault.at(&archive, None))?;
        let root = open_root(dir).map_err(|error| Fault::from(error).at(&archive, None))?;
        // Nobody else looks in while ids and modes are half set; this also drops an inherited setgid.
        let closed = rustix::fs::fchmod(&root, Mode::RWXU).call("fchmod", || dir.display().to_string());
        closed.map_err(|error| Fault::from(error).at(&archive, None))?;
        let result = self.members(root, dir);
        result.map_err(|(member, fault)| {
            let fault = if fault.is_full() {
                Fault::NoSpace {
                    dir: dest_of(dir),
                    available: free(dir).unwrap_or(0),
                    needed: needed.div_ceil(1024),
                }
            } else {
                fault
            };
            fault.at(&archive, member.as_deref())
        })
    }

    fn members(&mut self, root: OwnedFd, dir: &Path) -> Result<Summary, (Option<Vec<u8>>, Fault)> {
        let (stream, _) = Stream::open(&self.archive).map_err(|fault| (None, fault))?;
        let mut reader = Reader::new(stream, self.limits);
        let mut placer = Placer::new(root);
        let mut tally = Tally::new(self.limits);
        let mut saw_root = false;
        loop {
            let member = match reader.next() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(fault) => return Err((reader.at.take(), fault)),
            };
            saw_root |=
                member.kind == Kind::Directory && matches!(member.path.as_slice(), b"." | b"./" | b"/");
            let put = tally.count(&member).and_then(|()| placer.put(member, &mut reader.stream));
            if let Err(fault) = put {
                return Err((reader.at.take(), fault));
            }
            if let Some(tell) = &mut self.progress
                && tally.due()
            {
                let (read, total) = reader.stream.progress();
                tell(Progress { read, total, unpacked: tally.summary.bytes });
            }
        }
        let root = placer.finish().map_err(|(member, fault)| (Some(member), fault))?;
        self.close(&root, saw_root, dir).map_err(|fault| (None, fault))?;
        Ok(tally.summary)
    }

    fn close(&self, root: &OwnedFd, saw_root: bool, dir: &Path) -> Result<(), Fault> {
        if !saw_root {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::fchmod(root, mode).call("fchmod", || dir.display().to_string())?;
        }
        if self.durability == Durability::Synced {
            rustix::fs::syncfs(root).call("syncfs", || dir.display().to_string())?;
        }
        Ok(())
    }

    /// The bytes needed; an error if the file system has fewer.
    fn check_space(&self, dir: &Path) -> Result<u64, Fault> {
        let needed = match self.needed {
            Some(bytes) => bytes,
            None => super::estimate(&self.archive)?,
        };
        let available = free(dir)?;
        if available < needed.div_ceil(1024) {
            return Err(Fault::NoSpace { dir: dest_of(dir), available, needed: needed.div_ceil(1024) });
        }
        Ok(needed)
    }
}

/// Reads a whole archive as unpacking would, and writes nothing.
///
/// # Errors
/// [`ArchiveError`].
pub fn check(
    archive: &Path,
    limits: Limits,
    mut progress: impl FnMut(Progress),
) -> Result<Summary, ArchiveError> {
    let (stream, _) = Stream::open(archive).map_err(|fault| fault.at(archive, None))?;
    let mut reader = Reader::new(stream, limits);
    let mut tally = Tally::new(limits);
    loop {
        let result = reader.next().and_then(|member| {
            let Some(member) = member else { return Ok(false) };
            super::path::Place::of(&member.path)?;
            tally.count(&member)?;
            reader.stream.skip(member.stored + super::stream::padding(member.stored))?;
            Ok(true)
        });
        match result {
            Ok(true) => {}
            Ok(false) => return Ok(tally.summary),
            Err(fault) => return Err(fault.at(archive, reader.at.take().as_deref())),
        }
        if tally.due() {
            let (read, total) = reader.stream.progress();
            progress(Progress { read, total, unpacked: tally.summary.bytes });
        }
    }
}

/// One regular file of an archive, read from its beginning until it is found.
///
/// # Errors
/// [`ArchiveError`]; also for one of more than `limit` bytes.
pub fn member(archive: &Path, name: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
    let (stream, _) = Stream::open(archive).map_err(|fault| fault.at(archive, None))?;
    let mut reader = Reader::new(stream, Limits::default());
    let mut step = || -> Result<Option<Option<Vec<u8>>>, Fault> {
        let Some(member) = reader.next()? else { return Ok(Some(None)) };
        let padded = member.stored + super::stream::padding(member.stored);
        if member.kind != Kind::File || super::path::Place::of(&member.path)?.bytes() != name {
            reader.stream.skip(padded)?;
            return Ok(None);
        }
        if member.stored > limit || member.sparse.is_some() {
            return Err(Fault::TooLarge { what: "size", limit });
        }
        reader.stream.padded(member.stored).map(|bytes| Some(Some(bytes)))
    };
    loop {
        match step() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(fault) => return Err(fault.at(archive, Some(name))),
        }
    }
}

/// Counts against the limits.
pub(super) struct Tally {
    limits: Limits,
    pub(super) summary: Summary,
    told: u64,
}

impl Tally {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, summary: Summary::default(), told: 0 }
    }

    pub(super) fn count(&mut self, member: &Member) -> Result<(), Fault> {
        self.summary.entries += 1;
        if self.summary.entries > self.limits.entries {
            return Err(Fault::TooLarge { what: "number of members", limit: self.limits.entries });
        }
        self.summary.bytes = self.summary.bytes.saturating_add(member.stored);
        if self.summary.bytes > self.limits.bytes {
            return Err(Fault::TooLarge { what: "unpacked size", limit: self.limits.bytes });
        }
        // What a file takes on disk: blocks of 4 KiB; a name or an inode costs about half of one.
        self.summary.disk += member.stored.next_multiple_of(4096) + 512;
        if member.kind == Kind::Directory {
            self.summary.disk += 4096;
        }
        Ok(())
    }

    pub(super) fn due(&mut self) -> bool {
        let due = self.summary.disk >= self.told + TELL;
        if due {
            self.told = self.summary.disk;
        }
        due
    }
}

/// `DEST.tmp`
fn temporary(dest: &Path) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn dest_of(dir: &Path) -> PathBuf {
    if dir.extension().is_some_and(|extension| extension == "tmp") {
        dir.with_extension("")
    } else {
        dir.to_owned()
    }
}

/// Free KiB for root's unprivileged sibling: what is reserved for root stays so.
fn free(dir: &Path) -> Result<u64, Fault> {
    Ok(vzsys::room::free(dir)? / 1024)
}
