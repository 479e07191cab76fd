//! The template cache: tarballs in `TEMPLATE/cache`, what is known about them beside them, and their unpacked
//! trees in `TEMPLATE/base`.

mod arriving;
mod base;
mod error;
mod metadata;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use vzsys::Call;

pub use arriving::Arriving;
pub use base::Base;
pub use error::CacheError;
pub use metadata::Metadata;

use crate::archive::{self, Compression, Limits, Progress};

/// How the names of workshops begin.
const MAKING: &str = ".making-";

/// The cache below one TEMPLATE directory.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

/// One template of the cache.
#[derive(Debug, Clone)]
pub struct Template {
    /// `debian-12-x86_64-minimal`
    pub name: String,
    /// The tarball.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its time in nanoseconds since the epoch.
    pub mtime: i64,
    /// What is known about it; `None` if nothing, or only about a file that was there before.
    pub metadata: Option<Metadata>,
}

impl Template {
    /// An archive that is in no cache.
    pub(crate) fn unlisted(name: &str, path: PathBuf, stat: &fs::Metadata) -> Self {
        let (size, mtime) = (std::os::unix::fs::MetadataExt::size(stat), metadata::nanos(stat));
        Self { name: name.to_owned(), path, size, mtime, metadata: None }
    }

    /// Reads what lies at `path`.
    fn load(name: &str, path: PathBuf) -> io::Result<Self> {
        let stat = fs::metadata(&path)?;
        if !stat.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let json = fs::read(path.with_file_name(format!("{name}.json"))).ok();
        let metadata: Option<Metadata> = json.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let metadata = metadata.filter(|metadata| metadata.fits(&stat));
        Ok(Self { name: name.to_owned(), path, size: stat.len(), mtime: metadata::nanos(&stat), metadata })
    }

    /// The name of its unpacked tree: another tarball of the same name has another one.
    #[must_use]
    pub fn base_id(&self) -> String {
        let told =
            self.metadata.as_ref().map(|metadata| metadata.sha256.as_str()).filter(|sum| is_sha256(sum));
        let sum = match told {
            Some(sum) => sum.to_owned(),
            None => archive::hex(&Sha256::digest(format!("{} {}", self.size, self.mtime))),
        };
        format!("{}-{}", self.name, &sum[..16])
    }

