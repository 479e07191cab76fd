//! Templates of Debian and its kin, through mmdebstrap.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use vzsys::{Call, SysError};

use super::import::pack;
use super::inspect::{assigned, inspect};
use super::recipe::{Init, Recipe};
use super::sources::{self, Source};
use super::{BuildError, Event, Maker, Replace};
use crate::archive::Pack;
use crate::cache::{Cache, Metadata, Template};

/// Units that find nothing to work on in a container, or fail there.
const MASKED: &[&str] = &[
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-modules-load.service",
    "kmod-static-nodes.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-remount-fs.service",
];

/// Init scripts for hardware and file systems that a container does not have.
const DISABLED: &str =
    "hwclock.sh checkroot.sh checkroot-bootclean.sh checkfs.sh mountdevsubfs.sh hwclock umountroot";

/// Makes host keys before the server wants them: a template has none.
const HOST_KEYS: &str = "[Unit]\nDescription=Generate SSH host keys\nBefore=ssh.service ssh.socket\n\
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n\
RemainAfterExit=yes\n\n[Install]\nWantedBy=multi-user.target ssh.service\n";

/// `vzctl set CTID --userpasswd root:…` is how people get in.
const SSHD: &str =
    "# The template's root has no password until one is set from outside.\nPermitRootLogin yes\n";

