//! The host's tables, of all VEs: `/run/vz/proc`.

use std::fs::File;
use std::time::{Duration, Instant};

use ve::accounts::Accounts;
use ve::host_files::HostFile;
use vzconf::{Ctid, Paths};

use super::files::{Bell, Files, Kind, ROOT};
use super::wire::{Attributes, S_IFDIR, S_IFREG};

const BC: u64 = 2;
const VZ: u64 = 3;
/// The first of the files that are always there.
const FIXED: u64 = 16;
/// Directories and files of VEs: their number is above this, in steps of [`STEP`].
const VES: u64 = 1 << 40;
const STEP: u64 = 16;

/// After so long without a question, what was opened for the last one is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What there is now.
#[derive(Debug)]
pub(super) struct HostFiles {
    paths: Paths,
    /// Of the last question, and when that was.
    asked: Option<(Instant, Accounts)>,
    limits: Bell,
}

impl HostFiles {
    /// The time of the lock says when a VE's limits were changed.
    pub(super) fn new(paths: Paths, lock: Option<&File>) -> Self {
        Self { paths, asked: None, limits: Bell::new(lock) }
    }

    /// Configurations are read anew each time: they change.
    fn accounts(&mut self) -> Option<&Accounts> {
        let accounts = match self.asked.take() {
            Some((_, mut accounts)) => accounts.renew().ok().map(|()| accounts),
            None => Accounts::new(&self.paths).ok().map(Accounts::keep_open),
        };
        self.asked = accounts.map(|accounts| (Instant::now(), accounts));
        self.asked.as_ref().map(|(_, accounts)| accounts)
    }

    fn runs(&self, ctid: Ctid) -> bool {
        ve::state::State::load(&self.paths.run_dir(ctid)).is_some_and(|state| state.alive())
    }
}

/// The fixed files by directory, number and name.
fn fixed() -> impl Iterator<Item = (u64, u64, &'static str, HostFile)> {
    (FIXED..).zip(HostFile::FIXED).map(|(number, (path, file))| match path.split_once('/') {
        Some(("bc", name)) => (BC, number, name, file),
        Some((_, name)) => (VZ, number, name, file),
        None => (ROOT, number, path, file),
    })
}

fn directory_of(ctid: Ctid) -> u64 {
    VES + u64::from(ctid.get()) * STEP
}

/// The VE that a number belongs to, and which of its files that is; its directory is none of them.
fn of_ve(node: u64) -> Option<(Ctid, Option<usize>)> {
    let number = node.checked_sub(VES)?;
    let ctid = Ctid::new(u32::try_from(number / STEP).ok()?).ok()?;
    Some((ctid, usize::try_from(number % STEP).ok()?.checked_sub(1)))
}

impl Files for HostFiles {
    type File = HostFile;

    fn kind(&mut self, node: u64) -> Option<Kind<HostFile>> {
        if let Some((ctid, file)) = of_ve(node) {
            let Some(at) = file else { return Some(Kind::Directory) };
            return HostFile::of(ctid).get(at).map(|(_, file)| Kind::File(*file));
        }
        if matches!(node, ROOT | BC | VZ) {
            return Some(Kind::Directory);
        }
        fixed().find(|(_, number, ..)| *number == node).map(|(.., file)| Kind::File(file))
    }

    fn attributes(&mut self, node: u64) -> Option<Attributes> {
        let mode = match self.kind(node)? {
            Kind::Directory => S_IFDIR | 0o500,
            Kind::File(_) | Kind::Link => S_IFREG | 0o400,
        };
        // VEs come and go.
        Some(Attributes { node, mode, owner: 0, lasting: of_ve(node).is_none() })
    }

    fn find(&mut self, parent: u64, name: &[u8]) -> Option<u64> {
        if let Some((ctid, None)) = of_ve(parent) {
            let at = HostFile::of(ctid).iter().position(|(of, _)| of.as_bytes() == name)?;
            return Some(parent + 1 + at as u64);
        }
        let known = [(ROOT, BC, "bc"), (ROOT, VZ, "vz")].into_iter();
        let mut known = known.chain(fixed().map(|(directory, number, name, _)| (directory, number, name)));
        known.find(|(directory, _, of)| *directory == parent && of.as_bytes() == name).map_or_else(
            || {
                let text = std::str::from_utf8(name).ok().filter(|_| parent == BC)?;
                // `0101` is nobody's name.
                let ctid: Ctid = text.parse().ok().filter(|ctid: &Ctid| ctid.to_string() == text)?;
                self.runs(ctid).then(|| directory_of(ctid))
            },
            |(_, number, _)| Some(number),
        )
    }

    fn below(&mut self, parent: u64) -> Vec<(u64, String)> {
        if let Some((ctid, None)) = of_ve(parent) {
            let files = (parent + 1..).zip(HostFile::of(ctid));
            return files.map(|(number, (name, _))| (number, name.to_owned())).collect();
        }
        let mut all: Vec<(u64, String)> = fixed()
            .filter(|(directory, ..)| *directory == parent)
            .map(|(_, number, name, _)| (number, name.to_owned()))
            .collect();
        match parent {
            ROOT => all.extend([(BC, "bc".to_owned()), (VZ, "vz".to_owned())]),
            BC => {
                let accounts = Accounts::new(&self.paths).ok();
                let running = accounts.map(|accounts| accounts.running()).unwrap_or_default();
                all.extend(running.into_iter().map(|(ctid, _)| (directory_of(ctid), ctid.to_string())));
            }
            _ => {}
        }
        all
    }

    fn text(&mut self, file: HostFile) -> String {
        self.accounts().and_then(|accounts| file.read(accounts)).unwrap_or_default()
    }

    fn changed(&mut self) -> bool {
        self.limits.rings()
    }

    fn left(&self) -> Option<Duration> {
        self.asked.as_ref().map(|(at, _)| IDLE.saturating_sub(at.elapsed()))
    }

    fn tick(&mut self) {
        if self.left() == Some(Duration::ZERO) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_names_lead_to_files_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = HostFiles::new(Paths::under(dir.path()), None);
        let vz = files.find(ROOT, b"vz").unwrap();
        let veinfo = files.find(vz, b"veinfo").unwrap();
        assert_eq!(files.kind(veinfo), Some(Kind::File(HostFile::Veinfo)));
        assert_eq!(files.attributes(veinfo).unwrap().mode, S_IFREG | 0o400);
        let bc = files.find(ROOT, b"bc").unwrap();
        let resources = files.find(bc, b"resources").unwrap();
        assert_eq!(files.kind(resources), Some(Kind::File(HostFile::BcResources)));
        assert_eq!(files.find(bc, b"101"), None, "it does not run");
        assert_eq!((files.find(ROOT, b"nosuch"), files.kind(0), files.kind(9)), (None, None, None));
        let names: Vec<String> = files.below(ROOT).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["user_beancounters", "bc", "vz"]);
    }

    #[test]
    fn numbers_say_whose_they_are() {
        let ctid: Ctid = "4294967294".parse().unwrap_or_else(|_| "101".parse().unwrap());
        let directory = directory_of(ctid);
        assert_eq!(of_ve(directory), Some((ctid, None)));
        assert_eq!(of_ve(directory + 2), Some((ctid, Some(1))));
        assert_eq!(of_ve(FIXED), None);
    }
}
