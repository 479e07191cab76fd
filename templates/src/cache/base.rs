//! Unpacked templates, shared by the overlays of all containers made from them.
//!
//! ```text
//! TEMPLATE/base/<id>/            the tree, complete since it was renamed from <id>.tmp
//! TEMPLATE/base/<id>.refs/<CTID> who lies on top of it
//! TEMPLATE/base/<id>.lock        flock: exclusive to unpack or remove, shared to use
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use vzconf::Ctid;
use vzsys::{Call, btrfs};

use super::{Cache, CacheError, Template};
use crate::archive::{Durability, Progress, Unpack};
use crate::removal;

/// A base in use. While it lives nobody removes the tree; [`Cache::add_ref`] makes that last.
#[derive(Debug)]
pub struct Base {
    /// The tree.
    pub path: PathBuf,
    /// Its name below `TEMPLATE/base`.
    pub id: String,
    _lock: File,
}

impl Cache {
    /// `TEMPLATE/base`
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.dir.join("base")
    }

    /// The unpacked tree of a template. The first caller unpacks it (`progress` is told), others wait for that;
    /// what a killed one left is removed.
    ///
    /// # Errors
    /// [`CacheError::Archive`], [`CacheError::System`].
    pub fn base(&self, template: &Template, mut progress: impl FnMut(Progress)) -> Result<Base, CacheError> {
        let id = template.base_id();
        let bases = self.bases();
        // Its files are set-uid programs nobody keeps up to date: nothing for the host's users.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&bases);
        made.call("mkdir", || bases.display().to_string())?;
        let path = bases.join(&id);
        loop {
            let lock = lock(&bases, &id, FlockOperation::LockShared)?;
            if path.is_dir() {
                return Ok(Base { path, id, _lock: lock });
            }
            drop(lock);
            let _lock = self::lock(&bases, &id, FlockOperation::LockExclusive)?;
            if path.is_dir() {
                continue;
            }
            if let Err(error) = unpack(template, &path, &mut progress) {
                // While we hold it, as in prune: who waits for it sees that it is gone.
                let _ = fs::remove_file(lock_path(&bases, &id));
                return Err(error);
            }
        }
    }

    /// Notes that a container lies on top of a base. Not synced: the private area appears later, by a
    /// rename on the same file system, and a journal keeps that order.
    ///
    /// # Errors
    /// [`CacheError::System`].
    pub fn add_ref(&self, id: &str, ctid: Ctid) -> Result<(), CacheError> {
        let refs = self.refs(id);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&refs)
            .call("mkdir", || refs.display().to_string())?;
        let path = refs.join(ctid.to_string());
        File::create(&path).call("open", || path.display().to_string())?;
        Ok(())
    }

    /// Takes that back, and removes the base if its template is gone or replaced and nobody else needs it.
    ///
    /// # Errors
    /// [`CacheError::System`].
    pub fn drop_ref(&self, id: &str, ctid: Ctid) -> Result<(), CacheError> {
        let path = self.refs(id).join(ctid.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(vzsys::SysError::from_io("unlink", path.display(), &error).into());
            }
            _ => {}
        }
        self.prune_one(id, &self.current_ids()?)
    }

    /// Who lies on top of a base, sorted.
    #[must_use]
    pub fn users(&self, id: &str) -> Vec<Ctid> {
        let entries = fs::read_dir(self.refs(id)).into_iter().flatten().flatten();
        let mut users: Vec<Ctid> =
            entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
        users.sort_unstable();
        users
    }

    /// Removes every base that no template and no container needs, and what killed commands left.
    ///
    /// # Errors
    /// [`CacheError::System`].
    pub fn prune(&self) -> Result<(), CacheError> {
        let current = self.current_ids()?;
        let Ok(entries) = fs::read_dir(self.bases()) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(".tmp").or_else(|| name.strip_suffix(".refs"));
            self.prune_one(id.or_else(|| name.strip_suffix(".lock")).unwrap_or(&name), &current)?;
        }
        Ok(())
    }

    fn refs(&self, id: &str) -> PathBuf {
        self.bases().join(format!("{id}.refs"))
    }

    fn current_ids(&self) -> Result<Vec<String>, CacheError> {
        Ok(self.list()?.iter().map(Template::base_id).collect())
    }

    fn prune_one(&self, id: &str, current: &[String]) -> Result<(), CacheError> {
        let bases = self.bases();
        if !bases.is_dir() || current.iter().any(|known| known == id) {
            return Ok(());
        }
        let _lock = match lock(&bases, id, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            // Somebody is about to use it.
            Err(CacheError::System(error)) if error.errno() == Errno::WOULDBLOCK => return Ok(()),
            Err(error) => return Err(error),
        };
        if !self.users(id).is_empty() {
            return Ok(());
        }
        for dead in [bases.join(id), bases.join(format!("{id}.tmp")), self.refs(id)] {
            removal::remove(&dead)?;
        }
        // Last, while we hold it: who waits for it sees that it is gone and makes a new one.
        let path = lock_path(&bases, id);
        Ok(fs::remove_file(&path).call("unlink", || path.display().to_string())?)
    }
}