/// Builds a template of Debian's kind. Takes a minute or two, and an archive that can be reached.
///
/// # Errors
/// [`BuildError`].
pub fn debian(
    cache: &Cache,
    name: &str,
    recipe: &Recipe,
    replace: Replace,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<Template, BuildError> {
    let maker = Maker::new(cache, name, replace)?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let host = (assigned(&release, "ID"), assigned(&release, "VERSION_CODENAME"));
    let chosen =
        sources::choose(recipe, &sources::of_host(Path::new("/etc/apt")), (&host.0, &host.1), keyring)?;
    let tree = maker.work.path().join("tree");
    bootstrap(recipe, &chosen, &tree, say)?;
    let mirrors = mirrors(&chosen);
    let origin = format!("mmdebstrap {} ({}) from {mirrors}", recipe.suite, recipe.variant);
    let metadata = Metadata { origin, ..inspect(&tree, Path::new(name))? };
    pack(maker, Pack::new().hollow(&["dev", "proc", "sys", "run", "tmp"]), &tree, metadata, say)
}

fn keyring(distribution: &str) -> Option<String> {
    let path = format!("/usr/share/keyrings/{distribution}-archive-keyring.gpg");
    Path::new(&path).exists().then_some(path)
}

fn mirrors(sources: &[Source]) -> String {
    let mut list: Vec<&str> = sources.iter().map(|source| source.uri.as_str()).collect();
    list.dedup();
    list.join(", ")
}

fn bootstrap(
    recipe: &Recipe,
    sources: &[Source],
    tree: &Path,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<(), BuildError> {
    let missing = |_| BuildError::NoProgram { program: "mmdebstrap", package: "mmdebstrap" };
    let mut command = vzsys::spawn::command("mmdebstrap").map_err(missing)?;
    for name in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("LC_ALL", "C.UTF-8").env("TMPDIR", tree.parent().unwrap_or(tree));
    command.args(["--mode=root", "--format=directory"]);
    command.arg(format!("--variant={}", recipe.variant));
    command.arg(format!("--architectures={}", recipe.arch));
    if recipe.arch == "i386" && std::env::consts::ARCH == "x86_64" {
        // The kernel runs it as it is; the check asks for a program that few have.
        command.arg("--skip=check/qemu");
    }
    command.arg(format!("--include={}", recipe.packages().join(",")));
    for option in [
        "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/doc/*",
        "path-include=/usr/share/doc/*/copyright",
        "path-exclude=/usr/share/locale/*",
    ] {
        command.arg(format!("--dpkgopt={option}"));
    }
    for setting in apt_settings() {
        command.arg(format!("--aptopt={setting}"));
    }
    for hook in hooks(recipe) {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.arg(&recipe.suite).arg(tree).args(sources.iter().map(Source::line));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    run(command, &mirrors(sources), say)
}

fn apt_settings() -> Vec<String> {
    let dump = || {
        let mut command = vzsys::spawn::command("apt-config")?;
        command.arg("dump");
        vzsys::spawn::feed(command, b"")
    };
    dump().map(|(_, out, _)| sources::settings(&out)).unwrap_or_default()
}

/// Runs the builder, tells its lines, and makes sense of its failure.
fn run(
    mut command: std::process::Command,
    mirrors: &str,
    say: &mut dyn FnMut(Event<'_>),
) -> Result<(), BuildError> {
    let mut child = command.spawn().call("execve", || "mmdebstrap")?;
    let mut lines = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.map_err(|error| SysError::from_io("read", "mmdebstrap", &error))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            say(Event::Line(&line));
            lines.push(line);
        }
    }
    let status = child.wait().call("waitpid", || "mmdebstrap")?;
    if status.success() { Ok(()) } else { Err(diagnose(&lines, mirrors)) }
}

fn diagnose(lines: &[String], mirrors: &str) -> BuildError {
    const NETWORK: [&str; 8] = [
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Unable to connect",
        "Connection failed",
        "Connection timed out",
        "Failed to fetch",
        "does not have a Release file",
    ];
    let own = |line: &String| (mirrors.to_owned(), line.trim().to_owned());
    let torn =
        lines.iter().find(|line| line.contains("unexpected size") || line.contains("Hash Sum mismatch"));
    if let Some((mirrors, reason)) = torn.map(own) {
        return BuildError::Inconsistent { mirrors, reason };
    }
    let network = lines.iter().find(|line| NETWORK.iter().any(|words| line.contains(words)));
    if let Some((mirrors, reason)) = network.map(own) {
        return BuildError::Unreachable { mirrors, reason };
    }
    let telling = lines.iter().rev().filter(|line| line.starts_with("E: ") || line.contains("rror"));
    let mut reason: Vec<&str> = telling.take(5).map(|line| line.trim()).collect();
    if reason.is_empty() {
        reason.extend(lines.iter().rev().take(3).map(String::as_str));
    }
    reason.reverse();
    BuildError::Failed { program: "mmdebstrap", reason: reason.join("; ") }
}

/// Shell lines for mmdebstrap, with the tree as `$1`. They run on the host, in a tree that only packages have
/// written.
fn hooks(recipe: &Recipe) -> Vec<String> {
    let mut hooks = vec![
        // Nothing of the host, nothing that two containers must not share.
        "rm -f \"$1\"/etc/ssh/ssh_host_*".to_owned(),
        ": >\"$1/etc/machine-id\"; rm -f \"$1/var/lib/dbus/machine-id\" \"$1/var/lib/systemd/random-seed\"".to_owned(),
        "echo localhost >\"$1/etc/hostname\"; rm -f \"$1/etc/resolv.conf\"; : >\"$1/etc/resolv.conf\"".to_owned(),
        "printf '127.0.0.1\\tlocalhost\\n::1\\tlocalhost ip6-localhost ip6-loopback\\n' >\"$1/etc/hosts\"".to_owned(),
        "rm -f \"$1/etc/apt/apt.conf.d/99mmdebstrap\" \"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap\"".to_owned(),
        "mkdir -p \"$1/etc/default\"; echo LANG=C.UTF-8 >\"$1/etc/default/locale\"".to_owned(),
        "sed -i 's/^root:[^:]*:/root:*:/' \"$1/etc/shadow\"".to_owned(),
        "mkdir -p \"$1/etc/ssh/sshd_config.d\"; cat >\"$1/etc/ssh/sshd_config.d/vz.conf\" <<'END'\n".to_owned() + SSHD + "END",
        "find \"$1/var/log\" -type f -delete; rm -rf \"$1\"/var/cache/apt/*.bin \"$1\"/var/cache/debconf/*-old".to_owned(),
    ];
    if apt_settings().iter().any(|setting| setting.starts_with("Acquire::Check-Valid-Until \"false\"")) {
        hooks.push(
            "echo 'Acquire::Check-Valid-Until \"false\";' >\"$1/etc/apt/apt.conf.d/90valid-until\""
                .to_owned(),
        );
    }
    match recipe.init {
        Init::Systemd => hooks.extend(systemd_hooks()),
        Init::Sysvinit => {
            hooks.push(format!(
                "for s in {DISABLED}; do [ ! -e \"$1/etc/init.d/$s\" ] || chroot \"$1\" update-rc.d -f \"$s\" disable || :; done"
            ));
        }
        Init::Openrc => {
            hooks.push(format!("for s in {DISABLED}; do rm -f \"$1\"/etc/runlevels/*/\"$s\"; done"));
            hooks.push("sed -i 's/^#*rc_sys=.*/rc_sys=\"lxc\"/' \"$1/etc/rc.conf\"".to_owned());
        }
    }
    hooks
}

fn systemd_hooks() -> Vec<String> {
    let unit = "$1/etc/systemd/system";
    vec![
        format!("for u in {}; do ln -sf /dev/null \"{unit}/$u\"; done", MASKED.join(" ")),
        format!("cat >\"{unit}/ssh-host-keys.service\" <<'END'\n{HOST_KEYS}END"),
        format!(
            "for w in multi-user.target ssh.service; do mkdir -p \"{unit}/$w.wants\"; ln -sf ../ssh-host-keys.service \"{unit}/$w.wants/\"; done"
        ),
        "ln -sf /lib/systemd/system/multi-user.target \"$1/etc/systemd/system/default.target\"".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_archive_is_told_with_what_to_check() {
        let lines = [
            "I: running apt-get update...",
            "W: Failed to fetch http://x/ Could not resolve 'x'",
            "E: apt-get update failed",
        ];
        let error = diagnose(&lines.map(str::to_owned), "http://x/");
        assert!(error.to_string().starts_with("cannot fetch packages from http://x/: "));
        assert!(error.to_string().contains("--mirror"));
    }

    #[test]
    fn a_torn_archive_is_not_blamed_on_the_network() {
        let line =
            "E: Failed to fetch http://x/P.xz  File has unexpected size (1 != 2). Mirror sync in progress?";
        let error = diagnose(&[line.to_owned()], "http://x/");
        assert!(matches!(error, BuildError::Inconsistent { .. }));
        assert!(!error.to_string().contains("proxy"));
    }

    #[test]
    fn other_failures_tell_the_builders_last_errors() {
        let error = diagnose(&["I: a".to_owned(), "E: no such package".to_owned()], "m");
        assert_eq!(error.to_string(), "mmdebstrap failed: E: no such package");
    }
}
