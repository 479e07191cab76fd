//! The config file that a tool works on, which may be a VE's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use vzconf::{ConfFile, Config, Ctid, Lock, Paths};

use super::Error;

/// A config file.
#[derive(Debug)]
pub(super) struct Subject {
    /// As it was named.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) file: ConfFile,
    /// The VE whose own it is.
    pub(super) ctid: Option<Ctid>,
}

impl Subject {
    /// Reads a config file.
    ///
    /// # Errors
    /// When it is not there, no file, or not readable.
    pub(super) fn open(path: &Path, paths: &Paths) -> Result<Self, Error> {
        let shown = || path.display().to_string();
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => return Err(Error::NotAFile(shown())),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::NoFile(shown())),
            Err(source) => return Err(Error::Io { what: format!("read {}", path.display()), source }),
        }
        let file = ConfFile::load(path)?;
        Ok(Self { path: path.to_path_buf(), file, ctid: owner(path, paths) })
    }

    /// The merged view of it. Without a readable `vz.conf` it stands for itself.
    pub(super) fn config(&self, global: &Config) -> Config {
        match self.ctid {
            Some(ctid) => global.with_file(ctid, Some(self.file.clone())),
            None => global.with_sample(&self.path, self.file.clone()),
        }
    }

    /// Writes a new version of it, unless somebody else has written one since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`]; [`vzconf::Error::Locked`] while a verb is at work on the VE; those of the file.
    pub(super) fn replace(&self, new: &ConfFile, global: &Config, program: &str) -> Result<(), Error> {
        if *new == self.file {
            return Ok(());
        }
        let _lock = self.lock(global, program)?;
        if ConfFile::load(&self.path)? != self.file {
            return Err(Error::Changed(self.path.display().to_string()));
        }
        Ok(new.save(&self.path)?)
    }

    /// Keeps verbs from the VE, if this is one's own.
    fn lock(&self, global: &Config, program: &str) -> Result<Option<Lock>, Error> {
        Ok(self.ctid.map(|ctid| Lock::acquire_as(&global.lock_dir(), ctid, program)).transpose()?)
    }
}

/// The VE whose own config a path leads to, by its number or by a link from its name.
pub(super) fn owner(path: &Path, paths: &Paths) -> Option<Ctid> {
    let real = fs::canonicalize(path).ok()?;
    let ctid: Ctid = real.file_name()?.to_str()?.strip_suffix(".conf")?.parse().ok()?;
    (fs::canonicalize(paths.ve_conf(ctid)).ok()? == real).then_some(ctid)
}

#[cfg(test)]
mod tests {
    use super::super::testing::node;
    use super::*;

    #[test]
    fn a_ves_own_config_is_known_by_any_way_to_it() {
        let (dir, paths) = node();
        let own = paths.conf_dir().join("101.conf");
        let (copy, link) = (dir.path().join("101.conf"), dir.path().join("web"));
        for file in [&own, &copy] {
            fs::write(file, "NUMPROC=5\n").unwrap();
        }
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let of = |path: &Path| Subject::open(path, &paths).unwrap().ctid.map(Ctid::get);
        assert_eq!(
            [of(&own), of(&link), of(&copy), of(&paths.sample("basic"))],
            [Some(101), Some(101), None, None]
        );
        assert!(matches!(Subject::open(&dir.path().join("no"), &paths), Err(Error::NoFile(_))));
        assert!(matches!(Subject::open(dir.path(), &paths), Err(Error::NotAFile(_))));
    }

    #[test]
    fn nobody_elses_work_is_overwritten() {
        let (_dir, paths) = node();
        let own = paths.conf_dir().join("101.conf");
        fs::write(&own, "NUMPROC=5\n").unwrap();
        let global = Config::global(&paths).unwrap();
        let subject = Subject::open(&own, &paths).unwrap();
        let new = ConfFile::parse("NUMPROC=6\n");

        let held = Lock::acquire_as(&global.lock_dir(), Ctid::new(101).unwrap(), "test").unwrap();
        let refused = subject.replace(&new, &global, "vzx");
        assert!(matches!(refused, Err(Error::Conf(vzconf::Error::Locked { .. }))), "{refused:?}");
        drop(held);
        subject.replace(&new, &global, "vzx").unwrap();
        assert_eq!(fs::read_to_string(&own).unwrap(), "NUMPROC=6\n");
        let refused = subject.replace(&ConfFile::parse("NUMPROC=7\n"), &global, "vzx");
        assert!(matches!(refused, Err(Error::Changed(_))), "{refused:?}");
        assert_eq!(fs::read_dir(global.lock_dir()).unwrap().count(), 0);
    }
}
