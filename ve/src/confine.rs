//! What a VE's processes may do: capabilities, nesting, personality; devices it sees.

use vzconf::{Config, Ctid, DevNode, DeviceRule, Exit};
use vzsys::launch::{Confinement, Device, DeviceKind};
use vzsys::seccomp::Nesting;
use vzsys::trap::Trapped;

use crate::error::{Error, Result};
use crate::node::Ve;

/// Not given unless asked for: they concern the host or its hardware, and guests that see them missing
/// skip the services that would fail (`ConditionCapability=`).
const OFF: [&str; 14] = [
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PACCT",
    "SYS_TIME",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Never given to a privileged VE: with them it owns the host.
const NEVER: [&str; 2] = ["SYS_MODULE", "SYS_RAWIO"];

/// A capability's bit by the name that `--capability` uses; none for VE_ADMIN, which was OpenVZ's own.
fn bit(name: &str) -> Option<u64> {
    format!("CAP_{name}").parse::<caps::Capability>().ok().map(|cap| cap.bitmask())
}

fn mask(names: &[&str]) -> u64 {
    names.iter().filter_map(|name| bit(name)).sum()
}

fn all() -> u64 {
    caps::all().iter().map(caps::Capability::bitmask).sum()
}

/// The confinement that a VE's configuration asks for.
#[must_use]
pub fn confinement(config: &Config, personality_32: bool) -> Confinement {
    let mut capabilities = all() & !mask(&OFF);
    for toggle in config.capability() {
        // The rights that VE_ADMIN gave inside are part of the default here.
        let bit = bit(&toggle.name.to_ascii_uppercase()).unwrap_or(0);
        if toggle.on {
            capabilities |= bit;
        } else {
            capabilities &= !bit;
        }
    }
    capabilities &= !mask(&NEVER);
    let nesting = if config.feature("nesting") == Some(true) { Nesting::Allowed } else { Nesting::Refused };
    let lockable = beancounters::lockable(config);
    Confinement { capabilities, nesting, personality_32, lockable, trapped: trapped(config) }
}

/// What the VE's supervisor answers: its own features, or what the node says of all.
fn trapped(config: &Config) -> Trapped {
    Trapped {
        paths: config.feature("procbc").unwrap_or_else(|| config.proc_beancounters()),
        sysinfo: config.feature("sysinfo") == Some(true),
    }
}

/// Says what a VE gives up for that: CRIU cannot save a listener.
pub(crate) fn tell(ve: &Ve<'_>, confinement: &Confinement) {
    if confinement.trapped.any() {
        ve.say(0, "The container cannot be migrated live (features procbc, sysinfo)");
    }
}

/// The nodes of `DEVNODES` (host devices by name) for the VE's `/dev`.
///
/// # Errors
/// Exit 86, naming a device that the host does not have.
pub fn devices(config: &Config, ctid: Ctid) -> Result<Vec<Device>> {
    let nodes = config.devnodes();
    let wanted = nodes.iter().filter(|node| node.access.read || node.access.write);
    wanted
        .map(|node| {
            host_device(&node.name).ok_or_else(|| {
                let message = format!("container {ctid}: the host has no device /dev/{}", node.name);
                Error::refused(Exit::SetDevices, message)
            })
        })
        .collect()
}

/// What the VE may do with the devices of `DEVNODES`.
#[must_use]
pub fn device_rules(config: &Config) -> Vec<DeviceRule> {
    let rule = |node: &DevNode| {
        let device = host_device(&node.name)?;
        let kind = match device.kind {
            DeviceKind::Char => vzconf::DeviceKind::Char,
            DeviceKind::Block => vzconf::DeviceKind::Block,
        };
        Some(DeviceRule { kind, major: device.major, minor: Some(device.minor), access: node.access })
    };
    config.devnodes().iter().filter_map(rule).collect()
}

/// The device that the host has under this name, if it has one.
pub(crate) fn host_device(name: &str) -> Option<Device> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(format!("/dev/{name}")).ok()?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => DeviceKind::Char,
        t if t.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Some(Device { path: name.into(), kind, major, minor, mode: 0o666 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_parameter_table_is_a_capability_and_the_default_is_what_it_was() {
        for name in vzconf::params::CAPABILITIES {
            assert_eq!(bit(name).is_none(), *name == "VE_ADMIN", "{name}");
        }
        assert_eq!(mask(&OFF).count_ones(), 14);
        // Bits 0 to 31; of the later ones none is given.
        assert_eq!(all() & !mask(&OFF), 0xbdec_ffff);
        assert_eq!(bit("AUDIT_CONTROL"), Some(1 << 30));
    }
}
