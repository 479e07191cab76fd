//! `vzdump`: a VE as a tar archive that any tar unpacks, its configuration in `etc/vzdump/vps.conf`, where OpenVZ's and
//! Proxmox's vzdump had it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use templates::archive::{self, Compression, Durability, Pack, Summary, Unpack};
use templates::backup::{Head, Totals};
use templates::cache::CacheError;
use vzconf::Exit;

use super::reading;
use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::tree::{Taken, tree};

/// Where the configuration is.
const CONF: &str = "etc/vzdump/vps.conf";
/// All that a dump adds.
const OURS: [&str; 1] = ["etc/vzdump/*"];
/// A configuration larger than this is none.
const CONF_MAX: u64 = 1 << 20;

/// Where a dump goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpTo {
    /// A new file in BACKUP_DIR, or in this directory.
    Dir(Option<PathBuf>),
    /// This file, which must not exist.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// Writes a VE as a tar archive; returns where, and how much it was.
///
/// # Errors
/// As [`super::save`]; no file is left behind.
pub fn dump(ve: &Ve<'_>, to: &DumpTo, compression: Compression) -> Result<(PathBuf, Summary)> {
    let _reading = reading::hold(ve)?;
    let (ve, tree) = &tree(ve.node, ve.ctid)?;
    if tree.taken() == Taken::Live {
        ve.say(1, "A dump keeps no moment of a running container: files are read while they may change");
    }
    let path = match to {
        DumpTo::Stdout => PathBuf::from("standard output"),
        DumpTo::File(path) => path.clone(),
        DumpTo::Dir(dir) => {
            let dir = match dir {
                Some(dir) => dir.clone(),
                None => super::save::usual(ve)?,
            };
            let name = templates::backup::dump_name(ve.ctid.get(), super::save::now());
            dir.join(format!("{name}{}", compression.suffix()))
        }
    };
    let config = ve.config.file().map(ToString::to_string).unwrap_or_default().into_bytes();
    let label = format!("Packing container {}", ve.ctid);
    let progress = &mut |done: archive::Progress| (ve.node.progress)(&label, done.unpacked, 0);
    let pack = Pack::new().shift(tree.shift).exclude(&OURS).extra(CONF, config).progress(progress);
    if *to == DumpTo::Stdout {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let stdout = File::from(stdout.doing(Exit::System, || "cannot use standard output".to_owned())?);
        let summary = pack.to_file(&tree.path(), (stdout, &path), compression);
        return Ok((path, summary.map_err(CacheError::from)?));
    }
    let part = Part::new(&path)?;
    let file = part.file.try_clone().doing(Exit::System, || format!("cannot write {}", path.display()))?;
    let summary = pack.to_file(&tree.path(), (file, &path), compression).map_err(CacheError::from)?;
    part.keep(&path)?;
    Ok((path, summary))
}

/// The file while it is not whole; removed on drop.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn new(whole: &Path) -> Result<Self> {
        if fs::symlink_metadata(whole).is_ok() {
            return Err(Error::refused(Exit::FsPrvtAreaExist, format!("{} exists already", whole.display())));
        }
        let mut path = whole.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        // What a killed one left.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.doing(Exit::FsNewVePrvt, || format!("cannot create {}", path.display()))?;
        Ok(Self { file, path })
    }

    fn keep(self, whole: &Path) -> Result<()> {
        vzsys::fault::point("vzdump.written");
        // COMMIT: the archive has its name, and is whole (its writer has synced it).
        fs::rename(&self.path, whole)
            .doing(Exit::FsNewVePrvt, || format!("cannot rename {}", self.path.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A tar archive with the configuration of a VE in it.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    pub(super) head: Head,
}

impl Dump {
    /// Looks into an archive, reading no further than to its configuration.
    ///
    /// # Errors
    /// 48 when it cannot be read or has none.
    pub fn open(path: &Path) -> Result<Self> {
        let config = archive::member(path, CONF.as_bytes(), CONF_MAX).map_err(CacheError::from)?;
        let Some(config) = config else {
            let message = format!("{} is neither a backup nor a dump: it has no {CONF}", path.display());
            return Err(Error::refused(Exit::FsNewVePrvt, message));
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.split('-').nth(2).filter(|_| name.starts_with("vzdump-"));
        let ctid = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        let config = String::from_utf8_lossy(&config).into_owned();
        Ok(Self {
            path: path.to_owned(),
            head: Head { ctid, config, taken: "dump".to_owned(), ..Head::default() },
        })
    }

    /// Unpacks it into an empty directory, without what the dump has added.
    pub(super) fn into(self, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(Head, Totals)> {
        let progress = &mut |done: archive::Progress| progress(done.read, done.total);
        let unpack = Unpack::new(&self.path).durability(Durability::Synced).progress(progress);
        let summary = unpack.into_dir(dir).map_err(CacheError::from)?;
        templates::backup::forget_dump(dir)
            .doing(Exit::FsNewVePrvt, || format!("cannot remove {CONF} in {}", dir.display()))?;
        let mut totals = Totals::default();
        (totals.entries, totals.bytes) = (summary.entries, summary.bytes);
        Ok((self.head, totals))
    }
}
