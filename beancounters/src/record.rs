//! What is remembered of a VE's counters while it runs: `beancounters` in its run-time directory.
//!
//! The kernel keeps some highest values and counts some refusals, others only we see, now and then. So whoever reads
//! the counters (the VE's monitor every few seconds, a tool when it is asked) adds what it saw to this record, and
//! shows what the record then says. It ends with the VE's life: a restart begins with nothing, as a new beancounter did.
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat, renameat, statat};
use vzconf::Pair;

use crate::beancounter::{Beancounter, Counter};
use crate::reading::Reading;
use crate::resource::Resource;

const FILE: &str = "beancounters";
const TEMP: &str = ".beancounters.tmp";
/// As long as a record usually is.
const LONG: usize = 2048;
const TITLE: &str = "beancounters 1";

/// The memory of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    held: u64,
    maxheld: u64,
    barrier: u64,
    limit: u64,
    /// Refusals that the kernel's counter does not have any more.
    before: u64,
    /// What that counter said last.
    seen: u64,
}

/// The memory of one VE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record([Row; Resource::ALL.len()]);

impl Record {
    /// A new one, with these limits.
    #[must_use]
    pub fn new(limits: &Beancounter) -> Record {
        let mut record = Record(
            [Row { held: 0, maxheld: 0, barrier: 0, limit: 0, before: 0, seen: 0 }; Resource::ALL.len()],
        );
        for (resource, counter) in limits.iter() {
            record.limit(resource, Pair { barrier: counter.barrier, limit: counter.limit });
        }
        record
    }

    /// Sets a limit.
    pub fn limit(&mut self, resource: Resource, pair: Pair) {
        let row = &mut self.0[resource as usize];
        (row.barrier, row.limit) = (pair.barrier, pair.limit);
    }

    /// Adds what was seen.
    pub fn absorb(&mut self, reading: &Reading) {
        for (resource, row) in Resource::ALL.into_iter().zip(&mut self.0) {
            let count = reading.count(resource);
            row.held = count.held.unwrap_or(row.held);
            row.maxheld = row.maxheld.max(row.held).max(count.peak.unwrap_or(0));
            if let Some(failed) = count.failed {
                // A counter that began again, or of a tree that lost a branch.
                row.before += row.seen.saturating_sub(failed);
                row.seen = failed;
            }
        }
    }

    /// As a block of the table.
    #[must_use]
    pub fn beancounter(&self, id: u32) -> Beancounter {
        let mut beancounter = Beancounter::new(id);
        for (resource, row) in Resource::ALL.into_iter().zip(&self.0) {
            let Row { held, maxheld, barrier, limit, before, seen } = *row;
            beancounter[resource] = Counter { held, maxheld, barrier, limit, failcnt: before + seen };
        }
        beancounter
    }

    /// The record in a VE's run-time directory. One that is damaged counts as none.
    #[must_use]
    pub fn load(run_dir: &Path) -> Option<Record> {
        RecordFile::open(run_dir).ok()?.load()
    }

    /// The text of a VE's record, for whoever takes it along; `None` when there is none.
    #[must_use]
    pub fn save(run_dir: &Path) -> Option<String> {
        Record::load(run_dir).map(|record| record.text())
    }

    /// Goes on from a record that was [saved][Record::save]: the kernel's own counters begin again with the VE's new
    /// cgroups, and are added. A damaged one counts as none.
    ///
    /// # Errors
    /// Those of write(2) and rename(2).
    pub fn resume(run_dir: &Path, saved: &str) -> io::Result<()> {
        Record::parse(saved).map_or(Ok(()), |record| record.write(RecordFile::open(run_dir)?.directory))
    }

