//! The VE's mount tree. Runs in the child, inside all its namespaces, as root of the VE.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::init::Trees;
use super::{CgroupView, LaunchPlan, RunFile, RunFileKind, views};
use crate::error::{Call, Result, SysError};
use crate::mount::{Detached, Opt, QUIET};

/// Changes the root to the VE's and mounts what a guest expects to find.
///
/// Everything is put in place *after* the change of root and after the host's tree is gone: a symbolic link
/// in the template then leads nowhere but into the VE.
pub(super) fn furnish(plan: &LaunchPlan, trees: Trees<'_>) -> Result<()> {
    // Made first: the kernel allows a new procfs and sysfs in a user namespace only while a fully visible
    // one is mounted, as the host's are.
    let proc = Detached::new("proc", "proc", &[], QUIET)?;
    let sys = Detached::new("sysfs", "sysfs", &[], QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    change_root(trees.root)?;
    put(proc, "/proc")?;
    put(sys, "/sys")?;
    mount_point("/dev")?;
    trees.dev.attach(Path::new("/dev"))?;
    mount_rest(plan)?;
    trees.views.map_or(Ok(()), |views| views::put(&plan.views, views))
}

/// `root` was copied on the host's side: the VE's ids need no way to where it is mounted there, and a
/// copy is not locked as the mounts are that came with the namespace, so it can become the root.
fn change_root(root: &Detached) -> Result<()> {
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", private).call("mount", || "/, MS_REC|MS_SLAVE")?;
    // Any place that is always there will do: it is seen by nobody, and for a moment only.
    root.attach(Path::new("/dev"))?;
    fchdir(root).call("fchdir", || "the root of the VE")?;
    // The old root comes to lie upon the new one, which is where we are.
    pivot_root(".", ".").call("pivot_root", || "the root of the VE")?;
    unmount(".", UnmountFlags::DETACH).call("umount2", || "the host's root")?;
    chdir("/").call("chdir", || "/")
}

fn mount_rest(plan: &LaunchPlan) -> Result<()> {
    let nosuid_nodev = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    cgroups(plan.cgroup_view)?;
    let pts = [Opt::value("mode", "0620"), Opt::value("ptmxmode", "0666"), Opt::value("gid", 5)];
    let nosuid_noexec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    put(Detached::new("devpts", "devpts", &pts, nosuid_noexec)?, "/dev/pts")?;
    put(Detached::new("tmpfs", "tmpfs", &[Opt::value("mode", "1777")], nosuid_nodev)?, "/dev/shm")?;
    put(Detached::new("mqueue", "mqueue", &[], QUIET)?, "/dev/mqueue")?;
    put(Detached::new("tmpfs", "tmpfs", &[Opt::value("mode", "0755")], nosuid_nodev)?, "/run")?;
    for file in &plan.run_files {
        write_run_file(file)?;
    }
    for path in &plan.read_only {
        read_only(path)?;
    }
    for path in &plan.masked {
        mask(path)?;
    }
    Ok(())
}

pub(super) fn mount_point(path: &str) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(SysError::from_io("mkdir", path, &error))
        }
        _ => Ok(()),
    }
}

fn put(mount: Detached, path: &str) -> Result<()> {
    mount_point(path)?;
    mount.attach(Path::new(path))
}

fn cgroups(view: CgroupView) -> Result<()> {
    match view {
        CgroupView::Unified => {
            Detached::new("cgroup2", "cgroup2", &[], QUIET)?.attach(Path::new("/sys/fs/cgroup"))
        }
        CgroupView::Named => {
            let options = [Opt::value("mode", "0755")];
            Detached::new("tmpfs", "tmpfs", &options, QUIET)?.attach(Path::new("/sys/fs/cgroup"))?;
            let options = [Opt::flag("none"), Opt::value("name", "systemd")];
            put(Detached::new("cgroup", "cgroup", &options, QUIET)?, "/sys/fs/cgroup/systemd")
        }
    }
}

fn write_run_file(file: &RunFile) -> Result<()> {
    let path = Path::new("/run").join(&file.path);
    let name = || path.display().to_string();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).call("mkdir", name)?;
    }
    let mode = match file.kind {
        RunFileKind::Link => return symlink(&file.content, &path).call("symlink", name),
        RunFileKind::Plain => 0o644,
        RunFileKind::Executable => 0o755,
    };
    fs::write(&path, &file.content).call("write", name)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).call("chmod", name)
}

/// A path that this kernel does not have needs no protection.
fn copy_if_there(path: &Path) -> Result<Option<Detached>> {
    match Detached::copy_of(path, false) {
        Ok(mount) => Ok(Some(mount)),
        Err(error) if error.errno() == Errno::NOENT => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_only(path: &Path) -> Result<()> {
    let Some(mount) = copy_if_there(path)? else { return Ok(()) };
    mount.set_attrs(MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    mount.attach(path)
}

fn mask(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => {
            let options = [Opt::value("mode", "0555"), Opt::value("nr_inodes", 1)];
            let attrs = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
            Detached::new("tmpfs", "tmpfs", &options, attrs)?.attach(path)
        }
        Ok(_) => Detached::copy_of(Path::new("/dev/null"), false)?.attach(path),
    }
}

/// Opens init's three standard files, inside.
pub(super) fn stdio() -> Result<()> {
    let console =
        open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).call("open", || "/dev/console")?;
    for number in 0..3 {
        crate::raw::dup_onto(console.as_fd(), number)?;
    }
    Ok(())
}
