//! What a guest's own files need before it boots in a VE. For systemd most of it is in `run_files`,
//! which leaves the disk alone.

use super::error::DistError;
use super::family::Family;
use super::guest::Guest;
use super::init::InitKind;
use super::inittab;
use super::root::GuestRoot;
use super::run_files::READY_MARK;
use super::text;
use super::work::{Changes, Missing, Work};

/// Makes a guest bootable in a VE: to be called at each start, before init.
///
/// # Errors
/// The files that could not be written; the others are.
pub fn pre_start(root: &GuestRoot, guest: &Guest) -> Result<Changes, DistError> {
    let mut work = Work::new(root);
    work.edit("/etc/fstab", Missing::Skip, |old| fstab(old, Scope::Kernel));
    match guest.init {
        InitKind::Systemd { .. } | InitKind::Command { .. } => return work.finish(),
        InitKind::Sysvinit | InitKind::Busybox => {
            let getty = getty(root);
            work.edit("/etc/inittab", Missing::Skip, |old| inittab::edit(old, guest.init, getty));
        }
        InitKind::Upstart => upstart(&mut work, guest),
        InitKind::Openrc => openrc_init(&mut work),
        InitKind::Unknown => {}
    }
    if guest.openrc {
        work.edit("/etc/rc.conf", Missing::Create(0o644), openrc);
    } else if guest.init != InitKind::Busybox {
        // No file system check: there is no device to check.
        work.edit("/fastboot", Missing::Create(0o644), str::to_owned);
    }
    if guest.init == InitKind::Sysvinit && guest.family == Family::Debian && guest.ssh_server {
        work.edit("/etc/default/ssh", Missing::Create(0o644), |old| text::with_block(old, &host_keys()));
    }
    work.finish()
}

fn getty(root: &GuestRoot) -> Option<&'static str> {
    ["/sbin/getty", "/sbin/agetty", "/sbin/mingetty"].into_iter().find(|path| root.exists(path))
}

/// The init script of ssh reads its defaults as shell; `ssh-keygen -A` is too new for it.
fn host_keys() -> String {
    let mut script = String::new();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let file = format!("/etc/ssh/ssh_host_{kind}_key");
        script.push_str(&format!(
            "[ -e {file} ] || ssh-keygen -q -t {kind} -N '' -f {file} </dev/null >/dev/null 2>&1 || true\n"
        ));
    }
    script
}

fn upstart(work: &mut Work<'_>, guest: &Guest) {
    let note = "# Written by the host at each start\n";
    let job = format!("{note}start on stopped rc RUNLEVEL=[2345]\ntask\nexec /bin/touch {READY_MARK}\n");
    work.put("/etc/init/vz_init_done.conf", &job);
    if let Some(getty) = getty(work.root) {
        let arguments = if getty.ends_with("mingetty") { "console" } else { "38400 console linux" };
        let job = format!(
            "{note}start on stopped rc RUNLEVEL=[2345]\nstop on runlevel [!2345]\nrespawn\nexec {getty} {arguments}\n"
        );
        work.put("/etc/init/vz_console.conf", &job);
    }
    for number in 1..=6 {
        if work.root.exists(format!("/etc/init/tty{number}.conf")) {
            work.put(&format!("/etc/init/tty{number}.override"), &format!("{note}manual\n"));
        }
    }
    let change = |old: &str| text::assign(old, "ACTIVE_CONSOLES", "");
    work.edit("/etc/sysconfig/init", Missing::Skip, change);
    if guest.ssh_server && guest.family == Family::Debian {
        let job = format!("{note}start on starting ssh\ntask\nscript\n{}end script\n", host_keys());
        work.put("/etc/init/vz_ssh_keys.conf", &job);
    }
}

/// No services for hardware, and no cgroup mounts besides the one that is there.
fn openrc(old: &str) -> String {
    text::assign(&text::assign(old, "rc_sys", "lxc"), "rc_cgroup_mode", "unified")
}

fn openrc_init(work: &mut Work<'_>) {
    let script = format!("#!/bin/sh\n# Written by the host at each start\nexec /bin/touch {READY_MARK}\n");
    work.put_executable("/etc/local.d/vz-ready.start", &script);
    if !work.root.exists("/etc/init.d/agetty") {
        return;
    }
    for name in work.root.list("/etc/runlevels/default") {
        if name.starts_with("agetty.tty") {
            work.remove(&format!("/etc/runlevels/default/{name}"));
        }
    }
    work.symlink("agetty", "/etc/init.d/agetty.console");
    work.symlink("/etc/init.d/agetty.console", "/etc/runlevels/default/agetty.console");
}

/// Which lines of fstab are taken out of force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The root and what is mounted already, or would undo how it is mounted.
    Kernel,
    /// Also devices of the machine that the template comes from.
    Devices,
}

const MOUNTED: [&str; 11] = [
    "/",
    "/proc",
    "/sys",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/run",
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
    "/proc/bus/usb",
];

pub(super) fn fstab(old: &str, scope: Scope) -> String {
    let off = |line: &str| {
        let mut words = line.split_whitespace();
        let (Some(what), Some(at), Some(kind)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        if what.starts_with('#') {
            return false;
        }
        let by_name = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|p| what.starts_with(p));
        let options = words.next().unwrap_or_default();
        let bind = options.split(',').any(|option| option == "bind" || option == "rbind");
        let device = by_name || (what.starts_with("/dev/") && !bind) || kind == "swap";
        MOUNTED.contains(&at) || (scope == Scope::Devices && device)
    };
    let lines: Vec<String> = old
        .lines()
        .map(|line| if off(line) { format!("{}{line}", text::OFF) } else { line.to_owned() })
        .collect();
    text::join(lines.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_loses_what_is_mounted_and_devices_of_another_machine() {
        let old = "# x\nUUID=1 / ext4 defaults 0 1\n/dev/sda2 /home ext4 defaults 0 2\n/srv/a /b none bind 0 0\n\
                   none /dev/pts devpts rw 0 0\ntmpfs /tmp tmpfs size=1m 0 0\n/dev/sda3 none swap sw 0 0\n";
        let kernel = fstab(old, Scope::Kernel);
        assert_eq!(
            kernel,
            "# x\n#vz: UUID=1 / ext4 defaults 0 1\n/dev/sda2 /home ext4 defaults 0 2\n/srv/a /b none bind 0 0\n\
             #vz: none /dev/pts devpts rw 0 0\ntmpfs /tmp tmpfs size=1m 0 0\n/dev/sda3 none swap sw 0 0\n"
        );
        let devices = fstab(old, Scope::Devices);
        assert_eq!(devices.matches("#vz: ").count(), 4, "{devices}");
        assert_eq!(fstab(&devices, Scope::Devices), devices);
    }
}
