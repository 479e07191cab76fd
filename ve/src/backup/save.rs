//! `vzbackup`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use templates::backup::{self, Found, Head, Location, Running, Save, Saved};
use templates::snapshot::{Snapshots, Written};
use vzconf::{Action, Exit, Script};

use super::reading;
use super::stand::Standing;
use crate::error::{Doing, Result};
use crate::node::Ve;
use crate::snapshot;
use crate::tree::{Taken, tree};

/// An action script larger than this is none.
const SCRIPT_MAX: u64 = 256 << 10;

/// What a backup goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum From {
    /// The newest backup of the VE in the same directory, if there is one and its chain is not too long.
    #[default]
    Newest,
    /// Nothing: it is a full one.
    Nothing,
    /// This one.
    Base(Location),
}

/// Where a backup goes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum To {
    /// A new file in BACKUP_DIR.
    #[default]
    Usual,
    /// A new file in the directory in which this file would be.
    Beside(Location),
    /// This file, or a pipe.
    File(Location),
}

/// How to make a backup.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to.
    pub to: To,
    /// What it goes on from.
    pub from: From,
    /// zstd's level, 1 to 19.
    pub level: i32,
}

/// A backup that was made.
#[derive(Debug)]
pub struct Made {
    /// Where it is.
    pub to: Location,
    /// What it holds.
    pub saved: Saved,
    /// For how long the container stood still for it, if it ran.
    pub stood: Option<Duration>,
}

/// Makes a backup of a VE, running or not. A running one goes on, but for the moment of the last pass over its files; a
/// stopped one is locked meanwhile.
///
/// # Errors
/// 14 no such VE, 9 somebody works on it, 44 the file is there, 46 the disk is full, 48 anything else. A part stays, and
/// the next backup goes on from it.
pub fn save(ve: &Ve<'_>, options: &Options) -> Result<Made> {
    let _reading = reading::hold(ve)?;
    let (ve, tree) = &tree(ve.node, ve.ctid)?;
    let standing = tree.init().map(|init| Standing::new(ve, init)).transpose()?;
    let private = ve.existing_private()?;
    let created = now();
    let target = target(ve, options, created)?;
    let base = base(ve, &target)?;
    let to = target.to;
    if let Some(base) = &base {
        ve.say(1, &format!("Going on from {base}"));
    }
    let head = Head {
        ctid: ve.ctid.get(),
        name: ve.config.name().map(str::to_owned),
        node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        created,
        layout: ve.layout(&private)?.word().to_owned(),
        ostemplate: ve.config.ostemplate().map(str::to_owned),
        config: ve.config.file().map(ToString::to_string).unwrap_or_default(),
        scripts: scripts(ve)?,
        // One that runs is held for the last pass.
        taken: if tree.init().is_some() { Taken::Snapshot } else { tree.taken() }.word().to_owned(),
        ..Head::default()
    };
    let root = tree.path();
    let place = snapshot::Place::of(ve)?;
    let written = standing.as_ref().map(|_| written(ve, &place)).transpose()?;
    let running = written.as_ref().zip(standing.as_ref()).map(|(written, stand)| Running {
        written: &written.path,
        tells: written.tells.clone(),
        stand,
    });
    let save = Save { root: &root, shift: tree.shift, head, base, level: options.level, running };
    let label = format!("Saving container {}", ve.ctid);
    let saved = save.to(&to, &mut |progress| (ve.node.progress)(&label, progress.done, progress.total))?;
    if saved.torn.count > 0 {
        ve.say(
            -1,
            &format!(
                "WARNING: {} files changed while they were read, such as {}; their copies may be of two times",
                saved.torn.count,
                saved.torn.first.join(", ")
            ),
        );
    }
    let stood = standing.map(|standing| standing.stood.get());
    Ok(Made { to, saved, stood })
}