/// Unpacks a template as a base.
fn unpack(template: &Template, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), CacheError> {
    let unpack = Unpack::new(&template.path)
        .needed(template.unpacked())
        .durability(Durability::Synced)
        .progress(progress);
    let filled = make_filled(path)?;
    if let Err(error) = unpack.into_dir(&filled) {
        // The first error counts; what stays is removed by the next try.
        let _ = removal::remove(&filled);
        return Err(error.into());
    }
    appear(&filled, path)
}

/// Makes the place where a base is filled, in place of what a killed one left: on btrfs a subvolume, of which snapshots
/// can be made. The caller has the lock.
pub(super) fn make_filled(base: &Path) -> Result<PathBuf, CacheError> {
    let mut filled = base.as_os_str().to_owned();
    filled.push(".tmp");
    let filled = PathBuf::from(filled);
    removal::remove(&filled)?;
    let (bases, name) = (base.parent().unwrap_or(Path::new("/")), filled.file_name().unwrap_or_default());
    let dir = File::open(bases).call("open", || bases.display().to_string())?;
    if btrfs::is_btrfs(dir.as_fd()) {
        btrfs::create(dir.as_fd(), name)?;
    } else {
        let made = fs::DirBuilder::new().mode(0o700).create(&filled);
        made.call("mkdir", || filled.display().to_string())?;
    }
    Ok(filled)
}

/// A filled one, which is on the disk, is the base.
pub(super) fn appear(filled: &Path, base: &Path) -> Result<(), CacheError> {
    fs::rename(filled, base).call("rename", || filled.display().to_string())?;
    let dir = File::open(base).call("open", || base.display().to_string())?;
    if btrfs::is_subvolume(dir.as_fd()) { Ok(btrfs::make_read_only(dir.as_fd())?) } else { Ok(()) }
}

pub(super) fn lock_path(bases: &Path, id: &str) -> PathBuf {
    bases.join(format!("{id}.lock"))
}

/// Takes the lock of one base; the file may be removed by its holder while we wait for it.
pub(super) fn lock(bases: &Path, id: &str, how: FlockOperation) -> Result<File, CacheError> {
    let path = lock_path(bases, id);
    loop {
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.call("open", || path.display().to_string())?;
        loop {
            match flock(&file, how) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(vzsys::SysError::new("flock", path.display(), errno).into()),
            }
        }
        let ours = file.metadata().map(|meta| meta.ino());
        let there = fs::metadata(&path).map(|meta| meta.ino());
        if matches!((ours, there), (Ok(ours), Ok(there)) if ours == there) {
            return Ok(file);
        }
    }
}
