//! The files of a VE that goes on running while they are saved, as they were at one moment.
//!
//! ```text
//! all, what changed, what changed, … ──▶ (it stands still) what changed ──▶ (it goes on) the list of that moment
//! ```
//! Each pass puts what it has to read into the stream; who was told as changed is read again. In the end the stream begins
//! anew with the list of all files, which refers to what is there. So nothing is copied, and a VE stands still for
//! what it changed in the last moments. What the kernel does not tell is dealt with as in [`crate::changes`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::error::Fault;
use super::head::Totals;
use super::item::{Item, path_fits};
use super::press::Press;
use super::record::Record;
use super::walk::{TICK_NANOS, Walk, ctime, nanos, open_dir, settled, written};
use crate::archive::names;
use crate::changes::{Change, Drained, Watch};

/// A pass that found so little is the last one before the VE stands still.
const LITTLE: usize = 32;
/// One that changes more than can be read meanwhile stands still all the same.
const ROUNDS: u32 = 12;
/// Where nothing is told: a long write sets a file's ctime once, when it begins.
const LONG_WRITE: i128 = 2_000_000_000;

/// Whoever can make a VE stand still.
pub trait Stand {
    /// Files that its processes have mapped, to be written ([`crate::changes::mapped`]).
    ///
    /// # Errors
    /// Why that cannot be told.
    fn mapped(&self) -> Result<Vec<PathBuf>, Fault>;

    /// Does `work` while nothing of it runs; it returns how many directories were looked at.
    ///
    /// # Errors
    /// What `work` says, or why it could not be made to stand still.
    fn hold(&self, work: &mut dyn FnMut() -> Result<u64, Fault>) -> Result<(), Fault>;

    /// Something that is told only to those who want to know.
    fn say(&self, words: &str);
}

/// A VE that runs while it is saved.
pub struct Running<'a> {
    /// Where what it writes lies: changes are told there.
    pub written: &'a Path,
    /// Why they are not, where that is known.
    pub tells: Result<(), String>,
    /// Who makes it stand still.
    pub stand: &'a dyn Stand,
}

impl std::fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("written", &self.written).finish_non_exhaustive()
    }
}

/// Names that changed, by directory; those above before those below.
type Told = BTreeMap<Vec<u8>, HashSet<Vec<u8>>>;

/// Passes over one tree.
pub(super) struct Passes<'a, 'b, W> {
    walk: Walk<'a, W>,
    running: &'b Running<'b>,
    watch: Option<Watch>,
    /// Before the first pass.
    begun: i128,
    looked: u64,
}

impl<'a, 'b, W: Write> Passes<'a, 'b, W> {
    /// Begins; `again` says that the stream holds a tree already.
    pub(super) fn new(mut walk: Walk<'a, W>, running: &'b Running<'b>, again: bool) -> Self {
        walk.record = Some(Record::new(again));
        let told = running.tells.clone();
        let watch = told.and_then(|()| Watch::start(running.written).map_err(|error| error.to_string()));
        let mut passes = Self { walk, running, watch: None, begun: settled(0), looked: 0 };
        match watch {
            Ok(watch) => passes.watch = Some(watch),
            Err(why) => passes.go_blind(&why),
        }
        passes
    }

    /// All of it, and the list in the end. Hands the stream back.
    pub(super) fn run(mut self) -> Result<(Press<W>, Totals), Fault> {
        self.sync(&self.running.stand.mapped()?)?;
        self.all()?;
        for _ in 0..ROUNDS {
            if self.round()? <= LITTLE {
                break;
            }
        }
        vzsys::fault::point("backup.settled");
        let stand = self.running.stand;
        loop {
            let moment = crate::mirror::now();
            stand.hold(&mut || self.last())?;
            vzsys::fault::point("backup.held");
            let Some(missed) = self.missed(moment - TICK_NANOS)? else { break };
            self.go_blind(&format!("a change of {missed} was not told"));
        }
        self.finish()
    }

    fn record(&mut self) -> &mut Record {
        self.walk.record.get_or_insert_default()
    }

    fn go_blind(&mut self, why: &str) {
        self.running.stand.say(&format!(
            "Changes are not told here ({why}): all files are looked at while the container stands still"
        ));
        self.watch = None;
        let since = self.begun - LONG_WRITE;
        self.record().doubted = Some(since);
    }

    fn next_pass(&mut self) {
        self.walk.settled = settled(TICK_NANOS);
        self.record().next_pass();
    }

