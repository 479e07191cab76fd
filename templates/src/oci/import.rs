//! An image becomes a template.

use std::fs;
use std::path::PathBuf;

use vzsys::Call;

use super::blob::{Blobs, Digest};
use super::docker_archive::DockerArchive;
use super::document::{self, CONFIG, Document, Image, Listed, MANIFEST, Manifest};
use super::error::OciError;
use super::init::{self, Preference};
use super::layout::{self, Layout};
use super::platform::Platform;
use super::registry::{Access, Registry};
use super::source::Source;
use crate::archive::{Layer, Limits, Pack, Progress, Unpack, open_tree};
use crate::build::{BuildError, Event, Maker, Replace, describe, pack};
use crate::cache::{Cache, Template};

/// An index may list indexes, but not for ever.
const DEPTH: usize = 4;
/// An honest image has some hundred thousand members.
const ENTRIES: u64 = 4_000_000;

/// How to import an image.
#[derive(Debug, Clone)]
pub struct How {
    /// For which processor; this host's if none is given.
    pub platform: Option<Platform>,
    /// Bytes that the image may unpack to, and that an archive of it may hold.
    pub most: u64,
    /// Which init the template has.
    pub init: Preference,
    /// Our init's program, for images without one.
    pub init_program: PathBuf,
    /// How registries are spoken to.
    pub access: Access,
}

/// An image, taken apart and not yet unpacked.
struct Parts {
    blobs: Box<dyn Blobs>,
    manifest: Manifest,
    /// Of the manifest, where there is one.
    digest: Option<Digest>,
}

