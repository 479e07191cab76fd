//! What backups there are in a directory.

use super::error::{BackupError, Fault};
use super::head::{Head, Totals};
use super::load::end;
use super::store::{PART, SUFFIX, Shelf};
use super::{Link, Location};

/// One backup of a directory.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name in the directory.
    pub file: String,
    /// What it tells of itself.
    pub head: Head,
    /// What it holds; `None` as long as it is not whole.
    pub totals: Option<Totals>,
    /// Bytes of the file.
    pub size: u64,
    /// Its bases that are not there: without them it cannot be restored.
    pub missing: Vec<Link>,
}

impl Found {
    /// The name that a backup in the making will have.
    #[must_use]
    pub fn part_of(&self) -> Option<&str> {
        self.file.strip_suffix(PART)
    }
}

/// The name of a new backup: the container, and when it was begun (UTC).
#[must_use]
pub fn file_name(ctid: u32, created: i64) -> String {
    let time = jiff::Timestamp::from_second(created).unwrap_or_default();
    format!("{ctid}-{}{SUFFIX}", time.strftime("%Y%m%d-%H%M%S"))
}

/// All backups in the directory of `place`, the earliest first; of one container, if asked so. What is no backup, or
/// cannot be read, is told to `odd`.
///
/// # Errors
/// [`BackupError`] when the directory cannot be read. One that is not there holds nothing.
pub fn catalog(
    place: &Location,
    ctid: Option<u32>,
    odd: &mut dyn FnMut(&BackupError),
) -> Result<Vec<Found>, BackupError> {
    let (mut shelf, _) = place.open()?;
    let names = shelf.names().map_err(|fault| fault.of(place.to_string()))?;
    let mut found = Vec::new();
    for file in names {
        match one(shelf.as_mut(), &file) {
            Ok(one) => found.push(one),
            // Killed before its first frame was whole: its name tells what it was to become.
            Err(_) if file.ends_with(PART) => found.extend(by_name(file)),
            Err(fault) => odd(&fault.of(file)),
        }
    }
    let whole: Vec<String> =
        found.iter().filter(|found| found.totals.is_some()).map(|found| found.head.id.clone()).collect();
    for backup in &mut found {
        backup.missing = backup.head.chain.iter().filter(|link| !whole.contains(&link.id)).cloned().collect();
    }
    found.retain(|found| ctid.is_none_or(|ctid| found.head.ctid == ctid));
    found.sort_by(|a, b| (a.head.created, &a.file).cmp(&(b.head.created, &b.file)));
    Ok(found)
}

fn by_name(file: String) -> Option<Found> {
    let ctid = file.split_once('-')?.0.parse().ok()?;
    let head = Head { ctid, ..Head::default() };
    Some(Found { file, head, totals: None, size: 0, missing: Vec::new() })
}

fn one(shelf: &mut dyn Shelf, file: &str) -> Result<Found, Fault> {
    let head = shelf.head(file)?;
    let size = shelf.blocks(file)?.size().map_err(|error| super::reader::failed(&error))?;
    let totals = if file.ends_with(PART) { None } else { Some(end(shelf, file, &head)?) };
    Ok(Found { file: file.to_owned(), head, totals, size, missing: Vec::new() })
}
