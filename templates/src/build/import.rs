//! Templates out of what there is: a tree, a tarball, a container.

use std::fs::{self, File};
use std::path::Path;

use vzsys::Call;

use super::inspect::inspect;
use super::{BuildError, Event, Maker, Replace};
use crate::archive::{Compression, Pack, Unpack};
use crate::cache::{Cache, Metadata, Template};

/// Imports a directory (packed) or a tarball (copied as it is, after it was unpacked once to see what it is).
///
/// # Errors
/// [`BuildError`]; exit 47 for what no container could start from.
pub fn import(
    cache: &Cache,
    source: &Path,
    name: &str,
    replace: Replace,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Template, BuildError> {
    let stat = fs::metadata(source).call("stat", || source.display().to_string())?;
    let maker = Maker::new(cache, name, replace)?;
    let origin = format!("imported from {}", source.display());
    if stat.is_dir() {
        let metadata = Metadata { origin, ..inspect(source, source)? };
        return pack(maker, Pack::new().hollow(&["proc", "sys"]), source, metadata, say);
    }
    let tarball = maker.tarball();
    fs::copy(source, &tarball).call("copy", || source.display().to_string())?;
    let copied = File::open(&tarball).and_then(|file| {
        file.sync_all()?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
    });
    copied.call("fsync", || tarball.display().to_string())?;
    let compression = Compression::of_file(&tarball).call("read", || source.display().to_string())?;
    let tree = maker.work.path().join("tree");
    let summary = Unpack::new(&tarball)
        .named(source)
        .progress(&mut |progress| say(Event::Progress(progress)))
        .into(&tree)?;
    let metadata = Metadata { origin, unpacked: summary.disk, ..inspect(&tree, source)? };
    maker.publish(compression, metadata)
}

/// Whether the new template keeps what makes one container differ from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Machine id and SSH host keys are left out; each new container gets its own.
    Drop,
    /// They are kept.
    Keep,
}

/// A container's root to be made a template; it may be running.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// Its root tree.
    pub root: &'a Path,
    /// Taken off every id: the VE's base where `root` is mounted with its ids, 0 where it is as on disk.
    pub shift: u32,
    /// Whether to keep machine id and host keys.
    pub identity: Identity,
    /// Where it came from, for the metadata.
    pub origin: String,
}

/// Makes a template of a container's root.
///
/// # Errors
/// [`BuildError`].
pub fn snapshot(
    cache: &Cache,
    from: Snapshot<'_>,
    name: &str,
    replace: Replace,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Template, BuildError> {
    let maker = Maker::new(cache, name, replace)?;
    let metadata = Metadata { origin: from.origin, ..inspect(from.root, from.root)? };
    let mut how =
        Pack::new().shift(from.shift).hollow(&["proc", "sys", "dev", "run", "tmp", "var/tmp", "lost+found"]);
    if from.identity == Identity::Drop {
        how = how
            .exclude(&["etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"])
            .blank(&["etc/machine-id"]);
    }
    pack(maker, how, from.root, metadata, say)
}

/// Packs a tree and publishes it.
pub(crate) fn pack(
    maker: Maker<'_>,
    how: Pack<'_>,
    root: &Path,
    metadata: Metadata,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Template, BuildError> {
    let tarball = maker.tarball();
    let mut tell = |progress| say(Event::Progress(progress));
    let summary = how.progress(&mut tell).into(root, &tarball, Compression::Zstd)?;
    maker.publish(Compression::Zstd, Metadata { unpacked: summary.disk, ..metadata })
}

impl Compression {
    /// By the first bytes of a file.
    ///
    /// # Errors
    /// What reading it gives.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        Self::detect(&mut File::open(path)?)
    }
}
