//! Extended attributes of anything, links among them: ACLs and capabilities are some of them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};
use rustix::io::Errno;
use vzsys::SysError;

/// The kernel's own limit of one value, and of a list.
const MAX: usize = 64 * 1024;

/// Which attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them.
    All,
    /// Without overlayfs' own: of a directory that begins anew.
    Plain,
}

/// A path that these calls take, without following the last name; there are none for a name below a descriptor.
pub(crate) fn path_in(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Those of a file, without overlayfs' own, in the order of their names.
pub(crate) fn plain_xattrs(path: &Path) -> vzsys::Result<Vec<(CString, Vec<u8>)>> {
    let mut value = vec![0; MAX];
    let mut all = Vec::new();
    for name in list(path)?.into_iter().filter(|name| !is_overlays(name)) {
        match lgetxattr(path, &name, &mut value) {
            Ok(length) => all.push((name, value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(SysError::new("lgetxattr", path.display(), errno)),
        }
    }
    all.sort();
    Ok(all)
}

/// Gives `to` the attributes of `from`, and no others.
pub(crate) fn copy_xattrs(from: &Path, to: &Path, which: Which) -> vzsys::Result<()> {
    let wanted = list(from)?;
    let there = list(to)?;
    for name in there.iter().filter(|name| !wanted.contains(name)) {
        match lremovexattr(to, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            // The file system's or a security module's own.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
            Err(errno) => return Err(SysError::new("lremovexattr", to.display(), errno)),
        }
    }
    let mut value = vec![0; MAX];
    for name in wanted.iter().filter(|name| which == Which::All || !is_overlays(name)) {
        let length = match lgetxattr(from, name, &mut value) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(SysError::new("lgetxattr", from.display(), errno)),
        };
        lsetxattr(to, name, &value[..length], XattrFlags::empty())
            .map_err(|errno| SysError::new("lsetxattr", format_args!("{}, {name:?}", to.display()), errno))?;
    }
    Ok(())
}

fn is_overlays(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"trusted.overlay.")
}

fn list(path: &Path) -> vzsys::Result<Vec<CString>> {
    let mut buffer = vec![0_u8; 1024];
    loop {
        match llistxattr(path, &mut buffer) {
            Ok(length) => {
                let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.filter_map(|name| CString::new(name).ok()).collect());
            }
            Err(Errno::RANGE) if buffer.len() < MAX => buffer.resize(MAX, 0),
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(SysError::new("llistxattr", path.display(), errno)),
        }
    }
}
