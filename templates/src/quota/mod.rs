//! Disk quota: how much of a disk a VE may fill.
//!
//! A VE's tree has a project of its own, whose number is its CTID; the file system counts what belongs to it and keeps
//! the limits. Nothing is counted by walking, except once when a tree with content is given its project.
//!
//! ```text
//! PRIVATE/                     project CTID, inherited by all that is made below
//! /var/lib/vzctl/quota/CTID    the limits in force, and since when a barrier is exceeded
//! ```
//!
//! Not here: layouts that keep their limit by the size of an image.

mod error;
mod keeper;
mod ledger;
mod limits;
mod mark;
mod record;
pub(crate) mod subvolume;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use vzconf::{Ctid, Exit, Paths};
use vzsys::quota::Quota as Counted;

pub use error::QuotaError;
pub use keeper::{Keeper, keeper};
use ledger::Ledger;
use limits::in_force;
pub use limits::{Bounds, Limits, Timing};
pub use record::Record;

/// The disk quota of one VE.
#[derive(Debug, Clone)]
pub struct Quota {
    ctid: Ctid,
    tree: PathBuf,
    file: PathBuf,
}

/// What is in use of one resource, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// In use: KiB, or a number.
    pub usage: u64,
    /// The limits; zeros where there are none.
    pub bounds: Bounds,
    /// When the barrier begins to hold, or has begun to, in seconds since 1970; `None` while it is not exceeded.
    pub expires: Option<u64>,
}

/// The disk quota of a VE as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// KiB.
    pub space: Row,
    /// Inodes.
    pub inodes: Row,
    /// For how many seconds a barrier may be exceeded.
    pub grace: u64,
}

impl Quota {
    /// Of the VE whose private area is `tree`.
    #[must_use]
    pub fn new(paths: &Paths, ctid: Ctid, tree: &Path) -> Self {
        Self { ctid, tree: tree.to_owned(), file: file_of(paths, ctid) }
    }

    /// Of a VE some of whose limits are in force.
    #[must_use]
    pub fn in_force(paths: &Paths, ctid: Ctid) -> Option<Self> {
        let file = file_of(paths, ctid);
        let tree = Record::load(&file)?.tree;
        Some(Self { ctid, tree, file })
    }

    /// The private area.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The project that the tree belongs to.
    #[must_use]
    pub fn project(&self) -> u32 {
        self.ctid.get()
    }

