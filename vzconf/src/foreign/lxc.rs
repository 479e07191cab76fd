//! LXC's `config`, before and after its keys were renamed in 2.1.

use std::collections::BTreeMap;

use super::resources::{self, address};
use super::{Fate, Foreign, HasBridge, RootHint, Unreadable, check_size};

/// How many files may be included, one in the other or one after the other.
pub const LXC_INCLUDES: usize = 32;

/// Common settings that come with LXC and mean nothing here.
const SHIPPED: &str = "/usr/share/lxc/";

/// One network device.
#[derive(Debug, Default)]
struct Net {
    lines: Vec<String>,
    kind: String,
    link: Option<String>,
    name: Option<String>,
    mac: Option<String>,
    addresses: Vec<std::net::IpAddr>,
}

/// Reads a configuration. `load` reads a file that it includes; what LXC itself ships is not read.
///
/// # Errors
/// [`Unreadable`], also for files that include one another without end.
pub fn lxc(
    text: &str,
    load: &mut dyn FnMut(&str) -> Result<String, String>,
    has_bridge: HasBridge<'_>,
) -> Result<Foreign, Unreadable> {
    let mut lines = Vec::new();
    let mut left = LXC_INCLUDES;
    let mut foreign = Foreign::default();
    gather(text, load, &mut left, &mut lines, &mut foreign)?;
    let mut nets: BTreeMap<u32, Net> = BTreeMap::new();
    let mut old_net = 0;
    let (mut memory, mut both) = (None, None);
    for (key, value) in lines {
        let line = format!("{key} = {value}");
        if let Some(rest) = key.strip_prefix("lxc.net.").or_else(|| key.strip_prefix("lxc.network.")) {
            let (number, rest) = match rest.split_once('.') {
                Some((number, rest)) if number.parse::<u32>().is_ok() => (number.parse().unwrap_or(0), rest),
                // The old keys have no number: a type begins the next device.
                _ => {
                    old_net += u32::from(rest == "type");
                    (1_000_000 + old_net, rest)
                }
            };
            nets.entry(number).or_default().take(rest, &value, line);
            continue;
        }
        match key.as_str() {
            "lxc.cgroup.memory.limit_in_bytes" => memory = resources::bytes(&value).flatten(),
            "lxc.cgroup.memory.memsw.limit_in_bytes" => {
                both = resources::bytes(&value).flatten().map(|bytes| (line, bytes));
                continue;
            }
            _ => {}
        }
        one(&mut foreign, &key, &value, &line);
    }
    if let Some((line, both)) = both {
        let swap = both.saturating_sub(memory.unwrap_or(both));
        resources::memory(&mut foreign, &line, "swap", Some(Some(swap)));
    }
    for (_, net) in nets {
        net.finish(&mut foreign, has_bridge);
    }
    foreign.complete();
    Ok(foreign)
}

/// All lines, those of included files in their place.
fn gather(
    text: &str,
    load: &mut dyn FnMut(&str) -> Result<String, String>,
    left: &mut usize,
    lines: &mut Vec<(String, String)>,
    foreign: &mut Foreign,
) -> Result<(), Unreadable> {
    check_size(text)?;
    for (number, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(Unreadable { line: number + 1, reason: "it is no 'key = value'".to_owned() });
        };
        let (key, value) = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
        if key != "lxc.include" {
            lines.push((key, value));
            continue;
        }
        if value.starts_with(SHIPPED) {
            foreign.note(line, Fate::Left, "LXC's own settings for the distribution");
            continue;
        }
        if *left == 0 {
            let reason = "files include one another without end".to_owned();
            return Err(Unreadable { line: number + 1, reason });
        }
        *left -= 1;
        match load(&value) {
            Ok(text) => {
                foreign.note(line, Fate::Mapped, "its lines follow");
                gather(&text, load, left, lines, foreign)?;
            }
            Err(reason) => foreign.note(line, Fate::Missing, reason),
        }
    }
    Ok(())
}