    /// Everything.
    fn all(&mut self) -> Result<(), Fault> {
        self.next_pass();
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let below = self.one(&path, HashSet::new())?;
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// One directory; returns those in it.
    fn one(&mut self, path: &[u8], told: HashSet<Vec<u8>>) -> Result<Vec<Vec<u8>>, Fault> {
        self.looked += 1;
        self.record().begin(path, told);
        let below = self.walk.directory(path)?;
        self.record().end(below.clone());
        Ok(below)
    }

    /// What changed since the last look; returns how much that was.
    fn round(&mut self) -> Result<usize, Fault> {
        let Some(watch) = &mut self.watch else { return Ok(0) };
        match watch.drain()? {
            Drained::Changes(changes) => {
                self.renew(&changes)?;
                Ok(changes.len())
            }
            Drained::Lost => {
                self.go_blind("events were lost");
                Ok(0)
            }
        }
    }

    fn renew(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let mut told = Told::new();
        for change in changes {
            for path in change.unnamed.map(|inode| self.record().paths_of(inode)).unwrap_or_default() {
                note(&mut told, &path);
            }
            if change.is_nameless() {
                continue;
            }
            let path = change.path.as_os_str().as_bytes();
            note(&mut told, path);
            // One that came, or whose own mode changed; what it holds is looked at below where it is new.
            if change.deep || self.record().has(path) {
                told.entry(path.to_owned()).or_default();
            }
        }
        let deep: Vec<Vec<u8>> = changes.iter().filter(|change| change.deep).map(bytes_of).collect();
        self.directories(told, &deep)
    }

    /// Directories with names in them that changed; `deep` are such as came with all that is below.
    fn directories(&mut self, mut told: Told, deep: &[Vec<u8>]) -> Result<(), Fault> {
        self.next_pass();
        while let Some((path, names)) = told.pop_first() {
            // (Deeper than a path can be is what nobody can open. The walk says so where it is.)
            if !path_fits(path.len()) || !self.is_reached(&path) {
                continue;
            }
            for below in self.one(&path, names)? {
                let came = deep.iter().any(|top| is_within(&below, top));
                if came || !self.record().has(&below) {
                    told.entry(below).or_default();
                }
            }
        }
        Ok(())
    }

    /// Whether the directory above is in the list: else that is looked at, and this one with it.
    fn is_reached(&mut self, path: &[u8]) -> bool {
        path.is_empty() || self.record().has(parent(path))
    }

    /// The last pass: nothing runs.
    fn last(&mut self) -> Result<u64, Fault> {
        let before = self.looked;
        self.round()?;
        if self.watch.is_none() {
            self.all()?;
        }
        let mut told = Told::new();
        for path in self.running.stand.mapped()? {
            let path = path.as_os_str().as_bytes();
            if self.may_differ(path)? {
                note(&mut told, path);
            }
        }
        self.directories(told, &[])?;
        Ok(self.looked - before)
    }

    /// A mapped file that was synced before it was read: a store since has changed its ctime.
    fn may_differ(&mut self, path: &[u8]) -> Result<bool, Fault> {
        let Some(dir) = open_dir(&self.walk.root, parent(path))? else { return Ok(false) };
        let stat = match fs::statat(&dir, name(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(_) => return Ok(false),
        };
        let seen = self.record().seen(parent(path)).get(name(path)).copied();
        let racy = nanos(ctime(&stat)) > self.begun - LONG_WRITE;
        Ok(racy || seen != Some((Some(stat.st_ino), ctime(&stat))))
    }

    /// Writes mapped files to the disk, so that the next store changes their ctime.
    fn sync(&self, paths: &[PathBuf]) -> Result<(), Fault> {
        for path in paths {
            let path = path.as_os_str().as_bytes();
            if !path_fits(path.len()) {
                continue;
            }
            let Some(dir) = open_dir(&self.walk.root, parent(path))? else { continue };
            let flags =
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let is_file = |stat: fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !fs::statat(&dir, name(path), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(is_file) {
                continue;
            }
            if let Ok(file) = fs::openat(&dir, name(path), flags, Mode::empty()) {
                fs::fdatasync(file).call("fdatasync", || path.escape_ascii().to_string())?;
            }
        }
        Ok(())
    }

    /// The first thing that changed before `moment` and is not so in the list: none, if all changes were told.
    fn missed(&mut self, moment: i128) -> Result<Option<String>, Fault> {
        if self.watch.is_none() {
            return Ok(None);
        }
        let device = fs::fstat(&self.walk.root).call("fstat", || "root")?.st_dev;
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let Some(dir) = open_dir(&self.walk.root, &path)? else { continue };
            let failed = |call, errno| Fault::System(SysError::new(call, path.escape_ascii(), errno));
            if fs::fstat(&dir).map_err(|errno| failed("fstat", errno))?.st_dev != device {
                continue;
            }
            let seen: HashMap<_, _> = self.record().seen(&path);
            for name in names(dir.as_fd()).map_err(|errno| failed("getdents", errno))? {
                let stat = match fs::statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(failed("fstatat", errno)),
                };
                let full = if path.is_empty() { name.clone() } else { [&path[..], b"/", &name].concat() };
                let is_same = seen.get(&name).is_some_and(|(inode, time)| {
                    *time == ctime(&stat) && inode.is_none_or(|inode| inode == stat.st_ino)
                });
                if !is_same && nanos(ctime(&stat)) < moment {
                    return Ok(Some(full.escape_ascii().to_string()));
                }
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && path_fits(full.len()) {
                    waiting.push(full);
                }
            }
        }
        Ok(None)
    }

    /// The list of all files, with which the stream begins anew.
    fn finish(mut self) -> Result<(Press<W>, Totals), Fault> {
        let record = self.walk.record.take().unwrap_or_default();
        let press = &mut self.walk.press;
        let begins = press.settle().map_err(|error| written(&error))?;
        vzsys::fault::point("backup.listing");
        press.item(&Item::Anew).map_err(|error| written(&error))?;
        let counted = record.tell(&mut |item| press.item(item).map_err(|error| written(&error)))?;
        let totals = Totals {
            entries: counted.entries,
            bytes: counted.bytes,
            unread: counted.unread,
            new: self.walk.totals.new,
            first: begins.frame,
            first_at: begins.at,
            first_chunk: begins.chunk.into(),
        };
        Ok((self.walk.press, totals))
    }
}

fn bytes_of(change: &Change) -> Vec<u8> {
    change.path.as_os_str().as_bytes().to_owned()
}

fn note(told: &mut Told, path: &[u8]) {
    if path.is_empty() {
        told.entry(Vec::new()).or_default();
    } else {
        told.entry(parent(path).to_owned()).or_default().insert(name(path).to_owned());
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| &path[at + 1..])
}

fn is_within(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/') || top.is_empty())
}
