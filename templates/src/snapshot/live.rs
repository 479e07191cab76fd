//! The files of a VE that goes on running while they are taken.
//!
//! ```text
//! begin ──▶ settle ──────────────▶ (caller freezes) ──▶ freeze_point ──▶ (caller thaws) ──▶ verify ──▶ Frozen
//!           copy all, then what     what changed since; mapped files       was anything not told?
//!           changed, again and
//!           again until it is little
//! ```
//! Where changes cannot be told, the freeze point compares the whole tree instead, and takes as long as that. Of a subvolume
//! of btrfs nothing is copied: the freeze point is one call.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vzsys::btrfs::{self, Access};
use vzsys::mount::Detached;

use super::error::{Failed, Result};
use super::layers::sync_file_system;
use crate::changes::{Drained, Watch};
use crate::mirror::{self, Done, Mirror};

/// A round that found so little is the last one before the freeze.
const LITTLE: usize = 32;
/// A VE that changes more than can be copied meanwhile is frozen all the same.
const ROUNDS: u32 = 12;
/// File times are as coarse as the kernel's tick; what has them from the last moment may be from after the freeze.
const TICK: i128 = 20_000_000;

/// How the files of a running VE are taken.
#[derive(Debug)]
pub(super) enum Places {
    /// A tree is copied.
    Copy(Copied),
    /// A subvolume gets a snapshot.
    Shoot(Shot),
}

/// A tree to be copied, and where to.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// That is the top of a file system.
    pub(super) whole: bool,
    /// Mounts that both may lie in.
    pub(super) held: Vec<Detached>,
}

/// A subvolume, and where its snapshot is to be.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) of: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) name: OsString,
    pub(super) access: Access,
    /// It is for another VE.
    pub(super) is_others: bool,
}

impl Places {
    pub(super) fn copy(from: PathBuf, to: PathBuf) -> Self {
        Self::Copy(Copied { from, to, whole: false, held: Vec::new() })
    }
}

impl Shot {
    /// One call: all of it, or nothing.
    pub(super) fn take(&self) -> Result<()> {
        let of = File::open(&self.of).failed_at("open", &self.of)?;
        let dir = File::open(&self.dir).failed_at("open", &self.dir)?;
        let what = format!("take a snapshot of {} in {}", self.of.display(), self.dir.display());
        btrfs::snapshot(of.as_fd(), dir.as_fd(), &self.name, self.access).failed(what)?;
        if !self.is_others {
            return Ok(());
        }
        let made = self.dir.join(&self.name);
        let top = File::open(&made).failed_at("open", &made)?;
        crate::quota::subvolume::separate(top.as_fd()).failed_at("count what is in", &made)
    }
}

/// The files of a VE, in the taking.
#[derive(Debug)]
pub struct Live(Way);

#[derive(Debug)]
enum Way {
    Copy(Box<Copying>),
    Shoot(Shot),
}

/// A copy in the making.
#[derive(Debug)]
struct Copying {
    mirror: Mirror,
    watch: Option<Watch>,
    /// Why changes are not told.
    blind: Option<String>,
    what: String,
    held: Vec<Detached>,
}

/// What the VE's files were at one moment; of a copy, what has to reach the disk yet.
#[derive(Debug)]
pub struct Frozen(Option<Copying>);

/// What is told of a freeze.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// Entries that were looked at while the VE stood still.
    pub entries: u64,
    /// For how long.
    pub took: Duration,
}

impl Live {
    pub(super) fn begin(places: Places, tells: std::result::Result<(), String>) -> Result<Self> {
        match places {
            Places::Copy(copied) => {
                Copying::begin(copied, tells).map(|copying| Self(Way::Copy(Box::new(copying))))
            }
            Places::Shoot(shot) => Ok(Self(Way::Shoot(shot))),
        }
    }

    /// Whether files are copied, and what the VE has mapped has to be told.
    #[must_use]
    pub fn copies(&self) -> bool {
        matches!(self.0, Way::Copy(_))
    }

    /// Why changes cannot be told here, if they cannot: the freeze then takes longer.
    #[must_use]
    pub fn blind(&self) -> Option<&str> {
        match &self.0 {
            Way::Copy(copying) => copying.blind.as_deref(),
            Way::Shoot(_) => None,
        }
    }

    /// Copies while the VE runs. `mapped` are files that its processes have mapped ([`crate::changes::mapped`]).
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn settle(&mut self, mapped: &[PathBuf], progress: impl FnMut(Done)) -> Result<()> {
        match &mut self.0 {
            Way::Copy(copying) => copying.settle(mapped, progress),
            // What is dirty now need not be written while the VE stands still.
            Way::Shoot(shot) => sync_file_system(&shot.of),
        }
    }

