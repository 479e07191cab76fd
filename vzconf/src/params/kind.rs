//! What values an option or key takes, and their stored form.
use std::str::FromStr;

use crate::units::{Rounding, SizeError, UNLIMITED, format_amount, parse_amount};
use crate::{DevNode, DeviceRule, Mac, Mask, NetIf, NewNetIf, Pair, Pci, Toggle, Unit, VeIp, names, netif};

/// The capabilities that can be switched, the field's own first.
pub const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "VE_ADMIN",
    "SETFCAP",
    // What Linux has got since.
    "AUDIT_CONTROL",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The features that can be switched; the last three are ours.
pub const FEATURES: &[&str] =
    &["sysfs", "nfs", "sit", "ipip", "ppp", "ipgre", "bridge", "nfsd", "nesting", "procbc", "sysinfo"];

/// The packet filter modules of the obsolete `--iptables`.
pub const IPTABLES: &[&str] = &[
    "ip_tables",
    "iptable_filter",
    "iptable_mangle",
    "ipt_limit",
    "ipt_multiport",
    "ipt_tos",
    "ipt_TOS",
    "ipt_REJECT",
    "ipt_TCPMSS",
    "ipt_tcpmss",
    "ipt_ttl",
    "ipt_LOG",
    "ipt_length",
    "ip_conntrack",
    "ip_conntrack_ftp",
    "ip_conntrack_irc",
    "ipt_conntrack",
    "ipt_state",
    "ipt_helper",
    "iptable_nat",
    "ip_nat_ftp",
    "ip_nat_irc",
    "ipt_REDIRECT",
    "xt_mac",
    "ipt_recent",
    "ipt_owner",
];

/// Where a text comes from: some defaults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A command line.
    Option,
    /// A config file.
    File,
}

