//! A template becomes an image: one layer, in a layout that any tool reads.
//!
//! The layer is the template's archive as it is, compressed by gzip; so the same template gives the same digests
//! wherever it is exported. What our init needs is taken away again by a second layer, which holds one whiteout.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::image::{
    ConfigBuilder, Descriptor, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder, ImageManifest,
    ImageManifestBuilder, MediaType, RootFsBuilder,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use vzsys::Call;

use super::blob::{Blob, Digest};
use super::document::MANIFEST;
use super::error::OciError;
use super::layout::Layout;
use super::platform::Platform;
use super::run::ImageConfig;
use super::source::Source;
use crate::archive::{Algorithm, Compression, Entry, EntryKind, Writer, to_gzip};
use crate::build::{BuildError, Event};
use crate::cache::{Metadata, Template};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The tag where none is given.
const LATEST: &str = "latest";

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// `sha256:…` of its manifest.
    pub digest: String,
    /// Its tag in the layout.
    pub tag: String,
    /// Bytes of its layers.
    pub size: u64,
}

/// A layer that was written.
struct Layer {
    blob: Blob,
    diff_id: Digest,
}

/// Writes a template into a layout, which is made if it is not there; an image of the same tag is replaced. What fails
/// leaves the layout as it was.
///
/// # Errors
/// [`BuildError`]; exit 21 for a target that is no layout in a directory.
pub fn export(
    template: &Template,
    target: &Source,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Exported, BuildError> {
    let Source::Layout { dir, tag } = target else {
        let reason = "templates are exported to oci:DIR[:TAG] only".to_owned();
        return Err(OciError::Reference { text: target.to_string(), reason }.into());
    };
    let tag = tag.as_deref().unwrap_or(LATEST);
    check_tag(target, tag)?;
    let place = Place::open(dir)?;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut layers = vec![place.template(template, say)?];
    if metadata.init == "command" {
        layers.push(place.whiteout()?);
    }
    let config = place.document(&config(&metadata, &layers)?, MediaType::ImageConfig)?;
    let size = layers.iter().map(|layer| layer.blob.size).sum();
    let manifest =
        place.document(&manifest(&metadata, &template.name, config, &layers)?, MediaType::ImageManifest)?;
    // COMMIT: the image has a name.
    place.name(&manifest, tag, &platform(&metadata))?;
    Ok(Exported { digest: manifest.digest().to_string(), tag: tag.to_owned(), size })
}

fn check_tag(target: &Source, tag: &str) -> Result<(), OciError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:@+/".contains(c);
    if tag.len() < 256 && tag.starts_with(|c: char| c.is_ascii_alphanumeric()) && tag.chars().all(plain) {
        return Ok(());
    }
    let reason = format!("'{}' cannot be a tag", tag.escape_debug());
    Err(OciError::Reference { text: target.to_string(), reason })
}

/// A layout being written to.
struct Place {
    dir: PathBuf,
    /// Made by us: removed again if nothing comes of it.
    made: bool,
    /// Held while we write; others wait.
    _lock: File,
    work: Option<tempfile::TempDir>,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.work.take());
        if self.made && !self.dir.join("index.json").exists() {
            for path in ["oci-layout", "blobs/sha256", "blobs", ""] {
                let path = self.dir.join(path);
                // Blobs of an image without a name are of no use to anybody; a directory that others use stays.
                for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                    if path.ends_with("sha256") {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            }
        }
    }
}

impl Place {
    fn open(dir: &Path) -> Result<Self, OciError> {
        let name = || dir.display().to_string();
        let made = match fs::create_dir(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(vzsys::SysError::from_io("mkdir", name(), &error).into()),
        };
        let lock = File::open(dir).call("open", name)?;
        flock(lock.as_fd(), FlockOperation::LockExclusive).call("flock", name)?;
        let empty = fs::read_dir(dir).call("open", name)?.next().is_none();
        if !empty && !dir.join("oci-layout").is_file() {
            let reason = "it is there, and is neither empty nor an OCI layout";
            return Err(OciError::unsupported(name(), reason));
        }
        let work = tempfile::Builder::new().prefix(".vztmpl-").tempdir_in(dir).call("mkdir", name)?;
        let place = Self { dir: dir.to_owned(), made, _lock: lock, work: Some(work) };
        fs::create_dir_all(dir.join("blobs/sha256")).call("mkdir", name)?;
        place.put("oci-layout", LAYOUT.as_bytes())?;
        Ok(place)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.work.as_ref().map_or(&*self.dir, tempfile::TempDir::path).join(name)
    }

