//! Veth devices of a running VE that change: made, made anew and deleted, in the order in which a failure harms least.

use std::os::fd::AsFd;

use netns::{NetGuard, NetParams};
use vzconf::{Config, NetIf};

use crate::error::{Error, Result};
use crate::net;
use crate::node::Ve;
use crate::state::State;

fn host_name(netif: &NetIf) -> &str {
    netif.host_ifname.as_deref().unwrap_or(&netif.ifname)
}

/// Whether one cannot be there beside the other.
fn in_the_way(one: &NetIf, other: &NetIf) -> bool {
    one.ifname == other.ifname || host_name(one) == host_name(other)
}

/// Those of a list that are in the way of a device.
fn in_the_way_of(list: &[NetIf], netif: &NetIf) -> Vec<NetIf> {
    list.iter().filter(|before| in_the_way(before, netif)).cloned().collect()
}

/// Makes those that are new.
pub(crate) fn add(ve: &Ve<'_>, old: &Config, state: &State, guards: &mut Vec<NetGuard>) -> Result<()> {
    let before = old.netif();
    for netif in ve.config.netif().iter().filter(|netif| in_the_way_of(&before, netif).is_empty()) {
        guards.push(make(ve, &ve.config, netif, state)?);
    }
    Ok(())
}

/// Makes those anew that are others now. If one cannot be made, what it was is there again, without what the VE had set
/// on it.
pub(crate) fn replace(ve: &Ve<'_>, old: &Config, state: &State, guards: &mut Vec<NetGuard>) -> Result<()> {
    let before = old.netif();
    for netif in ve.config.netif().iter().filter(|netif| !before.contains(netif)) {
        let replaced = in_the_way_of(&before, netif);
        if replaced.is_empty() {
            continue;
        }
        replaced.iter().try_for_each(|before| remove(ve, before))?;
        match make(ve, &ve.config, netif, state) {
            Ok(guard) => guards.push(guard),
            Err(error) => return Err(put_back(ve, old, &replaced, state, error)),
        }
    }
    Ok(())
}

fn put_back(ve: &Ve<'_>, old: &Config, replaced: &[NetIf], state: &State, error: Error) -> Error {
    let mut failed = Vec::new();
    for netif in replaced {
        match make(ve, old, netif, state) {
            Ok(guard) => net::announce(ve, guard.commit()),
            Err(again) => failed.push(crate::describe(&again)),
        }
    }
    error.with_cleanup(failed)
}

/// Deletes those that are gone.
pub(crate) fn delete(ve: &Ve<'_>, old: &Config) -> Result<()> {
    let after = ve.config.netif();
    let gone = old.netif().into_iter().filter(|before| in_the_way_of(&after, before).is_empty());
    gone.into_iter().try_for_each(|netif| remove(ve, &netif))
}

fn remove(ve: &Ve<'_>, netif: &NetIf) -> Result<()> {
    if let Some(host) = &netif.host_ifname {
        ve.say(0, &format!("Deleting veth devices: {host}"));
        netns::netif_del(host)?;
    }
    Ok(())
}

fn make(ve: &Ve<'_>, config: &Config, netif: &NetIf, state: &State) -> Result<NetGuard> {
    ve.say(0, &format!("Configure veth devices: {}", host_name(netif)));
    let netns = net::namespace(ve, state)?;
    Ok(netns::netif_add(&NetParams::from_config(ve.ctid, config), netif, netns.as_fd())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_either_side_are_in_the_way() {
        let list = NetIf::parse_list("ifname=eth0,host_ifname=a;ifname=eth1,host_ifname=b").unwrap();
        let of = |text: &str| {
            let netif = NetIf::parse_list(text).unwrap().remove(0);
            in_the_way_of(&list, &netif).into_iter().map(|netif| netif.ifname).collect::<Vec<_>>()
        };
        assert_eq!(of("ifname=eth2,host_ifname=c"), Vec::<String>::new());
        assert_eq!(of("ifname=eth0,host_ifname=c"), ["eth0"]);
        assert_eq!(of("ifname=eth0,host_ifname=b"), ["eth0", "eth1"]);
    }
}
