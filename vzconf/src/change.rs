//! Options of `set` and `create`, turned into changes of a config file.
//!
//! ```text
//! words ──from_options──▶ Changes ──apply_to──▶ ConfFile + Vec<Changed>
//! ```
//! Everything a value can be wrong in is found in the first step; the second only merges.
mod apply;

use crate::netif::{BadNetIf, Mac};
use crate::params::{self, Kind, Origin, Param, Verb};
use crate::{Access, DevNode, DeviceRule, Error, NewNetIf, Pci, Toggle, VeIp};

/// What to do about parameters that a running VE takes only after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Restart it.
    Restart,
    /// Say nothing.
    Ignore,
}

/// A password to set in the VE; never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// The user.
    pub user: String,
    /// The new password.
    pub password: String,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An edit of one veth device; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetIfEdit {
    /// The device.
    pub ifname: String,
    /// `--mac`
    pub mac: Option<Mac>,
    /// `--host_ifname`
    pub host_ifname: Option<String>,
    /// `--host_mac`
    pub host_mac: Option<Mac>,
    /// `--bridge`; empty detaches.
    pub bridge: Option<String>,
    /// `--mac_filter`
    pub mac_filter: Option<bool>,
}

/// One typed change, in command line order.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Store this value (in its stored form) under the parameter's key.
    Set {
        /// The option.
        param: &'static Param,
        /// The value.
        value: String,
    },
    /// `--cpulimit N%`: a share of the whole node.
    CpuShare(u32),
    /// `--ipadd`
    IpAdd(Vec<VeIp>),
    /// `--ipdel A`; the prefix does not matter.
    IpDel(Vec<VeIp>),
    /// `--ipdel all`
    IpDelAll,
    /// `--nameserver`, `--searchdomain`: one more word of the list that replaces the old one.
    Word {
        /// NAMESERVER or SEARCHDOMAIN.
        key: &'static str,
        /// What is added; empty words make an empty list.
        words: Vec<String>,
    },
    /// `--netif_add`
    NetifAdd(NewNetIf),
    /// `--netif_del IFNAME`
    NetifDel(String),
    /// `--netif_del all`
    NetifDelAll,
    /// `--ifname` and what follows it.
    NetifEdit(NetIfEdit),
    /// `--netdev_add`
    NetdevAdd(Vec<String>),
    /// `--netdev_del`
    NetdevDel(Vec<String>),
    /// `--features`, `--capability`
    Toggles {
        /// FEATURES or CAPABILITY.
        key: &'static str,
        /// What is switched.
        toggles: Vec<Toggle>,
    },
    /// `--devices`
    Devices(Vec<DeviceRule>),
    /// `--devnodes`
    DevNodes(Vec<DevNode>),
    /// `--pci_add`
    PciAdd(Vec<Pci>),
    /// `--pci_del`
    PciDel(Vec<Pci>),
}

/// One key that was named, mostly because it got another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The config key.
    pub key: String,
    /// What it was in effect before, vz.conf counted.
    pub old: Option<String>,
    /// What it is now.
    pub new: String,
    /// When it takes effect.
    pub applies: params::Applies,
}

/// What a merge needs to know about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// How many CPUs it has, for `--cpulimit N%`.
    pub cpus: u32,
    /// Its first Ethernet address, for generated addresses.
    pub mac: Mac,
}

/// Everything a command line asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    list: Vec<Change>,
    options: Vec<&'static Param>,
    warnings: Vec<String>,
    /// `--save`
    pub save: bool,
    /// `--force`
    pub force: bool,
    /// `--setmode`
    pub setmode: Option<SetMode>,
    /// `--reset_ub`
    pub reset_ub: bool,
    /// `--skip_arpdetect`
    pub skip_arpdetect: bool,
    /// `--offline-resize`
    pub offline_resize: bool,
    /// `--userpasswd`, in order.
    pub passwords: Vec<Password>,
    /// `--applyconfig` of set.
    pub applyconfig: Option<String>,
    /// `--applyconfig_map name`
    pub applyconfig_map: bool,
    /// `--config` of create.
    pub config: Option<String>,
}