    /// Writes a small file whole, or not at all.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<(), OciError> {
        let (temporary, path) = (self.temporary("document"), self.dir.join(path));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(path.parent().unwrap_or(&self.dir))?.sync_all()
        };
        Ok(write().call("write", || path.display().to_string())?)
    }

    /// The template's archive as a layer.
    fn template(&self, template: &Template, say: &mut dyn FnMut(Event<'_>)) -> Result<Layer, BuildError> {
        let path = self.temporary("layer");
        let file = File::create_new(&path).call("open", || path.display().to_string())?;
        let written = to_gzip(&template.path, file, &mut |progress| say(Event::Progress(progress)))?;
        let of = |hex| Digest { algorithm: Algorithm::Sha256, hex };
        let blob = Blob { digest: of(written.outer), size: written.size, media: String::new() };
        let aim = self.dir.join(blob.digest.path());
        fs::rename(&path, &aim).call("rename", || aim.display().to_string())?;
        Ok(Layer { blob, diff_id: of(written.inner) })
    }

    /// A layer that takes our init away.
    fn whiteout(&self) -> Result<Layer, BuildError> {
        let (plain, packed) = (self.temporary("whiteout.tar"), self.temporary("whiteout.tar.gz"));
        let mut writer = Writer::create(&plain, Compression::None)?;
        writer.add(&Entry::new(".wh..vz", EntryKind::File, 0o600), b"")?;
        writer.finish()?;
        let file = File::create_new(&packed).call("open", || packed.display().to_string())?;
        let written = to_gzip(&plain, file, &mut |_| {})?;
        let of = |hex| Digest { algorithm: Algorithm::Sha256, hex };
        let blob = Blob { digest: of(written.outer), size: written.size, media: String::new() };
        let aim = self.dir.join(blob.digest.path());
        fs::rename(&packed, &aim).call("rename", || aim.display().to_string())?;
        Ok(Layer { blob, diff_id: of(written.inner) })
    }

    fn document(&self, value: &Value, kind: MediaType) -> Result<Descriptor, OciError> {
        let bytes = serde_json::to_vec(value).map_err(|error| OciError::malformed("the image", error))?;
        let digest = Digest::of(&bytes);
        self.put(&digest.path(), &bytes)?;
        descriptor(&digest, bytes.len() as u64, kind)
    }

    /// Enters the manifest into the index under its tag.
    fn name(&self, manifest: &Descriptor, tag: &str, platform: &Platform) -> Result<(), OciError> {
        let index = Layout::open(&self.dir)?.small("index.json", MANIFEST)?;
        let object = format!("{}/index.json", self.dir.display());
        let mut index: Value = match index {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| OciError::malformed(&object, error))?
            }
            None => {
                json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": []})
            }
        };
        let list = index.get_mut("manifests").and_then(Value::as_array_mut);
        let list = list.ok_or_else(|| OciError::malformed(&object, "it lists no manifests"))?;
        list.retain(|entry| entry["annotations"][REF_NAME] != *tag);
        let mut entry = to_value(manifest)?;
        entry["annotations"] = json!({ REF_NAME: tag });
        let mut on = json!({"architecture": platform.arch, "os": "linux"});
        if let Some(variant) = &platform.variant {
            on["variant"] = json!(variant);
        }
        entry["platform"] = on;
        list.push(entry);
        let bytes = serde_json::to_vec(&index).map_err(|error| OciError::malformed(&object, error))?;
        self.put("index.json", &bytes)
    }
}

fn platform(metadata: &Metadata) -> Platform {
    metadata.arch.parse().unwrap_or_else(|_| Platform::host())
}

