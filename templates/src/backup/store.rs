//! Where backups lie: a directory here, or one on another host ([`super::remote`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vzsys::{Call, SysError};

use super::error::Fault;
use super::head::Head;
use super::reader::{Data, Frames, Leap};

/// The end of a backup's name.
pub const SUFFIX: &str = ".vzb";
/// The end of the name while it is being written.
pub(super) const PART: &str = ".part";
const BUFFER: usize = 256 << 10;

/// Bytes anywhere in a file.
pub(super) trait ReadAt: Send {
    /// Fills the buffer.
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()>;
    /// Bytes in all.
    fn size(&mut self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn size(&mut self) -> io::Result<u64> {
        self.metadata().map(|meta| meta.len())
    }
}

/// A backup being written.
pub(super) trait PartWriter: Write {
    /// What follows after `at` is removed; writing goes on there.
    fn cut(&mut self, at: u64) -> Result<(), Fault>;
    /// It is whole: it gets its name once it is on disk.
    fn commit(self: Box<Self>) -> Result<(), Fault>;
    /// It is not wanted, and does not stand in the way.
    fn abandon(self: Box<Self>);
}

/// A stream of any kind.
pub(super) type Stream = Box<dyn Leap + Send>;

/// A directory of backups.
pub(super) trait Shelf {
    /// The frames of a backup; their data may be left out, and cannot be taken.
    fn frames(&mut self, file: &str) -> Result<Stream, Fault>;
    /// A whole backup, from `at` on.
    fn stream(&mut self, file: &str, at: u64) -> Result<Stream, Fault>;
    /// The same, anywhere.
    fn blocks(&mut self, file: &str) -> Result<Box<dyn ReadAt>, Fault>;
    /// A backup to be written, with the frames of its interrupted beginning, and whether their data is to be proved
    /// or was.
    fn part(&mut self, file: &str) -> Result<(Stream, Data, Box<dyn PartWriter>), Fault>;
    /// What a backup tells of itself.
    fn head(&mut self, file: &str) -> Result<Head, Fault> {
        Ok(Frames::open(self.frames(file)?)?.head)
    }
    /// The names of all backups, those being written among them, sorted.
    fn names(&mut self) -> Result<Vec<String>, Fault>;
}

impl Leap for Box<dyn Leap + Send> {
    fn leap(&mut self, bytes: u64) -> io::Result<()> {
        (**self).leap(bytes)
    }
}

/// A directory of this host.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    fn open(&self, file: &str) -> Result<File, Fault> {
        let path = self.0.join(file);
        let open = || -> io::Result<File> {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
            if opened.metadata()?.is_file() { Ok(opened) } else { Err(rustix::io::Errno::INVAL.into()) }
        };
        Ok(open().call("open", || path.display().to_string())?)
    }
}

impl Shelf for Directory {
    fn frames(&mut self, file: &str) -> Result<Stream, Fault> {
        // Headers lie far apart: what is read ahead of them is thrown away.
        Ok(Box::new(BufReader::with_capacity(4096, self.open(file)?)))
    }

    fn stream(&mut self, file: &str, at: u64) -> Result<Stream, Fault> {
        let mut opened = self.open(file)?;
        opened.seek(SeekFrom::Start(at)).call("lseek", || file)?;
        Ok(Box::new(BufReader::with_capacity(BUFFER, opened)))
    }

    fn blocks(&mut self, file: &str) -> Result<Box<dyn ReadAt>, Fault> {
        Ok(Box::new(self.open(file)?))
    }

    fn part(&mut self, file: &str) -> Result<(Stream, Data, Box<dyn PartWriter>), Fault> {
        let part = LocalPart::open(&self.0, file)?;
        let reader = part.file.try_clone().call("dup", || file)?;
        Ok((Box::new(BufReader::with_capacity(BUFFER, reader)), Data::Prove, Box::new(part)))
    }

    fn names(&mut self) -> Result<Vec<String>, Fault> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SysError::from_io("open", self.0.display(), &error).into()),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(SUFFIX) || name.ends_with(&format!("{SUFFIX}{PART}")))
            .collect();
        names.sort();
        Ok(names)
    }
}

/// `FILE.part`, locked by who writes it.
#[derive(Debug)]
struct LocalPart {
    file: File,
    dir: PathBuf,
    part: PathBuf,
    whole: PathBuf,
}

impl LocalPart {
    fn open(dir: &Path, file: &str) -> Result<Self, Fault> {
        let whole = dir.join(file);
        let part = dir.join(format!("{file}{PART}"));
        if fs::symlink_metadata(&whole).is_ok() {
            return Err(Fault::Exists);
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let opened = options.open(&part).call("open", || part.display().to_string())?;
        match opened.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Fault::Busy),
            Err(fs::TryLockError::Error(error)) => {
                return Err(SysError::from_io("flock", part.display(), &error).into());
            }
        }
        // Its writer may have given it its name while we waited for nothing.
        if fs::symlink_metadata(&whole).is_ok() {
            let _ = fs::remove_file(&part);
            return Err(Fault::Exists);
        }
        Ok(Self { file: opened, dir: dir.to_owned(), part, whole })
    }
}

impl Write for LocalPart {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartWriter for LocalPart {
    fn cut(&mut self, at: u64) -> Result<(), Fault> {
        let part = || self.part.display().to_string();
        self.file.set_len(at).call("ftruncate", part)?;
        (&self.file).seek(SeekFrom::Start(at)).call("lseek", part)?;
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Fault> {
        if let Err(error) = self.file.sync_all().call("fsync", || self.part.display().to_string()) {
            // What memory has of it reads well, and will never be written: nobody may go on with that.
            self.abandon();
            return Err(error.into());
        }
        vzsys::fault::point("backup.synced");
        // COMMIT: the backup has its name, and is whole.
        fs::rename(&self.part, &self.whole).call("rename", || self.whole.display().to_string())?;
        vzsys::fault::point("backup.committed");
        let dir = File::open(&self.dir).and_then(|dir| dir.sync_all());
        Ok(dir.call("fsync", || self.dir.display().to_string())?)
    }

    fn abandon(self: Box<Self>) {
        let _ = fs::remove_file(&self.part);
    }
}
