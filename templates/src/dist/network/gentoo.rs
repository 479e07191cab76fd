//! Gentoo's netifrc. `noop` keeps what the host set; the addresses are for a later restart of the net.

use super::{Addresses, DEVICE};
use crate::dist::text;
use crate::dist::work::{Missing, Work};

pub(super) fn write(work: &mut Work<'_>, addresses: &Addresses) {
    let body = if addresses.is_empty() {
        format!("config_{DEVICE}=\"null\"\n")
    } else {
        let mut config = vec!["noop".to_owned()];
        config.extend(addresses.with_prefix());
        let v4 = (!addresses.v4.is_empty()).then_some("default");
        let v6 = (!addresses.v6.is_empty()).then_some("-6 default");
        let routes: Vec<&str> = v4.into_iter().chain(v6).collect();
        format!("config_{DEVICE}=\"{}\"\nroutes_{DEVICE}=\"{}\"\n", config.join("\n"), routes.join("\n"))
    };
    work.edit("/etc/conf.d/net", Missing::Create(0o644), |old| text::with_block(old, &body));
    work.symlink("net.lo", &format!("/etc/init.d/net.{DEVICE}"));
    work.symlink(&format!("/etc/init.d/net.{DEVICE}"), &format!("/etc/runlevels/default/net.{DEVICE}"));
}