/// What values an option or key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No value.
    Flag,
    /// Exactly `yes` or `no`.
    YesNo,
    /// A decimal number.
    Uint {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A number with a fraction.
    Float {
        /// The greatest on a command line.
        max: u32,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Free text on one line.
    Text,
    /// An absolute path.
    Path,
    /// A VE's name, or nothing.
    Name,
    /// A host name, or nothing.
    Hostname,
    /// The name of an OS template.
    Template,
    /// The name of a sample config.
    Sample,
    /// A layout of the private area.
    Layout,
    /// Mount options.
    MountOpts,
    /// `USER:PASSWORD`.
    Password,
    /// A beancounter in its unit.
    Ubc(Unit),
    /// A disk limit: as a beancounter, never unlimited.
    Disk(Unit),
    /// Bytes, stored as `0:<pages>`.
    Ram,
    /// Percent, or on a command line a share with `%`.
    CpuLimit,
    /// CPU numbers, `all` or `auto`.
    CpuMask,
    /// Node numbers or `all`.
    NodeMask,
    /// What meminfo shows.
    MemInfo,
    /// Bytes per second.
    IoLimit,
    /// Operations per second.
    IopsLimit,
    /// Addresses, separated by blanks.
    IpAdd,
    /// Addresses or `all`.
    IpDel,
    /// Name servers or `inherit`.
    Servers,
    /// Search domains or `inherit`.
    Domains,
    /// A new veth device (in files: the list of them).
    NetifAdd,
    /// A veth device's name or `all`.
    NetifDel,
    /// An interface name.
    Ifname,
    /// A hardware address.
    Mac,
    /// A bridge, or nothing.
    Bridge,
    /// A host device to move (in files: the list of them).
    NetdevAdd,
    /// A host device to move back.
    NetdevDel,
    /// Capabilities switched on or off.
    Capabilities,
    /// Features switched on or off.
    Features,
    /// Obsolete packet filter modules.
    IptablesModules,
    /// Device files.
    DevNodes,
    /// Device numbers.
    Devices,
    /// A PCI device (in files: the list of them).
    PciAdd,
    /// A PCI device to take back.
    PciDel,
}

impl Kind {
    /// The stored form of a value, or in a few words what would be accepted.
    ///
    /// `CpuLimit` of an option may keep its `%`; the caller knows the number of CPUs.
    ///
    /// # Errors
    /// The text after "expected".
    pub fn canonical(self, text: &str, origin: Origin) -> Result<String, String> {
        if text.contains(['\n', '\r', '\0']) {
            return Err(format!("{} on one line", self.allowed()));
        }
        self.convert(text, origin).ok_or_else(|| self.allowed())
    }

    fn convert(self, text: &str, origin: Origin) -> Option<String> {
        let own = || text.to_string();
        let keep = |good: bool| good.then(own);
        match self {
            Kind::Flag | Kind::Text => Some(own()),
            Kind::YesNo => keep(text == "yes" || text == "no"),
            Kind::Uint { min, max } => uint(text).filter(|n| (min..=max).contains(n)).map(|n| n.to_string()),
            Kind::Float { max } => keep(is_float(text, max, origin)),
            Kind::OneOf(words) => keep(words.contains(&text)),
            Kind::Path => path(text, origin),
            Kind::Name => keep(text.is_empty() || names::check(text).is_ok()),
            Kind::Hostname => keep(text.is_empty() || is_hostname(text)),
            Kind::Template | Kind::Sample => keep(is_file_name(text)),
            Kind::Layout => keep(is_layout(text)),
            Kind::MountOpts => keep(text.chars().all(|c| c.is_ascii_alphanumeric() || "_=,.-:".contains(c))),
            Kind::Password => keep(is_password(text)),
            Kind::Ubc(unit) => ubc(text, unit, origin),
            Kind::Disk(unit) => disk(text, unit, origin),
            Kind::Ram => ram(text),
            Kind::CpuLimit => cpu_limit(text, origin),
            Kind::CpuMask if text == "auto" => Some(own()),
            Kind::CpuMask | Kind::NodeMask if text == "all" => Some(own()),
            Kind::CpuMask | Kind::NodeMask => text.parse::<Mask>().ok().map(|m| m.to_string()),
            Kind::MemInfo => keep(is_meminfo(text)),
            Kind::IoLimit => io_limit(text, origin),
            Kind::IopsLimit if text == "unlimited" => Some("0".to_string()),
            Kind::IopsLimit => uint(text).filter(|n| *n <= u64::from(u32::MAX)).map(|n| n.to_string()),
            Kind::NetifAdd if origin == Origin::File => {
                NetIf::parse_list(text).ok().map(|l| NetIf::format_list(&l))
            }
            Kind::NetifAdd => text.parse::<NewNetIf>().ok().map(|_| own()),
            Kind::NetifDel => keep(text == "all" || netif::is_ifname(text)),
            Kind::Ifname => keep(netif::is_ifname(text)),
            Kind::Bridge => keep(text.is_empty() || netif::is_ifname(text)),
            Kind::Mac => text.parse::<Mac>().ok().map(|m| m.to_string()),
            _ => self.list(text),
        }
    }

    /// The kinds that are lists of words.
    fn list(self, text: &str) -> Option<String> {
        let words: Option<Vec<String>> =
            self.split(text).filter(|w| !w.is_empty()).map(|w| self.element(w)).collect();
        let words = words?;
        if words.is_empty() && !self.may_be_empty() {
            return None;
        }
        if words.len() > 1 && words[0] == "inherit" {
            return None;
        }
        Some(words.join(" "))
    }

    fn may_be_empty(self) -> bool {
        !matches!(self, Kind::IpDel | Kind::NetdevDel | Kind::PciDel)
    }

    /// Cuts a list into its words.
    pub(crate) fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let commas = matches!(self, Kind::Capabilities | Kind::Features | Kind::IptablesModules);
        text.split(move |c: char| c.is_whitespace() || (commas && c == ','))
    }

    /// Whether values are lists of words of which a bad one can be left out.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Kind::IpAdd
                | Kind::IpDel
                | Kind::Servers
                | Kind::Domains
                | Kind::NetdevAdd
                | Kind::NetdevDel
                | Kind::Capabilities
                | Kind::Features
                | Kind::IptablesModules
                | Kind::DevNodes
                | Kind::Devices
                | Kind::PciAdd
                | Kind::PciDel
        )
    }

    /// The stored form of one word of a list.
    pub(crate) fn element(self, word: &str) -> Option<String> {
        fn shown<T: FromStr + ToString>(word: &str) -> Option<String> {
            word.parse::<T>().ok().map(|v| v.to_string())
        }
        match self {
            Kind::IpDel if word == "all" => Some(word.to_string()),
            Kind::IpAdd | Kind::IpDel => shown::<VeIp>(word),
            Kind::Servers | Kind::Domains if word == "inherit" => Some(word.to_string()),
            Kind::Servers => shown::<std::net::IpAddr>(word),
            Kind::Domains => (is_hostname(word) || word == ".").then(|| word.to_string()),
            Kind::NetdevAdd | Kind::NetdevDel => is_netdev(word).then(|| word.to_string()),
            Kind::Capabilities => toggle(word, CAPABILITIES),
            Kind::Features => toggle(word, FEATURES),
            Kind::IptablesModules => IPTABLES.contains(&word).then(|| word.to_string()),
            Kind::DevNodes => shown::<DevNode>(word),
            Kind::Devices => shown::<DeviceRule>(word),
            Kind::PciAdd | Kind::PciDel => shown::<Pci>(word),
            _ => None,
        }
    }

    /// In a few words what is accepted.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Kind::Flag => "no value",
            Kind::YesNo => "yes or no",
            Kind::Uint { min, max: u64::MAX } => return format!("a number from {min}"),
            Kind::Uint { min, max } => return format!("a number from {min} to {max}"),
            Kind::Float { max } => return format!("a number from 0 to {max}, such as 1.5"),
            Kind::OneOf(words) => return words.join(", "),
            Kind::Text => "text",
            Kind::Path => "an absolute path",
            Kind::Name => "letters, digits, blanks and -+_.",
            Kind::Hostname => "a host name of up to 64 letters, digits, '-', '_' and '.'",
            Kind::Template | Kind::Sample => "a name without '/'",
            Kind::Layout => "auto, overlay, simfs or ploop",
            Kind::MountOpts => "mount options separated by commas",
            Kind::Password => "USER:PASSWORD",
            Kind::Ubc(unit) => return format!("BARRIER[:LIMIT], {}, or unlimited", amounts(unit, UNLIMITED)),
            Kind::Disk(unit) => return format!("SOFT[:HARD], {}", amounts(unit, UNLIMITED - 1)),
            Kind::Ram => {
                return format!(
                    "bytes from 0 to {UNLIMITED} pages, or with a suffix {SUFFIXES}, or unlimited"
                );
            }
            Kind::CpuLimit => {
                return format!(
                    "percent of one CPU from 0 (none) to {CPU_LIMIT_MAX}, or of the node from 0% to 100%"
                );
            }
            Kind::CpuMask => {
                return format!("a list of CPUs from 0 to {}, such as 0-2,7, all or auto", Mask::MAX);
            }
            Kind::NodeMask => return format!("a list of nodes from 0 to {}, such as 0-1, or all", Mask::MAX),
            Kind::MemInfo => {
                return format!("none, pages:N or privvmpages:N with N from 1 to {UNLIMITED}");
            }
            Kind::IoLimit => {
                return format!(
                    "MB/s or with a suffix B, K, M or G, from 0 (none) to {}B, or unlimited",
                    i32::MAX
                );
            }
            Kind::IopsLimit => return format!("a number from 0 (none) to {}, or unlimited", u32::MAX),
            Kind::IpAdd => "IPv4 or IPv6 addresses with an optional /prefix",
            Kind::IpDel => "IPv4 or IPv6 addresses, or all",
            Kind::Servers => "an IPv4 or IPv6 address, or inherit",
            Kind::Domains => "a domain name, or inherit",
            Kind::NetifAdd => "IFNAME[,MAC,HOST_IFNAME,HOST_MAC,BRIDGE], names up to 15 characters",
            Kind::NetifDel => "an interface name or all",
            Kind::Ifname => "an interface name of up to 15 characters",
            Kind::Mac => "a unicast address XX:XX:XX:XX:XX:XX",
            Kind::Bridge => "the name of a bridge, or nothing",
            Kind::NetdevAdd | Kind::NetdevDel => "a network device that is not venet*, tun*, tap* or lo*",
            Kind::Capabilities => return format!("NAME:on|off of {}", CAPABILITIES.join(" ").to_lowercase()),
            Kind::Features => return format!("NAME:on|off of {}", FEATURES.join(" ")),
            Kind::IptablesModules => return format!("modules of {}", IPTABLES.join(" ")),
            Kind::DevNodes => "DEVICE:[r][w][q] or DEVICE:none",
            Kind::Devices => "b|c:MAJOR:MINOR|all:[r][w][q]|none, never major 7",
            Kind::PciAdd | Kind::PciDel => "[DOMAIN:]BUS:SLOT.FUNCTION in hexadecimal",
        }
        .to_string()
    }
}