/// Where what a running VE writes lies.
fn written(ve: &Ve<'_>, place: &snapshot::Place) -> Result<Written> {
    let failed = snapshot::failed(Exit::FsNewVePrvt);
    Snapshots::read(place.area(ve)).and_then(|all| all.written()).map_err(failed)
}

/// Where a backup goes and what it goes on from.
struct Target {
    to: Location,
    from: From,
    /// The backups there, where they were looked at already.
    found: Option<Vec<Found>>,
}

/// The file to write: as asked for, else what an interrupted backup has left, else a new one.
fn target(ve: &Ve<'_>, options: &Options, created: i64) -> Result<Target> {
    let mut name = backup::file_name(ve.ctid.get(), created);
    let mut new = match &options.to {
        To::File(file) => {
            return Ok(Target { to: file.clone(), from: options.from.clone(), found: None });
        }
        To::Beside(other) => other.beside(&name),
        To::Usual => Location::File(usual(ve)?.join(&name)),
    };
    let found = list(ve, &new)?;
    // Two backups in one second.
    for later in created + 1.. {
        if !found.iter().any(|found| found.file == name) {
            break;
        }
        name = backup::file_name(ve.ctid.get(), later);
        new = new.beside(&name);
    }
    let Some((file, part)) = found.iter().rev().find_map(|found| Some((found.part_of()?, found))) else {
        return Ok(Target { to: new, from: options.from.clone(), found: Some(found) });
    };
    // As it was begun, if that can be gone on with.
    let from = match (&options.from, part.head.chain.first()) {
        (From::Newest, None) => From::Nothing,
        (From::Newest, Some(link)) if part.missing.is_empty() => From::Base(new.beside(&link.file)),
        (from, _) => from.clone(),
    };
    let file = new.beside(file);
    ve.say(0, &format!("Going on with {file}, which was interrupted"));
    Ok(Target { to: file, from, found: Some(found) })
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().cast_signed())
}

/// BACKUP_DIR, made if it is missing: for root alone, since everything of a VE is in it.
pub(super) fn usual(ve: &Ve<'_>) -> Result<PathBuf> {
    let dir = ve.node.global.backup_dir();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.doing(Exit::CantCreateDir, || format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn base(ve: &Ve<'_>, target: &Target) -> Result<Option<Location>> {
    let to = &target.to;
    match target.from.clone() {
        From::Nothing => Ok(None),
        From::Base(base) => Ok(Some(base)),
        From::Newest if *to == Location::Pipe => Ok(None),
        From::Newest => {
            let most = ve.node.global.backup_chain();
            let listed = if target.found.is_none() { list(ve, to)? } else { Vec::new() };
            let found = target.found.as_ref().unwrap_or(&listed);
            let newest = found.iter().rev().find(|found| found.totals.is_some() && found.missing.is_empty());
            let newest = newest.filter(|found| found.head.chain.len() < most);
            Ok(newest.map(|found| to.beside(&found.file)))
        }
    }
}

fn list(ve: &Ve<'_>, place: &Location) -> Result<Vec<Found>> {
    let odd = &mut |error: &backup::BackupError| ve.say(-1, &format!("WARNING: {error}"));
    Ok(backup::catalog(place, Some(ve.ctid.get()), odd)?)
}

/// The VE's own action scripts.
fn scripts(ve: &Ve<'_>) -> Result<BTreeMap<String, String>> {
    let mut scripts = BTreeMap::new();
    for action in Action::ALL {
        let path = ve.node.paths.action_script(Script::Ve(ve.ctid, action));
        let Ok(meta) = fs::metadata(&path) else { continue };
        if !meta.is_file() || meta.len() > SCRIPT_MAX {
            ve.say(-1, &format!("WARNING: {} is no script that can be saved", path.display()));
            continue;
        }
        let text = fs::read_to_string(&path);
        let text = text.doing(Exit::System, || format!("cannot read {}", path.display()))?;
        scripts.insert(action.suffix().to_owned(), text);
    }
    Ok(scripts)
}
