//! Addresses of a VE.
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An IPv4 or IPv6 address with an optional prefix length, printed canonically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VeIp {
    /// The address.
    pub addr: IpAddr,
    /// The prefix length if one was given.
    pub prefix: Option<u8>,
}

/// Not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an IPv4 or IPv6 address with an optional /prefix")]
pub struct BadIp;

impl FromStr for VeIp {
    type Err = BadIp;

    fn from_str(text: &str) -> Result<VeIp, BadIp> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| BadIp)?;
        let prefix = prefix.map(|p| parse_prefix(p, addr)).transpose()?;
        Ok(VeIp { addr, prefix })
    }
}

/// A prefix length, or for IPv4 a dotted mask.
fn parse_prefix(text: &str, addr: IpAddr) -> Result<u8, BadIp> {
    let max = if addr.is_ipv4() { 32 } else { 128 };
    if addr.is_ipv4()
        && let Ok(mask) = text.parse::<std::net::Ipv4Addr>()
    {
        let bits = u32::from(mask);
        let ones = bits.leading_ones();
        return if bits.checked_shl(ones).unwrap_or(0) == 0 { Ok(ones as u8) } else { Err(BadIp) };
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadIp);
    }
    text.parse().ok().filter(|p| *p <= max).ok_or(BadIp)
}

impl fmt::Display for VeIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, want) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1/24", Some("10.0.0.1/24")),
            ("10.0.0.1/255.255.255.0", Some("10.0.0.1/24")),
            ("10.0.0.1/0.0.0.0", Some("10.0.0.1/0")),
            ("10.0.0.1/255.0.255.0", None),
            ("10.0.0.1/33", None),
            ("10.0.0.1/", None),
            ("10.0.0.1/+8", None),
            ("10.0.0", None),
            ("2001:DB8:0:0::1/64", Some("2001:db8::1/64")),
            ("::1/129", None),
            ("fe80::1%eth0", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<VeIp>().ok().map(|ip| ip.to_string()).as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(addr: IpAddr, prefix in proptest::option::of(0u8..=32)) {
            let ip = VeIp { addr, prefix };
            prop_assert_eq!(ip.to_string().parse(), Ok(ip));
        }
    }
}
