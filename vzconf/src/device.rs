//! Devices a VE may use: the DEVICES, DEVNODES and PCI keys.
use std::fmt;
use std::str::FromStr;

/// Why a device text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDevice {
    /// Not of the form.
    #[error("not of the form asked for")]
    Syntax,
    /// A device that is never given away.
    #[error("devices of major 7 (loop, vcs) are never given to a VE")]
    Forbidden,
}

/// What a VE may do with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// Read from it.
    pub read: bool,
    /// Write to it.
    pub write: bool,
    /// Use disk quota on it.
    pub quota: bool,
}

impl Access {
    /// No access, which removes the entry.
    pub const NONE: Access = Access { read: false, write: false, quota: false };
}

impl FromStr for Access {
    type Err = BadDevice;

    fn from_str(text: &str) -> Result<Access, BadDevice> {
        if text == "none" {
            return Ok(Access::NONE);
        }
        let mut access = Access::NONE;
        for c in text.chars() {
            let flag = match c {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'q' => &mut access.quota,
                _ => return Err(BadDevice::Syntax),
            };
            *flag = true;
        }
        if access == Access::NONE { Err(BadDevice::Syntax) } else { Ok(access) }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Access::NONE {
            return f.write_str("none");
        }
        let letters = [(self.read, "r"), (self.write, "w"), (self.quota, "q")];
        letters.iter().filter(|(on, _)| *on).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// Block or character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// One entry of DEVICES: access by number, no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Block or character.
    pub kind: DeviceKind,
    /// The major number.
    pub major: u32,
    /// The minor number; `None` is all of them.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: Access,
}

impl DeviceRule {
    /// Whether both speak of the same device.
    #[must_use]
    pub fn same_device(&self, other: &DeviceRule) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

impl FromStr for DeviceRule {
    type Err = BadDevice;

    /// `b|c:major:minor|all:[r][w][q]|none`
    fn from_str(text: &str) -> Result<DeviceRule, BadDevice> {
        let mut fields = text.split(':');
        let mut next = || fields.next().ok_or(BadDevice::Syntax);
        let kind = match next()? {
            "b" => DeviceKind::Block,
            "c" => DeviceKind::Char,
            _ => return Err(BadDevice::Syntax),
        };
        let major = number(next()?, 0xfff)?;
        let minor = match next()? {
            "all" => None,
            minor => Some(number(minor, 0xf_ffff)?),
        };
        let access = next()?.parse()?;
        if fields.next().is_some() {
            return Err(BadDevice::Syntax);
        }
        if major == 7 {
            return Err(BadDevice::Forbidden);
        }
        Ok(DeviceRule { kind, major, minor, access })
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        let minor = self.minor.map_or_else(|| "all".to_string(), |minor| minor.to_string());
        write!(f, "{kind}:{}:{minor}:{}", self.major, self.access)
    }
}

fn number(text: &str, max: u32) -> Result<u32, BadDevice> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadDevice::Syntax);
    }
    text.parse().ok().filter(|n| *n <= max).ok_or(BadDevice::Syntax)
}

/// One entry of DEVNODES: a device file of the host, made in the VE too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DevNode {
    /// The path below `/dev`, such as `net/tun`.
    pub name: String,
    /// What is allowed.
    pub access: Access,
}

impl FromStr for DevNode {
    type Err = BadDevice;

    /// `device:[r][w][q]|none`
    fn from_str(text: &str) -> Result<DevNode, BadDevice> {
        let (name, access) = text.rsplit_once(':').ok_or(BadDevice::Syntax)?;
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"')
        };
        if !name.split('/').all(plain) {
            return Err(BadDevice::Syntax);
        }
        Ok(DevNode { name: name.to_string(), access: access.parse()? })
    }
}

impl fmt::Display for DevNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.access)
    }
}

/// One entry of PCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pci {
    /// The domain.
    pub domain: u16,
    /// The bus.
    pub bus: u8,
    /// The slot, 0..=31.
    pub slot: u8,
    /// The function, 0..=7.
    pub function: u8,
}

impl FromStr for Pci {
    type Err = BadDevice;

    /// `[domain:]bus:slot.function`, hexadecimal.
    fn from_str(text: &str) -> Result<Pci, BadDevice> {
        let hex = |text: &str, max: u16| {
            let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            let value = u16::from_str_radix(text, 16).ok().filter(|v| digits && *v <= max);
            value.ok_or(BadDevice::Syntax)
        };
        let (place, function) = text.split_once('.').ok_or(BadDevice::Syntax)?;
        let fields: Vec<&str> = place.split(':').collect();
        let (domain, bus, slot) = match fields[..] {
            [bus, slot] => ("0", bus, slot),
            [domain, bus, slot] => (domain, bus, slot),
            _ => return Err(BadDevice::Syntax),
        };
        Ok(Pci {
            domain: hex(domain, u16::MAX)?,
            bus: hex(bus, 0xff)? as u8,
            slot: hex(slot, 0x1f)? as u8,
            function: hex(function, 7)? as u8,
        })
    }
}

impl fmt::Display for Pci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.slot, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show<T: FromStr + fmt::Display>(text: &str) -> Option<String> {
        text.parse::<T>().ok().map(|v| v.to_string())
    }

    #[test]
    fn rules() {
        for (text, want) in [
            ("c:10:200:rw", Some("c:10:200:rw")),
            ("b:8:all:wr", Some("b:8:all:rw")),
            ("c:10:200:none", Some("c:10:200:none")),
            ("b:8:1:rwq", Some("b:8:1:rwq")),
            ("b:7:0:rw", None),
            ("d:8:1:r", None),
            ("b:8:1:x", None),
            ("b:8:1:", None),
            ("b:8:1", None),
            ("b:8:1:r:w", None),
            ("b:4096:1:r", None),
            ("b:-1:1:r", None),
            ("all", None),
        ] {
            assert_eq!(show::<DeviceRule>(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn nodes() {
        for (text, want) in [
            ("net/tun:rw", Some("net/tun:rw")),
            ("/dev/fuse:r", Some("fuse:r")),
            ("fuse:none", Some("fuse:none")),
            ("../sda:r", None),
            ("a//b:r", None),
            (":r", None),
            ("fuse", None),
            ("a b:r", None),
        ] {
            assert_eq!(show::<DevNode>(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn pci() {
        for (text, want) in [
            ("3:1f.7", Some("0000:03:1f.7")),
            ("0001:03:00.0", Some("0001:03:00.0")),
            ("3:20.0", None),
            ("3:1.8", None),
            ("3.1", None),
            ("+3:1.0", None),
            ("1:2:3:4.5", None),
        ] {
            assert_eq!(show::<Pci>(text).as_deref(), want, "{text}");
        }
    }
}
