//! vzubc(8): the beancounters as people read them.
//!
//! ```text
//! words ── options ─▶ tables ─▶ past (what the last run saw) ─▶ row ─▶ render ─▶ once, or watch
//! ```

mod options;
mod past;
mod render;
mod row;
mod watch;

use beancounters::{Beancounter, Hierarchies};
use vzconf::{Ctid, Paths, names};

use self::options::{Options, Request, parse};
use self::past::Past;
use super::{Answer, Error, source};

/// Runs vzubc. Watching ends with a signal only.
///
/// # Errors
/// Those of the command line, the file or the accounts, and the memory of the last run.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let options = match parse(words)? {
        Request::Help => return Ok(include_str!("../help/vzubc.txt").to_owned().into()),
        Request::Show(options) => options,
    };
    let (wanted, mut warnings) = wanted(&options, paths);
    let store = options.store.clone().unwrap_or_else(|| paths.state_dir().join("vzubc"));
    for kind in &options.forget {
        past::forget(&store, *kind)?;
    }
    let standing = standing(&options);
    let show = || -> Result<(String, Vec<Beancounter>), Error> {
        let tables = tables(&options, &wanted, paths)?;
        let mut past = Past::open(&store, &options)?;
        let text = render::render(&tables, &options, &mut past, standing.as_deref());
        // Of a VE that is gone nobody will ask for a difference.
        let live = options.file.is_none();
        past.keep(|id| !live || id == 0 || Ctid::new(id).is_ok_and(|ctid| paths.ve_conf(ctid).exists()))?;
        Ok((text, tables))
    };
    if let Some(how) = &options.watch {
        return watch::watch(how, words, || show().map(|(text, _)| text));
    }
    let (out, tables) = show()?;
    let missing = wanted.unwrap_or_default();
    for ctid in missing.iter().filter(|ctid| !tables.iter().any(|table| table.id == ctid.get())) {
        let there = if options.file.is_some() { "not in the table" } else { "not running" };
        warnings.push(format!("container {ctid} is {there}"));
    }
    Ok(Answer { out, warnings })
}

/// What the limit of a row is worth on this kernel, for `-v`: enforced, accounted or stored, and why.
type Standing = dyn Fn(beancounters::Resource) -> String;

/// `None` where nobody can tell, and for tables of another time or place.
fn standing(options: &Options) -> Option<Box<Standing>> {
    let here = Hierarchies::detect().ok().filter(|_| options.verbose && options.file.is_none())?;
    Some(Box::new(move |resource| {
        let (standing, why) = beancounters::standing(resource, &here);
        if why.is_empty() { standing.to_string() } else { format!("{standing}: {why}") }
    }))
}

/// The CTIDs that are asked for; `None` means all. As ever, a name that is nobody's is no reason to stop.
fn wanted(options: &Options, paths: &Paths) -> (Option<Vec<Ctid>>, Vec<String>) {
    if options.named.is_empty() {
        return (None, Vec::new());
    }
    let (mut wanted, mut warnings) = (Vec::new(), Vec::new());
    for word in &options.named {
        match names::resolve(paths, word) {
            Ok(ctid) if wanted.contains(&ctid) => {}
            Ok(ctid) => wanted.push(ctid),
            Err(error) => warnings.push(ve::describe(&error)),
        }
    }
    (Some(wanted), warnings)
}

fn tables(options: &Options, wanted: &Option<Vec<Ctid>>, paths: &Paths) -> Result<Vec<Beancounter>, Error> {
    match (&options.file, wanted) {
        (Some(path), None) => source::file(path),
        (Some(path), Some(wanted)) => Ok(source::only(source::file(path)?, wanted)),
        (None, None) => source::all(paths),
        (None, Some(wanted)) => source::some(paths, wanted),
    }
}