fn one(foreign: &mut Foreign, key: &str, value: &str, line: &str) {
    let cgroup = key.strip_prefix("lxc.cgroup2.").or_else(|| key.strip_prefix("lxc.cgroup."));
    if let Some(knob) = cgroup {
        return limit(foreign, knob, value, line);
    }
    match key {
        "lxc.rootfs.path" | "lxc.rootfs" => root(foreign, value, line),
        "lxc.uts.name" | "lxc.utsname" => foreign.option(line, "hostname", value),
        "lxc.start.auto" => foreign.option(line, "onboot", if value == "1" { "yes" } else { "no" }),
        "lxc.idmap" | "lxc.id_map" => idmap(foreign, value, line),
        "lxc.cap.drop" => {
            for name in value.split_whitespace() {
                let upper = name.trim_start_matches("cap_").to_ascii_lowercase();
                let known = !upper.is_empty() && upper.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                if known {
                    foreign.note(line, Fate::Left, format!("{upper}: VEs have a set of their own"));
                }
            }
        }
        "lxc.mount.entry" => mount(foreign, value, line),
        "lxc.mount.auto"
        | "lxc.autodev"
        | "lxc.tty.max"
        | "lxc.tty"
        | "lxc.pty.max"
        | "lxc.pts"
        | "lxc.console.path"
        | "lxc.arch"
        | "lxc.apparmor.profile"
        | "lxc.aa_profile"
        | "lxc.apparmor.allow_nesting"
        | "lxc.seccomp.profile"
        | "lxc.seccomp"
        | "lxc.log.level"
        | "lxc.log.file"
        | "lxc.signal.halt"
        | "lxc.haltsignal"
        | "lxc.rootfs.mount"
        | "lxc.rootfs.options"
        | "lxc.kmsg"
        | "lxc.devttydir"
        | "lxc.tty.dir" => foreign.note(line, Fate::Left, "VEs have this in their own way"),
        _ => foreign.note(line, Fate::Missing, "there is nothing like it here"),
    }
}

fn root(foreign: &mut Foreign, value: &str, line: &str) {
    let path = ["dir:", "btrfs:", "loop:"].iter().find_map(|kind| value.strip_prefix(kind)).unwrap_or(value);
    if path.starts_with('/') {
        foreign.root = Some(RootHint::Path(path.to_owned()));
        foreign.note(line, Fate::Mapped, "its files");
    } else {
        foreign.note(line, Fate::Missing, "mount it, and name the directory with --rootfs");
    }
}

/// `u 0 100000 65536`: one plain range can be undone.
fn idmap(foreign: &mut Foreign, value: &str, line: &str) {
    let words: Vec<&str> = value.split_whitespace().collect();
    let numbers: Vec<u32> = words.iter().skip(1).filter_map(|word| word.parse().ok()).collect();
    match (words.first(), numbers.as_slice()) {
        (Some(&("u" | "g" | "b")), [0, base, count]) if *count >= 65536 => {
            if foreign.shift != 0 && foreign.shift != *base {
                foreign.note(line, Fate::Missing, "users and groups are shifted differently");
                return;
            }
            foreign.shift = *base;
            foreign.note(line, Fate::Mapped, format!("{base} is taken off all ids on its disk"));
        }
        _ => foreign.note(line, Fate::Missing, "only a range of 65536 from 0 on can be undone"),
    }
}

fn mount(foreign: &mut Foreign, value: &str, line: &str) {
    let words: Vec<&str> = value.split_whitespace().collect();
    match words.as_slice() {
        ["proc" | "sysfs" | "tmpfs" | "mqueue" | "cgroup" | "none", ..] => {
            foreign.note(line, Fate::Left, "VEs have their own");
        }
        ["/dev/net/tun" | "/dev/net", "dev/net/tun" | "dev/net", ..] => {
            foreign.option(line, "devnodes", "net/tun:rw")
        }
        ["/dev/fuse", "dev/fuse", ..] => foreign.option(line, "devnodes", "fuse:rw"),
        _ => foreign.note(
            line,
            Fate::Missing,
            "mount it by a script CTID.mount in the configurations' directory",
        ),
    }
}

