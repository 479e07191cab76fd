//! `docker-archive:FILE`: what `docker save` and `podman save` write.
//!
//! The archive is unpacked beside the template in the making, like any other that is not trusted, and read as a layout
//! whose blobs have other names.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::blob::{Blob, Blobs, Digest, check};
use super::document::{CONFIG, MANIFEST, Manifest};
use super::error::OciError;
use super::layout::Layout;
use crate::archive::{Algorithm, Progress, Sum};

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An unpacked archive.
#[derive(Debug)]
pub(super) struct DockerArchive {
    files: Layout,
    paths: HashMap<Digest, String>,
}

impl DockerArchive {
    /// Reads what was unpacked into `dir`; `name` is the archive's. Sums up what has only a name.
    pub(super) fn open(
        dir: &Path,
        name: &str,
        reference: Option<&str>,
    ) -> Result<(Self, Manifest), OciError> {
        let files = Layout::open(dir)?;
        let list = files.small("manifest.json", MANIFEST)?;
        let list = list.ok_or_else(|| {
            OciError::malformed(name, "it has no manifest.json: it is no archive of a Docker image")
        })?;
        let saved: Vec<Saved> = serde_json::from_slice(&list)
            .map_err(|error| OciError::malformed(format!("{name}: manifest.json"), error))?;
        let image = pick(name, &saved, reference)?;
        if image.layers.len() > 512 {
            return Err(OciError::TooLarge { object: name.to_owned(), what: "number of layers", limit: 512 });
        }
        let mut paths = HashMap::new();
        let mut blob = |path: &str| -> Result<Blob, OciError> {
            let object = format!("{name}: {}", path.escape_debug());
            let file = files.file(path)?.ok_or_else(|| OciError::malformed(&object, "it is missing"))?;
            let found = sum(file, &object)?;
            if let Some(told) = told(path)
                && told != found.digest.hex
            {
                let found = found.digest.hex;
                return Err(OciError::Mismatch { object, what: "sha256", told: told.to_owned(), found });
            }
            paths.insert(found.digest.clone(), path.to_owned());
            Ok(found)
        };
        let config = blob(&image.config)?;
        if config.size > CONFIG {
            return Err(OciError::TooLarge { object: name.to_owned(), what: "configuration", limit: CONFIG });
        }
        let layers = image.layers.iter().map(|path| blob(path)).collect::<Result<_, _>>()?;
        Ok((Self { files, paths }, Manifest { config, layers }))
    }

    fn path(&self, blob: &Blob) -> Result<&str, OciError> {
        let path = self.paths.get(&blob.digest).map(String::as_str);
        path.ok_or_else(|| OciError::malformed("the archive", format!("it lacks {}", blob.digest)))
    }
}

impl Blobs for DockerArchive {
    fn document(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>, OciError> {
        let path = self.path(blob)?;
        let bytes = self.files.small(path, limit)?.unwrap_or_default();
        check(path, blob, &bytes)?;
        Ok(bytes)
    }

    fn file(&self, blob: &Blob, _: &mut dyn FnMut(Progress)) -> Result<File, OciError> {
        let path = self.path(blob)?;
        // Summed up when it was opened, in a directory of ours.
        self.files.file(path)?.ok_or_else(|| OciError::malformed(path, "it went away"))
    }
}

fn pick<'a>(name: &str, saved: &'a [Saved], reference: Option<&str>) -> Result<&'a Saved, OciError> {
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let offered = || {
        let all: Vec<String> =
            saved.iter().flat_map(tags).take(20).map(|tag| tag.escape_debug().to_string()).collect();
        if all.is_empty() {
            String::new()
        } else {
            format!(" (there is: {}); name one of them", all.join(", "))
        }
    };
    let none = |wanted: String| OciError::NoImage { place: name.to_owned(), wanted, offered: offered() };
    match reference {
        Some(wanted) => {
            let fits = |tag: &String| tag == wanted || tag.ends_with(&format!("/{wanted}"));
            let found = saved.iter().find(|image| tags(image).iter().any(fits));
            found.ok_or_else(|| none(format!("named {}", wanted.escape_debug())))
        }
        None => match saved {
            [only] => Ok(only),
            [] => Err(none("at all".to_owned())),
            _ => Err(none("that is the only one".to_owned())),
        },
    }
}

/// The sum that a name tells: `<hex>.json`, `blobs/sha256/<hex>`.
fn told(path: &str) -> Option<&str> {
    let last = path.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").or_else(|| path.starts_with("blobs/sha256/").then_some(last))?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hex)
}

fn sum(mut file: File, object: &str) -> Result<Blob, OciError> {
    use std::io::Read;
    use vzsys::Call;
    let mut sum = Sum::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer).call("read", || object.to_owned())?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        size += n as u64;
    }
    let digest = Digest { algorithm: Algorithm::Sha256, hex: sum.finish() };
    Ok(Blob { digest, size, media: String::new() })
}
