//! What is configured for one VE, all sources merged.
mod merge;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use self::merge::merge;
use crate::params::{Kind, by_key};
use crate::{
    ConfFile, Ctid, DevNode, DeviceRule, Error, NetIf, Pair, Paths, Pci, Toggle, Unit, VeIp, canonical_key,
};

/// Keys that belong to one VE and mean nothing in vz.conf.
const VE_ONLY: [&str; 8] =
    ["NAME", "IP_ADDRESS", "NETIF", "NETDEV", "VEID", "ORIGIN_SAMPLE", "DESCRIPTION", "HOSTNAME"];

/// The merged view: overrides, then `<CTID>.conf`, then `vz.conf`.
#[derive(Debug, Clone)]
pub struct Config {
    paths: Paths,
    ctid: Option<Ctid>,
    global: BTreeMap<String, String>,
    ve: BTreeMap<String, String>,
    over: BTreeMap<String, String>,
    file: Option<ConfFile>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads `vz.conf` only.
    ///
    /// # Errors
    /// [`Error::NoGlobalConfig`].
    pub fn global(paths: &Paths) -> Result<Config, Error> {
        let path = paths.vz_conf();
        let file = match ConfFile::load(&path) {
            Ok(file) => file,
            Err(Error::Read { path, source }) => return Err(Error::NoGlobalConfig { path, source }),
            Err(other) => return Err(other),
        };
        let mut warnings = Vec::new();
        let mut global = merge(&path, &file, &mut warnings);
        if global.remove("NETFILTER").is_some() {
            warnings.push(format!("{}: NETFILTER is ignored here", path.display()));
            warnings.push("set it in the config of each VE, or in the sample configs".to_string());
        }
        Ok(Config {
            paths: paths.clone(),
            ctid: None,
            global,
            ve: BTreeMap::new(),
            over: BTreeMap::new(),
            file: None,
            warnings,
        })
    }

    /// Reads `vz.conf` and the VE's config file; a VE without one is no error (see [`Config::exists`]).
    ///
    /// # Errors
    /// [`Error::NoGlobalConfig`], [`Error::Read`].
    pub fn load(paths: &Paths, ctid: Ctid) -> Result<Config, Error> {
        Config::global(paths)?.for_ve(ctid)
    }

