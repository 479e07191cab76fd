//! A layer of an image laid over those below it.
//!
//! A layer is an archive, in which `.wh.NAME` takes away NAME of the layers below and `.wh..wh..opq` all that they
//! have in its directory; what the layer itself brings stays, in whatever order its members come.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use vzsys::Call;

use super::error::{ArchiveError, Fault};
use super::path::Place;
use super::place::Placer;
use super::reader::{Member, Reader};
use super::stream::{Stream, padding};
use super::sum::{Algorithm, Sum, Summed};
use super::unpack::Tally;
use super::{Compression, Limits, Progress, Summary};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// One layer about to be applied.
pub(crate) struct Layer<'a> {
    /// Its file, at its beginning.
    pub(crate) blob: File,
    /// What errors call it.
    pub(crate) name: &'a Path,
    /// What is left of the image's limits.
    pub(crate) limits: Limits,
    /// How the unpacked bytes are summed up.
    pub(crate) algorithm: Algorithm,
    /// Is told how far it is.
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

/// What a layer of the image brought, and the sum of its unpacked bytes.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) summary: Summary,
    pub(crate) sum: String,
}

impl Layer<'_> {
    /// Applies it to the tree at `root`. On failure the tree is useless.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub(crate) fn over(self, root: &OwnedFd) -> Result<Laid, ArchiveError> {
        let Self { mut blob, name, limits, algorithm, progress } = self;
        let blame = |fault: Fault| fault.at(name, None);
        let sum = Arc::new(Mutex::new(Sum::new(algorithm)));
        let open = || {
            let size = blob.metadata()?.len();
            let compression = Compression::detect(&mut blob)?;
            let read = Arc::new(AtomicU64::new(0));
            let inner = compression.decoder(blob, Arc::clone(&read))?;
            Stream::over(Summed { inner, sum: Arc::clone(&sum) }, read, size)
        };
        let stream = open().call("read", || name.display().to_string());
        let mut reader = Reader::new(stream.map_err(|error| blame(error.into()))?, limits);
        let copy = root.try_clone().call("dup", || "root").map_err(|error| blame(error.into()))?;
        let mut placer = Placer::over(copy);
        let mut tally = Tally::new(limits);
        loop {
            let step = reader.next().and_then(|member| {
                let Some(member) = member else { return Ok(false) };
                tally.count(&member)?;
                put(&mut placer, member, &mut reader.stream)?;
                Ok(true)
            });
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => return Err(fault.at(name, reader.at.take().as_deref())),
            }
            if tally.due() {
                let (read, total) = reader.stream.progress();
                progress(Progress { read, total, unpacked: tally.summary.bytes });
            }
        }
        placer.finish().map_err(|(member, fault)| fault.at(name, Some(&member)))?;
        // The reader has met the end of the stream: nobody adds to it any more.
        let sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone().finish();
        Ok(Laid { summary: tally.summary, sum })
    }
}

fn put(placer: &mut Placer, mut member: Member, stream: &mut Stream) -> Result<(), Fault> {
    let place = Place::of(&member.path)?;
    if let Some((dir, name)) = place.split()
        && let Some(hidden) = name.strip_prefix(WHITEOUT)
    {
        if name == OPAQUE {
            placer.hide_all(dir)?;
        } else if !hidden.starts_with(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err(Fault::hostile("a whiteout of no name"));
            }
            placer.hide(dir, hidden)?;
        }
        // Other names with two such words are aufs' own.
        return stream.skip(member.stored + padding(member.stored));
    }
    // They tell an overlay to look elsewhere, and that is for us to say.
    let overlays = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    member.xattrs.retain(|(name, _)| !overlays(name));
    placer.put(member, stream)
}

/// The tree that layers are laid into: an existing empty directory.
///
/// # Errors
/// The errno of open(2).
pub(crate) fn open_tree(path: &Path) -> Result<OwnedFd, vzsys::SysError> {
    super::place::open_root(path)
}
