//! The files of a VE that goes on running while they are taken.
//!
//! ```text
//! begin ──▶ settle ──────────────▶ (caller freezes) ──▶ freeze_point ──▶ (caller thaws) ──▶ verify ──▶ Frozen
//!           copy all, then what     what changed since; mapped files       was anything not told?
//!           changed, again and
//!           again until it is little
//! ```
//! Where changes cannot be told, the freeze point compares the whole tree instead, and takes as long as that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vzsys::mount::Detached;

use super::Places;
use super::error::{Failed, Result};
use crate::changes::{Drained, Watch};
use crate::mirror::{self, Done, Mirror};

/// A round that found so little is the last one before the freeze.
const LITTLE: usize = 32;
/// A VE that changes more than can be copied meanwhile is frozen all the same.
const ROUNDS: u32 = 12;
/// File times are as coarse as the kernel's tick; what has them from the last moment may be from after the freeze.
const TICK: i128 = 20_000_000;

/// A copy in the making.
#[derive(Debug)]
pub struct Live {
    mirror: Mirror,
    watch: Option<Watch>,
    /// Why changes are not told.
    blind: Option<String>,
    what: String,
    held: Vec<Detached>,
}

/// A copy of what the VE's files were at one moment.
#[derive(Debug)]
pub struct Frozen {
    mirror: Mirror,
    what: String,
    held: Vec<Detached>,
}

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
        let Places { from, to, whole, held } = places;
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

    /// Why changes cannot be told here, if they cannot: the freeze then takes longer.
    #[must_use]
    pub fn blind(&self) -> Option<&str> {
        self.blind.as_deref()
    }

    /// What was copied so far.
    #[must_use]
    pub fn done(&self) -> Done {
        self.mirror.done()
    }

    /// Copies while the VE runs. `mapped` are files that its processes have mapped ([`crate::changes::mapped`]).
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn settle(&mut self, mapped: &[PathBuf], mut progress: impl FnMut(Done)) -> Result<()> {
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

    /// The VE stands still: brings the copy up to this moment. `mapped` are files that its processes have mapped
    /// now.
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn freeze_point(&mut self, mapped: &[PathBuf]) -> Result<Point> {
        let begun = Instant::now();
        let before = self.mirror.done().entries;
        self.round()?;
        if self.watch.is_none() {
            self.mirror.compare(|_| {}).failed(&self.what)?;
        }
        self.mirror.check(mapped).failed(&self.what)?;
        self.mirror.finish().failed(&self.what)?;
        Ok(Point { entries: self.mirror.done().entries - before, took: begun.elapsed() })
    }

    /// Looks whether anything was changed before `moment`, when the freeze began, without a word: then the copy is
    /// none, and the caller freezes once more, and compares. The VE may go on.
    ///
    /// # Errors
    /// [`SnapshotError::Call`](super::SnapshotError::Call).
    pub fn is_whole(&mut self, moment: i128) -> Result<bool> {
        if self.watch.is_none() {
            return Ok(true);
        }
        let missed = self.mirror.missed(moment - TICK).failed(&self.what)?;
        if let Some(first) = missed.first() {
            self.give_up_watching(&format!("a change of {} was not told", first.display()));
        }
        Ok(missed.is_empty())
    }

    /// The moment of now, for [`Live::is_whole`].
    #[must_use]
    pub fn moment() -> i128 {
        mirror::now()
    }

    /// Whether file data are shared instead of copied.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.mirror.shares()
    }

    /// The copy is what the VE's files were.
    #[must_use]
    pub fn frozen(self) -> Frozen {
        Frozen { mirror: self.mirror, what: self.what, held: self.held }
    }
}

impl Frozen {
    pub(super) fn seal(self) -> Result<Done> {
        let Self { mirror, what, held } = self;
        let done = mirror.seal().failed(&what)?;
        // What lies in a file system of its own must be on its way to the disk before that is.
        for mount in &held {
            rustix::fs::openat(mount, ".", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
                .and_then(rustix::fs::syncfs)
                .map_err(std::io::Error::from)
                .failed(&what)?;
        }
        Ok(done)
    }
}
