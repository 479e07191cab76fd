//! Veth devices: the NETIF key, the `--netif_add` forms, and the MAC rules.
use std::fmt;
use std::str::FromStr;

use crate::Ctid;

/// The longest interface name of Linux.
const NAME_MAX: usize = 15;
/// The prefix of generated addresses.
const VENDOR: [u8; 3] = [0x00, 0x18, 0x51];

/// Why a device text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetIf {
    /// Not an interface name.
    #[error("{name:?} is not an interface name (1 to 15 characters, no blank, '/', ',' or ';')")]
    Name {
        /// What was given.
        name: String,
    },
    /// Not a MAC address.
    #[error("{text:?} is not a unicast MAC address XX:XX:XX:XX:XX:XX")]
    Mac {
        /// What was given.
        text: String,
    },
    /// An unknown or wrong field.
    #[error("bad field {field:?}")]
    Field {
        /// What was given.
        field: String,
    },
    /// The device's own name is missing.
    #[error("no ifname")]
    NoIfname,
}

/// A hardware address, printed upper-case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = BadNetIf;

    fn from_str(text: &str) -> Result<Mac, BadNetIf> {
        let bad = || BadNetIf::Mac { text: text.to_string() };
        let mut mac = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // The kernel refuses group addresses and zero, so say it here.
        if parts.next().is_some() || mac[0] & 1 == 1 || mac == [0; 6] {
            return Err(bad());
        }
        Ok(Mac(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl Mac {
    /// The address of `ifname` of `ctid` on the node whose first Ethernet address is `host`: always the same one.
    #[must_use]
    pub fn generate(ifname: &str, ctid: Ctid, host: Mac) -> Mac {
        // FNV-1a with a final avalanche; needs to spread, not to resist.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in format!("{ifname}:{ctid}:{host}").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        let [a, b, c, ..] = hash.to_be_bytes();
        Mac([VENDOR[0], VENDOR[1], VENDOR[2], a, b, c])
    }
}

/// One veth pair of a VE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetIf {
    /// The name inside.
    pub ifname: String,
    /// The host's bridge to attach to.
    pub bridge: Option<String>,
    /// The address inside.
    pub mac: Option<Mac>,
    /// The name on the host.
    pub host_ifname: Option<String>,
    /// The address on the host.
    pub host_mac: Option<Mac>,
    /// Whether the VE may use other addresses (`off`) or not; unset counts as on.
    pub mac_filter: Option<bool>,
}

/// The name a device has on the host unless told: `veth<CTID>.<N>`, N being the first number in `ifname`.
#[must_use]
pub fn default_host_ifname(ctid: Ctid, ifname: &str) -> String {
    let number: String =
        ifname.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    format!("veth{ctid}.{}", number.parse::<u32>().unwrap_or(0))
}

/// Whether a text can name a network interface.
#[must_use]
pub fn is_ifname(name: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ',' | ';' | ':' | '"');
    !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != ".." && !name.contains(forbidden)
}

fn ifname(name: &str) -> Result<String, BadNetIf> {
    if is_ifname(name) { Ok(name.to_string()) } else { Err(BadNetIf::Name { name: name.to_string() }) }
}

impl NetIf {
    /// A device with nothing but a name.
    ///
    /// # Errors
    /// [`BadNetIf::Name`].
    pub fn named(name: &str) -> Result<NetIf, BadNetIf> {
        Ok(NetIf {
            ifname: ifname(name)?,
            bridge: None,
            mac: None,
            host_ifname: None,
            host_mac: None,
            mac_filter: None,
        })
    }

    /// Gives every unset field but the bridge its default.
    pub(crate) fn fill(&mut self, ctid: Ctid, host: Mac) {
        let host_ifname =
            self.host_ifname.get_or_insert_with(|| default_host_ifname(ctid, &self.ifname)).clone();
        self.mac.get_or_insert_with(|| Mac::generate(&self.ifname, ctid, host));
        self.host_mac.get_or_insert_with(|| Mac::generate(&host_ifname, ctid, host));
    }

    /// Parses the whole NETIF value.
    ///
    /// # Errors
    /// [`BadNetIf`] of the first bad device.
    pub fn parse_list(value: &str) -> Result<Vec<NetIf>, BadNetIf> {
        value.split(';').map(str::trim).filter(|v| !v.is_empty()).map(str::parse).collect()
    }

    /// The whole NETIF value.
    #[must_use]
    pub fn format_list(list: &[NetIf]) -> String {
        list.iter().map(NetIf::to_string).collect::<Vec<_>>().join(";")
    }
}

/// `--netif_add`'s `if[,mac,host_if,host_mac,bridge]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetIf {
    given: NetIf,
    /// The address, given or to be generated, is the last field: it is for both ends.
    one_mac: bool,
}

