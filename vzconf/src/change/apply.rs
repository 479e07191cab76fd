//! Merging changes into a config file.
use std::collections::BTreeMap;

use super::{Change, Changed, Changes, NetIfEdit, Node};
use crate::params::{self, Applies};
use crate::{
    Access, ConfFile, Config, Ctid, DevNode, DeviceRule, Error, Exit, NetIf, NewNetIf, Pci, Toggle, VeIp,
};

/// What a sample never gives to a VE that exists.
const NOT_FROM_SAMPLE: [&str; 9] = [
    "HOSTNAME",
    "IP_ADDRESS",
    "OSTEMPLATE",
    "VE_ROOT",
    "VE_PRIVATE",
    "DESCRIPTION",
    // Of the VE alone, too, and wrong for any other.
    "NAME",
    "VEID",
    "NETIF",
];

impl Changes {
    /// Merges everything into `file`, the VE's own config; `base` is the view of it before (vz.conf counts for lists that the VE
    /// has not got). Tells which keys got another value, in the order they did.
    ///
    /// # Errors
    /// [`Error::NoSample`] (109), [`Error::Usage`] for an unknown veth device (20), [`Error::BadValue`] for one that exists.
    pub fn apply_to(
        &self,
        file: &mut ConfFile,
        base: &Config,
        ctid: Ctid,
        node: &Node,
    ) -> Result<Vec<Changed>, Error> {
        let named = self.merge_into(file, base, ctid, node)?;
        Ok(named.into_iter().filter(Changed::differs).collect())
    }

    /// The same; tells of all keys that were named, also those whose value was there already: what a running VE has may be
    /// another one, which was not saved.
    ///
    /// # Errors
    /// As [`Changes::apply_to`].
    pub fn merge_into(
        &self,
        file: &mut ConfFile,
        base: &Config,
        ctid: Ctid,
        node: &Node,
    ) -> Result<Vec<Changed>, Error> {
        let mut merge = Merge { file, base, ctid, node, old: Vec::new() };
        if let Some(sample) = &self.applyconfig {
            merge.sample(sample)?;
        }
        // Removals come first whatever the order: `--ipadd X --ipdel all` replaces.
        for change in
            self.list.iter().filter(|c| is_removal(c)).chain(self.list.iter().filter(|c| !is_removal(c)))
        {
            merge.one(change)?;
        }
        merge.words(&self.list)?;
        Ok(merge.finish())
    }
}

fn is_removal(change: &Change) -> bool {
    matches!(
        change,
        Change::IpDel(_)
            | Change::IpDelAll
            | Change::NetifDel(_)
            | Change::NetifDelAll
            | Change::NetdevDel(_)
            | Change::PciDel(_)
    )
}

struct Merge<'a> {
    file: &'a mut ConfFile,
    base: &'a Config,
    ctid: Ctid,
    node: &'a Node,
    /// Each key touched and what it was, in order.
    old: Vec<(String, Option<String>)>,
}

