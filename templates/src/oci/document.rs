//! The documents of an image. The only place that knows `oci-spec`.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;

use super::blob::{Blob, Digest};
use super::error::OciError;
use super::platform::Platform;
use super::run::ImageConfig;

/// An index or a manifest has a few KiB.
pub(super) const MANIFEST: u64 = 4 << 20;
/// A configuration has some more, by its history.
pub(super) const CONFIG: u64 = 8 << 20;
/// More layers than any overlay of other runtimes could carry.
const LAYERS: usize = 512;
/// More images than any index has.
const LISTED: usize = 4096;

/// The tag of an image in a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same as containerd and Docker write it, with the image's whole name.
const FULL_NAME: &str = "io.containerd.image.name";

/// One image of an index.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) blob: Blob,
    /// `None` where the index does not say.
    pub(super) platform: Option<Platform>,
    /// `linux`, or something else.
    pub(super) os: Option<String>,
    /// Its tag and full name.
    pub(super) names: Vec<String>,
}

/// What a manifest says.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
}

/// Either of them.
#[derive(Debug, Clone)]
pub(super) enum Document {
    Index(Vec<Listed>),
    Manifest(Manifest),
}

/// What a configuration says.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) platform: Platform,
    pub(super) os: String,
    /// Sums of the layers, unpacked.
    pub(super) diff_ids: Vec<Digest>,
    pub(super) run: ImageConfig,
}

/// What tells the kinds apart.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion", default)]
    version: u32,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Reads an index or a manifest, of OCI or Docker.
pub(super) fn parse(object: &str, bytes: &[u8]) -> Result<Document, OciError> {
    let wrong = |error: serde_json::Error| OciError::malformed(object, error);
    let shape: Shape = serde_json::from_slice(bytes).map_err(wrong)?;
    if shape.version == 1 {
        return Err(OciError::unsupported(
            object,
            "its manifest is of Docker's first version, from before 2016",
        ));
    }
    match (shape.manifests, shape.layers) {
        (Some(_), None) => index(object, bytes).map(Document::Index),
        (None, Some(_)) => manifest(object, bytes).map(Document::Manifest),
        // One document that is both has fooled others.
        (Some(_), Some(_)) => Err(OciError::malformed(object, "it is an index and a manifest at once")),
        (None, None) => Err(OciError::malformed(object, "it is neither an index nor a manifest")),
    }
}

fn index(object: &str, bytes: &[u8]) -> Result<Vec<Listed>, OciError> {
    let index: ImageIndex =
        serde_json::from_slice(bytes).map_err(|error| OciError::malformed(object, error))?;
    if index.manifests().len() > LISTED {
        return Err(too_many(object, "number of images", LISTED));
    }
    index.manifests().iter().map(|descriptor| listed(object, descriptor)).collect()
}

fn listed(object: &str, descriptor: &Descriptor) -> Result<Listed, OciError> {
    let platform = descriptor.platform().as_ref();
    let of = |key: &str| Some(descriptor.annotations().as_ref()?.get(key)?.clone());
    Ok(Listed {
        blob: blob(object, descriptor)?,
        // An architecture that we do not know is nothing that could be wanted.
        platform: platform.and_then(|platform| {
            let mut known: Platform = platform.architecture().to_string().parse().ok()?;
            known.variant = platform.variant().clone();
            Some(known)
        }),
        os: platform.map(|platform| platform.os().to_string()),
        names: [REF_NAME, FULL_NAME].into_iter().filter_map(of).collect(),
    })
}

fn manifest(object: &str, bytes: &[u8]) -> Result<Manifest, OciError> {
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|error| OciError::malformed(object, error))?;
    if manifest.layers().len() > LAYERS {
        return Err(too_many(object, "number of layers", LAYERS));
    }
    let config = blob(object, manifest.config())?;
    if !matches!(
        config.media.as_str(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    ) {
        let reason = format!("it is no container image but holds {}", config.media.escape_debug());
        return Err(OciError::unsupported(object, reason));
    }
    let layers: Vec<Blob> =
        manifest.layers().iter().map(|layer| blob(object, layer)).collect::<Result<_, _>>()?;
    for layer in &layers {
        if layer.media.contains("encrypted") || !layer.media.contains("tar") {
            let reason = format!("a layer is of the kind {}", layer.media.escape_debug());
            return Err(OciError::unsupported(object, reason));
        }
    }
    Ok(Manifest { config, layers })
}

fn blob(object: &str, descriptor: &Descriptor) -> Result<Blob, OciError> {
    let digest = descriptor.digest().as_ref();
    let digest = digest.parse().map_err(|reason: String| OciError::malformed(object, reason))?;
    Ok(Blob { digest, size: descriptor.size(), media: descriptor.media_type().to_string() })
}

fn too_many(object: &str, what: &'static str, limit: usize) -> OciError {
    OciError::TooLarge { object: object.to_owned(), what, limit: limit as u64 }
}

/// Reads a configuration.
pub(super) fn image(object: &str, bytes: &[u8]) -> Result<Image, OciError> {
    let wrong = |reason: String| OciError::malformed(object, reason);
    let parsed: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    let arch = parsed.architecture().to_string();
    let mut platform: Platform =
        arch.parse().map_err(|reason: String| OciError::unsupported(object, reason))?;
    platform.variant.clone_from(parsed.variant());
    let ids = parsed.rootfs().diff_ids();
    let diff_ids: Vec<Digest> = ids.iter().map(|id| id.parse()).collect::<Result<_, _>>().map_err(wrong)?;
    let run = parsed.config().as_ref().map(run_config).unwrap_or_default();
    check_run(object, &run)?;
    Ok(Image { platform, os: parsed.os().to_string(), diff_ids, run })
}