    /// Bytes it unpacks to, as told or guessed.
    #[must_use]
    pub fn unpacked(&self) -> Option<u64> {
        let told = self.metadata.as_ref().map(|metadata| metadata.unpacked).filter(|bytes| *bytes > 0);
        told.or_else(|| archive::estimate(&self.path).ok())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Cache {
    /// The cache of a TEMPLATE directory, which need not exist yet.
    #[must_use]
    pub fn open(template_dir: &Path) -> Self {
        Self { dir: template_dir.to_owned() }
    }

    /// `TEMPLATE/cache`
    #[must_use]
    pub fn tarballs(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Finds a template: `.tar`, `.tar.gz`, `.tar.bz2`, `.tar.xz`, `.tar.zst`, in that order.
    ///
    /// # Errors
    /// [`CacheError::NotFound`] (exit 91), also for a name no template can have.
    pub fn find(&self, name: &str) -> Result<Template, CacheError> {
        let missing = || CacheError::NotFound { dir: self.tarballs(), name: name.to_owned() };
        check_name(name).map_err(|_| missing())?;
        let candidates =
            Compression::ALL.into_iter().map(|c| self.tarballs().join(format!("{name}{}", c.suffix())));
        candidates.into_iter().find_map(|path| Template::load(name, path).ok()).ok_or_else(missing)
    }

    /// All templates, by name. Tarballs of others, without metadata, are among them.
    ///
    /// # Errors
    /// [`CacheError::System`]; a missing cache is an empty one.
    pub fn list(&self) -> Result<Vec<Template>, CacheError> {
        let dir = self.tarballs();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(vzsys::SysError::from_io("open", dir.display(), &error).into()),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let name = file.strip_suffix(Compression::of_name(&file)?.suffix())?;
                check_name(name).ok().map(|()| name.to_owned())
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names.iter().filter_map(|name| self.find(name).ok()).collect())
    }

    /// Reads the tarball from end to end: is it the one its metadata tells of, and whole?
    ///
    /// # Errors
    /// [`CacheError::NotFound`], [`CacheError::Damaged`], [`CacheError::Archive`].
    pub fn verify(&self, name: &str, progress: impl FnMut(Progress)) -> Result<archive::Summary, CacheError> {
        let template = self.find(name)?;
        let damaged = |reason: String| CacheError::Damaged { name: name.to_owned(), reason };
        let json = fs::read(self.tarballs().join(format!("{name}.json"))).ok();
        if let Some(bytes) = json {
            let metadata: Metadata = serde_json::from_slice(&bytes)
                .map_err(|error| damaged(format!("{name}.json cannot be read: {error}")))?;
            let mut file = File::open(&template.path).call("open", || template.path.display().to_string())?;
            let sum = archive::sha256(&mut file).call("read", || template.path.display().to_string())?;
            if sum != metadata.sha256 {
                return Err(damaged(format!("its sha256 is {sum}, {name}.json says {}", metadata.sha256)));
            }
        }
        Ok(archive::check(&template.path, Limits::default(), progress)?)
    }

    /// Removes a template with its metadata, and its unpacked tree if no container lies on top of it.
    ///
    /// # Errors
    /// [`CacheError::NotFound`]; [`CacheError::InUse`] unless `force`d (the tree then stays until the last
    /// container is destroyed).
    pub fn rm(&self, name: &str, force: Force) -> Result<(), CacheError> {
        let template = self.find(name)?;
        let users = self.users(&template.base_id());
        if force == Force::No && !users.is_empty() {
            let users: Vec<String> = users.iter().map(ToString::to_string).collect();
            return Err(CacheError::InUse { name: name.to_owned(), users: users.join(" ") });
        }
        fs::remove_file(&template.path).call("unlink", || template.path.display().to_string())?;
        // Another tarball of that name may be left, in another compression; the metadata is not about it.
        let _ = fs::remove_file(self.tarballs().join(format!("{name}.json")));
        self.prune()
    }

    /// A directory for a template in the making, on the cache's own file system; gone when dropped. Those that killed
    /// commands left are removed.
    ///
    /// # Errors
    /// [`CacheError::System`].
    pub(crate) fn workshop(&self) -> Result<Workshop, CacheError> {
        let cache = self.tarballs();
        fs::create_dir_all(&cache).call("mkdir", || cache.display().to_string())?;
        self.sweep_workshops();
        let path = || self.dir.display().to_string();
        let dir = tempfile::Builder::new().prefix(MAKING).tempdir_in(&self.dir).call("mkdir", path)?;
        let lock = File::open(dir.path()).call("open", path)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).call("flock", path)?;
        Ok(Workshop { dir, _lock: lock })
    }

    /// A workshop that nobody has locked belongs to nobody, unless it is so young that its maker is about to.
    fn sweep_workshops(&self) {
        const YOUNG: std::time::Duration = std::time::Duration::from_secs(60);
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let made = entry.metadata().and_then(|meta| meta.modified());
            let old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG));
            if !old || !entry.file_name().to_string_lossy().starts_with(MAKING) {
                continue;
            }
            let free = File::open(entry.path())
                .is_ok_and(|dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free {
                // What stays is tried again by the next one.
                let _ = crate::removal::remove(&entry.path());
            }
        }
    }

    /// Puts a finished tarball into the cache: metadata first, so that the tarball never appears without.
    pub(crate) fn publish(
        &self,
        name: &str,
        tarball: &Path,
        compression: Compression,
        mut metadata: Metadata,
    ) -> Result<Template, CacheError> {
        let wrap = |call, path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| CacheError::from(vzsys::SysError::from_io(call, path, &error))
        };
        let stat = fs::metadata(tarball).map_err(wrap("stat", tarball))?;
        let mut file = File::open(tarball).map_err(wrap("open", tarball))?;
        metadata.format = 1;
        metadata.size = stat.len();
        metadata.mtime = metadata::nanos(&stat);
        metadata.sha256 = archive::sha256(&mut file).map_err(wrap("read", tarball))?;
        metadata.date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let json = serde_json::to_vec_pretty(&metadata).unwrap_or_default();
        let beside = self.tarballs().join(format!("{name}.json"));
        let written = tempfile::NamedTempFile::new_in(self.tarballs()).and_then(|mut file| {
            file.write_all(&json)?;
            file.write_all(b"\n")?;
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&beside).map_err(|error| error.error)
        });
        written.map_err(wrap("write", &beside))?;
        let path = self.tarballs().join(format!("{name}{}", compression.suffix()));
        fs::rename(tarball, &path).map_err(wrap("rename", &path))?;
        // An older one in another compression would be found first.
        for other in Compression::ALL.into_iter().filter(|other| *other != compression) {
            let _ = fs::remove_file(self.tarballs().join(format!("{name}{}", other.suffix())));
        }
        File::open(self.tarballs()).and_then(|dir| dir.sync_all()).map_err(wrap("fsync", &path))?;
        self.prune()?;
        self.find(name)
    }
}

/// Where a template is made.
#[derive(Debug)]
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    _lock: File,
}

impl Workshop {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Whether to remove what is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// Remove.
    Yes,
}

/// A name that may become a file's.
///
/// # Errors
/// [`CacheError::BadName`].
pub fn check_name(name: &str) -> Result<(), CacheError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let good =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) && name.len() < 200;
    if good { Ok(()) } else { Err(CacheError::BadName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests;
