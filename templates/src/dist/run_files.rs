//! Files for the VE's fresh `/run`, before init: they make systemd fit without a trace on disk.

use std::path::PathBuf;

use vzsys::launch::{RunFile, RunFileKind};

use super::family::Family;
use super::guest::Guest;
use super::init::InitKind;

/// Comes to exist in the guest when it has reached its default target or runlevel. `/run` is fresh at
/// each start, so a mark of the last boot is never seen.
pub const READY_MARK: &str = "/run/.vzready";

const UNITS: &str = "systemd/system";

/// Mounts that a user namespace refuses or that a live migration cannot carry, and services for
/// machines that fail without the machine.
const MASKED: &[&str] = &[
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "systemd-binfmt.service",
    "systemd-journald-audit.socket",
    "systemd-remount-fs.service",
    "systemd-modules-load.service",
    "systemd-udev-settle.service",
    "auditd.service",
    "kdump.service",
    "kdump-tools.service",
    "mcelog.service",
];

/// They wait up to two minutes for an interface that is configured from the start or does not exist.
const WAITING: &[&str] = &[
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
];

impl Guest {
    /// Whether the guest makes [`READY_MARK`].
    #[must_use]
    pub fn tells_ready(&self) -> bool {
        self.init != InitKind::Unknown
    }
}

/// The files for `/run`; none for a guest without systemd. `nics` are the VE's interfaces besides `venet0`.
#[must_use]
pub fn run_files(guest: &Guest, nics: &[String]) -> Vec<RunFile> {
    let InitKind::Systemd { version } = guest.init else { return Vec::new() };
    let mut files = vec![
        plain("service.d/50-vz.conf", service_defaults(version)),
        plain("vz-ready.service", ready_unit()),
        link("default.target.wants/vz-ready.service", "../vz-ready.service"),
    ];
    let waiting = if nics.is_empty() { WAITING } else { &[] };
    files.extend(MASKED.iter().chain(waiting).map(|unit| link(unit, "/dev/null")));
    if guest.ssh_server && matches!(guest.family, Family::Debian | Family::Unknown) {
        files.push(plain("vz-ssh-keys.service", SSH_KEYS.to_owned()));
        files.push(link("multi-user.target.wants/vz-ssh-keys.service", "../vz-ssh-keys.service"));
    }
    files
}

fn plain(name: &str, content: String) -> RunFile {
    RunFile { path: PathBuf::from(UNITS).join(name), content, kind: RunFileKind::Plain }
}

fn link(name: &str, target: &str) -> RunFile {
    RunFile { path: PathBuf::from(UNITS).join(name), content: target.to_owned(), kind: RunFileKind::Link }
}

/// Settings for every service. Namespaces below the VE's own cannot be checkpointed (and are refused
/// by seccomp); credentials are mounts that cannot either, nor can single files of cgroups that are made writable in a
/// service's own tree. Each since the version of systemd beside
/// it: an older one would complain about every unit.
const DEFAULTS: &[(u32, &str)] = &[
    (232, "PrivateUsers=no"),
    (242, "ProtectHostname=no"),
    (248, "PrivateIPC=no"),
    (247, "LoadCredential="),
    (254, "ImportCredential="),
    (254, "MemoryPressureWatch=off"),
    (257, "PrivatePIDs=no"),
];

fn service_defaults(version: Option<u32>) -> String {
    let mut text = "[Service]\n".to_owned();
    for (since, line) in DEFAULTS {
        if version.is_some_and(|version| version >= *since) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn ready_unit() -> String {
    format!(
        "[Unit]\nDescription=Tell the host that the container is up\nDefaultDependencies=no\n\
         After=default.target\nConflicts=shutdown.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/touch {READY_MARK}\n"
    )
}

/// Debian makes host keys when the package is installed, not at boot.
const SSH_KEYS: &str = "[Unit]\nDescription=SSH host keys of this container\n\
    Before=ssh.service sshd.service ssh.socket\nConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key\n\
    ConditionFileIsExecutable=/usr/bin/ssh-keygen\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/bin/ssh-keygen -A\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_version_knows() {
        assert_eq!(service_defaults(Some(219)), "[Service]\n");
        assert_eq!(service_defaults(None), "[Service]\n");
        let bookworm = service_defaults(Some(252));
        assert!(
            bookworm.contains("ProtectHostname=no\n")
                && !bookworm.contains("ImportCredential")
                && !bookworm.contains("MemoryPressure"),
            "{bookworm}"
        );
        assert!(service_defaults(Some(257)).contains("MemoryPressureWatch=off\nPrivatePIDs=no"));
    }
}