impl Changes {
    /// Checks and types the options of a command line, in their order. A flag's value is not looked at.
    ///
    /// # Errors
    /// [`Error::UnknownOption`] and [`Error::BadValue`] (21), [`Error::Usage`] and [`Error::NeedsSave`] (20, 131 for the name).
    pub fn from_options<O, V>(verb: Verb, options: &[(O, V)]) -> Result<Changes, Error>
    where
        O: AsRef<str>,
        V: AsRef<str>,
    {
        let mut changes = Changes::default();
        let mut edits = Edits::default();
        for (option, value) in options {
            let (option, value) = (option.as_ref(), value.as_ref());
            let param = params::by_option(option)
                .filter(|param| param.is_for(verb))
                .ok_or_else(|| Error::UnknownOption { option: option.to_string() })?;
            changes.options.push(param);
            if !edits.take(param, value)? {
                changes.take(param, value)?;
            }
        }
        changes.list.extend(edits.finish()?.into_iter().map(Change::NetifEdit));
        changes.check_companions(verb)?;
        Ok(changes)
    }

    /// The devices that `--devnodes` gives to the VE.
    pub fn devnodes(&self) -> impl Iterator<Item = &DevNode> {
        let lists = self.list.iter().filter_map(|change| match change {
            Change::DevNodes(nodes) => Some(nodes),
            _ => None,
        });
        lists.flatten().filter(|node| node.access != Access::NONE)
    }

    /// The typed changes in order.
    #[must_use]
    pub fn list(&self) -> &[Change] {
        &self.list
    }

    /// The options given, in order.
    #[must_use]
    pub fn options(&self) -> &[&'static Param] {
        &self.options
    }

    /// What was left out, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether there is nothing to change (flags do not count).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
            && self.passwords.is_empty()
            && self.applyconfig.is_none()
            && !self.applyconfig_map
            && !self.reset_ub
    }

    /// The value stored for an option, if it was given and is stored as it is.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.list.iter().rev().find_map(|change| match change {
            Change::Set { param, value } if param.option == option => Some(value.as_str()),
            _ => None,
        })
    }

    /// Whether an option was given.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|param| param.option == option)
    }

    fn take(&mut self, param: &'static Param, value: &str) -> Result<(), Error> {
        let value = match param.kind {
            Kind::IptablesModules => self.known_modules(value),
            kind => kind.canonical(value, Origin::Option).map_err(|allowed| bad(param, value, allowed))?,
        };
        if self.take_control(param, &value) {
            return Ok(());
        }
        let change = typed(param, value)?;
        if let Change::Set { param, .. } = change {
            // Of several the last counts, and `--ram` is `--physpages` by another name.
            self.list.retain(|old| !matches!(old, Change::Set { param: p, .. } if p.key == param.key));
        }
        let is_limit = |change: &Change| match change {
            Change::Set { param, .. } => param.key == Some("CPULIMIT"),
            Change::CpuShare(_) => true,
            _ => false,
        };
        if is_limit(&change) {
            self.list.retain(|old| !is_limit(old));
        }
        self.list.push(change);
        Ok(())
    }

    /// The options that are no change of the config. Tells whether this was one.
    fn take_control(&mut self, param: &Param, value: &str) -> bool {
        match param.option {
            "save" => self.save = true,
            "force" => self.force = true,
            "reset_ub" => self.reset_ub = true,
            "skip_arpdetect" => self.skip_arpdetect = true,
            "offline-resize" => self.offline_resize = true,
            "setmode" => {
                self.setmode = Some(if value == "restart" { SetMode::Restart } else { SetMode::Ignore });
            }
            "applyconfig" => self.applyconfig = Some(value.to_string()),
            "applyconfig_map" => self.applyconfig_map = true,
            "config" => self.config = Some(value.to_string()),
            "userpasswd" => {
                let (user, password) = value.split_once(':').unwrap_or((value, ""));
                self.passwords.push(Password { user: user.to_string(), password: password.to_string() });
            }
            _ => return false,
        }
        true
    }

    fn known_modules(&mut self, value: &str) -> String {
        let kind = Kind::IptablesModules;
        let mut known = Vec::new();
        for word in kind.split(value).filter(|w| !w.is_empty()) {
            match kind.element(word) {
                Some(module) => known.push(module),
                None => self.warnings.push(format!("Unknown iptables module: {word}, skipped")),
            }
        }
        known.join(" ")
    }

    fn check_companions(&self, verb: Verb) -> Result<(), Error> {
        let usage = |text: &str| Err(Error::Usage { text: text.to_string() });
        if self.reset_ub && self.options.iter().any(|param| param.option != "reset_ub") {
            return usage("Option --reset_ub can not be used with other options");
        }
        if self.value("cpumask") == Some("auto") && !self.has("nodemask") {
            return usage("Option --cpumask auto needs --nodemask");
        }
        if self.has("nodemask") && !self.has("cpumask") {
            return usage("Option --nodemask needs --cpumask");
        }
        if verb == Verb::Create || self.save {
            return Ok(());
        }
        if self.setmode == Some(SetMode::Restart) {
            return Err(Error::NeedsSave { option: "setmode restart".to_string() });
        }
        let wants = self.options.iter().find(|param| param.needs_save || param.option == "force");
        wants.map_or(Ok(()), |param| Err(Error::NeedsSave { option: param.option.to_string() }))
    }
}

