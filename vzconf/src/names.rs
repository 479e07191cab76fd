//! The registry of names: `/etc/vz/names/<name>` is a symlink to the config file of the VE.
use std::fs;
use std::io;
use std::path::Path;

use crate::{ConfFile, Ctid, Error, Paths};

/// Whether a text can name a VE: letters, digits, blanks and `-+_.`, and a file name of its own.
///
/// # Errors
/// [`Error::BadName`].
pub fn check(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " -+_.".contains(c);
    let fits = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
    if fits && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::BadName { name: name.to_string() })
}

/// The CTID a name's link leads to; `None` if there is no such link or it is not a link to `<CTID>.conf`.
#[must_use]
pub fn owner(paths: &Paths, name: &str) -> Option<Ctid> {
    check(name).ok()?;
    let target = fs::read_link(paths.name_link(name)).ok()?;
    target.file_name()?.to_str()?.strip_suffix(".conf")?.parse().ok()
}

/// Turns a command line's VE argument into a CTID: a number, or a name in the registry.
///
/// A name is only believed if the VE's config (when there is one) says the same `NAME`.
///
/// # Errors
/// [`Error::BadCtid`] for what is neither; [`Error::UnknownName`] if the config disagrees.
pub fn resolve(paths: &Paths, arg: &str) -> Result<Ctid, Error> {
    if !arg.is_empty() && arg.bytes().all(|b| b.is_ascii_digit()) {
        return arg.parse();
    }
    let ctid = owner(paths, arg).ok_or_else(|| Error::BadCtid { arg: arg.to_string() })?;
    match ConfFile::load(&paths.ve_conf(ctid)) {
        Ok(conf) if conf.get("NAME") != Some(arg) => Err(Error::UnknownName { name: arg.to_string() }),
        _ => Ok(ctid),
    }
}

/// Whether `name` can be given to `ctid`: well-formed, and free, its own already, or left by a VE that no longer exists.
///
/// # Errors
/// [`Error::BadName`], [`Error::NameTaken`].
pub fn check_free(paths: &Paths, name: &str, ctid: Ctid) -> Result<(), Error> {
    check(name)?;
    match owner(paths, name) {
        Some(other) if other != ctid && paths.ve_conf(other).exists() => {
            Err(Error::NameTaken { name: name.to_string(), owner: other })
        }
        _ => Ok(()),
    }
}

/// Gives `name` to `ctid` and takes `old` (its former name) away; an empty `name` only takes away.
///
/// # Errors
/// As [`check_free`], and [`Error::NameLink`].
pub fn assign(paths: &Paths, ctid: Ctid, name: &str, old: Option<&str>) -> Result<(), Error> {
    if !name.is_empty() {
        check_free(paths, name, ctid)?;
        link(paths, ctid, name)?;
    }
    match old {
        Some(old) if old != name && owner(paths, old) == Some(ctid) => unlink(&paths.name_link(old)),
        _ => Ok(()),
    }
}

/// Removes every name that leads to `ctid` (destroy does this).
///
/// # Errors
/// [`Error::NameLink`].
pub fn remove_all(paths: &Paths, ctid: Ctid) -> Result<(), Error> {
    let dir = paths.names_dir();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::NameLink { path: dir, source }),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(|name| owner(paths, name)) == Some(ctid) {
            unlink(&entry.path())?;
        }
    }
    Ok(())
}

fn link(paths: &Paths, ctid: Ctid, name: &str) -> Result<(), Error> {
    let path = paths.name_link(name);
    let fail = |source| Error::NameLink { path: path.clone(), source };
    fs::create_dir_all(paths.names_dir()).map_err(fail)?;
    if owner(paths, name) == Some(ctid) {
        return Ok(());
    }
    let temp = paths.names_dir().join(format!("{name}~{}", std::process::id()));
    unlink(&temp)?;
    std::os::unix::fs::symlink(paths.ve_conf(ctid), &temp).map_err(fail)?;
    if owner(paths, name).is_some() || fs::symlink_metadata(&path).is_ok() {
        // What is there leads nowhere (see check_free): replace it in one step.
        return fs::rename(&temp, &path).map_err(fail);
    }
    // link(2) instead of rename(2): of two commands that take the same name at the same time one fails.
    let made = fs::hard_link(&temp, &path);
    unlink(&temp)?;
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match owner(paths, name) {
            Some(owner) if owner != ctid => Err(Error::NameTaken { name: name.to_string(), owner }),
            _ => Ok(()),
        },
        other => other.map_err(fail),
    }
}

fn unlink(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::NameLink { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ve(id: u32) -> Ctid {
        Ctid::new(id).unwrap()
    }

    fn node() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        fs::create_dir_all(paths.conf_dir()).unwrap();
        fs::create_dir_all(paths.names_dir()).unwrap();
        for (id, name) in [(101, "web"), (102, "db")] {
            fs::write(paths.ve_conf(ve(id)), format!("NAME=\"{name}\"\n")).unwrap();
            assign(&paths, ve(id), name, None).unwrap();
        }
        (dir, paths)
    }

    #[test]
    fn name_rule() {
        for good in ["web", "a b", "a-b+c_d.e", "101", "-x"] {
            check(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "ü", "a\nb", "a:b", "a*"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn resolve_finds_numbers_and_names_and_refuses_the_rest() {
        let (_dir, paths) = node();
        assert_eq!(resolve(&paths, "0101").unwrap(), ve(101));
        assert_eq!(resolve(&paths, "web").unwrap(), ve(101));
        assert_eq!(resolve(&paths, "nope").unwrap_err().to_string(), "Bad CT ID nope");
        assert_eq!(resolve(&paths, "../conf").unwrap_err().to_string(), "Bad CT ID ../conf");
        assert_eq!(resolve(&paths, "").unwrap_err().exit().code(), 21);
        fs::write(paths.ve_conf(ve(101)), "NAME=\"other\"\n").unwrap();
        let error = resolve(&paths, "web").unwrap_err();
        assert_eq!(error.to_string(), "Unable to find container by name web");
        assert_eq!(error.exit().code(), 21);
    }

    #[test]
    fn a_taken_name_is_refused_and_a_stale_one_is_not() {
        let (_dir, paths) = node();
        let error = assign(&paths, ve(102), "web", Some("db")).unwrap_err();
        assert_eq!(error.to_string(), "Conflict: name web already used by container 101");
        assert_eq!(error.exit().code(), 131);
        assert_eq!(owner(&paths, "db"), Some(ve(102)));
        fs::remove_file(paths.ve_conf(ve(101))).unwrap();
        assign(&paths, ve(102), "web", Some("db")).unwrap();
        assert_eq!(owner(&paths, "web"), Some(ve(102)));
        assert_eq!(owner(&paths, "db"), None);
    }

    #[test]
    fn renaming_and_removing_leave_no_links() {
        let (_dir, paths) = node();
        assign(&paths, ve(101), "www", Some("web")).unwrap();
        assign(&paths, ve(101), "www", Some("www")).unwrap();
        assert_eq!((owner(&paths, "web"), owner(&paths, "www")), (None, Some(ve(101))));
        assign(&paths, ve(101), "", Some("www")).unwrap();
        assert_eq!(owner(&paths, "www"), None);
        assign(&paths, ve(102), "second", None).unwrap();
        remove_all(&paths, ve(102)).unwrap();
        assert_eq!(fs::read_dir(paths.names_dir()).unwrap().count(), 0);
    }
}
