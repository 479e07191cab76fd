//! What a root tree is: its distribution, its packages, its init, its machine.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use crate::archive::open_beneath;
use crate::cache::{CacheError, Metadata};

/// Package databases are a few MiB; nothing here is larger.
const MOST: u64 = 64 << 20;

/// Fills in what the tree at `root` tells; `what` is named in the error when it is no root tree at all.
///
/// # Errors
/// [`CacheError::NotARoot`] (exit 47) without an init or a shell.
pub(super) fn inspect(root: &Path, what: &Path) -> Result<Metadata, CacheError> {
    let missing = |missing| CacheError::NotARoot { what: what.to_owned(), missing };
    if !["sbin/init", "etc/init", "bin/init"].iter().any(|path| exists(root, path)) {
        return Err(missing("/sbin/init"));
    }
    if !exists(root, "bin/sh") {
        return Err(missing("/bin/sh"));
    }
    Ok(describe(root))
}

/// The same of a tree that may lack them.
pub(crate) fn describe(root: &Path) -> Metadata {
    let release =
        read(root, "etc/os-release").or_else(|| read(root, "usr/lib/os-release")).unwrap_or_default();
    let arch = ["bin/sh", "usr/bin/env", "sbin/init"].iter().find_map(|path| machine(&head(root, path)?));
    Metadata {
        distribution: assigned(&release, "ID"),
        version: assigned(&release, "VERSION_ID"),
        arch: arch.unwrap_or_default().to_owned(),
        init: init(root).to_owned(),
        packages: packages(root),
        ..Metadata::default()
    }
}

/// The kind of init, as far as files tell.
fn init(root: &Path) -> &'static str {
    let path = ["sbin/init", "etc/init", "bin/init"].into_iter().find(|path| exists(root, path));
    let target = path.and_then(|path| target(root, path)).unwrap_or_default();
    let name = target.rsplit('/').next().unwrap_or_default();
    if name == "systemd" {
        "systemd"
    } else if exists(root, "sbin/openrc") || name == "openrc-init" {
        "openrc"
    } else if name.starts_with("busybox") {
        "busybox"
    } else if exists(root, "etc/inittab") {
        "sysvinit"
    } else {
        ""
    }
}

/// Where a path leads to in the end.
fn target(root: &Path, path: &str) -> Option<String> {
    let fd = open(root, path)?;
    let link =
        rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)), Vec::new());
    link.ok().map(|path| path.to_string_lossy().into_owned())
}

fn open(root: &Path, path: &str) -> Option<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), how).ok()
}

fn exists(root: &Path, path: &str) -> bool {
    let stat = open(root, path).and_then(|fd| rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).ok());
    stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

fn read(root: &Path, path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    open_beneath(root, Path::new(path)).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn head(root: &Path, path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    open_beneath(root, Path::new(path)).ok()?.take(64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A value of os-release(5).
pub(super) fn assigned(text: &str, key: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

/// `name version` of what dpkg or apk installed.
fn packages(root: &Path) -> Vec<String> {
    let mut list = match (read(root, "var/lib/dpkg/status"), read(root, "lib/apk/db/installed")) {
        (Some(text), _) => stanzas(&text, "Package: ", "Version: ", Some("Status: install ok installed")),
        (None, Some(text)) => stanzas(&text, "P:", "V:", None),
        (None, None) => Vec::new(),
    };
    list.sort_unstable();
    list
}

fn stanzas(text: &str, name: &str, version: &str, must: Option<&str>) -> Vec<String> {
    text.split("\n\n")
        .filter(|stanza| must.is_none_or(|must| stanza.lines().any(|line| line == must)))
        .filter_map(|stanza| {
            let value = |key| stanza.lines().find_map(|line| line.strip_prefix(key));
            Some(format!("{} {}", value(name)?, value(version)?))
        })
        .collect()
}

/// The machine an ELF program is for.
pub(crate) fn machine(program: &[u8]) -> Option<&'static str> {
    if program.get(..4) != Some(b"\x7fELF") {
        return None;
    }
    match program.get(18..20)? {
        [0x3e, 0] => Some("x86_64"),
        [3, 0] => Some("i386"),
        [0xb7, 0] => Some("aarch64"),
        [0x28, 0] => Some("arm"),
        [0xf3, 0] => Some("riscv64"),
        _ => None,
    }
}

/// Whether an ELF program asks for no interpreter.
pub(crate) fn is_static(program: &[u8]) -> bool {
    let word = |at: usize, size: usize| -> Option<usize> {
        let bytes = program.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let headers = || {
        machine(program)?;
        let wide = *program.get(4)? == 2;
        let (table, size, count) = if wide {
            (word(32, 8)?, word(54, 2)?, word(56, 2)?)
        } else {
            (word(28, 4)?, word(42, 2)?, word(44, 2)?)
        };
        // 3: the segment that names an interpreter.
        Some((0..count).all(|i| word(table.saturating_add(i * size), 4).is_some_and(|kind| kind != 3)))
    };
    headers().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_of_both_package_managers() {
        let dpkg = "Package: a\nStatus: install ok installed\nVersion: 1-2\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 3\n";
        assert_eq!(stanzas(dpkg, "Package: ", "Version: ", Some("Status: install ok installed")), ["a 1-2"]);
        assert_eq!(stanzas("C:x\nP:musl\nV:1.2\n\nP:y\nV:2", "P:", "V:", None), ["musl 1.2", "y 2"]);
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        assert_eq!(assigned("VERSION_ID=\"12\"\nID=debian\n", "ID"), "debian");
        assert_eq!(assigned("VERSION_ID=\"12\"\nID=debian\n", "VERSION_ID"), "12");
        assert_eq!(assigned("", "ID"), "");
    }

    #[test]
    fn programs_tell_machine_and_linkage() {
        let tar = std::fs::read("/usr/bin/tar").unwrap();
        assert!(machine(&tar).is_some() && !is_static(&tar));
        assert!(is_static(&std::fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh") && !is_static(b"\x7fELF"));
    }

    #[test]
    fn a_tree_without_init_is_no_template() {
        let dir = tempfile::tempdir().unwrap();
        let error = inspect(dir.path(), Path::new("x.tar")).unwrap_err();
        assert_eq!(error.exit(), vzconf::Exit::FsBadTmpl);
        assert!(error.to_string().starts_with("x.tar has no /sbin/init"));
    }
}
