//! What kind of system a guest is.

use std::path::Path;

use super::family::{self, Family};
use super::init::{self, InitKind, Stop};
use super::root::GuestRoot;

/// What brings up the guest's network; several may be installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetTools {
    /// `ifup` and `/etc/network/interfaces`.
    pub ifupdown: bool,
    /// systemd-networkd.
    pub networkd: bool,
    /// NetworkManager.
    pub network_manager: bool,
    /// Red Hat's initscripts.
    pub initscripts: bool,
    /// SUSE's sysconfig or wicked.
    pub suse: bool,
    /// Gentoo's netifrc.
    pub netifrc: bool,
}

/// What kind of system a guest is; pure data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The distribution.
    pub family: Family,
    /// Its init.
    pub init: InitKind,
    /// Whether `/sbin/init` is a 32-bit program.
    pub is_32bit: bool,
    /// Whether OpenRC starts the services, whatever init is.
    pub openrc: bool,
    /// What brings up its network.
    pub net: NetTools,
    /// Whether an SSH server is installed.
    pub ssh_server: bool,
    /// A line for the user when nothing told the distribution.
    pub warning: Option<String>,
}

impl Guest {
    /// Looks at the guest's files first, then at the template's name. `dists` is named in the warning.
    /// Never fails: what cannot be read tells nothing.
    #[must_use]
    pub fn detect(root: &GuestRoot, ostemplate: Option<&str>, dists: &Path) -> Self {
        let (family, warning) = match family::by_files(root) {
            Some(family) => (family, None),
            None => {
                let named = family::by_template(ostemplate, dists);
                (named.family, named.warning)
            }
        };
        Self {
            family,
            init: init::detect(root),
            is_32bit: init::is_32bit(root),
            openrc: root.exists("/sbin/openrc"),
            net: net_tools(root, family),
            ssh_server: root.exists("/usr/sbin/sshd"),
            warning,
        }
    }

    /// How to end it cleanly.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.init.stop()
    }
}

fn net_tools(root: &GuestRoot, family: Family) -> NetTools {
    let any = |paths: &[&str]| paths.iter().any(|path| root.exists(path));
    let ifup = any(&["/sbin/ifup", "/usr/sbin/ifup"]);
    let networkd = ["/lib/systemd/systemd-networkd", "/usr/lib/systemd/systemd-networkd"];
    NetTools {
        ifupdown: any(&["/etc/network/interfaces"])
            || (ifup && matches!(family, Family::Debian | Family::Alpine)),
        networkd: any(&networkd),
        network_manager: any(&["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"]),
        initscripts: family == Family::RedHat
            && any(&["/etc/sysconfig/network-scripts/ifup", "/etc/sysconfig/network-scripts/ifup-eth"]),
        suse: family == Family::Suse && root.is_dir("/etc/sysconfig/network"),
        netifrc: any(&["/etc/init.d/net.lo"]),
    }
}
