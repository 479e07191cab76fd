//! Compression: found by the first bytes, whatever the name says.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use liblzma::stream::{Check, MtStreamBuilder};

/// xz may ask for a dictionary of 4 GiB; a template has no business doing that.
const XZ_MEMORY: u64 = 1 << 30;
/// The largest window of a zstd frame we follow (`zstd --long=30`).
const ZSTD_WINDOW_LOG: u32 = 30;
const INPUT: usize = 256 << 10;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, any number of members.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every one, in the order in which a cache is searched.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Bzip2, Self::Xz, Self::Zstd];

    /// The end of the file's name, `.tar` included.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => ".tar",
            Self::Gzip => ".tar.gz",
            Self::Bzip2 => ".tar.bz2",
            Self::Xz => ".tar.xz",
            Self::Zstd => ".tar.zst",
        }
    }

    /// By the name of the file to be written.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| name.ends_with(c.suffix()) && name.len() > c.suffix().len())
    }

    /// By the first bytes of a file; anything unknown counts as plain.
    #[must_use]
    pub fn of_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Looks at an open file and rewinds it.
    pub(crate) fn detect(file: &mut File) -> io::Result<Self> {
        let mut start = [0; 8];
        let mut filled = 0;
        while filled < start.len() {
            match file.read(&mut start[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        file.rewind()?;
        Ok(Self::of_magic(&start[..filled]))
    }

    /// A reader of the unpacked bytes; what it has read of the file is counted in `read`.
    pub(super) fn decoder(
        self,
        file: impl Read + Send + 'static,
        read: Arc<AtomicU64>,
    ) -> io::Result<Box<dyn Read + Send>> {
        if self == Self::None {
            return Ok(Box::new(Counted { inner: file, read }));
        }
        let input = BufReader::with_capacity(INPUT, Counted { inner: file, read });
        Ok(match self {
            Self::None | Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Xz => {
                let stream = MtStreamBuilder::new()
                    .threads(threads())
                    .memlimit_threading(XZ_MEMORY)
                    .memlimit_stop(XZ_MEMORY)
                    .decoder()?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// A writer that compresses; [`Encoder::finish`] ends the stream.
    pub(super) fn encoder(self, file: File) -> io::Result<Encoder> {
        Ok(match self {
            Self::None => Encoder::None(file),
            Self::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            Self::Bzip2 => Encoder::Bzip2(bzip2::write::BzEncoder::new(file, bzip2::Compression::best())),
            Self::Xz => {
                let stream = MtStreamBuilder::new()
                    .threads(threads())
                    .preset(6)
                    // Blocks of this size let all cores unpack it again.
                    .block_size(8 << 20)
                    .check(Check::Crc64)
                    .encoder()?;
                Encoder::Xz(liblzma::write::XzEncoder::new_stream(file, stream))
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(file, 7)?;
                encoder.include_checksum(true)?;
                encoder.multithread(threads())?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// How many bytes `file` will unpack to; a guess where the format does not tell.
    pub(super) fn unpacked_size(self, file: &mut File) -> io::Result<u64> {
        let size = file.metadata()?.len();
        let estimate = match self {
            Self::None => size,
            Self::Gzip => {
                let mut last = [0; 4];
                if size >= 18 {
                    file.seek(SeekFrom::End(-4))?;
                    file.read_exact(&mut last)?;
                }
                // The trailer holds the size modulo 4 GiB, and of the last member only.
                u64::from(u32::from_le_bytes(last)).max(size)
            }
            Self::Bzip2 => size.saturating_mul(3),
            Self::Xz => size.saturating_mul(47) / 10,
            Self::Zstd => {
                let mut start = [0; 32];
                let n = file.read(&mut start)?;
                let told = zstd::zstd_safe::get_frame_content_size(&start[..n]).ok().flatten();
                told.map_or(size.saturating_mul(3), |told| told.max(size))
            }
        };
        file.rewind()?;
        Ok(estimate)
    }
}

fn threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get().min(16)).unwrap_or(1))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A compressing writer over a file.
pub(super) enum Encoder {
    None(File),
    Gzip(flate2::write::GzEncoder<File>),
    Bzip2(bzip2::write::BzEncoder<File>),
    Xz(liblzma::write::XzEncoder<File>),
    Zstd(zstd::stream::write::Encoder<'static, File>),
}

impl Encoder {
    /// Ends the stream and hands the file back.
    pub(super) fn finish(self) -> io::Result<File> {
        match self {
            Self::None(file) => Ok(file),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Bzip2(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Bzip2(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(file) => file.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Bzip2(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        for (bytes, want) in [
            (&[0x1f, 0x8b, 8, 0][..], Compression::Gzip),
            (b"BZh9", Compression::Bzip2),
            (b"\xfd7zXZ\0", Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (b"./", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::of_magic(bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn names_tell_how_to_write() {
        assert_eq!(Compression::of_name("a-1.tar.zst"), Some(Compression::Zstd));
        assert_eq!(Compression::of_name("a-1.tar"), Some(Compression::None));
        assert_eq!(Compression::of_name(".tar"), None);
        assert_eq!(Compression::of_name("a.zip"), None);
    }
}