const SUFFIXES: &str = "T, G, M, K, P or B";
/// Of one CPU: more CPUs than any kernel takes.
const CPU_LIMIT_MAX: u64 = 100 * 65536;

/// The values of a pair, in words.
fn amounts(unit: Unit, most: u64) -> String {
    let (of, suffix) = match unit {
        Unit::Items => ("numbers", ""),
        Unit::Bytes => ("bytes", SUFFIXES),
        Unit::Pages => ("pages", SUFFIXES),
        Unit::Kib => ("KiB", SUFFIXES),
    };
    let suffix =
        if suffix.is_empty() { " without suffix".to_owned() } else { format!(" or with a suffix {suffix}") };
    format!("{of} from 0 to {most}{suffix}, the first not above the second")
}

fn uint(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_float(text: &str, max: u32, origin: Origin) -> bool {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let fits = |n: f64| n.is_finite() && (origin == Origin::File || n <= f64::from(max));
    plain && text.parse().is_ok_and(fits)
}

/// Trailing slashes go. Files may hold anything absolute or starting with a variable, as shells expand it.
fn path(text: &str, origin: Origin) -> Option<String> {
    let absolute = text.starts_with('/') || (origin == Origin::File && text.starts_with('$'));
    let trimmed = text.trim_end_matches('/');
    absolute.then(|| if trimmed.is_empty() { "/".to_string() } else { trimmed.to_string() })
}

/// The kernel takes 64 bytes.
fn is_hostname(text: &str) -> bool {
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 64 && text.chars().all(label) && !text.starts_with(['-', '.']) && !text.contains("..")
}

fn is_file_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+:@~-".contains(c);
    !text.is_empty() && text.len() <= 200 && text != "." && text != ".." && text.chars().all(plain)
}

