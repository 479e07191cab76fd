//! The guest's host name.

use std::net::IpAddr;

use super::error::DistError;
use super::family::Family;
use super::guest::Guest;
use super::root::GuestRoot;
use super::text;
use super::work::{Changes, Missing, Work};

/// The kernel's limit.
const LONGEST: usize = 64;

/// At the end of our line in /etc/hosts; the original vzctl's words, so that its guests keep one line.
const MARKER: &str = "# Auto-generated hostname. Please do not remove this comment.";

/// Writes the host name into the guest's files. The running kernel's name is the caller's business.
/// `first_ip` is the address that the name stands for in `/etc/hosts`.
///
/// # Errors
/// [`DistError::BadHostname`], or the files that could not be written; the others are.
pub fn set_hostname(
    root: &GuestRoot,
    guest: &Guest,
    name: &str,
    first_ip: Option<IpAddr>,
) -> Result<Changes, DistError> {
    check(name)?;
    let mut work = Work::new(root);
    let systemd = guest.init.is_systemd();
    let usual = matches!(guest.family, Family::Debian | Family::Arch | Family::Alpine | Family::Unknown);
    if systemd || usual || root.exists("/etc/hostname") {
        work.put("/etc/hostname", &format!("{name}\n"));
    }
    match guest.family {
        Family::RedHat => red_hat(&mut work, name, systemd),
        // Newer ones have a link to /etc/hostname here.
        Family::Suse if !systemd || root.is_file("/etc/HOSTNAME") => {
            work.put("/etc/HOSTNAME", &format!("{name}\n"));
        }
        Family::Gentoo if !systemd => {
            let change = |old: &str| text::assign(old, "hostname", name);
            work.edit("/etc/conf.d/hostname", Missing::Create(0o644), change);
        }
        _ => {}
    }
    work.edit("/etc/hosts", Missing::Create(0o644), |old| hosts(old, name, first_ip));
    work.finish()
}

fn red_hat(work: &mut Work<'_>, name: &str, systemd: bool) {
    const FILE: &str = "/etc/sysconfig/network";
    let stated = text::value(&work.root.text(FILE), "HOSTNAME").is_some();
    if !systemd || stated {
        work.edit(FILE, Missing::Create(0o644), |old| text::assign(old, "HOSTNAME", name));
    }
}

fn check(name: &str) -> Result<(), DistError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edges = name.starts_with(['-', '.']) || name.ends_with('-');
    if name.is_empty() || name.len() > LONGEST || edges || !name.chars().all(allowed) {
        return Err(DistError::BadHostname { name: name.to_owned() });
    }
    Ok(())
}

/// What every hosts file must have.
pub(super) fn seeded_hosts(old: &str) -> String {
    let names = |line: &str, name: &str| {
        line.split('#').next().unwrap_or_default().split_whitespace().skip(1).any(|word| word == name)
    };
    let mut new = String::new();
    if !old.lines().any(|line| line.starts_with("127.") && names(line, "localhost")) {
        new.push_str("127.0.0.1\tlocalhost localhost.localdomain\n");
    }
    new.push_str(&text::join(old.lines()));
    if !old.lines().any(|line| line.starts_with("::1")) {
        new.push_str("::1\t\tlocalhost ip6-localhost ip6-loopback\n");
    }
    new
}

fn hosts(old: &str, name: &str, first_ip: Option<IpAddr>) -> String {
    let address = first_ip.map_or_else(|| "127.0.1.1".to_owned(), |ip| ip.to_string());
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name { name.to_owned() } else { format!("{name} {short}") };
    let line = format!("{address}\t{names} {MARKER}");
    let seeded = seeded_hosts(old);
    let mut lines = Vec::new();
    let mut done = false;
    for old in seeded.lines() {
        if !old.trim_end().ends_with(MARKER) {
            lines.push(old);
        } else if !done {
            lines.push(&line);
            done = true;
        }
    }
    if !done {
        lines.push(&line);
    }
    text::join(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_pass() {
        for good in ["a", "ve101.example.com", "my_host", "x-1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "a b", "a\nb", "-a", "a;b", ".a", &long, "ü"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_line_in_hosts_whatever_was_there() {
        let old = format!(
            "127.0.0.1 localhost\n::1 localhost\n1.2.3.4 old {MARKER}\n9.9.9.9 mine\n5.6.7.8 x {MARKER}\n"
        );
        let new = hosts(&old, "a.b.c", Some("10.0.0.1".parse().unwrap()));
        assert_eq!(
            new,
            format!("127.0.0.1 localhost\n::1 localhost\n10.0.0.1\ta.b.c a {MARKER}\n9.9.9.9 mine\n")
        );
        assert_eq!(hosts(&new, "a.b.c", Some("10.0.0.1".parse().unwrap())), new);
    }
}
