//! Names of images on the command line.

use std::path::{Path, PathBuf};

use super::error::OciError;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `oci:DIR[:TAG]`: a layout in a directory.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// A tag, or a digest.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// `name:tag`.
        reference: Option<String>,
    },
    /// `docker://REGISTRY/NAME[:TAG|@DIGEST]`.
    Registry(RegistryName),
}

/// An image of a registry, with what is left out filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryName {
    /// `registry.example:5000`; `docker.io` is Docker's own.
    pub(super) registry: String,
    /// `library/debian`.
    pub(super) repository: String,
    /// `latest`, unless there is a digest.
    pub(super) tag: Option<String>,
    /// `sha256:…`
    pub(super) digest: Option<String>,
}

impl Source {
    /// Reads what was given; `None` when it is no image but a directory or file.
    ///
    /// # Errors
    /// [`OciError::Reference`] (exit 21).
    pub fn parse(text: &str) -> Result<Option<Self>, OciError> {
        let wrong = |reason: String| OciError::Reference { text: text.escape_debug().to_string(), reason };
        if let Some(rest) = text.strip_prefix("docker://") {
            return RegistryName::parse(rest).map(|name| Some(Self::Registry(name))).map_err(wrong);
        }
        let Some((kind, rest)) = text.split_once(':') else { return Ok(None) };
        if !matches!(kind, "oci" | "docker-archive") {
            return Ok(None);
        }
        let (path, tag) = split(rest);
        if path.as_os_str().is_empty() {
            return Err(wrong("the path is missing".to_owned()));
        }
        if tag.as_deref().is_some_and(|tag| tag.is_empty() || tag.chars().any(char::is_control)) {
            return Err(wrong("the tag is empty or has control characters".to_owned()));
        }
        Ok(Some(match kind {
            "oci" => Self::Layout { dir: path, tag },
            _ => Self::DockerArchive { file: path, reference: tag },
        }))
    }

    /// The name that the template has unless told otherwise.
    #[must_use]
    pub fn default_name(&self) -> String {
        let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = match self {
            Self::Layout { dir, tag: Some(tag) } if !tag.contains(':') => format!("{}-{tag}", file(dir)),
            Self::Layout { dir, .. } => file(dir),
            Self::DockerArchive { reference: Some(reference), .. } => {
                reference.rsplit('/').next().unwrap_or_default().to_owned()
            }
            Self::DockerArchive { file: path, .. } => {
                let name = file(path);
                name.split(".tar").next().unwrap_or_default().to_owned()
            }
            Self::Registry(name) => {
                let last = name.repository.rsplit('/').next().unwrap_or_default();
                match &name.tag {
                    Some(tag) => format!("{last}-{tag}"),
                    None => last.to_owned(),
                }
            }
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' };
        let name: String = text.chars().map(plain).take(190).collect();
        name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
    }
}

impl RegistryName {
    /// `REGISTRY/NAME:TAG@DIGEST`, of which only the name must be there.
    fn parse(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                digest.parse::<super::blob::Digest>()?;
                (rest, Some(digest.to_owned()))
            }
            None => (text, None),
        };
        // A colon before a slash is the port's.
        let cut = rest.rfind(':').filter(|at| !rest[*at..].contains('/'));
        let (path, tag) = cut.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if let Some(tag) = tag
            && (tag.is_empty() || tag.len() > 128 || !tag.bytes().all(word) || tag.starts_with(['.', '-']))
        {
            return Err(format!("'{}' is no tag", tag.escape_debug()));
        }
        // A name of Docker's own registry looks like no host.
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => ("docker.io", path),
        };
        let host = |b: u8| word(b) || b":[]".contains(&b);
        if registry.is_empty() || !registry.bytes().all(host) {
            return Err(format!("'{}' is no registry", registry.escape_debug()));
        }
        let part = |part: &str| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(inner)
        };
        if repository.len() > 255 || !repository.split('/').all(part) {
            return Err(format!("'{}' is no name of an image", repository.escape_debug()));
        }
        let official = registry == "docker.io" && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        // Where there is both, the digest says more.
        let tag = digest.is_none().then(|| tag.unwrap_or("latest").to_owned());
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tail = |tag: &Option<String>| tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
        match self {
            Self::Layout { dir, tag } => write!(f, "oci:{}{}", dir.display(), tail(tag)),
            Self::DockerArchive { file, reference } => {
                write!(f, "docker-archive:{}{}", file.display(), tail(reference))
            }
            Self::Registry(name) => write!(f, "docker://{name}"),
        }
    }
}

impl std::fmt::Display for RegistryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(f, "@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// A path and what follows it behind a colon. Both may have colons: the longest path that is there counts, else what
/// stands before the first.
fn split(text: &str) -> (PathBuf, Option<String>) {
    let colons = text.char_indices().filter(|(_, c)| *c == ':').map(|(at, _)| at);
    let mut cuts: Vec<usize> = std::iter::once(text.len()).chain(colons.rev()).collect();
    let there = cuts.iter().copied().find(|at| Path::new(&text[..*at]).exists());
    let cut =
        there.unwrap_or_else(|| if cuts.len() > 1 { cuts.pop().unwrap_or(text.len()) } else { text.len() });
    let tag = text.get(cut + 1..).map(str::to_owned);
    (PathBuf::from(&text[..cut]), tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a:b");
        std::fs::create_dir(&path).unwrap();
        let text = path.display();
        for (given, want, name) in [
            (format!("oci:{text}"), format!("oci:{text}"), "a-b"),
            (format!("oci:{text}:v1"), format!("oci:{text}:v1"), "a-b-v1"),
            ("oci:/no/where:v2".into(), "oci:/no/where:v2".into(), "where-v2"),
            ("docker-archive:/x.tar:web:1".into(), "docker-archive:/x.tar:web:1".into(), "web-1"),
            ("docker-archive:/x.tar.gz".into(), "docker-archive:/x.tar.gz".into(), "x"),
            ("docker://debian".into(), "docker://docker.io/library/debian:latest".into(), "debian-latest"),
            ("docker://localhost:5000/a/b:1".into(), "docker://localhost:5000/a/b:1".into(), "b-1"),
        ] {
            let source = Source::parse(&given).unwrap().unwrap();
            assert_eq!((source.to_string(), source.default_name().as_str()), (want, name), "{given}");
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        let by_digest = Source::parse(&format!("docker://r.example/x@{digest}")).unwrap().unwrap();
        assert_eq!(by_digest.to_string(), format!("docker://r.example/x@{digest}"));
    }

    #[test]
    fn what_is_no_image_is_left_to_others_and_what_is_wrong_is_told() {
        for other in ["/srv/tree", "centos.tar.gz", "./oci", "C:foo"] {
            assert_eq!(Source::parse(other).unwrap(), None, "{other}");
        }
        for bad in [
            "oci:",
            "docker://",
            "docker://UPPER/case",
            "docker://x@sha256:12",
            "docker://x/../y",
            "docker://r.example/x:",
            "docker://r.example:5000/",
            "docker://user@host.example/x",
            "oci:/nowhere:",
        ] {
            assert_eq!(Source::parse(bad).unwrap_err().exit(), vzconf::Exit::InvalidValue, "{bad}");
        }
    }
}
