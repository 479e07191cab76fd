//! The typed values of a config. Files were checked when they were read, so what does not parse here is simply unset.
use std::path::PathBuf;

use super::Config;
use crate::params::{Kind, by_key};
use crate::{DevNode, DeviceRule, NetIf, Pair, Pci, Toggle, Unit, VeIp};

impl Config {
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

    /// BACKUP_DIR of the node, by default `/vz/backup`.
    #[must_use]
    pub fn backup_dir(&self) -> PathBuf {
        self.dir(self.node("BACKUP_DIR"), "backup")
    }

    /// BACKUP_CHAIN of the node: how many backups in a row go on from one another before a full one, by default 30.
    #[must_use]
    pub fn backup_chain(&self) -> usize {
        self.node("BACKUP_CHAIN").and_then(|value| value.parse().ok()).unwrap_or(30)
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

    /// IP_ADDRESS, in order; without IPv6 addresses on a node that has switched those off.
    #[must_use]
    pub fn ip_addresses(&self) -> Vec<VeIp> {
        let ipv6 = self.ipv6();
        self.list::<VeIp>("IP_ADDRESS").into_iter().filter(|ip| ipv6 || ip.addr.is_ipv4()).collect()
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

    /// PROC_BEANCOUNTERS: what is on in VEs whose FEATURES do not speak of `procbc`.
    #[must_use]
    pub fn proc_beancounters(&self) -> bool {
        self.yes("PROC_BEANCOUNTERS") == Some(true)
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

    /// CPUBURST: what a capped VE may save up, in percent of one CPU; 0 is none.
    #[must_use]
    pub fn cpuburst(&self) -> Option<u32> {
        self.number("CPUBURST")
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

    /// VE0CPUUNITS: the CPU units of the host, by default 1000.
    #[must_use]
    pub fn ve0_cpuunits(&self) -> u32 {
        let units = self.node("VE0CPUUNITS").and_then(|v| v.parse().ok());
        units.filter(|n| (8..=500_000).contains(n)).unwrap_or(1000)
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
