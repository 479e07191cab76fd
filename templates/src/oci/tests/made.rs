//! Images made for tests.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::archive::{Compression, Entry, EntryKind, Writer, hex};
use crate::oci::Platform;

/// One layer in the making.
pub(super) struct LayerBuilder {
    dir: tempfile::TempDir,
    writer: Writer,
}

/// A finished layer: its bytes, and the sum of what is in it.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) bytes: Vec<u8>,
    pub(super) diff_id: String,
}

impl LayerBuilder {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::create(&dir.path().join("layer"), Compression::None).unwrap();
        Self { dir, writer }
    }

    pub(super) fn entry(&mut self, entry: &Entry, data: &[u8]) -> &mut Self {
        self.writer.add(entry, data).unwrap();
        self
    }

    pub(super) fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.dir_with(path, mode, &[])
    }

    pub(super) fn dir_with(&mut self, path: &str, mode: u32, xattrs: &[(&str, &[u8])]) -> &mut Self {
        let mut entry = Entry::new(path, EntryKind::Directory, mode);
        entry.xattrs = xattrs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect();
        self.entry(&entry, b"")
    }

    pub(super) fn file(&mut self, path: &str, data: &[u8], mode: u32) -> &mut Self {
        self.entry(&Entry::new(path, EntryKind::File, mode), data)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(&Entry::new(path, EntryKind::Symlink(target.into()), 0o777), b"")
    }

    pub(super) fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(&Entry::new(path, EntryKind::HardLink(target.into()), 0o644), b"")
    }

    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.entry(&Entry::new(path, EntryKind::Char(major, minor), 0o666), b"")
    }

    pub(super) fn plain(self) -> Layer {
        self.writer.finish().unwrap();
        Layer::of(fs::read(self.dir.path().join("layer")).unwrap())
    }

    pub(super) fn gzip(self) -> Layer {
        let layer = self.plain();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&layer.bytes).unwrap();
        Layer { bytes: encoder.finish().unwrap(), ..layer }
    }

    pub(super) fn zstd(self) -> Layer {
        let layer = self.plain();
        Layer { bytes: zstd::encode_all(&layer.bytes[..], 1).unwrap(), ..layer }
    }
}

impl Layer {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let diff_id = digest(&bytes);
        Self { bytes, diff_id }
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// An image in the making. Its documents can be bent before it is written.
pub(super) struct Image {
    pub(super) config: Value,
    pub(super) layers: Vec<Layer>,
}

/// A finished image: its blobs, and what its index says of its manifest.
pub(super) struct Finished {
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) descriptor: Value,
}

impl Image {
    pub(super) fn new() -> Self {
        let config = json!({
            "architecture": Platform::host().arch, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": []}
        });
        Self { config, layers: Vec::new() }
    }

    pub(super) fn layer(&mut self, layer: Layer) {
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(layer.diff_id));
        self.layers.push(layer);
    }

    pub(super) fn finish(&self) -> Finished {
        let config = serde_json::to_vec(&self.config).unwrap();
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| describe("application/vnd.oci.image.layer.v1.tar+gzip", &layer.bytes))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": layers
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut descriptor = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
        descriptor["platform"] =
            json!({"architecture": self.config["architecture"], "os": self.config["os"]});
        let mut blobs: Vec<Vec<u8>> = self.layers.iter().map(|layer| layer.bytes.clone()).collect();
        blobs.extend([config, manifest]);
        Finished { blobs, descriptor }
    }

    /// Adds it to a layout.
    pub(super) fn layout(&self, dir: &Path, tag: Option<&str>) {
        let finished = self.finish();
        let store = dir.join("blobs/sha256");
        fs::create_dir_all(&store).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for blob in &finished.blobs {
            fs::write(store.join(&digest(blob)[7..]), blob).unwrap();
        }
        let path = dir.join("index.json");
        let mut index: Value = fs::read(&path).map_or_else(
            |_| json!({"schemaVersion": 2, "manifests": []}),
            |bytes| serde_json::from_slice(&bytes).unwrap(),
        );
        let mut descriptor = finished.descriptor;
        if let Some(tag) = tag {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        }
        index["manifests"].as_array_mut().unwrap().push(descriptor);
        fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

pub(super) fn describe(media: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()})
}