    /// The VE stands still: brings the copy up to this moment. `mapped` are files that its processes have mapped
    /// now.
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn freeze_point(&mut self, mapped: &[PathBuf]) -> Result<Point> {
        let begun = Instant::now();
        let entries = match &mut self.0 {
            Way::Copy(copying) => copying.freeze_point(mapped)?,
            Way::Shoot(shot) => shot.take().map(|()| 0)?,
        };
        Ok(Point { entries, took: begun.elapsed() })
    }

    /// Looks whether anything was changed before `moment`, when the freeze began, without a word: then the copy is
    /// none, and the caller freezes once more, and compares. The VE may go on.
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn is_whole(&mut self, moment: i128) -> Result<bool> {
        match &mut self.0 {
            Way::Copy(copying) => copying.is_whole(moment),
            Way::Shoot(_) => Ok(true),
        }
    }

    /// The moment of now, for [`Live::is_whole`].
    #[must_use]
    pub fn moment() -> i128 {
        mirror::now()
    }

    /// All is taken.
    #[must_use]
    pub fn frozen(self) -> Frozen {
        match self.0 {
            Way::Copy(copying) => Frozen(Some(*copying)),
            Way::Shoot(_) => Frozen(None),
        }
    }
}

impl Copying {
    fn begin(places: Copied, tells: std::result::Result<(), String>) -> Result<Self> {
        let Copied { from, to, whole, held } = places;
        let what = format!("copy {}", from.display());
        let started = tells.and_then(|()| Watch::start(&from).map_err(|error| error.to_string()));
        let (watch, blind) = match started {
            Ok(watch) => (Some(watch), None),
            Err(why) => (None, Some(why)),
        };
        let mirror = match whole {
            true => Mirror::filling(&from, &to),
            false => Mirror::new(&from, &to),
        }
        .failed(&what)?;
        Ok(Self { mirror, watch, blind, what, held })
    }

    fn settle(&mut self, mapped: &[PathBuf], mut progress: impl FnMut(Done)) -> Result<()> {
        self.mirror.sync(mapped).failed(&self.what)?;
        self.mirror.compare(&mut progress).failed(&self.what)?;
        for _ in 0..ROUNDS {
            self.mirror.finish().failed(&self.what)?;
            if self.round()? <= LITTLE {
                break;
            }
            progress(self.mirror.done());
        }
        self.mirror.finish().failed(&self.what)
    }

    /// Copies what changed since the last round; returns how much that was.
    fn round(&mut self) -> Result<usize> {
        let Some(watch) = &mut self.watch else { return Ok(0) };
        match watch.drain().failed(&self.what)? {
            Drained::Changes(changes) => {
                self.mirror.apply(&changes).failed(&self.what)?;
                Ok(changes.len())
            }
            Drained::Lost => {
                self.give_up_watching("events were lost");
                Ok(0)
            }
        }
    }

    fn give_up_watching(&mut self, why: &str) {
        self.watch = None;
        self.blind = Some(why.to_owned());
    }

    /// Returns how many entries were looked at.
    fn freeze_point(&mut self, mapped: &[PathBuf]) -> Result<u64> {
        let before = self.mirror.done().entries;
        self.round()?;
        if self.watch.is_none() {
            self.mirror.compare(|_| {}).failed(&self.what)?;
        }
        self.mirror.check(mapped).failed(&self.what)?;
        self.mirror.finish().failed(&self.what)?;
        Ok(self.mirror.done().entries - before)
    }

    fn is_whole(&mut self, moment: i128) -> Result<bool> {
        if self.watch.is_none() {
            return Ok(true);
        }
        let missed = self.mirror.missed(moment - TICK).failed(&self.what)?;
        if let Some(first) = missed.first() {
            self.give_up_watching(&format!("a change of {} was not told", first.display()));
        }
        Ok(missed.is_empty())
    }
}

impl Frozen {
    pub(super) fn seal(self) -> Result<()> {
        let Some(Copying { mirror, what, held, .. }) = self.0 else { return Ok(()) };
        mirror.seal().failed(&what)?;
        // What lies in a file system of its own must be on its way to the disk before that is.
        for mount in &held {
            rustix::fs::openat(mount, ".", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
                .and_then(rustix::fs::syncfs)
                .map_err(std::io::Error::from)
                .failed(&what)?;
        }
        Ok(())
    }
}
