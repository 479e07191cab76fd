//! Pseudo-terminals of a VE.
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};

/// How many the instance has that is mounted on the VE's `/dev/pts`; `None` when there is none.
pub(super) fn count(init: i32) -> Option<u64> {
    let pts = instance(init)?;
    let directory =
        rustix::fs::openat(&pts, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let entries = Dir::read_from(directory.ok()?).ok()?;
    let number = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
    Some(entries.filter_map(Result::ok).filter(|entry| number(entry.file_name().to_bytes())).count() as u64)
}

/// `/dev/pts` in the root of this process, if it is a devpts.
fn instance(init: i32) -> Option<OwnedFd> {
    let root = format!("/proc/{init}/root");
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, path, Mode::empty()).ok()?;
    // Both are mount points, so the kernel has them at hand; a file system of the VE's that would have to be asked,
    // and may never answer, is not asked.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
    let pts = rustix::fs::openat2(&root, "dev/pts", path, Mode::empty(), resolve).ok()?;
    is_devpts(init, &pts).then_some(pts)
}

/// By the list of mounts: statfs(2) would ask the file system.
fn is_devpts(init: i32, mount: &OwnedFd) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", mount.as_raw_fd())).unwrap_or_default();
    let Some(id) = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim) else {
        return false;
    };
    let mounts = fs::read(format!("/proc/{init}/mountinfo")).unwrap_or_default();
    String::from_utf8_lossy(&mounts).lines().any(|line| {
        line.split(' ').next() == Some(id)
            && line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("devpts "))
    })
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