    /// Changes the record, or makes one, against everybody else who does. It is written when something changed that
    /// would be lost; what is in use now is that only when it was counted `in_full`, for those who do not. The new
    /// record is returned even when it could not be written.
    ///
    /// # Errors
    /// Those of open(2), flock(2), write(2) and rename(2), beside the record.
    pub fn update(
        run_dir: &Path,
        new: impl FnOnce() -> Record,
        in_full: bool,
        change: impl Fn(&mut Record),
    ) -> (Record, io::Result<()>) {
        match RecordFile::open(run_dir) {
            Ok(file) => file.update(new, in_full, change),
            Err(error) => {
                let mut record = new();
                change(&mut record);
                (record, Err(error))
            }
        }
    }

    fn adds_nothing_to(&self, old: &Record, in_full: bool) -> bool {
        self.0.iter().zip(&old.0).all(|(new, old)| match in_full {
            true => new == old,
            false => Row { held: old.held, ..*new } == *old,
        })
    }

    fn write(&self, run_dir: impl AsFd) -> io::Result<()> {
        // On tmpfs: no fsync, the file is worthless after a power cut.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = fs::File::from(openat(&run_dir, TEMP, flags, Mode::from_raw_mode(0o644))?);
        file.write_all(self.text().as_bytes())?;
        Ok(renameat(&run_dir, TEMP, &run_dir, FILE)?)
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        for (resource, row) in Resource::ALL.into_iter().zip(&self.0) {
            let Row { held, maxheld, barrier, limit, before, seen } = row;
            let _ = writeln!(text, "{resource} {held} {maxheld} {barrier} {limit} {before} {seen}");
        }
        text
    }

    fn parse(text: &str) -> Option<Record> {
        let mut record = Record::new(&Beancounter::new(0));
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        for line in lines {
            let (name, numbers) = line.split_once(' ')?;
            let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            let &[held, maxheld, barrier, limit, before, seen] = numbers.as_slice() else { return None };
            // A row of a later version is nothing to us.
            if let Some(resource) = Resource::named(name) {
                record.0[resource as usize] = Row { held, maxheld, barrier, limit, before, seen };
            }
        }
        Some(record)
    }
}

/// Where the record of one VE is: for whoever changes it again and again.
#[derive(Debug)]
pub struct RecordFile {
    directory: OwnedFd,
    /// What was read last, and of which file: each record that is written is a new one.
    last: RefCell<Option<(Identity, Record)>>,
}

/// Inode, size, seconds and nanoseconds of a file.
type Identity = [u64; 4];

/// Lets the others go on, whoever else has the directory open with us.
struct Locked<'a>(&'a OwnedFd);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn identity(stat: &Stat) -> Identity {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "only compared")]
    [stat.st_ino, stat.st_size as u64, stat.st_mtime as u64, stat.st_mtime_nsec as u64]
}

