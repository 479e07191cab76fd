//! Which init a guest boots with, and how that is told to end.

use vzsys::launch::{ImageCommand, OWN_COMMAND, OWN_INIT};

use super::root::GuestRoot;

/// The programs that may be init, in the order that they are tried: ours is there only where it was put because the
/// system's own is not meant.
pub const INITS: [&str; 4] = [OWN_INIT, "/sbin/init", "/etc/init", "/bin/init"];

/// Signal numbers as seen by the kernel: the first real-time signal that glibc leaves free is 34.
const SIGRTMIN: i32 = 34;
const SIGUSR2: i32 = 12;

/// A guest's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitKind {
    /// systemd, with its version where that can be seen.
    Systemd {
        /// Such as 252.
        version: Option<u32>,
    },
    /// System V init: `/etc/inittab` and runlevels.
    Sysvinit,
    /// OpenRC's own init.
    Openrc,
    /// busybox init, with OpenRC on top (Alpine) or plain.
    Busybox,
    /// Ubuntu's upstart (up to 14.10, CentOS 6).
    Upstart,
    /// Ours, which runs the command of an image.
    Command {
        /// The signal that it, or the command in its place, ends by.
        stop: i32,
    },
    /// Something else.
    Unknown,
}

/// How to end a guest cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Send this signal to its init, from outside.
    Signal(i32),
    /// Run this inside, as root.
    Run(&'static [&'static str]),
}

impl InitKind {
    /// How to end a guest with this init cleanly.
    #[must_use]
    pub fn stop(self) -> Stop {
        match self {
            // halt.target; older than any systemd that runs in a container.
            Self::Systemd { .. } => Stop::Signal(SIGRTMIN + 3),
            Self::Busybox => Stop::Signal(SIGUSR2),
            Self::Command { stop } => Stop::Signal(stop),
            Self::Openrc => Stop::Run(&["/sbin/openrc-shutdown", "--poweroff", "now"]),
            // SIGPWR does what the guest's inittab says about power failures, which is often nothing.
            Self::Sysvinit | Self::Upstart | Self::Unknown => Stop::Run(&["/sbin/halt"]),
        }
    }

    /// Whether init is systemd, of any version.
    #[must_use]
    pub fn is_systemd(self) -> bool {
        matches!(self, Self::Systemd { .. })
    }
}

/// Looks at the guest's files.
pub(super) fn detect(root: &GuestRoot) -> InitKind {
    let path = INITS.iter().find(|path| root.exists(path));
    if path == Some(&OWN_INIT) {
        return InitKind::Command { stop: stop_of_command(root) };
    }
    let target = path.and_then(|path| root.final_path(path)).unwrap_or_default();
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.as_str() {
        "systemd" => return InitKind::Systemd { version: systemd_version(root) },
        "busybox" | "busybox.static" => return InitKind::Busybox,
        "openrc-init" => return InitKind::Openrc,
        "upstart" => return InitKind::Upstart,
        _ => {}
    }
    // /sbin/init is the program itself.
    if root.is_dir("/etc/init") && (root.exists("/sbin/initctl") || root.exists("/etc/init/rc-sysinit.conf"))
    {
        InitKind::Upstart
    } else if root.is_file("/etc/inittab") {
        InitKind::Sysvinit
    } else if root.exists("/lib/systemd/systemd") || root.exists("/usr/lib/systemd/systemd") {
        InitKind::Systemd { version: systemd_version(root) }
    } else if root.exists("/sbin/openrc") {
        InitKind::Openrc
    } else {
        InitKind::Unknown
    }
}

fn stop_of_command(root: &GuestRoot) -> i32 {
    let command: ImageCommand = serde_json::from_str(&root.text(OWN_COMMAND)).unwrap_or_default();
    // Our own init passes on what the command wants.
    if command.as_init { command.stop_number() } else { ImageCommand::default().stop_number() }
}

/// Directories with `libsystemd-shared-VERSION.so`.
const SHARED: [&str; 6] = [
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/lib/x86_64-linux-gnu/systemd",
    "/lib/x86_64-linux-gnu/systemd",
    "/usr/lib/i386-linux-gnu/systemd",
    "/usr/lib64/systemd",
];

fn systemd_version(root: &GuestRoot) -> Option<u32> {
    let names = SHARED.iter().flat_map(|dir| root.list(dir));
    names.filter_map(|name| version_of(name.strip_prefix("libsystemd-shared-")?)).max()
}

/// `252.so`, `252.22-1.fc37.so`, `257-1.so`.
fn version_of(rest: &str) -> Option<u32> {
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Whether the guest's init is a 32-bit program. One without an init counts as 64-bit.
pub(crate) fn is_32bit(root: &GuestRoot) -> bool {
    // Ours tells nothing of the system.
    let programs = INITS[1..].iter().chain(&["/bin/sh", "/usr/bin/env"]);
    let head = programs.into_iter().find_map(|path| root.head::<5>(path));
    // EI_CLASS is the byte after the magic number.
    head.is_some_and(|head| head.as_slice() == b"\x7fELF\x01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_systemd() {
        for (rest, version) in
            [("252.so", Some(252)), ("257.9-1.so", Some(257)), ("239.so", Some(239)), ("x.so", None)]
        {
            assert_eq!(version_of(rest), version, "{rest}");
        }
    }

    #[test]
    fn systemd_and_busybox_end_by_a_signal() {
        assert_eq!(InitKind::Systemd { version: None }.stop(), Stop::Signal(37));
        assert_eq!(InitKind::Busybox.stop(), Stop::Signal(12));
        assert_eq!(InitKind::Sysvinit.stop(), Stop::Run(&["/sbin/halt"]));
    }
}
