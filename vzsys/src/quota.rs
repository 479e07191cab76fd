//! Disk quota as the kernel keeps it: limits and usage by id (`quotactl_fd(2)`, 5.14), and the project that a file
//! belongs to. All of it names a file system by a descriptor of any file in it, and works alike on ext4 and xfs.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::{Result, SysError};
use crate::raw::last_errno;

/// Whose files are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Those of a user.
    User,
    /// Those of a group.
    Group,
    /// Those of a project: a tree, see [`project`].
    Project,
}

impl Whose {
    fn number(self) -> u32 {
        match self {
            Self::User => 0,
            Self::Group => 1,
            Self::Project => 2,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Project => "project",
        }
    }
}

/// What a file system does about one kind of quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Off,
    /// It counts, and holds nobody to a limit.
    Accounted,
    /// Limits hold.
    Enforced,
}

/// Limits and usage of one id. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Hard limit, KiB.
    pub space_hard: u64,
    /// Soft limit, KiB.
    pub space_soft: u64,
    /// In use, bytes.
    pub space: u64,
    /// Hard limit of inodes.
    pub inodes_hard: u64,
    /// Soft limit of inodes.
    pub inodes_soft: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// When the soft limit of space begins to hold as a hard one, in seconds since 1970; 0 while it is kept.
    pub space_until: u64,
    /// The same of inodes.
    pub inodes_until: u64,
}

/// For how long a soft limit may be exceeded, in seconds: one value for all ids of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grace {
    /// Of space.
    pub space: u64,
    /// Of inodes.
    pub inodes: u64,
}

const Q_GETINFO: u32 = 0x80_0005;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETINFO: u32 = 0x80_0006;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETNEXTQUOTA: u32 = 0x80_0009;
/// Also of file systems that are not xfs (`fs/quota/quota.c`).
const Q_XGETQSTAT: u32 = 0x5805;

const LIMITS_VALID: u32 = 1 | 4;
const GRACES_VALID: u32 = 1 | 2;

/// `struct if_nextdqblk`; the first part is `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Dqblk {
    bhardlimit: u64,
    bsoftlimit: u64,
    curspace: u64,
    ihardlimit: u64,
    isoftlimit: u64,
    curinodes: u64,
    btime: u64,
    itime: u64,
    valid: u32,
    id: u32,
}

impl From<&Dqblk> for Quota {
    fn from(raw: &Dqblk) -> Self {
        Self {
            space_hard: raw.bhardlimit,
            space_soft: raw.bsoftlimit,
            space: raw.curspace,
            inodes_hard: raw.ihardlimit,
            inodes_soft: raw.isoftlimit,
            inodes: raw.curinodes,
            space_until: raw.btime,
            inodes_until: raw.itime,
        }
    }
}

/// `struct if_dqinfo`.
#[repr(C)]
#[derive(Default)]
struct Dqinfo {
    bgrace: u64,
    igrace: u64,
    flags: u32,
    valid: u32,
}

/// `struct fs_quota_stat`: only its flags are of interest.
#[repr(C)]
struct Qstat {
    version: i8,
    flags: u16,
    rest: [u64; 12],
}

fn quotactl<T>(
    fs: BorrowedFd<'_>,
    name: &'static str,
    command: u32,
    whose: Whose,
    id: u32,
    data: &mut T,
) -> Result<()> {
    let command = command << 8 | whose.number();
    // SAFETY: each caller pairs a command with the struct that the kernel reads or fills for it, which is live and at
    // least as large; the descriptor lives for the call.
    let r = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, fs.as_raw_fd(), command, id, std::ptr::from_mut(data))
    };
    if r == 0 {
        return Ok(());
    }
    Err(SysError::new("quotactl_fd", format_args!("{name}, {} {id}", whose.word()), last_errno()))
}

/// What the file system does about this kind of quota.
///
/// # Errors
/// The errno of quotactl_fd(2), other than that there is no quota at all.
pub fn state(fs: BorrowedFd<'_>, whose: Whose) -> Result<State> {
    let mut stat = Qstat { version: 1, flags: 0, rest: [0; 12] };
    match quotactl(fs, "Q_XGETQSTAT", Q_XGETQSTAT, whose, 0, &mut stat) {
        // No file system with quota, none is on, or a kernel without any.
        Err(error)
            if matches!(error.errno(), Errno::NOSYS | Errno::SRCH | Errno::INVAL | Errno::OPNOTSUPP) =>
        {
            return Ok(State::Off);
        }
        done => done?,
    }
    let bits = stat.flags >> (2 * whose.number());
    Ok(match bits & 3 {
        3 => State::Enforced,
        1 => State::Accounted,
        _ => State::Off,
    })
}

/// For how long soft limits may be exceeded.
///
/// # Errors
/// The errno of quotactl_fd(2): `ESRCH` when this quota is off.
pub fn grace(fs: BorrowedFd<'_>, whose: Whose) -> Result<Grace> {
    let mut info = Dqinfo::default();
    quotactl(fs, "Q_GETINFO", Q_GETINFO, whose, 0, &mut info)?;
    Ok(Grace { space: info.bgrace, inodes: info.igrace })
}

