//! `oci:DIR`: a layout in a directory.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use vzsys::{Call, SysError};

use super::blob::{Blob, Blobs, check, check_file};
use super::document::{self, Document, Listed, MANIFEST};
use super::error::OciError;
use crate::archive::Progress;

/// An open layout. Its files are looked up below its own directory and nowhere else.
#[derive(Debug)]
pub(super) struct Layout {
    name: String,
    dir: OwnedFd,
}

impl Layout {
    /// Opens it.
    pub(super) fn open(path: &Path) -> Result<Self, OciError> {
        let name = path.display().to_string();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR) => {
                let reason = "it is a file; an archive of an image is named docker-archive:FILE";
                return Err(OciError::unsupported(name, reason));
            }
            Err(errno) => return Err(SysError::new("open", name, errno).into()),
        };
        Ok(Self { name, dir })
    }

    /// Its images.
    pub(super) fn index(&self) -> Result<Vec<Listed>, OciError> {
        let object = format!("{}/index.json", self.name);
        let bytes = match self.small("index.json", MANIFEST)? {
            Some(bytes) => bytes,
            None => return Err(OciError::malformed(&self.name, "it has no index.json: it is no OCI layout")),
        };
        match document::parse(&object, &bytes)? {
            Document::Index(listed) => Ok(listed),
            Document::Manifest(_) => Err(OciError::malformed(object, "it is a manifest")),
        }
    }

    /// A file below it; `None` if it is not there.
    pub(super) fn file(&self, path: &str) -> Result<Option<File>, OciError> {
        let name = || format!("{}/{path}", self.name);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = match rustix::fs::openat2(self.dir.as_fd(), path, flags, Mode::empty(), how) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(SysError::new("open", name(), errno).into()),
        };
        let stat = rustix::fs::fstat(&fd).call("fstat", name)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OciError::malformed(name(), "it is no regular file"));
        }
        Ok(Some(File::from(fd)))
    }

    /// A whole file of at most `limit` bytes.
    pub(super) fn small(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, OciError> {
        let name = || format!("{}/{path}", self.name);
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).call("read", name)?;
        if bytes.len() as u64 > limit {
            return Err(OciError::TooLarge { object: name(), what: "size", limit });
        }
        Ok(Some(bytes))
    }

    fn missing(&self, blob: &Blob) -> OciError {
        OciError::malformed(&self.name, format!("it lacks the blob {}", blob.digest))
    }
}

impl Blobs for Layout {
    fn document(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>, OciError> {
        let path = blob.digest.path();
        let bytes = self.small(&path, limit)?.ok_or_else(|| self.missing(blob))?;
        check(&format!("{}/{path}", self.name), blob, &bytes)?;
        Ok(bytes)
    }

    fn file(&self, blob: &Blob, progress: &mut dyn FnMut(Progress)) -> Result<File, OciError> {
        let path = blob.digest.path();
        let mut file = Self::file(self, &path)?.ok_or_else(|| self.missing(blob))?;
        check_file(&format!("{}/{path}", self.name), blob, &mut file, progress)?;
        Ok(file)
    }
}

/// The image of a tag, or the only one. An index for several platforms counts as one image.
pub(super) fn pick(place: &str, listed: Vec<Listed>, tag: Option<&str>) -> Result<Vec<Listed>, OciError> {
    let all = names(&listed);
    if let Some(tag) = tag {
        let fits = |item: &Listed| {
            let suffix = format!(":{tag}");
            item.blob.digest.to_string() == tag
                || item.names.iter().any(|name| name == tag || name.ends_with(&suffix))
        };
        let found: Vec<Listed> = listed.into_iter().filter(fits).collect();
        if found.is_empty() {
            return Err(none(place, format!("tagged {}", tag.escape_debug()), &all));
        }
        return Ok(found);
    }
    let mut tags = all.clone();
    tags.sort();
    tags.dedup();
    match tags.len() {
        0 if listed.is_empty() => Err(none(place, "at all".to_owned(), &[])),
        0 | 1 => Ok(listed),
        _ => {
            let latest = |item: &Listed| item.names.iter().any(|name| name == "latest");
            if listed.iter().any(latest) {
                return Ok(listed.into_iter().filter(latest).collect());
            }
            Err(none(place, "tagged latest".to_owned(), &tags))
        }
    }
}

fn names(listed: &[Listed]) -> Vec<String> {
    listed.iter().filter_map(|item| item.names.first().cloned()).collect()
}

fn none(place: &str, wanted: String, there: &[String]) -> OciError {
    let offered = match there {
        [] => String::new(),
        some => {
            let shown: Vec<String> =
                some.iter().take(20).map(|name| name.escape_debug().to_string()).collect();
            format!(" (there is: {}); name one of them", shown.join(", "))
        }
    };
    OciError::NoImage { place: place.to_owned(), wanted, offered }
}