impl FromStr for NewNetIf {
    type Err = BadNetIf;

    fn from_str(text: &str) -> Result<NewNetIf, BadNetIf> {
        let fields: Vec<&str> = text.split(',').collect();
        if let Some(extra) = fields.get(5) {
            return Err(BadNetIf::Field { field: (*extra).to_string() });
        }
        let field = |at: usize| fields.get(at).copied().filter(|f| !f.is_empty());
        let mut netif = NetIf::named(fields[0])?;
        netif.mac = field(1).map(str::parse).transpose()?;
        netif.host_ifname = field(2).map(ifname).transpose()?;
        netif.host_mac = field(3).map(str::parse).transpose()?;
        netif.bridge = field(4).map(ifname).transpose()?;
        Ok(NewNetIf { given: netif, one_mac: fields.len() == 2 })
    }
}

impl NewNetIf {
    /// The device's name in the VE.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.given.ifname
    }

    /// The device of this VE on the node whose first Ethernet address is `host`: every field but the bridge
    /// that was not given has its default.
    #[must_use]
    pub fn complete(&self, ctid: Ctid, host: Mac) -> NetIf {
        let mut netif = self.given.clone();
        netif.fill(ctid, host);
        if self.one_mac {
            netif.host_mac = netif.mac;
        }
        netif
    }
}

impl FromStr for NetIf {
    type Err = BadNetIf;

    /// One device of the NETIF key: `ifname=eth0,bridge=…,mac=…`, in any order.
    fn from_str(text: &str) -> Result<NetIf, BadNetIf> {
        let mut name = None;
        let mut netif = NetIf {
            ifname: String::new(),
            bridge: None,
            mac: None,
            host_ifname: None,
            host_mac: None,
            mac_filter: None,
        };
        for field in text.split(',').map(str::trim) {
            let bad = || BadNetIf::Field { field: field.to_string() };
            let (key, value) = field.split_once('=').ok_or_else(bad)?;
            match key {
                "ifname" => name = Some(ifname(value)?),
                _ if value.is_empty() => {}
                "bridge" => netif.bridge = Some(ifname(value)?),
                "mac" => netif.mac = Some(value.parse()?),
                "host_ifname" => netif.host_ifname = Some(ifname(value)?),
                "host_mac" => netif.host_mac = Some(value.parse()?),
                "mac_filter" if value == "on" => netif.mac_filter = Some(true),
                "mac_filter" if value == "off" => netif.mac_filter = Some(false),
                _ => return Err(bad()),
            }
        }
        netif.ifname = name.ok_or(BadNetIf::NoIfname)?;
        Ok(netif)
    }
}

impl fmt::Display for NetIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ifname={}", self.ifname)?;
        if let Some(bridge) = &self.bridge {
            write!(f, ",bridge={bridge}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        if let Some(name) = &self.host_ifname {
            write!(f, ",host_ifname={name}")?;
        }
        if let Some(mac) = self.host_mac {
            write!(f, ",host_mac={mac}")?;
        }
        match self.mac_filter {
            Some(true) => f.write_str(",mac_filter=on"),
            Some(false) => f.write_str(",mac_filter=off"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