fn limit(foreign: &mut Foreign, knob: &str, value: &str, line: &str) {
    match knob {
        "memory.max" | "memory.limit_in_bytes" => {
            resources::memory(foreign, line, "ram", resources::bytes(value))
        }
        "memory.swap.max" => resources::memory(foreign, line, "swap", resources::bytes(value)),
        "cpu.weight" => resources::weight(foreign, line, value),
        "cpu.shares" => resources::shares(foreign, line, value),
        "cpu.max" => {
            let words: Vec<u64> = value.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            match words.as_slice() {
                [quota, period] if *period > 0 => {
                    foreign.option(line, "cpulimit", (quota.saturating_mul(100) / period).max(1).to_string());
                }
                _ if value.starts_with("max") => foreign.note(line, Fate::Left, "there is no limit"),
                _ => foreign.note(line, Fate::Missing, "no quota and period"),
            }
        }
        "cpuset.cpus" => foreign.option(line, "cpumask", value),
        "pids.max" if value.parse::<u64>().is_ok() => foreign.option(line, "numproc", value),
        "devices.allow" | "devices.deny" => devices(foreign, value, line),
        _ => foreign.note(line, Fate::Missing, "there is nothing like it here"),
    }
}

fn devices(foreign: &mut Foreign, value: &str, line: &str) {
    let usual = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*", "*:*"];
    let number = value.split_whitespace().nth(1).unwrap_or_default();
    match number {
        "10:200" => foreign.note(line, Fate::Left, "comes with the device's node"),
        "10:229" => foreign.note(line, Fate::Left, "comes with the device's node"),
        _ if value.trim() == "a" || usual.contains(&number) => {
            foreign.note(line, Fate::Left, "VEs have the usual devices")
        }
        _ => foreign.note(line, Fate::Missing, "give it with vzctl set --devnodes or --devices"),
    }
}

impl Net {
    fn take(&mut self, key: &str, value: &str, line: String) {
        match key {
            "type" => self.kind = value.to_owned(),
            "link" => self.link = Some(value.to_owned()),
            "name" => self.name = Some(value.to_owned()),
            "hwaddr" => self.mac = Some(value.to_owned()),
            "ipv4.address" | "ipv4" | "ipv6.address" | "ipv6" => self.addresses.extend(address(value)),
            _ => {}
        }
        self.lines.push(line);
    }

    /// Addresses that LXC sets from outside are set from outside here too; else the container knows its own.
    fn finish(self, foreign: &mut Foreign, has_bridge: HasBridge<'_>) {
        let line = self.lines.join("; ");
        match self.kind.as_str() {
            "empty" | "none" => return foreign.note(line, Fate::Left, "no device"),
            "veth" | "" => {}
            kind => {
                return foreign.note(
                    line.clone(),
                    Fate::Missing,
                    format!("devices of type {kind} are not made"),
                );
            }
        }
        if !self.addresses.is_empty() {
            for address in &self.addresses {
                foreign.option(&line, "ipadd", address.to_string());
            }
            return;
        }
        veth(foreign, &line, self.name.as_deref(), self.mac.as_deref(), self.link.as_deref(), has_bridge);
    }
}

/// A device on a bridge, if this host has it.
pub(super) fn veth(
    foreign: &mut Foreign,
    line: &str,
    name: Option<&str>,
    mac: Option<&str>,
    bridge: Option<&str>,
    has_bridge: HasBridge<'_>,
) {
    let name = name.unwrap_or("eth0");
    let mac = mac.filter(|mac| mac.parse::<crate::Mac>().is_ok()).unwrap_or_default();
    if !crate::netif::is_ifname(name) || bridge.is_some_and(|bridge| !crate::netif::is_ifname(bridge)) {
        foreign.note(line, Fate::Missing, "the name of a device is none");
        return;
    }
    match bridge {
        Some(bridge) if has_bridge(bridge) => {
            foreign.option(line, "netif_add", format!("{name},{mac},,,{bridge}"));
        }
        Some(bridge) => {
            foreign.option(line, "netif_add", format!("{name},{mac}"));
            let detail = format!(
                "this host has no bridge {bridge}: vzctl set CTID --ifname {name} --bridge NAME --save"
            );
            foreign.note(line, Fate::Missing, detail);
        }
        None => foreign.option(line, "netif_add", format!("{name},{mac}")),
    }
}