impl RecordFile {
    /// In this run-time directory of a VE.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(run_dir: &Path) -> io::Result<RecordFile> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(RecordFile {
            directory: rustix::fs::open(run_dir, flags, Mode::empty())?,
            last: RefCell::default(),
        })
    }

    fn load(&self) -> Option<Record> {
        let stat = statat(&self.directory, FILE, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let known = identity(&stat);
        if let Some((of, record)) = &*self.last.borrow()
            && *of == known
        {
            return Some(record.clone());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.directory, FILE, flags, Mode::empty()).ok()?;
        // It may be another one by now.
        let known = identity(&fstat(&file).ok()?);
        let mut text = String::with_capacity(LONG);
        fs::File::from(file).read_to_string(&mut text).ok()?;
        let record = Record::parse(&text)?;
        *self.last.borrow_mut() = Some((known, record.clone()));
        Some(record)
    }

    /// As [`Record::update`].
    ///
    /// # Errors
    /// Those of flock(2), open(2), write(2) and rename(2), beside the record.
    pub fn update(
        &self,
        new: impl FnOnce() -> Record,
        in_full: bool,
        change: impl Fn(&mut Record),
    ) -> (Record, io::Result<()>) {
        // Mostly there is nothing to write, and nobody is in the way of that.
        if let Some(old) = self.load() {
            let mut record = old.clone();
            change(&mut record);
            if record.adds_nothing_to(&old, in_full) {
                return (record, Ok(()));
            }
        }
        let directory = &self.directory;
        let locked = flock(directory, FlockOperation::LockExclusive).map(|()| Locked(directory));
        let old = self.load();
        let is_new = old.is_none();
        let mut record = old.unwrap_or_else(new);
        let before = record.clone();
        change(&mut record);
        let written = match &locked {
            Ok(_) if !is_new && record.adds_nothing_to(&before, in_full) => Ok(()),
            Ok(_) => record.write(directory),
            Err(errno) => Err((*errno).into()),
        };
        (record, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vzconf::units::UNLIMITED;

    fn new() -> Record {
        Record::new(&Beancounter::new(101))
    }

    #[test]
    fn the_highest_use_and_all_refusals_are_kept() {
        let mut record = new();
        for (held, failed) in [(5, 1), (9, 4), (2, 4)] {
            let mut reading = Reading::default();
            reading.hold(Resource::Numproc, held);
            reading.fail(Resource::Numproc, failed);
            record.absorb(&reading);
        }
        let counter = record.beancounter(101)[Resource::Numproc];
        assert_eq!((counter.held, counter.maxheld, counter.failcnt), (2, 9, 4));
        // What is not counted now stays as it was.
        record.absorb(&Reading::default());
        assert_eq!(record.beancounter(101)[Resource::Numproc], counter);
    }

    #[test]
    fn a_counter_that_began_again_goes_on() {
        let mut record = new();
        for (failed, shown) in [(4, 4), (0, 4), (2, 6), (1, 6), (3, 8)] {
            let mut reading = Reading::default();
            reading.fail(Resource::Physpages, failed);
            record.absorb(&reading);
            assert_eq!(record.beancounter(101)[Resource::Physpages].failcnt, shown);
        }
    }

    #[test]
    fn it_is_written_read_and_made_anew_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()), None);
        let (record, written) =
            Record::update(dir.path(), new, true, |r| r.limit(Resource::Numproc, Pair::both(400)));
        written.unwrap();
        assert_eq!(Record::load(dir.path()).as_ref(), Some(&record));
        let one = record.beancounter(7);
        assert_eq!((one.id, one[Resource::Numproc].limit, one[Resource::Numfile].limit), (7, 400, UNLIMITED));
        fs::write(dir.path().join(FILE), "beancounters 1\nnumproc 1 2\n").unwrap();
        assert_eq!(Record::load(dir.path()), None);
        Record::update(dir.path(), new, true, |_| {}).1.unwrap();
        assert_eq!(Record::load(dir.path()), Some(new()));
    }

    #[test]
    fn a_passing_look_writes_only_what_would_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        let look = |held, in_full| {
            let absorb = |record: &mut Record| {
                let mut reading = Reading::default();
                reading.hold(Resource::Numproc, held);
                record.absorb(&reading);
            };
            let (record, written) = Record::update(dir.path(), new, in_full, absorb);
            written.unwrap();
            let stored = Record::load(dir.path()).unwrap().beancounter(1)[Resource::Numproc];
            (record.beancounter(1)[Resource::Numproc].held, stored.held, stored.maxheld)
        };
        assert_eq!(look(5, true), (5, 5, 5));
        assert_eq!(look(3, false), (3, 5, 5));
        assert_eq!(look(6, false), (6, 6, 6));
        assert_eq!(look(2, true), (2, 2, 6));
    }

    #[test]
    fn nothing_is_lost_between_many_writers() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let dir = dir.path();
                scope.spawn(move || {
                    for i in 0..50 {
                        Record::update(dir, new, true, |record| {
                            let mut reading = Reading::default();
                            reading.hold(Resource::Numfile, i * 4 + writer);
                            record.absorb(&reading);
                        })
                        .1
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(Record::load(dir.path()).unwrap().beancounter(1)[Resource::Numfile].maxheld, 49 * 4 + 3);
    }

    #[test]
    fn without_its_directory_there_is_still_an_answer() {
        let (record, written) = Record::update(Path::new("/nonexistent"), new, true, |_| {});
        assert!(written.is_err());
        assert_eq!(record, new());
    }
}
