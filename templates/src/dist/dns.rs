//! The guest's resolver.

use std::net::IpAddr;
use std::path::Path;

use super::error::DistError;
use super::guest::Guest;
use super::root::GuestRoot;
use super::text;
use super::work::{Changes, Missing, Work};

const RESOLV: &str = "/etc/resolv.conf";
const HEADER: &str = "# Written by the host (vzctl set --nameserver, --searchdomain)\n";

/// Name servers and search domains; an empty list leaves what the guest has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsParams {
    /// `nameserver` lines.
    pub nameservers: Vec<IpAddr>,
    /// The `search` line.
    pub searchdomains: Vec<String>,
}

impl DnsParams {
    /// From configured words, where `inherit` stands for what the host's resolv.conf (`host`) says. A
    /// name server on the host's loopback (systemd-resolved) is of no use in a guest and left out.
    ///
    /// # Errors
    /// [`DistError::BadNameserver`], [`DistError::BadSearchDomain`].
    pub fn expand(nameservers: &[String], searchdomains: &[String], host: &str) -> Result<Self, DistError> {
        let mut params = Self::default();
        for word in nameservers {
            if word == "inherit" {
                let inherited = keyword(host, "nameserver").filter_map(|word| word.parse::<IpAddr>().ok());
                params.nameservers.extend(inherited.filter(|ip| !ip.is_loopback()));
            } else {
                let ip = word.parse().map_err(|_| DistError::BadNameserver { name: word.clone() })?;
                params.nameservers.push(ip);
            }
        }
        for word in searchdomains {
            if word == "inherit" {
                let inherited = keyword(host, "search").chain(keyword(host, "domain"));
                params.searchdomains.extend(inherited.filter(|d| is_domain(d)).map(str::to_owned));
            } else if is_domain(word) {
                params.searchdomains.push(word.clone());
            } else {
                return Err(DistError::BadSearchDomain { name: word.clone() });
            }
        }
        Ok(params)
    }
}

fn keyword<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let values = text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then_some(words)
    });
    values.flatten()
}

fn is_domain(word: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !word.is_empty() && word.len() <= 253 && word.chars().all(allowed)
}

/// Writes `/etc/resolv.conf`, and keeps the guest's own tools from overwriting it. A link to a file
/// that a resolver makes at run time gives way to a plain file; systemd-resolved then reads that.
///
/// # Errors
/// The files that could not be written; the others are.
pub fn set_dns(root: &GuestRoot, guest: &Guest, params: &DnsParams) -> Result<Changes, DistError> {
    if params.nameservers.is_empty() && params.searchdomains.is_empty() {
        return Ok(Changes::default());
    }
    let mut work = Work::new(root);
    if made_at_run_time(root) {
        work.remove(RESOLV);
    }
    work.edit(RESOLV, Missing::Create(0o644), |old| resolv_conf(old, params));
    if guest.net.network_manager && !params.nameservers.is_empty() {
        let content = format!("{HEADER}[main]\ndns=none\nrc-manager=unmanaged\n");
        work.put("/etc/NetworkManager/conf.d/00-vz-dns.conf", &content);
    }
    if guest.net.suse {
        work.edit("/etc/sysconfig/network/config", Missing::Skip, |old| netconfig(old, params));
    }
    work.finish()
}

fn made_at_run_time(root: &GuestRoot) -> bool {
    if root.link_target(RESOLV).is_none() {
        return false;
    }
    let target = root.final_path(RESOLV).unwrap_or_default();
    let run = target.components().any(|part| Path::new(part.as_os_str()) == Path::new("run"));
    run || !root.is_file(RESOLV)
}

fn words(ips: &[IpAddr]) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

fn resolv_conf(old: &str, params: &DnsParams) -> String {
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let replaced = |line: &str| match first(line).as_str() {
        "nameserver" => !params.nameservers.is_empty(),
        "search" | "domain" => !params.searchdomains.is_empty(),
        _ => HEADER.trim_end() == line,
    };
    let mut new = HEADER.to_owned();
    if !params.searchdomains.is_empty() {
        new.push_str(&format!("search {}\n", params.searchdomains.join(" ")));
    }
    for ip in words(&params.nameservers) {
        new.push_str(&format!("nameserver {ip}\n"));
    }
    new.push_str(&text::join(old.lines().filter(|line| !replaced(line))));
    new
}

fn netconfig(old: &str, params: &DnsParams) -> String {
    let mut new = old.to_owned();
    if !params.nameservers.is_empty() {
        new = text::assign(&new, "NETCONFIG_DNS_STATIC_SERVERS", &words(&params.nameservers).join(" "));
    }
    if !params.searchdomains.is_empty() {
        new = text::assign(&new, "NETCONFIG_DNS_STATIC_SEARCHLIST", &params.searchdomains.join(" "));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherit_is_what_the_host_has_but_its_loopback() {
        let host = "# x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a.example b.example\n";
        let inherit = ["inherit".to_owned()];
        let params = DnsParams::expand(&inherit, &inherit, host).unwrap();
        assert_eq!(words(&params.nameservers), ["9.9.9.9"]);
        assert_eq!(params.searchdomains, ["a.example", "b.example"]);
        assert!(DnsParams::expand(&["x".into()], &[], "").is_err());
        assert!(DnsParams::expand(&[], &["a b\nnameserver 1.1.1.1".into()], "").is_err());
    }

    #[test]
    fn what_is_not_given_stays() {
        let params = DnsParams { nameservers: vec!["1.1.1.1".parse().unwrap()], searchdomains: vec![] };
        let new = resolv_conf("search mine\nnameserver 8.8.8.8\noptions edns0\n", &params);
        assert_eq!(new, format!("{HEADER}nameserver 1.1.1.1\nsearch mine\noptions edns0\n"));
        assert_eq!(resolv_conf(&new, &params), new);
    }
}
