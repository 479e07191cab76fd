//! What the last run saw, for `-r` and `-i`: a table of all VEs for refusals, and one for what was held.
//!
//! Both are kept for root alone in a directory of ours, not below `/tmp` where anybody could lay out links. A run locks
//! the directory, so that of two at once one sees what the other left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use beancounters::{Beancounter, text};
use rustix::fs::{FlockOperation, flock};

use super::super::Error;
use super::options::Options;
use super::row::Row;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Refusals.
    Failcnt,
    /// What was held.
    Held,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Failcnt => "failcnt",
            Self::Held => "held",
        }
    }
}

/// The memory of earlier runs, locked until it is dropped.
#[derive(Debug)]
pub(super) struct Past {
    failcnt: Option<Memory>,
    held: Option<Memory>,
    _lock: Option<File>,
}

/// One of its two tables.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    tables: Vec<Beancounter>,
}

impl Past {
    /// Reads what these options compare with; without any of them nothing.
    ///
    /// # Errors
    /// When it cannot be made, locked or read, or is damaged.
    pub(super) fn open(directory: &Path, options: &Options) -> Result<Self, Error> {
        if !options.relative && !options.incremental {
            return Ok(Self { failcnt: None, held: None, _lock: None });
        }
        let lock = lock(directory)?;
        let memory = |wanted, kind| if wanted { Memory::load(directory, kind).map(Some) } else { Ok(None) };
        let failcnt = memory(options.relative, Kind::Failcnt)?;
        let held = memory(options.incremental, Kind::Held)?;
        Ok(Self { failcnt, held, _lock: Some(lock) })
    }

    /// The rows of a table, compared with the last run; what they say is remembered for the next.
    pub(super) fn rows(&mut self, table: &Beancounter, options: &Options) -> Vec<Row> {
        let mut rows = Vec::new();
        for (resource, now) in table.iter() {
            let mut row = Row { resource, counter: *now, change: None };
            let before = self.failcnt.as_ref().and_then(|memory| memory.of(table.id));
            if let Some(before) = before {
                // Fewer than before: the VE was started anew.
                let new = now.failcnt.checked_sub(before[resource].failcnt);
                row.counter.failcnt = new.unwrap_or(now.failcnt);
            }
            let before = self.held.as_ref().and_then(|memory| memory.of(table.id));
            row.change = before.map(|before| i128::from(now.held) - i128::from(before[resource].held));
            // A refusal that is not shown is still news next time.
            if let Some(memory) = self.failcnt.as_mut().filter(|_| row.is_shown(options)) {
                memory.entry(table.id)[resource].failcnt = now.failcnt;
            }
            rows.push(row);
        }
        if let Some(memory) = &mut self.held {
            *memory.entry(table.id) = table.clone();
        }
        rows
    }

    /// Writes it, with the tables that are still `alive`.
    ///
    /// # Errors
    /// When it cannot be written; the old one is kept then.
    pub(super) fn keep(self, alive: impl Fn(u32) -> bool) -> Result<(), Error> {
        for mut memory in self.failcnt.into_iter().chain(self.held) {
            memory.tables.retain(|table| alive(table.id));
            memory.store()?;
        }
        Ok(())
    }
}

/// Forgets what was remembered of this kind.
///
/// # Errors
/// When it is there and cannot be removed.
pub(super) fn forget(directory: &Path, kind: Kind) -> Result<(), Error> {
    remove(&directory.join(kind.file()))
}