fn bad(param: &Param, value: &str, allowed: String) -> Error {
    // A password does not belong on a screen or in a log.
    let value = if param.kind == Kind::Password { "***" } else { value };
    Error::BadValue { option: param.option.to_string(), value: value.to_string(), allowed }
}

/// The change a checked value means.
fn typed(param: &'static Param, value: String) -> Result<Change, Error> {
    let word = |key| Change::Word { key, words: words(&value) };
    Ok(match param.kind {
        Kind::CpuLimit if value.ends_with('%') => {
            Change::CpuShare(value.trim_end_matches('%').parse().unwrap_or(100))
        }
        Kind::IpAdd => Change::IpAdd(addresses(&value)),
        Kind::IpDel if words(&value).iter().any(|w| w == "all") => Change::IpDelAll,
        Kind::IpDel => Change::IpDel(addresses(&value)),
        Kind::Servers => word("NAMESERVER"),
        Kind::Domains => word("SEARCHDOMAIN"),
        Kind::NetifAdd => {
            Change::NetifAdd(value.parse().map_err(|e: BadNetIf| bad(param, &value, e.to_string()))?)
        }
        Kind::NetifDel if value == "all" => Change::NetifDelAll,
        Kind::NetifDel => Change::NetifDel(value),
        Kind::NetdevAdd => Change::NetdevAdd(words(&value)),
        Kind::NetdevDel => Change::NetdevDel(words(&value)),
        Kind::Capabilities => Change::Toggles { key: "CAPABILITY", toggles: parsed(&value) },
        Kind::Features => Change::Toggles { key: "FEATURES", toggles: parsed(&value) },
        Kind::Devices => Change::Devices(parsed(&value)),
        Kind::DevNodes => Change::DevNodes(parsed(&value)),
        Kind::PciAdd => Change::PciAdd(parsed(&value)),
        Kind::PciDel => Change::PciDel(parsed(&value)),
        _ => Change::Set { param, value },
    })
}

fn words(value: &str) -> Vec<String> {
    value.split_whitespace().map(str::to_string).collect()
}

/// The words of a checked list.
fn parsed<T: std::str::FromStr>(value: &str) -> Vec<T> {
    value.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// `0.0.0.0` and `::` have always stood for "no address".
fn addresses(value: &str) -> Vec<VeIp> {
    parsed::<VeIp>(value).into_iter().filter(|ip| !ip.addr.is_unspecified()).collect()
}

/// Gathers `--ifname` and its companions, in whatever order they come.
#[derive(Default)]
struct Edits {
    list: Vec<NetIfEdit>,
    /// Given before any `--ifname`; they belong to the first.
    early: NetIfEdit,
    has_early: bool,
}

impl Edits {
    /// Takes an option if it is one of these.
    fn take(&mut self, param: &'static Param, raw: &str) -> Result<bool, Error> {
        if !matches!(param.option, "ifname" | "mac" | "host_ifname" | "host_mac" | "bridge" | "mac_filter") {
            return Ok(false);
        }
        let value = param.kind.canonical(raw, Origin::Option).map_err(|allowed| bad(param, raw, allowed))?;
        if param.option == "ifname" {
            let early =
                if self.list.is_empty() { std::mem::take(&mut self.early) } else { NetIfEdit::default() };
            self.has_early = false;
            self.list.push(NetIfEdit { ifname: value, ..early });
            return Ok(true);
        }
        let edit = match self.list.last_mut() {
            Some(edit) => edit,
            None => {
                self.has_early = true;
                &mut self.early
            }
        };
        match param.option {
            "mac" => edit.mac = value.parse().ok(),
            "host_mac" => edit.host_mac = value.parse().ok(),
            "host_ifname" => edit.host_ifname = Some(value),
            "bridge" => edit.bridge = Some(value),
            _ => edit.mac_filter = Some(value == "on"),
        }
        Ok(true)
    }

    fn finish(self) -> Result<Vec<NetIfEdit>, Error> {
        if self.has_early {
            return Err(Error::Usage { text: "Invalid usage.  Option --ifname not specified".to_string() });
        }
        Ok(self.list)
    }
}

#[cfg(test)]
mod tests;
