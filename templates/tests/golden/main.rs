//! Golden trees of guests: `NN-name/in` is made to be `NN-name/expected`, exactly, by all actions of
//! the distribution room; done again they change nothing.
//!
//! `BLESS=1` writes `expected` anew, to be read before it is committed.

// Helpers of tests panic as tests do.
#![allow(clippy::unwrap_used)]

mod hostile;
mod tree;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use templates::dist::{
    DnsParams, Family, Guest, GuestRoot, Identity, InitKind, post_create, pre_start, set_addresses, set_dns,
    set_hostname, set_user_password,
};
use tree::Tree;

const IDENTITY: Identity =
    Identity { seed: [7, 17, 27, 37, 47, 57, 3, 13, 0xa1, 0xb2, 0xc3, 4, 5, 0xd4, 1, 2] };

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn addresses() -> Vec<IpAddr> {
    ["10.1.2.3", "2001:db8::3", "203.0.113.9"].map(|ip| ip.parse().unwrap()).to_vec()
}

fn dns() -> DnsParams {
    let nameservers = ["9.9.9.9", "2620:fe::fe"].map(|ip| ip.parse().unwrap()).to_vec();
    DnsParams { nameservers, searchdomains: vec!["example.com".into(), "corp.example.com".into()] }
}

/// All but passwords, which have a fresh salt each time. Returns the paths that were changed.
fn configure(root: &GuestRoot, guest: &Guest) -> Vec<String> {
    let addresses = addresses();
    let done = [
        post_create(root, guest, &IDENTITY).unwrap(),
        set_hostname(root, guest, "web.example.com", addresses.first().copied()).unwrap(),
        set_dns(root, guest, &dns()).unwrap(),
        set_addresses(root, guest, &addresses, &[]).unwrap(),
        pre_start(root, guest).unwrap(),
    ];
    done.into_iter().flat_map(|changes| changes.paths).collect()
}

fn run(case: &str, family: Family, init: InitKind) {
    let case = cases().join(case);
    let dir = tempfile::tempdir().unwrap();
    tree::copy(&case.join("in"), dir.path());
    let root = GuestRoot::open(dir.path()).unwrap();
    let guest = Guest::detect(&root, None, Path::new("/etc/vz/dists"));
    assert_eq!((guest.family, guest.init), (family, init));

    assert!(!configure(&root, &guest).is_empty());
    set_user_password(&root, "root", "secret").unwrap();
    set_user_password(&root, "bob", "secret").unwrap();
    let once = Tree::of(dir.path());
    assert_eq!(configure(&root, &guest), Vec::<String>::new(), "the second time changes nothing");
    once.assert_is(&Tree::of(dir.path()), "the second time");

    // Less, then all again: nothing stale stays, nothing is lost.
    set_addresses(&root, &guest, &[], &["eth0".to_owned()]).unwrap();
    set_addresses(&root, &guest, &addresses(), &[]).unwrap();
    once.assert_is(&Tree::of(dir.path()), "after addresses went and came back");

    let expected = case.join("expected");
    if std::env::var_os("BLESS").is_some() {
        let _ = std::fs::remove_dir_all(&expected);
        once.write(&expected);
    }
    Tree::of(&expected).assert_is(&once, "expected");
}

const fn systemd(version: u32) -> InitKind {
    InitKind::Systemd { version: Some(version) }
}

#[test]
fn debian_12() {
    run("01-debian-12", Family::Debian, systemd(252));
}

#[test]
fn centos_7() {
    run("02-centos-7", Family::RedHat, InitKind::Systemd { version: None });
}

#[test]
fn centos_5_from_openvz() {
    run("03-centos-5", Family::RedHat, InitKind::Sysvinit);
}

#[test]
fn opensuse_15() {
    run("04-opensuse-15", Family::Suse, systemd(249));
}

#[test]
fn alpine_3() {
    run("05-alpine-3", Family::Alpine, InitKind::Busybox);
}

#[test]
fn arch() {
    run("06-arch", Family::Arch, systemd(257));
}

#[test]
fn gentoo() {
    run("07-gentoo", Family::Gentoo, InitKind::Sysvinit);
}

#[test]
fn debian_6_from_openvz() {
    run("08-debian-6-openvz", Family::Debian, InitKind::Sysvinit);
}

#[test]
fn busybox() {
    run("09-busybox", Family::Unknown, InitKind::Busybox);
}

#[test]
fn ubuntu_14_04() {
    run("10-ubuntu-14.04", Family::Debian, InitKind::Upstart);
}

#[test]
fn fedora_41() {
    run("11-fedora-41", Family::RedHat, systemd(256));
}

#[test]
fn ubuntu_with_netplan() {
    run("12-netplan-ubuntu", Family::Debian, systemd(255));
}

#[test]
fn only_a_32_bit_init_makes_a_32_bit_guest() {
    for (case, is_32bit) in [("03-centos-5", true), ("01-debian-12", false), ("05-alpine-3", false)] {
        let root = GuestRoot::open(&cases().join(case).join("in")).unwrap();
        assert_eq!(Guest::detect(&root, None, Path::new("/d")).is_32bit, is_32bit, "{case}");
    }
}