fn run_config(config: &oci_spec::image::Config) -> ImageConfig {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let sorted = |given: &Option<Vec<String>>| {
        let mut names = list(given);
        names.sort_unstable();
        names
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ImageConfig {
        user: text(config.user()),
        env: list(config.env()),
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        working_dir: text(config.working_dir()),
        exposed_ports: sorted(config.exposed_ports()),
        volumes: sorted(config.volumes()),
        stop_signal: text(config.stop_signal()),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
    }
}

/// What execve(2) cannot be given.
fn check_run(object: &str, run: &ImageConfig) -> Result<(), OciError> {
    let words = run.entrypoint.iter().chain(&run.cmd).chain(&run.env).chain([&run.user, &run.working_dir]);
    if words.into_iter().any(|word| word.contains('\0')) {
        return Err(OciError::malformed(object, "a NUL in its command or environment"));
    }
    if let Some(bad) = run.env.iter().find(|line| line.find('=').is_none_or(|at| at == 0)) {
        return Err(OciError::malformed(object, format!("'{}' is no KEY=value", bad.escape_debug())));
    }
    Ok(())
}

/// Picks the image for a platform.
pub(super) fn choose<'a>(
    object: &str,
    listed: &'a [Listed],
    wanted: &Platform,
) -> Result<&'a Listed, OciError> {
    let linux = |item: &&Listed| item.os.as_deref().is_none_or(|os| os == "linux");
    let candidates: Vec<&Listed> = listed.iter().filter(linux).collect();
    let ranked = candidates.iter().filter_map(|item| {
        let rank = match &item.platform {
            Some(platform) => wanted.rank(platform)?,
            // Nothing is said: its configuration will tell.
            None if item.os.is_none() => 9,
            None => return None,
        };
        Some((rank, *item))
    });
    // The first of the best, as others do.
    if let Some((_, item)) = ranked.min_by_key(|(rank, _)| *rank) {
        return Ok(item);
    }
    let mut offered: Vec<String> =
        candidates.iter().filter_map(|item| item.platform.as_ref().map(ToString::to_string)).collect();
    offered.dedup();
    Err(OciError::NoImage {
        place: object.to_owned(),
        wanted: format!("for linux/{wanted}"),
        offered: if offered.is_empty() {
            String::new()
        } else {
            format!(" (there is: {})", offered.join(", "))
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn descriptor(media: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{media}","digest":"sha256:{HEX}","size":7{more}}}"#)
    }

    fn index_text() -> String {
        let media = "application/vnd.oci.image.manifest.v1+json";
        let of = |arch: &str, os: &str| {
            descriptor(media, &format!(r#","platform":{{"architecture":"{arch}","os":"{os}"}}"#))
        };
        let list =
            [of("amd64", "windows"), of("unknown", "unknown"), of("arm64", "linux"), of("amd64", "linux")];
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, list.join(","))
    }

    fn manifest_text() -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json", "");
        let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
    }

    fn config_text() -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["x"],"Entrypoint":null,
               "ExposedPorts":{{"80/tcp":{{}},"443/tcp":{{}}}},"Labels":null,"StopSignal":"SIGQUIT"}},
               "rootfs":{{"type":"layers","diff_ids":["sha256:{HEX}"]}},"history":[{{"created":"x"}}],
               "container_config":{{"x":1}}}}"#
        )
    }

    #[test]
    fn an_index_gives_the_image_of_a_platform() {
        let Document::Index(listed) = parse("x", index_text().as_bytes()).unwrap() else { panic!() };
        let wanted = "amd64".parse().unwrap();
        let chosen = choose("x", &listed, &wanted).unwrap();
        assert_eq!(chosen.os.as_deref(), Some("linux"));
        assert_eq!(chosen.platform, Some(wanted));
        let error = choose("x", &listed, &"s390x".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("arm64"), "{error}");
    }

    #[test]
    fn a_manifest_of_something_else_is_told_from_an_image() {
        assert!(matches!(parse("x", manifest_text().as_bytes()), Ok(Document::Manifest(_))));
        let chart = manifest_text().replace("oci.image.config", "cncf.helm.config");
        let error = parse("x", chart.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("helm"), "{error}");
        let both = manifest_text().replacen('{', r#"{"manifests":[],"#, 1);
        assert!(parse("x", both.as_bytes()).is_err());
        assert!(parse("x", br#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
    }

    #[test]
    fn a_configuration_keeps_what_a_container_needs() {
        let image = image("x", config_text().as_bytes()).unwrap();
        assert_eq!(image.platform.to_string(), "amd64");
        assert_eq!(image.run.command(), ["x"]);
        assert_eq!(image.run.exposed_ports, ["443/tcp", "80/tcp"]);
        assert_eq!(image.run.stop_signal, "SIGQUIT");
        let bad = config_text().replace("A=b", "=b");
        assert!(super::image("x", bad.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn damaged_documents_are_errors_and_no_panics(at in 0usize..4000, byte: u8, cut in 0usize..4000) {
            for text in [index_text(), manifest_text(), config_text()] {
                let mut bytes = text.into_bytes();
                let length = bytes.len();
                bytes[at % length] = byte;
                bytes.truncate(length - cut % length);
                let _ = parse("x", &bytes).map(|document| match document {
                    Document::Index(listed) => choose("x", &listed, &Platform::host()).map(drop),
                    Document::Manifest(_) => Ok(()),
                });
                let _ = image("x", &bytes);
            }
        }
    }
}
