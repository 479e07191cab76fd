//! Where tables come from.

use std::io::Read as _;
use std::path::Path;

use beancounters::{Beancounter, text};
use ve::accounts::Accounts;
use vzconf::{Ctid, Paths};

use super::Error;

/// Most of a file that is worth reading: the tables of tens of thousands of VEs.
const MOST: u64 = 256 << 20;
/// Where a VE, which has no accounts of its own, finds its block.
const INSIDE: [&str; 2] = ["/run/vz/proc/user_beancounters", "/proc/user_beancounters"];

/// Refuses everybody but root: what others see of the VEs is too little to count on.
///
/// # Errors
/// [`Error::NotRoot`].
pub(super) fn need_root() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// The tables of the VEs that run, the youngest first, and of the host. Inside of a VE: its own.
///
/// # Errors
/// [`Error::NotRoot`]; those of the accounts.
pub(super) fn all(paths: &Paths) -> Result<Vec<Beancounter>, Error> {
    need_root()?;
    match inside(paths) {
        Some(path) => file(path),
        None => Ok(Accounts::new(paths)?.all()),
    }
}

/// The tables of some of them, counted in full, in the same order; one that does not run has none.
///
/// # Errors
/// As [`all`].
pub(super) fn some(paths: &Paths, wanted: &[Ctid]) -> Result<Vec<Beancounter>, Error> {
    need_root()?;
    if let Some(path) = inside(paths) {
        return Ok(only(file(path)?, wanted));
    }
    let accounts = Accounts::new(paths)?;
    let running = accounts.running().into_iter().map(|(ctid, _)| ctid);
    let mut tables: Vec<Beancounter> =
        running.filter(|ctid| wanted.contains(ctid)).filter_map(|ctid| accounts.of(ctid)).collect();
    if wanted.contains(&Ctid::HOST) {
        tables.extend(only(accounts.all(), &[Ctid::HOST]));
    }
    Ok(tables)
}

/// The table of one VE; `None` when it does not run.
///
/// # Errors
/// As [`all`].
pub(super) fn of(paths: &Paths, ctid: Ctid) -> Result<Option<Beancounter>, Error> {
    Ok(some(paths, &[ctid])?.pop())
}

/// Of these tables those asked for.
pub(super) fn only(tables: Vec<Beancounter>, wanted: &[Ctid]) -> Vec<Beancounter> {
    tables.into_iter().filter(|table| wanted.iter().any(|ctid| ctid.get() == table.id)).collect()
}

/// The tables of a file; `-` is standard input.
///
/// # Errors
/// When it cannot be read or is no table.
pub(super) fn file(path: &str) -> Result<Vec<Beancounter>, Error> {
    let mut bytes = Vec::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(MOST).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)),
    };
    read.map_err(|source| Error::io(format!("read {path}"), source))?;
    let text = String::from_utf8_lossy(&bytes);
    text::parse(&text).map_err(|source| Error::Table { path: path.to_owned(), source })
}

fn inside(paths: &Paths) -> Option<&'static str> {
    if paths.vz_conf().exists() {
        return None;
    }
    INSIDE.into_iter().find(|path| Path::new(path).exists())
}
