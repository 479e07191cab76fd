//! `NNN.conf` of OpenVZ and Virtuozzo: the format is ours.

use super::{Fate, Foreign};
use crate::conf_file::ConfFile;
use crate::netif::NetIf;
use crate::params;
use crate::{Ctid, Mac};

/// What belongs to the host it was written on.
const OF_THE_HOST: [&str; 5] = ["VE_ROOT", "VE_PRIVATE", "VE_LAYOUT", "LOCAL_UID", "LOCAL_GID"];

/// Takes a configuration over for the VE `ctid`; `mac` is where generated addresses begin.
#[must_use]
pub fn openvz(text: &[u8], ctid: Ctid, mac: Mac) -> Foreign {
    let mut foreign = Foreign { file: ConfFile::parse_bytes(text), ..Foreign::default() };
    let entries: Vec<(String, String)> =
        foreign.file.entries().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    for line in foreign.file.stray_lines() {
        foreign.note(format!("line {line}"), Fate::Kept, "it is no KEY=\"value\"");
    }
    for (key, value) in entries {
        let line = format!("{key}=\"{value}\"");
        if OF_THE_HOST.contains(&key.as_str()) {
            foreign.file.remove(&key);
            foreign.note(line, Fate::Left, "this host's own is used");
        } else if key == "NAME" {
            foreign.name = Some(value).filter(|name| !name.is_empty());
            // The name is entered where names are when it is assigned.
            foreign.file.remove(&key);
            foreign.note(line, Fate::Mapped, "--name");
        } else if key == "NETIF" {
            netif(&mut foreign, &line, &value, ctid, mac);
        } else if params::by_key(&key).is_some() {
            foreign.note(line, Fate::Mapped, "as it is");
        } else {
            foreign.note(line, Fate::Kept, "nothing reads it here");
        }
    }
    foreign.complete();
    foreign
}

/// Names of the host's ends have the old number in them.
fn netif(foreign: &mut Foreign, line: &str, value: &str, ctid: Ctid, mac: Mac) {
    let Ok(list) = NetIf::parse_list(value) else {
        foreign.file.remove("NETIF");
        foreign.note(line, Fate::Missing, "it cannot be read; add devices with vzctl set --netif_add");
        return;
    };
    let renamed = |netif: NetIf| {
        let mut netif = NetIf { host_ifname: None, host_mac: None, ..netif };
        netif.fill(ctid, mac);
        netif
    };
    let list: Vec<NetIf> = list.into_iter().map(renamed).collect();
    match foreign.file.set("NETIF", &NetIf::format_list(&list)) {
        Ok(()) => foreign.note(line, Fate::Mapped, "with names of this host for its ends here"),
        Err(error) => foreign.note(line, Fate::Missing, error.to_string()),
    }
}
