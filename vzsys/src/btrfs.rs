//! Subvolumes of btrfs, and the limits that it keeps for them.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Call, Result, SysError};
use crate::raw::last_errno;

const MAGIC: u64 = 0x9123_683E;
/// The inode of the top of every subvolume.
const TOP: u64 = 256;

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_fs_info_args`, as far as it is of interest.
#[repr(C)]
struct Info {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaCtl {
    cmd: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
#[derive(Default)]
struct QgroupLimit {
    qgroup: u64,
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct QgroupCreate {
    create: u64,
    qgroup: u64,
}

/// `struct btrfs_ioctl_qgroup_assign_args`.
#[repr(C)]
struct QgroupAssign {
    assign: u64,
    member: u64,
    group: u64,
}

/// Which way an ioctl's argument goes, in the bits of its number.
const WRITE: u64 = 1;
const READ: u64 = 2;

const fn request<T>(way: u64, number: u64) -> libc::c_ulong {
    way << 30 | (std::mem::size_of::<T>() as u64) << 16 | 0x94 << 8 | number
}

const SNAP_CREATE_V2: libc::c_ulong = request::<VolArgs>(WRITE, 23);
const SUBVOL_CREATE_V2: libc::c_ulong = request::<VolArgs>(WRITE, 24);
const SNAP_DESTROY_V2: libc::c_ulong = request::<VolArgs>(WRITE, 63);
const SUBVOL_SETFLAGS: libc::c_ulong = request::<u64>(WRITE, 26);
const INO_LOOKUP: libc::c_ulong = request::<Lookup>(READ | WRITE, 18);
const FS_INFO: libc::c_ulong = request::<Info>(READ, 31);
const QUOTA_CTL: libc::c_ulong = request::<QuotaCtl>(READ | WRITE, 40);
const QGROUP_ASSIGN: libc::c_ulong = request::<QgroupAssign>(WRITE, 41);
const QGROUP_CREATE: libc::c_ulong = request::<QgroupCreate>(WRITE, 42);
const QGROUP_LIMIT: libc::c_ulong = request::<QgroupLimit>(READ, 43);

/// What makes a subvolume or snapshot, in all its forms: for a filter of system calls.
pub(crate) const MAKERS: [u32; 4] = [
    request::<[u8; 4096]>(WRITE, 1) as u32,
    request::<[u8; 4096]>(WRITE, 14) as u32,
    SNAP_CREATE_V2 as u32,
    SUBVOL_CREATE_V2 as u32,
];

const READ_ONLY: u64 = 1 << 1;

fn ioctl<T>(fd: BorrowedFd<'_>, name: &'static str, number: libc::c_ulong, data: &mut T) -> Result<()> {
    // SAFETY: each caller pairs a number with the struct whose size that number has; it is live and writable for the call.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(data)) };
    // Some say by 1 that counting begins anew.
    if r >= 0 { Ok(()) } else { Err(SysError::new("ioctl", name, last_errno())) }
}

fn named(name: &OsStr) -> Result<VolArgs> {
    let mut args = VolArgs { fd: 0, transid: 0, flags: 0, unused: [0; 4], name: [0; 4040] };
    let bytes = name.as_bytes();
    let place = args.name.get_mut(..bytes.len()).filter(|_| bytes.len() < 256);
    place.ok_or_else(|| SysError::new("ioctl", name.display(), Errno::NAMETOOLONG))?.copy_from_slice(bytes);
    Ok(args)
}

/// Whether a directory is the top of a subvolume of btrfs.
#[must_use]
pub fn is_subvolume(dir: BorrowedFd<'_>) -> bool {
    is_btrfs(dir) && rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_ino == TOP)
}

/// Whether a file is on btrfs.
#[must_use]
pub fn is_btrfs(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| u64::try_from(stat.f_type).ok() == Some(MAGIC))
}

/// Makes an empty subvolume with this name in a directory.
///
/// # Errors
/// The errno of ioctl(2).
pub fn create(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    ioctl(dir, "BTRFS_IOC_SUBVOL_CREATE_V2", SUBVOL_CREATE_V2, &mut named(name)?)
}

/// What may be done with a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is a tree like any other.
    Write,
    /// It stays as it is.
    Read,
}

/// Makes a snapshot of a subvolume with this name in a directory of the same file system. It is on the disk when this
/// returns, with all that was written to the subvolume before.
///
/// # Errors
/// The errno of ioctl(2): `EXDEV` for another file system, `EINVAL` for what is no subvolume.
pub fn snapshot(of: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr, access: Access) -> Result<()> {
    let mut args = named(name)?;
    args.fd = i64::from(of.as_raw_fd());
    if access == Access::Read {
        args.flags = READ_ONLY;
    }
    ioctl(dir, "BTRFS_IOC_SNAP_CREATE_V2", SNAP_CREATE_V2, &mut args)
}

/// Deletes a subvolume with all that is in it, but no other subvolume; the space comes back in the background.
///
/// # Errors
/// The errno of ioctl(2): `ENOTEMPTY` when another one is in it.
pub fn destroy(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    ioctl(dir, "BTRFS_IOC_SNAP_DESTROY_V2", SNAP_DESTROY_V2, &mut named(name)?)
}

/// Has nothing change in a subvolume any more.
///
/// # Errors
/// The errno of ioctl(2).
pub fn make_read_only(subvolume: BorrowedFd<'_>) -> Result<()> {
    ioctl(subvolume, "BTRFS_IOC_SUBVOL_SETFLAGS", SUBVOL_SETFLAGS, &mut { READ_ONLY })
}

/// The number of the subvolume that a file is in.
///
/// # Errors
/// The errno of ioctl(2).
pub fn subvolume(file: BorrowedFd<'_>) -> Result<u64> {
    let mut args = Lookup { treeid: 0, objectid: TOP, name: [0; 4080] };
    ioctl(file, "BTRFS_IOC_INO_LOOKUP", INO_LOOKUP, &mut args).map(|()| args.treeid)
}

/// What a file system counts and limits for one subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// In use, bytes.
    pub used: u64,
    /// Never exceeded, bytes; 0 is no limit.
    pub limit: u64,
}

fn fsid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut info = Info { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 992] };
    ioctl(file, "BTRFS_IOC_FS_INFO", FS_INFO, &mut info).map(|()| info.fsid)
}

/// Whether two files are on one btrfs, so that one can be a snapshot of the other.
#[must_use]
pub fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    is_btrfs(one)
        && is_btrfs(other)
        && matches!((fsid(one), fsid(other)), (Ok(one), Ok(other)) if one == other)
}

/// The directory of a file system in sysfs where its quota is; there while quota is on.
fn directory(file: BorrowedFd<'_>) -> Result<PathBuf> {
    let mut name = String::new();
    for (at, byte) in fsid(file)?.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            name.push('-');
        }
        name += &format!("{byte:02x}");
    }
    Ok(PathBuf::from("/sys/fs/btrfs").join(name).join("qgroups"))
}

/// What is counted and limited: a subvolume, or all subvolumes that were put into a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// The subvolume with this number.
    Subvolume(u64),
    /// The group with this number, below 2^48.
    Group(u64),
}

impl Account {
    fn id(self) -> u64 {
        match self {
            Self::Subvolume(number) => number,
            Self::Group(number) => 1 << 48 | number,
        }
    }

    /// Its directory in sysfs.
    fn name(self) -> String {
        match self {
            Self::Subvolume(number) => format!("0_{number}"),
            Self::Group(number) => format!("1_{number}"),
        }
    }
}

/// What is counted; `None` while quota is off, or for a group that is not there.
///
/// # Errors
/// The errno of what failed.
pub fn counted(file: BorrowedFd<'_>, of: Account) -> Result<Option<Counted>> {
    let dir = directory(file)?.join(of.name());
    if !dir.is_dir() {
        return Ok(None);
    }
    let number = |name: &str| -> Result<u64> {
        let path = dir.join(name);
        let text = std::fs::read_to_string(&path).call("read", || path.display().to_string())?;
        text.trim().parse().map_err(|_| SysError::new("read", path.display(), Errno::INVAL))
    };
    // Bit 0 says that the number is a limit; 0 bytes would be one, too.
    let limited = std::fs::read_to_string(dir.join("limit_flags")).unwrap_or_default();
    let limited = u64::from_str_radix(limited.trim().trim_start_matches("0x"), 16).unwrap_or(1) & 1 != 0;
    let limit = if limited { number("max_referenced")? } else { 0 };
    Ok(Some(Counted { used: number("referenced")?, limit }))
}

/// Has a file system count what its subvolumes hold: those who wrote it, where the kernel can (6.7), else all who
/// have it. Already on is no error.
///
/// # Errors
/// The errno of ioctl(2).
pub fn enable_quota(file: BorrowedFd<'_>) -> Result<()> {
    const ENABLE: u64 = 1;
    const ENABLE_SIMPLE: u64 = 4;
    if directory(file)?.is_dir() {
        return Ok(());
    }
    let enable = |cmd| ioctl(file, "BTRFS_IOC_QUOTA_CTL", QUOTA_CTL, &mut QuotaCtl { cmd, status: 0 });
    match enable(ENABLE_SIMPLE) {
        Err(error) if matches!(error.errno(), Errno::INVAL | Errno::OPNOTSUPP) => enable(ENABLE),
        done => done,
    }
}

/// Whether what is written counts for the subvolume in which it was written, also when only a snapshot has it yet
/// (simple quotas). Else it counts for each that has it.
///
/// # Errors
/// The errno of ioctl(2).
pub fn counts_writers(file: BorrowedFd<'_>) -> Result<bool> {
    Ok(std::fs::read_to_string(directory(file)?.join("mode")).is_ok_and(|mode| mode.trim() == "squota"))
}

/// Has a group, made if it is missing, count what a subvolume does. Already in it is no error.
///
/// # Errors
/// The errno of ioctl(2): `ENOTCONN` while quota is off.
pub fn put_into_group(file: BorrowedFd<'_>, subvolume: u64, group: u64) -> Result<()> {
    let there_is_fine = |done: Result<()>| match done {
        Err(error) if error.errno() == Errno::EXIST => Ok(()),
        done => done,
    };
    let group = Account::Group(group).id();
    let mut create = QgroupCreate { create: 1, qgroup: group };
    there_is_fine(ioctl(file, "BTRFS_IOC_QGROUP_CREATE", QGROUP_CREATE, &mut create))?;
    let mut assign = QgroupAssign { assign: 1, member: subvolume, group };
    there_is_fine(ioctl(file, "BTRFS_IOC_QGROUP_ASSIGN", QGROUP_ASSIGN, &mut assign))
}

/// Limits what a subvolume or a group may hold, in bytes; 0 lifts the limit.
///
/// # Errors
/// The errno of ioctl(2): `ENOTCONN` while quota is off.
pub fn limit(file: BorrowedFd<'_>, of: Account, bytes: u64) -> Result<()> {
    const MAX_RFER: u64 = 1;
    // All ones take a limit away.
    let max_rfer = if bytes == 0 { u64::MAX } else { bytes };
    let mut args = QgroupLimit { qgroup: of.id(), flags: MAX_RFER, max_rfer, ..QgroupLimit::default() };
    ioctl(file, "BTRFS_IOC_QGROUP_LIMIT", QGROUP_LIMIT, &mut args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernels_header() {
        assert_eq!(MAKERS, [0x5000_9401, 0x5000_940E, 0x5000_9417, 0x5000_9418]);
        assert_eq!(SNAP_DESTROY_V2, 0x5000_943F);
        assert_eq!(INO_LOOKUP, 0xD000_9412);
        assert_eq!(FS_INFO, 0x8400_941F);
        assert_eq!(QUOTA_CTL, 0xC010_9428);
        assert_eq!(QGROUP_ASSIGN, 0x4018_9429);
        assert_eq!(QGROUP_CREATE, 0x4010_942A);
        assert_eq!(QGROUP_LIMIT, 0x8030_942B);
    }
}
