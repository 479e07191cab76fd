//! What is done once to a new private area.

use super::account;
use super::boot;
use super::dns::SEED;
use super::error::DistError;
use super::family::Family;
use super::guest::Guest;
use super::hostname::seeded_hosts;
use super::init::InitKind;
use super::password::random;
use super::root::GuestRoot;
use super::text;
use super::work::{Changes, Missing, Work};

/// In a crontab: leave this file alone.
const SKIP: &str = "VZCTL_POSTCREATE_SKIP";

/// What makes a new VE differ from all others of its template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Sixteen random bytes: the machine id, and what cron's times come from.
    pub seed: [u8; 16],
}

impl Identity {
    /// A fresh one.
    ///
    /// # Errors
    /// The errno of getrandom(2).
    pub fn random() -> Result<Self, DistError> {
        Ok(Self { seed: random()? })
    }

    /// As machine-id(5) wants it: a random UUID without dashes.
    #[must_use]
    pub fn machine_id(&self) -> String {
        let mut bytes = self.seed;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn minute(&self, line: usize) -> u8 {
        self.seed[line % 8] % 60
    }

    fn hour(&self, line: usize) -> u8 {
        self.seed[8 + line % 8] % 6
    }
}

/// Prepares the tree of a new VE: an empty root password is locked, `/etc/hosts` and `resolv.conf` are
/// seeded, the machine gets its own id, the template's SSH host keys go (new ones are made at the first
/// start), cron's daily jobs get other times than the neighbours', and file systems of another machine leave
/// fstab.
///
/// # Errors
/// What could not be read or written; the rest is done.
pub fn post_create(root: &GuestRoot, guest: &Guest, identity: &Identity) -> Result<Changes, DistError> {
    let mut work = Work::new(root);
    let locked = account::lock_empty_root(root);
    work.include(locked);
    work.edit("/etc/hosts", Missing::Create(0o644), seeded_hosts);
    if root.link_target("/etc/resolv.conf").is_none() && !root.exists("/etc/resolv.conf") {
        work.edit("/etc/resolv.conf", Missing::Create(0o644), |_| SEED.to_owned());
    }
    machine_id(&mut work, guest, identity);
    if guest.ssh_server && makes_host_keys(guest) {
        for name in root.list("/etc/ssh") {
            if name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub")) {
                work.remove(&format!("/etc/ssh/{name}"));
            }
        }
    }
    work.edit("/etc/crontab", Missing::Skip, |old| crontab(old, identity));
    work.edit("/etc/fstab", Missing::Skip, |old| boot::fstab(old, boot::Scope::Devices));
    work.finish()
}

/// Prepares the tree of a system that was a container elsewhere: file systems of that machine leave fstab. All else
/// stays as it is, its identity too.
///
/// # Errors
/// What could not be read or written.
pub fn post_import(root: &GuestRoot) -> Result<Changes, DistError> {
    let mut work = Work::new(root);
    work.edit("/etc/fstab", Missing::Skip, |old| boot::fstab(old, boot::Scope::Devices));
    work.finish()
}

/// Known from the start, the id needs no mount over the file at the first boot (which a live migration
/// would have to carry), and no first-boot questions are asked.
fn machine_id(work: &mut Work<'_>, guest: &Guest, identity: &Identity) {
    const FILE: &str = "/etc/machine-id";
    const DBUS: &str = "/var/lib/dbus/machine-id";
    if guest.init.is_systemd() || work.root.exists(FILE) {
        work.put(FILE, &format!("{}\n", identity.machine_id()));
    }
    // A link to the former stays; a copy of the template's id must not. D-Bus makes a new one.
    if work.root.link_target(DBUS).is_none() {
        work.remove(DBUS);
    }
}

/// Whether the guest makes missing host keys by itself, or we make it do so (`run_files`, `pre_start`).
fn makes_host_keys(guest: &Guest) -> bool {
    match guest.family {
        Family::RedHat | Family::Suse | Family::Alpine | Family::Gentoo | Family::Arch => true,
        Family::Debian => guest.init != InitKind::Unknown && guest.init != InitKind::Busybox,
        Family::Unknown => guest.init.is_systemd(),
    }
}

/// Other times for `run-parts` lines, so that not all VEs of a node work in the same minute.
fn crontab(old: &str, identity: &Identity) -> String {
    if old.contains(SKIP) {
        return old.to_owned();
    }
    let times = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let mut lines = Vec::new();
    for (number, line) in old.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours = line.contains("run-parts") && words.len() > 6 && times(words[0]);
        if !ours {
            lines.push(line.to_owned());
            continue;
        }
        let rest = line.trim_start()[words[0].len()..].trim_start();
        let minute = identity.minute(number);
        match rest.strip_prefix(words[1]) {
            Some(after) if times(words[1]) => {
                lines.push(format!("{minute} {}{after}", identity.hour(number)))
            }
            _ => lines.push(format!("{minute} {rest}")),
        }
    }
    text::join(lines.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crontab_times_move_and_the_rest_stays() {
        let identity = Identity { seed: [61, 62, 63, 64, 65, 66, 67, 68, 9, 10, 11, 12, 13, 14, 15, 16] };
        let old = "SHELL=/bin/sh\n17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n\
                   25 6\t* * *\troot\ttest -x /usr/sbin/anacron || run-parts /etc/cron.daily\n5 5 * * * me mine\n";
        let new = crontab(old, &identity);
        assert_eq!(
            new,
            "SHELL=/bin/sh\n2 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n\
             3 5\t* * *\troot\ttest -x /usr/sbin/anacron || run-parts /etc/cron.daily\n5 5 * * * me mine\n"
        );
        assert_eq!(crontab(&new, &identity), new);
        let skipped = format!("# {SKIP}\n{old}");
        assert_eq!(crontab(&skipped, &identity), skipped);
    }

    #[test]
    fn machine_ids_are_random_uuids() {
        let id = Identity { seed: [0xff; 16] }.machine_id();
        assert_eq!(id, "ffffffffffff4fffbfffffffffffffff");
    }
}
