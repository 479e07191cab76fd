//! Blobs: bytes that are named by what they are.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::str::FromStr;

use vzsys::Call;

use super::error::OciError;
use crate::archive::{Algorithm, Progress, Sum};

/// `sha256:…` or `sha512:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Digest {
    pub(super) algorithm: Algorithm,
    pub(super) hex: String,
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is no digest", text.escape_debug());
        let (name, hex) = text.split_once(':').ok_or_else(wrong)?;
        let (algorithm, length) = match name {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(format!("'{}' is a digest of a kind that is not known", name.escape_debug())),
        };
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != length || !hex.bytes().all(digit) {
            return Err(wrong());
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl Digest {
    /// Of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut sum = Sum::new(Algorithm::Sha256);
        sum.update(bytes);
        Self { algorithm: Algorithm::Sha256, hex: sum.finish() }
    }

    /// Its place in a layout.
    pub(super) fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }

    /// How people see it.
    pub(super) fn short(&self) -> &str {
        &self.hex[..12]
    }
}

/// What a document says of another document or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media: String,
}

/// Where an image's blobs come from.
pub(super) trait Blobs {
    /// A document of at most `limit` bytes, checked.
    fn document(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>, OciError>;

    /// A blob of any size as a file at its beginning, checked.
    fn file(&self, blob: &Blob, progress: &mut dyn FnMut(Progress)) -> Result<File, OciError>;
}

/// Checks the bytes of a document.
pub(super) fn check(object: &str, blob: &Blob, bytes: &[u8]) -> Result<(), OciError> {
    let mut sum = Sum::new(blob.digest.algorithm);
    sum.update(bytes);
    compare(object, blob, sum, bytes.len() as u64)
}

/// Reads a file from end to end, compares, and rewinds it.
pub(super) fn check_file(
    object: &str,
    blob: &Blob,
    file: &mut File,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), OciError> {
    const TELL: u64 = 16 << 20;
    let mut sum = Sum::new(blob.digest.algorithm);
    let mut buffer = vec![0; 256 << 10];
    let (mut size, mut told) = (0, 0);
    loop {
        let n = file.read(&mut buffer).call("read", || object.to_owned())?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > blob.size {
            break;
        }
        sum.update(&buffer[..n]);
        if size - told >= TELL {
            told = size;
            progress(Progress { read: size, total: blob.size, unpacked: 0 });
        }
    }
    compare(object, blob, sum, size)?;
    Ok(file.rewind().call("lseek", || object.to_owned())?)
}

/// Compares what was read with what was told.
pub(super) fn compare(object: &str, blob: &Blob, sum: Sum, size: u64) -> Result<(), OciError> {
    let mismatch = |what, told: String, found: String| {
        Err(OciError::Mismatch { object: object.to_owned(), what, told, found })
    };
    if size != blob.size {
        let found = if size > blob.size { format!("more than {}", blob.size) } else { size.to_string() };
        return mismatch("size", blob.size.to_string(), found);
    }
    let found = sum.finish();
    if found != blob.digest.hex {
        return mismatch(blob.digest.algorithm.name(), blob.digest.hex.clone(), found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_taken_apart_strictly() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        assert_eq!(good.parse::<Digest>().unwrap().path(), format!("blobs/sha256/{}", "0a".repeat(32)));
        for bad in [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("md5:{}", "0a".repeat(16)),
            format!("sha256:{}/..", "0a".repeat(30)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_byte_more_or_less_or_another_one_is_told() {
        let blob = Blob { digest: Digest::of(b"abc"), size: 3, media: String::new() };
        assert!(check("x", &blob, b"abc").is_ok());
        for bytes in [&b"ab"[..], b"abcd", b"abd", b""] {
            let error = check("x", &blob, bytes).unwrap_err();
            assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
        }
    }
}