impl Memory {
    fn load(directory: &Path, kind: Kind) -> Result<Self, Error> {
        let path = directory.join(kind.file());
        let mut text = String::new();
        let tables = match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => text::parse(&text)
                .map_err(|source| Error::Table { path: path.display().to_string(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        Ok(Self { path, tables })
    }

    fn of(&self, id: u32) -> Option<&Beancounter> {
        self.tables.iter().find(|table| table.id == id)
    }

    fn entry(&mut self, id: u32) -> &mut Beancounter {
        let at = self.tables.iter().position(|table| table.id == id).unwrap_or_else(|| {
            self.tables.push(Beancounter::new(id));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn store(&self) -> Result<(), Error> {
        let temp = self.path.with_extension("tmp");
        remove(&temp)?;
        // In a directory that somebody names there may be links: a new file is never one.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp)
            .map_err(failed("create", &temp))?;
        file.write_all(text::bc_resources(&self.tables).as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &temp))?;
        fs::rename(&temp, &self.path).map_err(failed("replace", &self.path))
    }
}

fn lock(directory: &Path) -> Result<File, Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("create", directory))?;
    let file = File::open(directory).map_err(failed("open", directory))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed("lock", directory)(errno.into()))?;
    Ok(file)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::io(format!("{what} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::read;
    use super::*;
    use beancounters::{Counter, Resource};

    fn table(id: u32, held: u64, failcnt: u64) -> Beancounter {
        let mut table = Beancounter::new(id);
        table[Resource::Numproc] = Counter { held, maxheld: held, barrier: 100, limit: 100, failcnt };
        table
    }

    /// One run over these tables: the refusals and the change of numproc in each.
    fn run(directory: &Path, line: &str, tables: &[Beancounter]) -> Vec<(u64, Option<i128>)> {
        let options = read(line);
        let mut past = Past::open(directory, &options).unwrap();
        let seen = tables.iter().map(|table| {
            let rows = past.rows(table, &options);
            let row = rows.iter().find(|row| row.resource == Resource::Numproc).unwrap();
            (row.counter.failcnt, row.change)
        });
        let seen = seen.collect();
        past.keep(|id| id != 999).unwrap();
        seen
    }

    #[test]
    fn differences_are_to_the_last_run_of_each_ve() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("store");
        assert_eq!(run(&dir, "-r -i", &[table(101, 10, 3), table(102, 5, 0)]), [(3, None), (0, None)]);
        assert_eq!(run(&dir, "-r -i", &[table(101, 12, 5)]), [(2, Some(2))]);
        assert_eq!(run(&dir, "-r -i", &[table(101, 12, 5), table(102, 1, 1)]), [(0, Some(0)), (1, Some(-4))]);
        // started anew
        assert_eq!(run(&dir, "-r", &[table(101, 2, 1)]), [(1, None)]);
        // not asked for, so not remembered
        assert_eq!(run(&dir, "", &[table(101, 50, 9)]), [(9, None)]);
        assert_eq!(run(&dir, "-i", &[table(101, 13, 0)]), [(0, Some(1))]);
    }

    #[test]
    fn a_refusal_that_was_not_shown_is_news_next_time() {
        let place = tempfile::tempdir().unwrap();
        let mut free = table(101, 1, 2);
        free[Resource::Numproc].barrier = vzconf::units::UNLIMITED;
        assert_eq!(run(place.path(), "-r", std::slice::from_ref(&free)), [(2, None)]);
        assert_eq!(run(place.path(), "-r -v", std::slice::from_ref(&free)), [(2, None)]);
        assert_eq!(run(place.path(), "-r -v", &[free]), [(0, None)]);
    }

    #[test]
    fn the_dead_and_the_forgotten_are_not_remembered() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        for _ in 0..2 {
            assert_eq!(run(dir, "-i", &[table(999, 1, 0)]), [(0, None)]);
        }
        run(dir, "-r -i", &[table(101, 1, 1)]);
        forget(dir, Kind::Held).unwrap();
        forget(dir, Kind::Held).unwrap();
        assert_eq!(run(dir, "-r -i", &[table(101, 1, 1)]), [(0, None)]);
    }

    #[test]
    fn what_is_damaged_is_named_and_links_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        fs::write(dir.join("held"), "rubbish").unwrap();
        let error = Past::open(dir, &read("-i")).unwrap_err();
        assert!(ve::describe(&error).contains("held: the table is not of version 2.5"), "{error}");
        fs::remove_file(dir.join("held")).unwrap();
        let elsewhere = dir.join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, dir.join("held.tmp")).unwrap();
        run(dir, "-i", &[table(101, 1, 0)]);
        assert!(!elsewhere.exists() && dir.join("held").is_file());
    }
}