    /// The same for a `vz.conf` read before, so that a listing reads it once.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn for_ve(&self, ctid: Ctid) -> Result<Config, Error> {
        let path = self.paths.ve_conf(ctid);
        let file = match ConfFile::load(&path) {
            Ok(file) => Some(file),
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(other) => return Err(other),
        };
        Ok(self.with_file(ctid, file))
    }

    /// The merged view of a VE whose own config is `file`, wherever that came from (a sample, a snapshot, a change not yet saved).
    #[must_use]
    pub fn with_file(&self, ctid: Ctid, file: Option<ConfFile>) -> Config {
        let mut config = self.clone();
        config.ctid = Some(ctid);
        config.ve.clear();
        config.over.clear();
        if let Some(file) = &file {
            config.ve = merge(&self.paths.ve_conf(ctid), file, &mut config.warnings);
        }
        config.file = file;
        config
    }

    /// Puts a value above all files, as a command line does.
    pub fn set_override(&mut self, key: &str, value: &str) {
        self.over.insert(canonical_key(key).to_string(), value.to_string());
    }

    /// The paths this was read from.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The VE, unless this is only the global config.
    #[must_use]
    pub fn ctid(&self) -> Option<Ctid> {
        self.ctid
    }

    /// Whether the VE has a config file.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// The VE's own config file as read.
    #[must_use]
    pub fn file(&self) -> Option<&ConfFile> {
        self.file.as_ref()
    }

    /// What was skipped in the files, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The value in effect.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let key = canonical_key(key);
        let own = self.over.get(key).or_else(|| self.ve.get(key));
        own.or_else(|| if self.inherits(key) { self.global.get(key) } else { None }).map(String::as_str)
    }

    fn inherits(&self, key: &str) -> bool {
        self.ctid.is_none() || !(VE_ONLY.contains(&key) || (key == "VE_LAYOUT" && self.file.is_some()))
    }

    /// The value of the node: vz.conf only, whatever the VE says.
    #[must_use]
    pub fn node(&self, key: &str) -> Option<&str> {
        self.global.get(canonical_key(key)).map(String::as_str)
    }

    /// The value in the VE's own config file, if it is valid.
    #[must_use]
    pub fn own(&self, key: &str) -> Option<&str> {
        self.ve.get(canonical_key(key)).map(String::as_str)
    }

    fn words(&self, key: &str) -> Vec<String> {
        self.get(key).unwrap_or_default().split_whitespace().map(str::to_string).collect()
    }

    fn list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        self.get(key).unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    fn number<N: std::str::FromStr>(&self, key: &str) -> Option<N> {
        self.get(key)?.parse().ok()
    }

    fn pair(&self, key: &str, unit: Unit) -> Option<Pair> {
        Pair::parse_clamped(self.get(key)?, unit).ok().map(|(pair, _)| pair)
    }

    fn yes(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    fn expand(&self, key: &str) -> Option<PathBuf> {
        let value = self.text(key)?;
        let id = self.ctid.map(|c| c.to_string()).unwrap_or_else(|| "$VEID".to_string());
        let expanded = if value.contains("${VEID}") {
            value.replacen("${VEID}", &id, 1)
        } else {
            value.replacen("$VEID", &id, 1)
        };
        let trimmed = expanded.trim_end_matches('/');
        Some(PathBuf::from(if trimmed.is_empty() { "/" } else { trimmed }))
    }

    fn dir(&self, value: Option<&str>, default: &str) -> PathBuf {
        value.filter(|v| !v.is_empty()).map_or_else(|| self.paths.vz().join(default), PathBuf::from)
    }

    /// VE_PRIVATE with `$VEID` filled in; unset is exit 23.
    #[must_use]
    pub fn ve_private(&self) -> Option<PathBuf> {
        self.expand("VE_PRIVATE")
    }

    /// VE_ROOT with `$VEID` filled in; unset is exit 22.
    #[must_use]
    pub fn ve_root(&self) -> Option<PathBuf> {
        self.expand("VE_ROOT")
    }

    /// TEMPLATE, by default `/vz/template`.
    #[must_use]
    pub fn template_dir(&self) -> PathBuf {
        self.dir(self.get("TEMPLATE"), "template")
    }

    /// DUMPDIR, by default `/vz/dump`.
    #[must_use]
    pub fn dump_dir(&self) -> PathBuf {
        self.dir(self.get("DUMPDIR"), "dump")
    }

    /// `<DUMPDIR>/Dump.<CTID>`, whose existence means "suspended".
    #[must_use]
    pub fn dump_file(&self) -> Option<PathBuf> {
        Some(self.dump_dir().join(format!("Dump.{}", self.ctid?)))
    }

    /// LOCKDIR of the node, by default `/vz/lock`.
    #[must_use]
    pub fn lock_dir(&self) -> PathBuf {
        self.dir(self.node("LOCKDIR"), "lock")
    }

    /// IP_ADDRESS, in order.
    #[must_use]
    pub fn ip_addresses(&self) -> Vec<VeIp> {
        self.list("IP_ADDRESS")
    }

    /// NAMESERVER; `inherit` as the first element means the host's.
    #[must_use]
    pub fn nameservers(&self) -> Vec<String> {
        self.words("NAMESERVER")
    }

    /// SEARCHDOMAIN; `inherit` as the first element means the host's.
    #[must_use]
    pub fn searchdomains(&self) -> Vec<String> {
        self.words("SEARCHDOMAIN")
    }

    /// HOSTNAME.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.text("HOSTNAME")
    }

    /// NAME.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.text("NAME")
    }

    /// DESCRIPTION.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.text("DESCRIPTION")
    }

    /// OSTEMPLATE.
    #[must_use]
    pub fn ostemplate(&self) -> Option<&str> {
        self.text("OSTEMPLATE")
    }

    /// DEF_OSTEMPLATE of the node.
    #[must_use]
    pub fn def_ostemplate(&self) -> Option<&str> {
        self.node("DEF_OSTEMPLATE").filter(|v| !v.is_empty())
    }

    /// CONFIGFILE of the node: the default sample.
    #[must_use]
    pub fn configfile(&self) -> Option<&str> {
        self.node("CONFIGFILE").filter(|v| !v.is_empty())
    }

    /// VE_LAYOUT as written (`simfs`, `overlay`, `ploop[:mode]`, `btrfs`, `auto`).
    #[must_use]
    pub fn layout(&self) -> Option<&str> {
        self.text("VE_LAYOUT")
    }

    /// ONBOOT: yes, no, or not said.
    #[must_use]
    pub fn onboot(&self) -> Option<bool> {
        self.yes("ONBOOT")
    }

    /// BOOTORDER: higher starts earlier, unset last.
    #[must_use]
    pub fn bootorder(&self) -> Option<u64> {
        self.number("BOOTORDER")
    }

    /// DISABLED=yes.
    #[must_use]
    pub fn disabled(&self) -> bool {
        self.yes("DISABLED") == Some(true)
    }

    /// STOP_TIMEOUT in seconds: VE, node, 120; 0 counts as unset.
    #[must_use]
    pub fn stop_timeout(&self) -> u64 {
        self.number("STOP_TIMEOUT").filter(|s| *s != 0).unwrap_or(120)
    }

    /// FEATURES as switched.
    #[must_use]
    pub fn features(&self) -> Vec<Toggle> {
        self.list("FEATURES")
    }

    /// One feature: on, off, or not said.
    #[must_use]
    pub fn feature(&self, name: &str) -> Option<bool> {
        self.features().into_iter().rev().find(|t| t.name.eq_ignore_ascii_case(name)).map(|t| t.on)
    }

    /// CAPABILITY as switched.
    #[must_use]
    pub fn capability(&self) -> Vec<Toggle> {
        self.list("CAPABILITY")
    }

    /// NETIF.
    #[must_use]
    pub fn netif(&self) -> Vec<NetIf> {
        self.get("NETIF").and_then(|v| NetIf::parse_list(v).ok()).unwrap_or_default()
    }

    /// NETDEV: host devices moved into the VE.
    #[must_use]
    pub fn netdev(&self) -> Vec<String> {
        self.words("NETDEV")
    }

    /// DEVICES.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceRule> {
        self.list("DEVICES")
    }

    /// DEVNODES.
    #[must_use]
    pub fn devnodes(&self) -> Vec<DevNode> {
        self.list("DEVNODES")
    }

    /// PCI.
    #[must_use]
    pub fn pci(&self) -> Vec<Pci> {
        self.list("PCI")
    }

    /// LOCAL_UID: the first host uid of the VE's range; 0 is a privileged VE; unset lets the node choose.
    #[must_use]
    pub fn local_uid(&self) -> Option<u32> {
        self.number("LOCAL_UID")
    }

    /// LOCAL_GID.
    #[must_use]
    pub fn local_gid(&self) -> Option<u32> {
        self.number("LOCAL_GID")
    }

    /// A beancounter by name in any case, in its own unit.
    #[must_use]
    pub fn ubc(&self, name: &str) -> Option<Pair> {
        let key = name.to_ascii_uppercase();
        match by_key(&key)?.kind {
            Kind::Ubc(unit) => self.pair(&key, unit),
            _ => None,
        }
    }

    /// DISKSPACE soft:hard in KiB.
    #[must_use]
    pub fn diskspace(&self) -> Option<Pair> {
        self.pair("DISKSPACE", Unit::Kib)
    }

    /// DISKINODES soft:hard.
    #[must_use]
    pub fn diskinodes(&self) -> Option<Pair> {
        self.pair("DISKINODES", Unit::Items)
    }

    /// DISK_QUOTA, yes unless said otherwise.
    #[must_use]
    pub fn disk_quota(&self) -> bool {
        self.yes("DISK_QUOTA") != Some(false)
    }

    /// QUOTATIME in seconds.
    #[must_use]
    pub fn quotatime(&self) -> Option<u64> {
        self.number("QUOTATIME")
    }

    /// QUOTAUGIDLIMIT; 0 is off.
    #[must_use]
    pub fn quotaugidlimit(&self) -> Option<u64> {
        self.number("QUOTAUGIDLIMIT")
    }

    /// CPUUNITS.
    #[must_use]
    pub fn cpuunits(&self) -> Option<u32> {
        self.number("CPUUNITS")
    }

    /// CPULIMIT in percent of one CPU; 0 is none.
    #[must_use]
    pub fn cpulimit(&self) -> Option<u32> {
        self.number("CPULIMIT")
    }

    /// CPUS: how many it sees; 0 is all.
    #[must_use]
    pub fn cpus(&self) -> Option<u32> {
        self.number("CPUS")
    }

    /// CPUMASK: `all`, `auto` or ranges.
    #[must_use]
    pub fn cpumask(&self) -> Option<&str> {
        self.text("CPUMASK")
    }

    /// NODEMASK: `all` or ranges.
    #[must_use]
    pub fn nodemask(&self) -> Option<&str> {
        self.text("NODEMASK")
    }

    /// IOPRIO 0..7.
    #[must_use]
    pub fn ioprio(&self) -> Option<u8> {
        self.number("IOPRIO")
    }

    /// IOLIMIT in bytes per second; 0 is none.
    #[must_use]
    pub fn iolimit(&self) -> Option<u64> {
        self.number("IOLIMIT")
    }

    /// IOPSLIMIT in operations per second; 0 is none.
    #[must_use]
    pub fn iopslimit(&self) -> Option<u64> {
        self.number("IOPSLIMIT")
    }

    /// VM_OVERCOMMIT.
    #[must_use]
    pub fn vm_overcommit(&self) -> Option<f64> {
        self.number("VM_OVERCOMMIT")
    }

    /// IPV6 of the node, yes unless said otherwise.
    #[must_use]
    pub fn ipv6(&self) -> bool {
        self.node("IPV6").is_none_or(|v| v == "yes")
    }

    /// LOGGING, yes unless said otherwise.
    #[must_use]
    pub fn logging(&self) -> bool {
        self.node("LOGGING").is_none_or(|v| v != "no")
    }

    /// LOG_LEVEL of the log file, by default 0.
    #[must_use]
    pub fn log_level(&self) -> i32 {
        self.node("LOG_LEVEL").and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// VERBOSE of the console, by default 0.
    #[must_use]
    pub fn verbose(&self) -> i32 {
        self.node("VERBOSE").and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// LOGFILE, by default `/var/log/vzctl.log`.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.node("LOGFILE").filter(|v| !v.is_empty()).map_or_else(|| self.paths.log_file(), PathBuf::from)
    }
}

#[cfg(test)]
mod tests;