    /// Whether the tree is counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.ledger(&self.tree).is_ok_and(|ledger| ledger.is_marked())
    }

    /// Has the tree counted: gives all of it to its project, which takes as long as a walk through it. Nobody else
    /// works in the tree. `progress` is told how many files were seen.
    ///
    /// # Errors
    /// 61 where nothing can count it, with the reason.
    pub fn count(&self, progress: &mut dyn FnMut(u64)) -> Result<(), QuotaError> {
        match keeper(&self.tree)? {
            Keeper::Project => mark::mark(&self.tree, self.project(), progress),
            Keeper::Subvolume => Ok(()),
        }
    }

    /// Has limits hold from now on, over those that held before, which are returned. The tree is counted already, or
    /// is still to be made: `at` is any directory of its file system.
    ///
    /// # Errors
    /// 61 where nothing can keep them, 62 when they cannot be set.
    pub fn limit(&self, at: &Path, limits: &Limits) -> Result<Option<Record>, QuotaError> {
        let ledger = self.ledger(at)?;
        let before = self.record();
        let timing = limits.timing(ledger.grace());
        let mut record = Record::new(&self.tree, *limits, timing);
        if let Some(before) = before.as_ref().filter(|before| before.timing == Timing::Ours) {
            // The time that is running goes on.
            (record.space_since, record.inodes_since) = (before.space_since, before.inodes_since);
        }
        self.put_in_force(&ledger, &mut record)?;
        if before.as_ref() == Some(&record) {
            return Ok(before);
        }
        if let Err(error) = record.save(&self.file) {
            // What failed is not in force.
            let _ = self.put_back(before);
            return Err(error);
        }
        Ok(before)
    }

    /// Puts back what [`Quota::limit`] returned.
    ///
    /// # Errors
    /// As for that.
    pub fn put_back(&self, before: Option<Record>) -> Result<(), QuotaError> {
        match before {
            Some(before) => {
                let ledger = self.ledger(&self.tree)?;
                let mut record = before;
                self.put_in_force(&ledger, &mut record)?;
                record.save(&self.file)
            }
            None => self.lift(&self.tree),
        }
    }

    /// Has no limit hold any more; what is used goes on being counted. `at` is a directory of the tree's file system.
    ///
    /// # Errors
    /// 66.
    pub fn lift(&self, at: &Path) -> Result<(), QuotaError> {
        if let Ok(ledger) = self.ledger(at) {
            ledger.set(&Counted::default())?;
        }
        Record::remove(&self.file)
    }

    /// Gives the tree a little more than its limits, so that a VE whose disk is full can be set up for a start; until
    /// [`Quota::limit`] is called again.
    ///
    /// # Errors
    /// 62.
    pub fn widen(&self, limits: &Limits) -> Result<(), QuotaError> {
        const KIB: u64 = 1024;
        const INODES: u64 = 100;
        let ledger = self.ledger(&self.tree)?;
        let counted = self.counted(&ledger)?;
        let wider = |used: u64, limit: u64, more: u64| if limit == 0 { 0 } else { limit.max(used + more) };
        let wanted = Counted {
            space_hard: wider(counted.space.div_ceil(1024), limits.space.limit, KIB),
            inodes_hard: wider(counted.inodes, limits.inodes.limit, INODES),
            ..Counted::default()
        };
        ledger.set(&wanted)
    }

    /// The limits in force.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        Record::load(&self.file)
    }

    /// What is in use of the tree's project, by whomever: KiB and inodes.
    ///
    /// # Errors
    /// 68.
    pub fn usage(&self, at: &Path) -> Result<(u64, u64), QuotaError> {
        let counted = self.counted(&self.ledger(at)?)?;
        Ok((counted.space.div_ceil(1024), counted.inodes))
    }

    /// What is in use, and the limits in force; `None` while the tree is not counted.
    ///
    /// # Errors
    /// 68.
    pub fn report(&self) -> Result<Option<Report>, QuotaError> {
        let Ok(ledger) = self.ledger(&self.tree) else { return Ok(None) };
        if !ledger.is_counting() {
            return Ok(None);
        }
        let counted = self.counted(&ledger)?;
        let record = self.record();
        let limits = record
            .as_ref()
            .map_or(Limits { space: Bounds::NONE, inodes: Bounds::NONE, grace: 0 }, |record| record.limits);
        let expires = |since: Option<u64>, kernels: u64| match record.as_ref().map(|record| record.timing) {
            Some(Timing::Ours) => since.map(|since| since.saturating_add(limits.grace)),
            Some(Timing::Kernel) => (kernels != 0).then_some(kernels),
            _ => None,
        };
        let since =
            record.as_ref().map(|record| (record.space_since, record.inodes_since)).unwrap_or_default();
        Ok(Some(Report {
            space: Row {
                usage: counted.space.div_ceil(1024),
                bounds: limits.space,
                expires: expires(since.0, counted.space_until),
            },
            inodes: Row {
                usage: counted.inodes,
                bounds: limits.inodes,
                expires: expires(since.1, counted.inodes_until),
            },
            grace: limits.grace,
        }))
    }

    fn ledger(&self, at: &Path) -> Result<Ledger, QuotaError> {
        Ledger::open(at, self.project())
    }

    fn counted(&self, ledger: &Ledger) -> Result<Counted, QuotaError> {
        let what = format!("cannot ask what {} uses", self.tree.display());
        ledger.get().map_err(QuotaError::call(Exit::GetQuotaUsage, what))
    }

    /// Tells the kernel what holds now, and the record since when.
    fn put_in_force(&self, ledger: &Ledger, record: &mut Record) -> Result<(), QuotaError> {
        let counted = self.counted(ledger)?;
        let Limits { space, inodes, grace } = record.limits;
        let now = now();
        let (blocks, since) =
            in_force(space, grace, record.timing, counted.space.div_ceil(1024), record.space_since, now);
        record.space_since = since;
        let (files, since) = in_force(inodes, grace, record.timing, counted.inodes, record.inodes_since, now);
        record.inodes_since = since;
        let wanted = Counted {
            space_hard: blocks.hard,
            space_soft: blocks.soft,
            inodes_hard: files.hard,
            inodes_soft: files.soft,
            ..Counted::default()
        };
        let same = (counted.space_hard, counted.space_soft, counted.inodes_hard, counted.inodes_soft)
            == (wanted.space_hard, wanted.space_soft, wanted.inodes_hard, wanted.inodes_soft);
        if same {
            return Ok(());
        }
        ledger.set(&wanted)
    }
}

/// Looks after a barrier whose time we count: lowers the limit when it is up, raises it when the VE is below
/// again. Costs a look-up for a VE without such a one.
///
/// # Errors
/// As [`Quota::limit`].
pub fn tend(paths: &Paths, ctid: Ctid) -> Result<(), QuotaError> {
    let file = file_of(paths, ctid);
    let Some(record) = Record::load(&file).filter(|record| record.timing == Timing::Ours) else {
        return Ok(());
    };
    let quota = Quota { ctid, tree: record.tree.clone(), file };
    let ledger = quota.ledger(&quota.tree)?;
    let mut tended = record.clone();
    quota.put_in_force(&ledger, &mut tended)?;
    if tended == record { Ok(()) } else { tended.save(&quota.file) }
}

fn file_of(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("quota").join(ctid.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
