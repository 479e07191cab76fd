//! What the config file tells of a VE.

use std::path::Path;

use vzconf::{Config, Pair, Toggle, names};

use super::status;
use crate::list::row::{Counter, Disk, Resource, Row, Switch};

/// CPU share of a VE whose config names none.
const CPUUNITS: u64 = 1000;

/// Fills in all that is configured; `unset` stands for the beancounters that are not.
pub(super) fn fill(row: &mut Row, config: &Config, unset: Pair) {
    let text = |key: &str| config.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    row.private = config.ve_private().as_deref().map(shown);
    row.root = config.ve_root().as_deref().map(shown);
    row.mount_opts = text("MOUNT_OPTS");
    row.origin_sample = text("ORIGIN_SAMPLE");
    row.hostname = config.hostname().map(str::to_owned);
    row.name = config
        .name()
        .map(str::to_owned)
        .filter(|name| names::check(name).is_ok() && names::owner(config.paths(), name) == Some(row.ctid));
    row.description = config.description().map(str::to_owned);
    row.ostemplate = config.ostemplate().map(str::to_owned);
    row.ip = config.ip_addresses().iter().map(ToString::to_string).collect();
    row.nameserver = config.nameservers();
    row.searchdomain = config.searchdomains();
    row.diskspace = config.diskspace().map(disk);
    row.diskinodes = config.diskinodes().map(disk);
    row.cpus = config.cpus().map(u64::from);
    row.ioprio = config.ioprio().map(u64::from);
    row.iolimit = config.iolimit();
    row.iopslimit = config.iopslimit();
    row.onboot = config.onboot();
    row.bootorder = config.bootorder();
    row.features = switches(&config.features());
    row.disabled = config.disabled();
    row.vm_overcommit = config.vm_overcommit();
    row.netfilter = text("NETFILTER");
    row.capability = switches(&config.capability());
    let (limit, units) = (config.cpulimit().map(u64::from), config.cpuunits().map(u64::from));
    if limit.is_some() || units.is_some() {
        row.cpulimit = Some(limit.unwrap_or(0));
        row.cpuunits = Some(units.unwrap_or(CPUUNITS));
    }
    for resource in Resource::ALL {
        let Pair { barrier, limit } = config.ubc(resource.name()).unwrap_or(unset);
        *row.counter_mut(resource) = Counter { barrier, limit, ..Counter::default() };
    }
}

/// What a running VE has even where its config says nothing: addresses without masks, a share
/// of the CPUs and no limit on it.
pub(super) fn assume_running(row: &mut Row) {
    for ip in &mut row.ip {
        if let Some((address, _)) = ip.split_once('/') {
            *ip = address.to_owned();
        }
    }
    row.cpulimit.get_or_insert(0);
    row.cpuunits.get_or_insert(CPUUNITS);
}

/// The form of the private area: as configured, else as it looks.
pub(super) fn layout(config: &Config) -> Option<String> {
    let configured = config.layout().and_then(|layout| layout.split(':').next());
    if let Some(layout) = configured.filter(|layout| *layout != "auto") {
        return Some(layout.to_ascii_lowercase());
    }
    let private = config.ve_private()?;
    let ploop = status::exists(&private.join("root.hdd/DiskDescriptor.xml"));
    Some(if ploop { "ploop" } else { "simfs" }.to_owned())
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn disk(pair: Pair) -> Disk {
    Disk { usage: 0, soft: pair.barrier, hard: pair.limit }
}

fn switches(toggles: &[Toggle]) -> Vec<Switch> {
    let switch = |toggle: &Toggle| Switch { name: toggle.name.to_ascii_lowercase(), on: toggle.on };
    toggles.iter().map(switch).collect()
}
