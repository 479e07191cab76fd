//! Files as block devices, and what the file systems on them are asked.
//!
//! A loop device is made to end with its last user (`LO_FLAGS_AUTOCLEAR`): a descriptor here, then the mount. So
//! whoever is killed leaves none behind. It also holds the very open file that it was made of, and with that the
//! lock (flock) which was taken on it: as long as a device of an image exists, the image is locked.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Call, Result, SysError};
use crate::raw::last_errno;

const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
/// 5.8.
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// `_IOWR('X', 121, struct fstrim_range)`
const FITRIM: libc::c_ulong = 0xC018_5879;
/// `_IOWR('X', 119, int)`
const FIFREEZE: libc::c_ulong = 0xC004_5877;
/// `_IOWR('X', 120, int)`
const FITHAW: libc::c_ulong = 0xC004_5878;
/// `_IOW('f', 16, __u64)`
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// How often the free device that was found was taken by somebody else before that is an error.
const RACES: u32 = 1000;

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    fn zeroed() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct TrimRange {
    start: u64,
    len: u64,
    min_len: u64,
}

/// A loop device, kept for as long as the value lives, and as what is mounted from it.
#[derive(Debug)]
pub struct Loop {
    device: File,
    path: PathBuf,
}

/// How a device reads and writes its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Around the host's page cache, where the file system of the file can do that.
    Around,
    /// Through it: what is written is on the disk only after an fsync(2) of the file.
    Through,
}

impl Loop {
    /// Makes a device of an open file, read and write, with sectors of `block` bytes (512 to 4096).
    ///
    /// # Errors
    /// The errno of the loop driver; `ENOENT`, `ENODEV` or `EPERM` where there are no loop devices.
    pub fn attach(file: BorrowedFd<'_>, block: u32, cache: Cache) -> Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
        let control = control.call("open", || "/dev/loop-control")?;
        for _ in 0..RACES {
            let number = get_free(&control)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match configure(&device, file, block, cache) {
                Err(Errno::BUSY) => {}
                done => {
                    done.call("ioctl", || format!("{}, LOOP_CONFIGURE", path.display()))?;
                    return Ok(Self { device, path });
                }
            }
        }
        Err(SysError::new("ioctl", "/dev/loop-control, LOOP_CTL_GET_FREE", Errno::BUSY))
    }

    /// The device that somebody has made of this very file, if there is one; it then stays.
    ///
    /// # Errors
    /// The errno of reading the list of devices.
    pub fn of(file: &File) -> Result<Option<Self>> {
        let meta = file.metadata().call("fstat", || "an image")?;
        let devices = std::fs::read_dir("/sys/block").call("open", || "/sys/block")?;
        for entry in devices.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
                continue;
            }
            let path = Path::new("/dev").join(name);
            let Ok(device) = open(&path) else { continue };
            // Asked of the open device: while it is open it cannot become another file's.
            let Ok(info) = status(&device) else { continue };
            if (info.device, info.inode) == (meta.dev(), meta.ino()) {
                return Ok(Some(Self { device, path }));
            }
        }
        Ok(None)
    }

    /// `/dev/loopN`; it means this device as long as the value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the kernel that the file has another size now.
    ///
    /// # Errors
    /// The errno of the loop driver.
    pub fn take_new_size(&self) -> Result<()> {
        // SAFETY: the request takes no argument.
        let done = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_SET_CAPACITY as _, 0) };
        checked(done).map(drop).call("ioctl", || format!("{}, LOOP_SET_CAPACITY", self.path.display()))
    }
}

impl AsFd for Loop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).call("open", || path.display().to_string())
}

fn checked(result: libc::c_int) -> rustix::io::Result<libc::c_int> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn get_free(control: &File) -> Result<libc::c_int> {
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _, 0) };
    checked(number).call("ioctl", || "/dev/loop-control, LOOP_CTL_GET_FREE")
}

fn configure(device: &File, file: BorrowedFd<'_>, block_size: u32, cache: Cache) -> rustix::io::Result<()> {
    let mut info = LoopInfo::zeroed();
    info.flags = LO_FLAGS_AUTOCLEAR | if cache == Cache::Around { LO_FLAGS_DIRECT_IO } else { 0 };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the request reads a `struct loop_config`, which `config` is, live for the call; the kernel takes a
    // reference of its own on the file.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    checked(done).map(drop)
}

fn status(device: &File) -> rustix::io::Result<LoopInfo> {
    let mut info = LoopInfo::zeroed();
    // SAFETY: the request fills a `struct loop_info64`, which `info` is, live and writable for the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
    checked(done).map(|_| info)
}

/// Tells the device below a mounted file system which blocks are free; for a loop device these become holes of
/// its file. `directory` is any open directory of it. Returns bytes told; blocks for as long as that takes.
///
/// # Errors
/// `EOPNOTSUPP` where the device cannot take that.
pub fn trim(directory: BorrowedFd<'_>) -> Result<u64> {
    let mut range = TrimRange { start: 0, len: u64::MAX, min_len: 0 };
    // SAFETY: the request reads and writes a `struct fstrim_range`, which `range` is, live for the call.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), FITRIM as _, &raw mut range) };
    checked(done).call("ioctl", || "FITRIM")?;
    Ok(range.len)
}

/// Has a mounted file system write all that it has, and no more until [`thaw`]: whoever writes waits. The device below
/// then holds it as after an unmount. `directory` is any open directory of it. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `EBUSY` when it is frozen already, `EOPNOTSUPP`.
pub fn freeze(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes no argument.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), FIFREEZE as _, 0) };
    checked(done).map(drop).call("ioctl", || "FIFREEZE")
}

/// Lets a frozen file system go on.
///
/// # Errors
/// `EINVAL` when it is not frozen.
pub fn thaw(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes no argument.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), FITHAW as _, 0) };
    checked(done).map(drop).call("ioctl", || "FITHAW")
}

/// Grows a mounted ext4 to so many of its blocks. Needs `CAP_SYS_RESOURCE`.
///
/// # Errors
/// `EPERM`, or the errno of the file system.
pub fn grow_ext4(directory: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    let fd: RawFd = directory.as_raw_fd();
    // SAFETY: the request reads a u64, live for the call.
    let done = unsafe { libc::ioctl(fd, EXT4_IOC_RESIZE_FS as _, &raw const blocks) };
    checked(done).map(drop).call("ioctl", || format!("EXT4_IOC_RESIZE_FS, {blocks}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::time::{Duration, Instant};

    #[test]
    fn structures_have_the_sizes_that_the_kernel_knows() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<TrimRange>(), 24);
    }

    #[test]
    fn a_device_keeps_the_lock_of_its_file_and_ends_with_its_last_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open().unwrap();
        file.set_len(1 << 20).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let device = Loop::attach(file.as_fd(), 4096, Cache::Around).unwrap();
        let same = Loop::of(&file).unwrap().unwrap();
        assert_eq!(device.path(), same.path());
        drop((file, same));
        let other = open().unwrap();
        let lock = || flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock(), Err(Errno::WOULDBLOCK));
        drop(device);
        let until = Instant::now() + Duration::from_secs(20);
        while lock().is_err() {
            assert!(Instant::now() < until, "the device does not end");
            std::thread::yield_now();
        }
        assert!(Loop::of(&other).unwrap().is_none());
    }
}