impl Merge<'_> {
    fn one(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Set { param, value } => match param.key {
                Some(key) => self.put(key, value),
                None => Ok(()),
            },
            Change::CpuShare(percent) => {
                let total = u64::from(*percent) * u64::from(self.node.cpus.max(1));
                self.put("CPULIMIT", &total.to_string())
            }
            Change::IpAdd(add) => self.ip_add(add),
            Change::IpDel(del) => {
                let gone = |ip: &VeIp| del.iter().any(|d| d.addr == ip.addr);
                let kept =
                    self.list::<VeIp>("IP_ADDRESS").into_iter().filter(|ip| !gone(ip)).collect::<Vec<_>>();
                self.put_list("IP_ADDRESS", &kept)
            }
            Change::IpDelAll => self.put("IP_ADDRESS", ""),
            // Gathered by `words`, as several options make one list.
            Change::Word { .. } => Ok(()),
            Change::NetifAdd(netif) => self.netif_add(netif),
            Change::NetifDel(name) => self.netif_del(name),
            Change::NetifDelAll => self.put("NETIF", ""),
            Change::NetifEdit(edit) => self.netif_edit(edit),
            Change::NetdevAdd(add) => {
                let mut list = self.list::<String>("NETDEV");
                list.extend(add.iter().cloned());
                self.put_list("NETDEV", &unique(list))
            }
            Change::NetdevDel(del) => {
                let list = self.list::<String>("NETDEV").into_iter().filter(|d| !del.contains(d));
                let list = list.collect::<Vec<_>>();
                self.put_list("NETDEV", &list)
            }
            Change::Toggles { key, toggles } => self.toggles(key, toggles),
            Change::Devices(rules) => self.devices(rules),
            Change::DevNodes(nodes) => self.devnodes(nodes),
            Change::PciAdd(add) => {
                let mut list = self.list::<Pci>("PCI");
                list.extend(add);
                self.put_list("PCI", &unique(list))
            }
            Change::PciDel(del) => {
                let list = self.list::<Pci>("PCI").into_iter().filter(|d| !del.contains(d));
                let list = list.collect::<Vec<_>>();
                self.put_list("PCI", &list)
            }
        }
    }

    /// What the VE has under a key: its own value as changed so far, else the one in effect.
    fn current(&self, key: &str) -> String {
        if key == "IP_ADDRESS" {
            return self.file.all(key).collect::<Vec<_>>().join(" ");
        }
        self.file.get(key).or_else(|| self.base.get(key)).unwrap_or_default().to_string()
    }

    fn list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        self.current(key)
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), Error> {
        if !self.old.iter().any(|(k, _)| k == key) {
            let own = self.file.get(key).is_some();
            let old = if own { Some(self.current(key)) } else { self.base.get(key).map(str::to_string) };
            self.old.push((key.to_string(), old));
        }
        // What was empty or absent needs no line to be empty.
        if value.is_empty() && self.file.get(key).is_none() && self.base.get(key).is_none() {
            return Ok(());
        }
        self.file.set(key, value)
    }

    fn put_list<T: ToString>(&mut self, key: &str, list: &[T]) -> Result<(), Error> {
        let value = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        self.put(key, &value)
    }

    fn ip_add(&mut self, add: &[VeIp]) -> Result<(), Error> {
        let mut list = self.list::<VeIp>("IP_ADDRESS");
        list.retain(|ip| !ip.addr.is_unspecified());
        for ip in add {
            if list.contains(ip) {
                continue;
            }
            // The same address with another mask is another address: the old one goes.
            list.retain(|old| old.addr != ip.addr);
            list.push(*ip);
        }
        self.put_list("IP_ADDRESS", &list)
    }

    fn words(&mut self, list: &[Change]) -> Result<(), Error> {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for change in list {
            if let Change::Word { key, words } = change {
                lists.entry(key).or_default().extend(words.iter().cloned());
            }
        }
        for (key, words) in lists {
            let inherits = words.iter().any(|w| w == "inherit");
            let words = if inherits { vec!["inherit".to_string()] } else { unique(words) };
            self.put_list(key, &words)?;
        }
        Ok(())
    }

    fn netifs(&self) -> Vec<NetIf> {
        NetIf::parse_list(&self.current("NETIF")).unwrap_or_else(|_| self.base.netif())
    }

    fn put_netifs(&mut self, list: &[NetIf]) -> Result<(), Error> {
        self.put("NETIF", &NetIf::format_list(list))
    }

    fn netif_add(&mut self, new: &NewNetIf) -> Result<(), Error> {
        let mut list = self.netifs();
        let netif = new.complete(self.ctid, self.node.mac);
        match list.iter().find(|old| old.ifname == netif.ifname) {
            Some(old) if *old == netif => return Ok(()),
            Some(_) => {
                return Err(Error::BadValue {
                    option: "netif_add".to_string(),
                    value: netif.ifname.clone(),
                    allowed: "a new device; change one that exists with --ifname".to_string(),
                });
            }
            None => list.push(netif),
        }
        self.put_netifs(&list)
    }

    fn netif_del(&mut self, name: &str) -> Result<(), Error> {
        let mut list = self.netifs();
        let before = list.len();
        list.retain(|netif| netif.ifname != name);
        if list.len() == before {
            return Err(Error::BadValue {
                option: "netif_del".to_string(),
                value: name.to_string(),
                allowed: "a device of the VE, or all".to_string(),
            });
        }
        self.put_netifs(&list)
    }

    fn netif_edit(&mut self, edit: &NetIfEdit) -> Result<(), Error> {
        let mut list = self.netifs();
        let Some(netif) = list.iter_mut().find(|netif| netif.ifname == edit.ifname) else {
            let text = format!("Invalid usage.  Device {} is not configured", edit.ifname);
            return Err(Error::Usage { text });
        };
        netif.mac = edit.mac.or(netif.mac);
        netif.host_mac = edit.host_mac.or(netif.host_mac);
        netif.mac_filter = edit.mac_filter.or(netif.mac_filter);
        if edit.host_ifname.is_some() {
            netif.host_ifname.clone_from(&edit.host_ifname);
        }
        if let Some(bridge) = &edit.bridge {
            netif.bridge = Some(bridge.clone()).filter(|b| !b.is_empty());
        }
        self.put_netifs(&list)
    }

    fn toggles(&mut self, key: &str, toggles: &[Toggle]) -> Result<(), Error> {
        let mut list = self.list::<Toggle>(key);
        for toggle in toggles {
            match list.iter_mut().find(|old| old.name.eq_ignore_ascii_case(&toggle.name)) {
                Some(old) => *old = toggle.clone(),
                None => list.push(toggle.clone()),
            }
        }
        self.put_list(key, &list)
    }

    fn devices(&mut self, rules: &[DeviceRule]) -> Result<(), Error> {
        let mut list = self.list::<DeviceRule>("DEVICES");
        for rule in rules {
            match list.iter_mut().find(|old| old.same_device(rule)) {
                Some(old) => *old = *rule,
                None => list.push(*rule),
            }
        }
        list.retain(|rule| rule.access != Access::NONE);
        self.put_list("DEVICES", &list)
    }

    fn devnodes(&mut self, nodes: &[DevNode]) -> Result<(), Error> {
        let mut list = self.list::<DevNode>("DEVNODES");
        for node in nodes {
            match list.iter_mut().find(|old| old.name == node.name) {
                Some(old) => *old = node.clone(),
                None => list.push(node.clone()),
            }
        }
        list.retain(|node| node.access != Access::NONE);
        self.put_list("DEVNODES", &list)
    }

    fn sample(&mut self, name: &str) -> Result<(), Error> {
        let path = self.base.paths().sample(name);
        let sample = ConfFile::load(&path).map_err(|_| Error::NoSample { path, exit: Exit::ApplyConfig })?;
        // Through the merged view, so that what is invalid in a sample is left out as everywhere.
        let view = self.base.with_file(self.ctid, Some(sample.clone()));
        let mut done: Vec<&str> = Vec::new();
        for (key, raw) in sample.entries() {
            if NOT_FROM_SAMPLE.contains(&key) || key == "ORIGIN_SAMPLE" || done.contains(&key) {
                continue;
            }
            done.push(key);
            let value = if raw.is_empty() { "" } else { view.own(key).unwrap_or_default() };
            if !value.is_empty() || raw.is_empty() {
                self.put(key, value)?;
            }
        }
        self.put("ORIGIN_SAMPLE", name)
    }

    fn finish(self) -> Vec<Changed> {
        let Merge { file, base, old, .. } = self;
        let mut changed = Vec::new();
        for (key, old) in old {
            let new = if key == "IP_ADDRESS" {
                file.all(&key).collect::<Vec<_>>().join(" ")
            } else {
                file.get(&key).or_else(|| base.get(&key)).unwrap_or_default().to_string()
            };
            let applies = applies(&key, old.as_deref(), &new);
            changed.push(Changed { key, old, new, applies });
        }
        changed
    }
}

impl Changed {
    /// Whether the value is another one than before.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.old.as_deref().unwrap_or_default() != self.new || (self.old.is_none() && !self.new.is_empty())
    }
}

/// When a change takes effect. Per-user quota needs a restart only to be switched on or off.
fn applies(key: &str, old: Option<&str>, new: &str) -> Applies {
    let off = |value: &str| value.is_empty() || value == "0";
    match params::by_key(key) {
        Some(_) if key == "QUOTAUGIDLIMIT" && off(old.unwrap_or("0")) == off(new) => Applies::Live,
        Some(param) => param.applies,
        None => Applies::ConfigOnly,
    }
}

fn unique<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(list.len());
    for item in list {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}