/// What runs in a container of the template: the image's own words, or its init.
fn run(metadata: &Metadata) -> ImageConfig {
    metadata.image.clone().unwrap_or_else(|| ImageConfig {
        cmd: vec!["/sbin/init".to_owned()],
        stop_signal: match metadata.init.as_str() {
            "systemd" => "SIGRTMIN+3".to_owned(),
            "busybox" => "SIGUSR2".to_owned(),
            _ => String::new(),
        },
        ..ImageConfig::default()
    })
}

fn config(metadata: &Metadata, layers: &[Layer]) -> Result<Value, OciError> {
    let run = run(metadata);
    let mut config = ConfigBuilder::default();
    for (text, set) in [
        (&run.user, ConfigBuilder::user::<String> as fn(_, String) -> _),
        (&run.working_dir, ConfigBuilder::working_dir::<String>),
        (&run.stop_signal, ConfigBuilder::stop_signal::<String>),
    ] {
        if !text.is_empty() {
            config = set(config, text.clone());
        }
    }
    for (list, set) in [
        (&run.env, ConfigBuilder::env::<Vec<String>> as fn(_, Vec<String>) -> _),
        (&run.entrypoint, ConfigBuilder::entrypoint::<Vec<String>>),
        (&run.cmd, ConfigBuilder::cmd::<Vec<String>>),
        (&run.exposed_ports, ConfigBuilder::exposed_ports::<Vec<String>>),
        (&run.volumes, ConfigBuilder::volumes::<Vec<String>>),
    ] {
        if !list.is_empty() {
            config = set(config, list.clone());
        }
    }
    if !run.labels.is_empty() {
        config = config.labels(run.labels.clone().into_iter().collect::<std::collections::HashMap<_, _>>());
    }
    let ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let platform = platform(metadata);
    let history = |_: &Layer| {
        let mut one = HistoryBuilder::default().created_by("vztmpl export");
        if !metadata.date.is_empty() {
            one = one.created(metadata.date.clone());
        }
        one.build()
    };
    let build = || -> oci_spec::Result<ImageConfiguration> {
        let mut image = ImageConfigurationBuilder::default()
            .architecture(platform.arch.as_str())
            .os("linux")
            .config(config.build()?)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids(ids).build()?)
            .history(layers.iter().map(history).collect::<oci_spec::Result<Vec<_>>>()?);
        if !metadata.date.is_empty() {
            image = image.created(metadata.date.clone());
        }
        if let Some(variant) = &platform.variant {
            image = image.variant(variant.clone());
        }
        image.build()
    };
    to_value(&build().map_err(|error| OciError::malformed("the image", error))?)
}

fn manifest(
    metadata: &Metadata,
    name: &str,
    config: Descriptor,
    layers: &[Layer],
) -> Result<Value, OciError> {
    let layers: Vec<Descriptor> = layers
        .iter()
        .map(|layer| descriptor(&layer.blob.digest, layer.blob.size, MediaType::ImageLayerGzip))
        .collect::<Result<_, _>>()?;
    let mut notes =
        std::collections::HashMap::from([("org.opencontainers.image.title".to_owned(), name.to_owned())]);
    if !metadata.date.is_empty() {
        notes.insert("org.opencontainers.image.created".to_owned(), metadata.date.clone());
    }
    let manifest: oci_spec::Result<ImageManifest> = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .annotations(notes)
        .build();
    to_value(&manifest.map_err(|error| OciError::malformed("the image", error))?)
}

fn descriptor(digest: &Digest, size: u64, kind: MediaType) -> Result<Descriptor, OciError> {
    let digest: oci_spec::image::Digest =
        digest.to_string().parse().map_err(|error| OciError::malformed("the image", error))?;
    Ok(Descriptor::new(kind, size, digest))
}

/// By way of a value, the keys of which are sorted: the same image has the same bytes.
fn to_value(what: &impl serde::Serialize) -> Result<Value, OciError> {
    serde_json::to_value(what).map_err(|error| OciError::malformed("the image", error))
}
