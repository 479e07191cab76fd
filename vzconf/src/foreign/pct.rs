//! Proxmox' `NNN.conf` of a container (`pct config`).

use super::lxc::veth;
use super::resources::{self, address};
use super::{Fate, Foreign, HasBridge, RootHint, Unreadable, check_size};

/// Where ids of unprivileged containers begin on a Proxmox host.
const SHIFT: u32 = 100_000;

/// Reads a configuration; sections of snapshots are left out. A static address on a bridge that is not here becomes a
/// routed one.
///
/// # Errors
/// [`Unreadable`].
pub fn pct(text: &str, has_bridge: HasBridge<'_>) -> Result<Foreign, Unreadable> {
    check_size(text)?;
    let mut foreign = Foreign::default();
    let mut described: Vec<String> = Vec::new();
    for (number, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() {
            continue;
        }
        if line.starts_with('[') {
            foreign.note(line, Fate::Left, "a snapshot, and all that follows: the current state is imported");
            break;
        }
        if let Some(comment) = line.strip_prefix('#') {
            described.push(comment.trim().to_owned());
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            return Err(Unreadable { line: number + 1, reason: "it is no 'key: value'".to_owned() });
        };
        one(&mut foreign, key.trim(), value.trim(), line, has_bridge);
    }
    if !described.is_empty() {
        let text: String =
            described.join(" ").chars().filter(|c| !c.is_control() && *c != '"').take(200).collect();
        foreign.option("# ...", "description", text);
    }
    for (key, option) in [("memory", "ram"), ("swap", "swap")] {
        // What Proxmox means where it does not say.
        if !foreign.options.iter().any(|(given, _)| given == option) {
            resources::memory(&mut foreign, &format!("({key}: 512)"), option, Some(Some(512 << 20)));
        }
    }
    foreign.complete();
    Ok(foreign)
}

fn one(foreign: &mut Foreign, key: &str, value: &str, line: &str, has_bridge: HasBridge<'_>) {
    if let Some(number) = key.strip_prefix("net")
        && number.parse::<u32>().is_ok()
    {
        return net(foreign, value, line, has_bridge);
    }
    if let Some(number) = key.strip_prefix("mp")
        && number.parse::<u32>().is_ok()
    {
        let detail = "a mount point: copy what it holds, or mount it by a script CTID.mount";
        return foreign.note(line, Fate::Missing, detail);
    }
    if key.starts_with("unused") {
        return foreign.note(line, Fate::Left, "a volume that is not used");
    }
    let mebibytes =
        |value: &str| value.parse::<u64>().ok().and_then(|mib| mib.checked_mul(1 << 20)).map(Some);
    match key {
        "rootfs" => root(foreign, value, line),
        "hostname" => foreign.option(line, "hostname", value),
        "memory" => resources::memory(foreign, line, "ram", mebibytes(value)),
        "swap" => resources::memory(foreign, line, "swap", mebibytes(value)),
        "cores" if value.parse::<u32>().is_ok() => foreign.option(line, "cpus", value),
        "cpulimit" => match value.parse::<f64>() {
            Ok(cpus) if cpus > 0.0 && cpus < 8192.0 => {
                foreign.option(line, "cpulimit", format!("{:.0}", cpus * 100.0));
            }
            Ok(0.0) => foreign.note(line, Fate::Left, "there is no limit"),
            _ => foreign.note(line, Fate::Missing, "no number of processors"),
        },
        "cpuunits" => resources::weight(foreign, line, value),
        "nameserver" => resources::list(foreign, line, "nameserver", value),
        "searchdomain" => resources::list(foreign, line, "searchdomain", value),
        "onboot" => foreign.option(line, "onboot", if value == "1" { "yes" } else { "no" }),
        "startup" => startup(foreign, value, line),
        "unprivileged" => {
            foreign.shift = if value == "1" { SHIFT } else { 0 };
            foreign.note(line, Fate::Mapped, "all VEs are; ids on its disk are shifted back");
        }
        "features" => features(foreign, value, line),
        "description" => foreign.option(line, "description", value.replace('"', "'")),
        "arch" | "ostype" | "console" | "tty" | "cmode" | "protection" | "tags" | "timezone" | "parent"
        | "lock" | "template" | "debug" => foreign.note(line, Fate::Left, "it has no meaning here"),
        key if key.starts_with("lxc.") => {
            foreign.note(line, Fate::Missing, "settings for LXC itself: look at docs/import.md")
        }
        _ => foreign.note(line, Fate::Missing, "there is nothing like it here"),
    }
}

fn words(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(',').filter_map(|word| word.split_once('='))
}

fn root(foreign: &mut Foreign, value: &str, line: &str) {
    let place = value.split(',').next().unwrap_or_default();
    foreign.root = match place.split_once(':') {
        _ if place.starts_with('/') => Some(RootHint::Path(place.to_owned())),
        Some((storage, volume)) => {
            Some(RootHint::Volume { storage: storage.to_owned(), volume: volume.to_owned() })
        }
        None => None,
    };
    let size =
        words(value).find(|(key, _)| *key == "size").and_then(|(_, size)| resources::bytes(size)).flatten();
    match size {
        Some(bytes) => {
            let kib = bytes / 1024;
            foreign.option(line, "diskspace", format!("{kib}:{kib}"));
        }
        None => foreign.note(line, Fate::Mapped, "its files"),
    }
}

fn startup(foreign: &mut Foreign, value: &str, line: &str) {
    let order =
        words(value).find(|(key, _)| *key == "order").and_then(|(_, order)| order.parse::<u64>().ok());
    match order {
        // There the lowest number starts first, here the highest.
        Some(order) => foreign.option(line, "bootorder", 10_000_u64.saturating_sub(order).to_string()),
        None => foreign.note(line, Fate::Left, "there is no order in it"),
    }
}

fn features(foreign: &mut Foreign, value: &str, line: &str) {
    for (name, on) in words(value) {
        match (name, on) {
            ("nesting", "1") => foreign.option(line, "features", "nesting:on"),
            ("fuse", "1") => foreign.option(line, "devnodes", "fuse:rw"),
            (_, "0") => foreign.note(line, Fate::Left, format!("{name} is off")),
            _ => foreign.note(line, Fate::Missing, format!("{name}: there is nothing like it here")),
        }
    }
}

fn net(foreign: &mut Foreign, value: &str, line: &str, has_bridge: HasBridge<'_>) {
    let of = |wanted: &str| words(value).find(|(key, _)| *key == wanted).map(|(_, value)| value);
    let bridge = of("bridge");
    let fixed: Vec<_> = ["ip", "ip6"].into_iter().filter_map(of).filter_map(address).collect();
    if !fixed.is_empty() && !bridge.is_some_and(has_bridge) {
        for address in &fixed {
            foreign.option(line, "ipadd", address.to_string());
        }
        let name = bridge.unwrap_or("its bridge");
        foreign.note(line, Fate::Left, format!("{name} is not here: addresses are routed to the VE instead"));
        return;
    }
    if of("tag").is_some() || of("trunks").is_some() {
        foreign.note(line, Fate::Missing, "VLANs: use a bridge of the VLAN");
    }
    veth(foreign, line, of("name"), of("hwaddr"), bridge, has_bridge);
}
