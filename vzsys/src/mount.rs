//! Mounts through the file-descriptor API (5.2), and guards that undo them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::error::{Call, Result, SysError};

/// Attributes of a mount, as `MOUNT_ATTR_*`.
pub use rustix::mount::MountAttrFlags as Attr;

/// nosuid, nodev, noexec: what a kernel file system needs.
pub const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A mount that is attached nowhere yet.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One option of a new file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opt {
    /// `key=value`.
    Value(String, String),
    /// `key`.
    Flag(String),
}

impl Opt {
    /// `key=value`.
    pub fn value(key: &str, value: impl ToString) -> Self {
        Self::Value(key.to_owned(), value.to_string())
    }

    /// A bare flag.
    #[must_use]
    pub fn flag(key: &str) -> Self {
        Self::Flag(key.to_owned())
    }
}

impl Detached {
    /// Takes over a mount that another process of ours made.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// A new file system of `kind`, shown in mount tables as coming from `source`.
    ///
    /// # Errors
    /// The errno of fsopen, fsconfig or fsmount, naming the option that was refused.
    pub fn new(kind: &str, source: &str, options: &[Opt], attrs: MountAttrFlags) -> Result<Self> {
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen", || kind)?;
        fsconfig_set_string(&fs, "source", source).call("fsconfig", || format!("{kind}, source={source}"))?;
        for option in options {
            match option {
                Opt::Value(key, value) => fsconfig_set_string(&fs, key, value)
                    .call("fsconfig", || format!("{kind}, {key}={value}"))?,
                Opt::Flag(key) => {
                    fsconfig_set_flag(&fs, key).call("fsconfig", || format!("{kind}, {key}"))?
                }
            }
        }
        fsconfig_create(&fs).call("fsconfig", || format!("{kind}, CREATE{}", log_of(&fs)))?;
        let fd = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).call("fsmount", || kind)?;
        Ok(Self(fd))
    }

    /// A copy of the tree mounted at `path`, as `mount --bind` (or `--rbind`) takes it.
    ///
    /// # Errors
    /// The errno of open_tree(2).
    pub fn copy_of(path: &Path, recursive: bool) -> Result<Self> {
        Self::copy_at(CWD, path, recursive)
    }

    /// The same, of a path below a directory.
    ///
    /// # Errors
    /// The errno of open_tree(2).
    pub fn copy_at(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<Self> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let fd = open_tree(dir, path, flags).call("open_tree", || format!("{}, CLONE", path.display()))?;
        // systemd makes all mounts of a host shared: what is mounted in the copy would show in the original.
        crate::raw::mount_private(fd.as_fd())?;
        Ok(Self(fd))
    }

    /// Maps the ids of this mount by a user namespace.
    ///
    /// # Errors
    /// The errno of mount_setattr(2).
    pub fn idmap(&self, userns: BorrowedFd<'_>) -> Result<()> {
        crate::raw::mount_idmap(self.as_fd(), userns)
    }

    /// Sets attributes of this mount.
    ///
    /// # Errors
    /// The errno of mount_setattr(2).
    pub fn set_attrs(&self, attrs: MountAttrFlags) -> Result<()> {
        crate::raw::mount_attrs(self.as_fd(), u64::from(attrs.bits()), 0)
    }

    /// A path that names this mount to calls that take no descriptor.
    #[must_use]
    pub fn proc_path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Attaches the mount at `path`.
    ///
    /// # Errors
    /// The errno of move_mount(2).
    pub fn attach(&self, path: &Path) -> Result<()> {
        self.attach_at(CWD, path)
    }

    /// Attaches the mount at a path below a directory.
    ///
    /// # Errors
    /// The errno of move_mount(2).
    pub fn attach_at(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
        move_mount(&self.0, "", dir, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .call("move_mount", || path.display().to_string())
    }
}

/// What the kernel says about a failed CREATE, when it says anything.
fn log_of(fs: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0_u8; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        if n == 0 {
            break;
        }
        text.push_str("; ");
        text.push_str(String::from_utf8_lossy(&buffer[..n]).trim());
    }
    text
}

/// Whether something is mounted on `path`: its device or mount id differs from its parent's.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts `path`; nothing mounted there is no error.
///
/// # Errors
/// The errno of umount2(2): `EBUSY` when something uses it.
pub fn umount(path: &Path) -> Result<()> {
    umount_with(path, UnmountFlags::NOFOLLOW)
}