fn is_layout(text: &str) -> bool {
    matches!(
        text,
        "auto" | "simfs" | "overlay" | "btrfs" | "ploop" | "ploop:expanded" | "ploop:plain" | "ploop:raw"
    )
}

fn is_password(text: &str) -> bool {
    let user = |c: char| c.is_ascii_alphanumeric() || "_.-+@$".contains(c);
    text.split_once(':').is_some_and(|(name, password)| {
        !name.is_empty() && !name.starts_with('-') && name.chars().all(user) && !password.is_empty()
    })
}

fn pair(text: &str, unit: Unit, origin: Origin) -> Option<Pair> {
    match origin {
        // A file may be older than this rule: it is told by vzcfgvalidate, and the limit counts.
        Origin::Option => Pair::parse(text, unit).ok().filter(|pair| pair.barrier <= pair.limit),
        Origin::File => Pair::parse_clamped(text, unit).ok().map(|(pair, _)| pair),
    }
}

fn ubc(text: &str, unit: Unit, origin: Origin) -> Option<String> {
    pair(text, unit, origin).map(|pair| pair.to_string())
}

/// Always both values: libvirt reads no DISKSPACE without a colon.
fn disk(text: &str, unit: Unit, origin: Origin) -> Option<String> {
    let Pair { barrier, limit } = pair(text, unit, origin)?;
    (barrier < UNLIMITED && limit < UNLIMITED).then(|| format!("{barrier}:{limit}"))
}

fn ram(text: &str) -> Option<String> {
    // A bare number is bytes here, not pages.
    let bytes = |text: &str| match text.chars().next_back() {
        Some(c) if c.is_ascii_digit() => parse_amount(&format!("{text}b"), Unit::Pages, Rounding::Up),
        _ => parse_amount(text, Unit::Pages, Rounding::Up),
    };
    let pages = bytes(text).ok()?;
    Some(format!("0:{}", format_amount(pages)))
}

fn cpu_limit(text: &str, origin: Origin) -> Option<String> {
    match text.strip_suffix('%') {
        Some(share) if origin == Origin::Option => uint(share).filter(|n| *n <= 100).map(|n| format!("{n}%")),
        Some(percent) => uint(percent).map(|n| n.to_string()),
        None => uint(text).filter(|n| *n <= CPU_LIMIT_MAX).map(|n| n.to_string()),
    }
}

fn is_meminfo(text: &str) -> bool {
    let counted = |n: &str| uint(n).is_some_and(|n| n > 0 && n <= UNLIMITED);
    match text.split_once(':') {
        None => text == "none",
        Some((mode, n)) => matches!(mode, "pages" | "privvmpages") && counted(n),
    }
}

/// Bytes per second, capped at what the field's tools can store.
fn io_limit(text: &str, origin: Origin) -> Option<String> {
    if text == "unlimited" {
        return Some("0".to_string());
    }
    let (number, suffix) = match text.chars().next_back()? {
        c if c.is_ascii_alphabetic() => (&text[..text.len() - 1], c.to_ascii_uppercase()),
        _ => (text, if origin == Origin::Option { 'M' } else { 'B' }),
    };
    if !matches!(suffix, 'B' | 'K' | 'M' | 'G') {
        return None;
    }
    let bytes = match parse_amount(&format!("{number}{suffix}"), Unit::Bytes, Rounding::Down) {
        Err(SizeError::TooLarge) => i32::MAX as u64,
        other => other.ok()?,
    };
    Some(bytes.min(i32::MAX as u64).to_string())
}

fn is_netdev(word: &str) -> bool {
    netif::is_ifname(word) && !["venet", "tun", "tap", "lo"].iter().any(|p| word.starts_with(p))
}

/// `name:on|off` in the list's own spelling of the name.
fn toggle(word: &str, known: &[&str]) -> Option<String> {
    let toggle: Toggle = word.parse().ok()?;
    let name = known.iter().find(|name| name.eq_ignore_ascii_case(&toggle.name))?;
    Some(Toggle { name: (*name).to_string(), on: toggle.on }.to_string())
}
