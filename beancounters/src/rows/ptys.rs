//! Pseudo-terminals of a VE.
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};
use vzsys::idmap::{self, IdRange};
use vzsys::{Call, SysError};

/// How many the instance has that is mounted on the VE's `/dev/pts`; `None` when there is none.
pub(crate) fn count(init: i32) -> Option<u64> {
    let (pts, _) = instance(init)?;
    let directory =
        rustix::fs::openat(&pts, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let entries = Dir::read_from(directory.ok()?).ok()?;
    let number = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
    Some(entries.filter_map(Result::ok).filter(|entry| number(entry.file_name().to_bytes())).count() as u64)
}

/// Sets how many there may be; `false` when the VE has no instance on its `/dev/pts`. Those that are open stay.
///
/// # Errors
/// The errno of fspick(2) or fsconfig(2).
pub(crate) fn limit(init: i32, most: u64) -> Result<bool, SysError> {
    let Some((pts, options)) = instance(init) else { return Ok(false) };
    let what = || format!("/dev/pts, max={most}");
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(&pts, "", flags).call("fspick", what)?;
    // Options that are not given fall back to the kernel's defaults: all are said again. The ids among them are the
    // host's, as mountinfo has them.
    for option in options.split(',') {
        let Some((key, value)) = option.split_once('=').filter(|(key, _)| *key != "max") else { continue };
        fsconfig_set_string(&context, key, value).call("fsconfig", || format!("/dev/pts, {option}"))?;
    }
    fsconfig_set_string(&context, "max", most.to_string()).call("fsconfig", what)?;
    fsconfig_reconfigure(&context).call("fsconfig", what)?;
    Ok(true)
}

/// `/dev/pts` in the root of this process, if it is a devpts, with its options.
fn instance(init: i32) -> Option<(OwnedFd, String)> {
    let root = format!("/proc/{init}/root");
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, path, Mode::empty()).ok()?;
    // Both are mount points, so the kernel has them at hand; a file system of the VE's that would have to be asked,
    // and may never answer, is not asked. Who owns the directories may pass them without their ACLs, which would have
    // to be read.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
    let lookup = || {
        let pts = rustix::fs::openat2(&root, "dev/pts", path, Mode::empty(), resolve);
        pts.call("openat2", || "dev/pts, CACHED")
    };
    let pts = idmap::as_ve_root(owner(init), lookup).ok()?;
    let options = devpts_options(init, &pts)?;
    Some((pts, options))
}

/// The ids of the VE; `None` for a privileged one.
fn owner(init: i32) -> Option<IdRange> {
    let map = fs::read_to_string(format!("/proc/{init}/uid_map")).ok()?;
    let base = map.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (base != 0).then(|| IdRange::at(base))
}

/// By the list of mounts: statfs(2) would ask the file system.
fn devpts_options(init: i32, mount: &OwnedFd) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", mount.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read(format!("/proc/{init}/mountinfo")).ok()?;
    let mounts = String::from_utf8_lossy(&mounts);
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    let (_, rest) = line.split_once(" - ")?;
    let mut words = rest.split(' ');
    (words.next()? == "devpts").then(|| words.nth(1).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_terminal_counts_until_it_is_closed() {
        let me = i32::try_from(std::process::id()).unwrap();
        let open = || {
            let master =
                rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
            rustix::pty::unlockpt(master.as_ref().unwrap()).unwrap();
            master.unwrap()
        };
        // Other tests open terminals too: a few more than any of them.
        let held: Vec<_> = (0..20).map(|_| open()).collect();
        assert!(count(me).unwrap() >= held.len() as u64);
        assert_eq!(count(i32::MAX), None);
    }
}