/// Sets that. Needs `CAP_SYS_ADMIN` of the host.
///
/// # Errors
/// The errno of quotactl_fd(2).
pub fn set_grace(fs: BorrowedFd<'_>, whose: Whose, grace: Grace) -> Result<()> {
    let mut info = Dqinfo { bgrace: grace.space, igrace: grace.inodes, flags: 0, valid: GRACES_VALID };
    quotactl(fs, "Q_SETINFO", Q_SETINFO, whose, 0, &mut info)
}

/// Limits and usage of the first id from this one on that has any; `None` when there is none.
///
/// # Errors
/// The errno of quotactl_fd(2): `ESRCH` when this quota is off.
pub fn next(fs: BorrowedFd<'_>, whose: Whose, from: u32) -> Result<Option<(u32, Quota)>> {
    let mut raw = Dqblk::default();
    match quotactl(fs, "Q_GETNEXTQUOTA", Q_GETNEXTQUOTA, whose, from, &mut raw) {
        Err(error) if error.errno() == Errno::NOENT => Ok(None),
        done => done.map(|()| Some((raw.id, Quota::from(&raw)))),
    }
}

/// Limits and usage of an id; of one that never had a file, nothing but zeros.
///
/// # Errors
/// The errno of quotactl_fd(2): `ESRCH` when this quota is off.
pub fn get(fs: BorrowedFd<'_>, whose: Whose, id: u32) -> Result<Quota> {
    let mut raw = Dqblk::default();
    match quotactl(fs, "Q_GETQUOTA", Q_GETQUOTA, whose, id, &mut raw) {
        // xfs has no record of an id without files.
        Err(error) if error.errno() == Errno::NOENT => Ok(Quota::default()),
        done => done.map(|()| Quota::from(&raw)),
    }
}

/// Sets the four limits of an id; its usage and times stay. Needs `CAP_SYS_ADMIN` of the host.
///
/// # Errors
/// The errno of quotactl_fd(2): `ERANGE` for more than the file system can store.
pub fn set(fs: BorrowedFd<'_>, whose: Whose, id: u32, limits: &Quota) -> Result<()> {
    let mut raw = Dqblk {
        bhardlimit: limits.space_hard,
        bsoftlimit: limits.space_soft,
        ihardlimit: limits.inodes_hard,
        isoftlimit: limits.inodes_soft,
        valid: LIMITS_VALID,
        ..Dqblk::default()
    };
    quotactl(fs, "Q_SETQUOTA", Q_SETQUOTA, whose, id, &mut raw)
}

/// The project of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Project {
    /// Its number; 0 is nobody's.
    pub id: u32,
    /// Whether what is made in this directory belongs to it too.
    pub inherited: bool,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801C_581F;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401C_5820;
const XFLAG_PROJINHERIT: u32 = 0x200;

fn attributes(file: BorrowedFd<'_>) -> Result<Fsxattr> {
    let mut raw = Fsxattr::default();
    // SAFETY: the request's number says how large `raw` is; it is live and writable for the call.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut raw) };
    if r == 0 { Ok(raw) } else { Err(SysError::new("ioctl", "FS_IOC_FSGETXATTR", last_errno())) }
}

/// The project of an open file or directory.
///
/// # Errors
/// The errno of ioctl(2): `ENOTTY` or `EOPNOTSUPP` where the file system knows no projects.
pub fn project(file: BorrowedFd<'_>) -> Result<Project> {
    let raw = attributes(file)?;
    Ok(Project { id: raw.projid, inherited: raw.xflags & XFLAG_PROJINHERIT != 0 })
}

/// Gives a file or directory to a project. Needs `CAP_FOWNER`, and the host's user namespace.
///
/// # Errors
/// The errno of ioctl(2): `EDQUOT` when the project has no room for it.
pub fn set_project(file: BorrowedFd<'_>, project: Project) -> Result<()> {
    let mut raw = attributes(file)?;
    raw.projid = project.id;
    raw.xflags &= !XFLAG_PROJINHERIT;
    if project.inherited {
        raw.xflags |= XFLAG_PROJINHERIT;
    }
    // SAFETY: the request's number says how large `raw` is; the kernel reads it.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw const raw) };
    if r == 0 {
        Ok(())
    } else {
        Err(SysError::new("ioctl", format_args!("FS_IOC_FSSETXATTR, project {}", project.id), last_errno()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn structs_have_the_kernels_sizes() {
        assert_eq!(std::mem::size_of::<Dqblk>(), 72);
        assert_eq!(std::mem::size_of::<Dqinfo>(), 24);
        assert_eq!(std::mem::size_of::<Fsxattr>(), 28);
        assert!(std::mem::size_of::<Qstat>() >= 80);
        assert_eq!(std::mem::offset_of!(Qstat, flags), 2);
    }

    #[test]
    fn what_keeps_no_quota_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert_eq!(state(proc.as_fd(), Whose::Project).unwrap(), State::Off);
        assert!(grace(proc.as_fd(), Whose::Project).is_err());
        assert!(project(proc.as_fd()).is_err());
    }
}