/// Imports an image. Blocks for as long as that takes; nothing is left of what fails.
///
/// # Errors
/// [`BuildError`]: exit 91 without such an image, 47 for one that is damaged or is none, 46 without space, 3 when a
/// registry cannot be reached.
pub fn import(
    cache: &Cache,
    source: &Source,
    name: &str,
    how: &How,
    replace: Replace,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Template, BuildError> {
    let maker = Maker::new(cache, name, replace)?;
    let object = source.to_string();
    let wanted = how.platform.clone().unwrap_or_else(Platform::host);
    let parts = open(source, &maker, how, &wanted, say)?;
    let config = parts.blobs.document(&parts.manifest.config, CONFIG)?;
    let image = document::image(&object, &config)?;
    check(&object, &image, &parts.manifest, how, &wanted)?;
    let tree = maker.work().join("tree");
    fs::create_dir(&tree).call("mkdir", || tree.display().to_string())?;
    lay(&object, &parts, &image, &tree, how, say)?;
    let init = init::furnish(&object, &tree, &image, how)?;
    let mut metadata = describe(&tree);
    metadata.origin = match &parts.digest {
        Some(digest) => format!("{object} ({digest})"),
        None => object,
    };
    metadata.arch = image.platform.machine().to_owned();
    if let Some(word) = init {
        metadata.init = word.to_owned();
    }
    metadata.image = Some(image.run);
    pack(maker, Pack::new().hollow(&["proc", "sys"]), &tree, metadata, say)
}

fn open(
    source: &Source,
    maker: &Maker<'_>,
    how: &How,
    wanted: &Platform,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Parts, BuildError> {
    let object = source.to_string();
    match source {
        Source::Layout { dir, tag } => {
            let layout = Layout::open(dir)?;
            let listed = layout::pick(&dir.display().to_string(), layout.index()?, tag.as_deref())?;
            let (manifest, digest) = descend(&object, &layout, listed, wanted)?;
            Ok(Parts { blobs: Box::new(layout), manifest, digest: Some(digest) })
        }
        Source::DockerArchive { file, reference } => {
            let dir = maker.work().join("archive");
            Unpack::new(file)
                .limits(Limits { bytes: how.most, entries: 100_000, ..Limits::default() })
                .progress(&mut |progress| say(Event::Progress(progress)))
                .into(&dir)?;
            let (blobs, manifest) = DockerArchive::open(&dir, &object, reference.as_deref())?;
            Ok(Parts { blobs: Box::new(blobs), manifest, digest: None })
        }
        Source::Registry(name) => {
            let dir = maker.work().join("blobs");
            fs::create_dir(&dir).call("mkdir", || dir.display().to_string())?;
            let registry = Registry::new(name.clone(), &how.access, dir)?;
            let (manifest, digest) = match registry.top()? {
                (Document::Manifest(manifest), digest) => (manifest, digest),
                (Document::Index(listed), _) => descend(&object, &registry, listed, wanted)?,
            };
            Ok(Parts { blobs: Box::new(registry), manifest, digest: Some(digest) })
        }
    }
}

/// From an index to the manifest of a platform.
fn descend(
    object: &str,
    blobs: &dyn Blobs,
    mut listed: Vec<Listed>,
    wanted: &Platform,
) -> Result<(Manifest, Digest), OciError> {
    for _ in 0..DEPTH {
        let chosen = document::choose(object, &listed, wanted)?.blob.clone();
        let bytes = blobs.document(&chosen, MANIFEST)?;
        match document::parse(&format!("{object}: manifest {}", chosen.digest.short()), &bytes)? {
            Document::Manifest(manifest) => return Ok((manifest, chosen.digest)),
            Document::Index(inner) => listed = inner,
        }
    }
    Err(OciError::malformed(object, "its indexes lead to ever more indexes"))
}

/// What can be known before anything is unpacked.
fn check(
    object: &str,
    image: &Image,
    manifest: &Manifest,
    how: &How,
    wanted: &Platform,
) -> Result<(), OciError> {
    if image.os != "linux" {
        let os = image.os.escape_debug().to_string();
        return Err(OciError::unsupported(object, format!("it is for {os}, not for Linux")));
    }
    if image.platform.arch != wanted.arch {
        let reason = match how.platform {
            Some(_) => format!("it is for {}, not for {wanted}", image.platform),
            None => format!(
                "it is for {}, and this host is {wanted}; import it all the same with --arch {}",
                image.platform, image.platform
            ),
        };
        return Err(OciError::unsupported(object, reason));
    }
    if image.diff_ids.len() != manifest.layers.len() {
        let reason = format!(
            "its configuration tells of {} layers, its manifest of {}",
            image.diff_ids.len(),
            manifest.layers.len()
        );
        return Err(OciError::malformed(object, reason));
    }
    let size: u64 = manifest.layers.iter().fold(0, |sum, layer| layer.size.saturating_add(sum));
    if size > how.most {
        return Err(OciError::TooLarge {
            object: object.to_owned(),
            what: "size of its layers",
            limit: how.most,
        });
    }
    Ok(())
}

/// Lays the layers over one another.
fn lay(
    object: &str,
    parts: &Parts,
    image: &Image,
    tree: &std::path::Path,
    how: &How,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<(), BuildError> {
    let root = open_tree(tree)?;
    let count = parts.manifest.layers.len();
    let total: u64 = parts.manifest.layers.iter().map(|layer| layer.size).sum();
    let mut limits = Limits { bytes: how.most, entries: ENTRIES, ..Limits::default() };
    let (mut before, mut unpacked) = (0, 0);
    // A layer without an entry for the root leaves it as others do.
    rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755)).call("fchmod", || "root")?;
    for (number, (layer, diff_id)) in parts.manifest.layers.iter().zip(&image.diff_ids).enumerate() {
        let name = PathBuf::from(format!("{object}: layer {} of {count}", number + 1));
        // Half of the bar of a layer is for fetching it, half for unpacking.
        let mut tell = |read: u64, half: u64| {
            let read = (before + read / 2 + half * layer.size / 2).min(total);
            say(Event::Progress(Progress { read, total: total.max(1), unpacked }));
        };
        let blob = parts.blobs.file(layer, &mut |progress| tell(progress.read, 0))?;
        let laid = Layer {
            blob,
            name: &name,
            limits,
            algorithm: diff_id.algorithm,
            progress: &mut |progress| tell(progress.read, 1),
        }
        .over(&root)?;
        if laid.sum != diff_id.hex {
            return Err(OciError::Mismatch {
                object: name.display().to_string(),
                what: "diff_id",
                told: diff_id.hex.clone(),
                found: laid.sum,
            }
            .into());
        }
        limits.bytes -= laid.summary.bytes.min(limits.bytes);
        limits.entries -= laid.summary.entries.min(limits.entries);
        before += layer.size;
        unpacked += laid.summary.bytes;
    }
    Ok(())
}