/// Takes the tree at `path` out of sight at once; the kernel frees it when its last user is gone.
///
/// # Errors
/// The errno of umount2(2).
pub fn umount_lazy(path: &Path) -> Result<()> {
    umount_with(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

fn umount_with(path: &Path, flags: UnmountFlags) -> Result<()> {
    match unmount(path, flags) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(SysError::new("umount2", path.display(), errno)),
    }
}

/// Unmounts on drop, unless kept. The normal road is [`MountGuard::unmount`], which can fail aloud.
#[derive(Debug)]
pub struct MountGuard {
    path: Option<PathBuf>,
}

impl MountGuard {
    /// Guards what is mounted at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: Some(path.to_owned()) }
    }

    /// The mount stays.
    pub fn keep(mut self) {
        self.path = None;
    }

    /// Unmounts now.
    ///
    /// # Errors
    /// The errno of umount2(2).
    pub fn unmount(mut self) -> Result<()> {
        self.path.take().map_or(Ok(()), |path| umount_lazy(&path))
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = umount_lazy(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idmap::{IdRange, as_ve_root};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_guard_unmounts_what_it_guards() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Detached::new("tmpfs", "test", &[Opt::value("size", "64k")], QUIET).unwrap();
        fs.attach(dir.path()).unwrap();
        assert!(is_mount_point(dir.path()));
        drop(MountGuard::new(dir.path()));
        assert!(!is_mount_point(dir.path()));
    }

    #[test]
    fn an_idmapped_bind_shows_the_ve_ids_and_stores_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (private, root) = (dir.path().join("p"), dir.path().join("r"));
        std::fs::create_dir(&private).unwrap();
        std::fs::create_dir(&root).unwrap();
        let range = IdRange::at(3_000_000);
        let mount = Detached::copy_of(&private, false).unwrap();
        mount.idmap(range.user_namespace().unwrap().as_fd()).unwrap();
        mount.attach(&root).unwrap();
        let guard = MountGuard::new(&root);
        as_ve_root(Some(range), || std::fs::write(root.join("f"), "x").call("write", || "f")).unwrap();
        assert_eq!(std::fs::metadata(root.join("f")).unwrap().uid(), range.base);
        assert_eq!(std::fs::metadata(private.join("f")).unwrap().uid(), 0);
        guard.unmount().unwrap();
    }

    #[test]
    fn an_overlay_of_idmapped_layers_shows_the_ve_ids_and_stores_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (lower, up, root) = (at("lower"), at("up"), at("root"));
        std::fs::write(lower.join("old"), "1").unwrap();
        std::fs::create_dir(up.join("upper")).unwrap();
        std::fs::create_dir(up.join("work")).unwrap();
        let range = IdRange::at(3_000_000);
        let userns = range.user_namespace().unwrap();
        let low = Detached::copy_of(&lower, false).unwrap();
        low.idmap(userns.as_fd()).unwrap();
        let upm = Detached::copy_of(&up, false).unwrap();
        upm.idmap(userns.as_fd()).unwrap();
        let options = [
            Opt::value("lowerdir", low.proc_path()),
            Opt::value("upperdir", format!("{}/upper", upm.proc_path())),
            Opt::value("workdir", format!("{}/work", upm.proc_path())),
        ];
        let overlay = crate::apart::with_layers(&[&low, &upm], || {
            as_ve_root(Some(range), || Detached::new("overlay", "ve", &options, MountAttrFlags::empty()))
        })
        .unwrap();
        overlay.attach(&root).unwrap();
        let guard = MountGuard::new(&root);
        assert_eq!(std::fs::metadata(root.join("old")).unwrap().uid(), range.base);
        as_ve_root(Some(range), || {
            std::fs::write(root.join("new"), "x").call("write", || "new")?;
            std::fs::write(root.join("old"), "22").call("write", || "old")?;
            std::fs::create_dir(root.join("d")).call("mkdir", || "d")?;
            std::fs::remove_dir(root.join("d")).call("rmdir", || "d")
        })
        .unwrap();
        assert_eq!(std::fs::metadata(up.join("upper/new")).unwrap().uid(), 0);
        assert_eq!(std::fs::metadata(up.join("upper/old")).unwrap().uid(), 0);
        as_ve_root(Some(range), || std::fs::remove_file(root.join("old")).call("unlink", || "old")).unwrap();
        guard.unmount().unwrap();
    }
}
