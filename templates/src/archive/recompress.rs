//! An archive compressed anew, its contents as they are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vzsys::Call;

use super::error::{ArchiveError, Fault};
use super::sum::{Algorithm, Sum};
use super::{Compression, Progress};

/// What came of it.
#[derive(Debug)]
pub(crate) struct Recompressed {
    /// SHA-256 of the bytes inside.
    pub(crate) inner: String,
    /// SHA-256 of the compressed file.
    pub(crate) outer: String,
    /// Bytes of the compressed file.
    pub(crate) size: u64,
}

/// Writes the archive `from` to the file `to` with gzip, which every tool reads. The same contents give the same bytes.
///
/// # Errors
/// [`ArchiveError`].
pub(crate) fn to_gzip(
    from: &Path,
    to: File,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recompressed, ArchiveError> {
    let run = || -> io::Result<Recompressed> {
        let mut file = File::open(from)?;
        let total = file.metadata()?.len();
        let compression = Compression::detect(&mut file)?;
        let read = Arc::new(AtomicU64::new(0));
        let mut decoder = compression.decoder(file, Arc::clone(&read))?;
        let out = Out { file: to, sum: Sum::new(Algorithm::Sha256), size: 0 };
        // Without a name and a time, so that the bytes depend on nothing else.
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
        let mut inner = Sum::new(Algorithm::Sha256);
        let mut buffer = vec![0; 256 << 10];
        let mut unpacked = 0;
        loop {
            let n = match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            inner.update(&buffer[..n]);
            encoder.write_all(&buffer[..n])?;
            unpacked += n as u64;
            progress(Progress { read: read.load(Ordering::Relaxed), total, unpacked });
        }
        let out = encoder.finish()?;
        out.file.sync_all()?;
        Ok(Recompressed { inner: inner.finish(), outer: out.sum.finish(), size: out.size })
    };
    run().call("copy", || from.display().to_string()).map_err(|error| Fault::from(error).at(from, None))
}

/// A file that is summed up as it is written.
struct Out {
    file: File,
    sum: Sum,
    size: u64,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
