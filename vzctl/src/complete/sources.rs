//! What completion reads: directory entries only, no lock, no config file, no process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vzconf::{Ctid, Paths};

/// Forms a template archive can have.
const ARCHIVES: &[&str] = &[".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"];
/// The first CTID proposed on a host without containers; those up to 100 are reserved.
const FIRST_CTID: u32 = 101;

/// The directories completion looks into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// `CTID.conf` files and samples.
    pub conf: PathBuf,
    /// Name links.
    pub names: PathBuf,
    /// One directory for each running container, its `state.json` in it.
    pub run: PathBuf,
    /// Template archives.
    pub templates: PathBuf,
    /// Network devices of the host.
    pub devices: PathBuf,
}

impl Sources {
    /// Those of a host with default settings.
    pub fn of(paths: &Paths) -> Self {
        Self {
            conf: paths.conf_dir(),
            names: paths.names_dir(),
            run: paths.run_root().to_owned(),
            templates: paths.vz().join("template/cache"),
            devices: PathBuf::from("/sys/class/net"),
        }
    }

    pub(super) fn all(&self) -> BTreeSet<u32> {
        let names = entries(&self.conf).into_iter();
        names.filter_map(|name| ctid(name.strip_suffix(".conf")?)).collect()
    }

    pub(super) fn running(&self) -> BTreeSet<u32> {
        let all = self.all();
        // A directory without a state is one that is being started, or was not cleaned up.
        let runs = |ctid: &u32| self.run.join(ctid.to_string()).join("state.json").exists();
        all.into_iter().filter(runs).collect()
    }

    pub(super) fn stopped(&self) -> BTreeSet<u32> {
        &self.all() - &self.running()
    }

    /// The CTID after the last one.
    pub(super) fn next(&self) -> u32 {
        let last = self.all().last().copied().unwrap_or(0);
        last.saturating_add(1).clamp(FIRST_CTID, Ctid::MAX)
    }

    /// Names with the CTID each stands for.
    pub(super) fn names(&self) -> Vec<(String, u32)> {
        let known = |name: String| {
            let target = fs::read_link(self.names.join(&name)).ok()?;
            let ctid = ctid(target.file_name()?.to_str()?.strip_suffix(".conf")?)?;
            Some((name, ctid))
        };
        let mut all: Vec<_> = entries(&self.names).into_iter().filter_map(known).collect();
        all.sort();
        all
    }

    pub(super) fn templates(&self) -> BTreeSet<String> {
        let stem = |name: &String| {
            let suffix = ARCHIVES.iter().find(|suffix| name.ends_with(**suffix))?;
            Some(name[..name.len() - suffix.len()].to_owned()).filter(|stem| !stem.is_empty())
        };
        entries(&self.templates).iter().filter_map(stem).collect()
    }

    pub(super) fn samples(&self) -> BTreeSet<String> {
        let sample = |name: &String| Some(name.strip_prefix("ve-")?.strip_suffix(".conf-sample")?.to_owned());
        entries(&self.conf).iter().filter_map(sample).collect()
    }

    pub(super) fn devices(&self) -> BTreeSet<String> {
        entries(&self.devices).into_iter().collect()
    }
}

fn ctid(word: &str) -> Option<u32> {
    word.parse::<Ctid>().ok().filter(|ctid| !ctid.is_host()).map(Ctid::get)
}

/// The names in a directory; none if it cannot be read, for a completion has nobody to complain to.
/// Names with control characters would break the lines candidates are printed as.
fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| !name.contains(char::is_control)).collect()
}
