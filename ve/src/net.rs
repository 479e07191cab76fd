//! A VE's network, as the verbs use it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netns::{Devices, Hold, NetGuard, NetParams, NetPlan};
use vzconf::Exit;
use vzsys::process;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::state::State;

/// Plumbs the VE's devices, addresses and routes; undone on drop unless committed.
pub(crate) fn attach(ve: &Ve<'_>, netns: BorrowedFd<'_>) -> Result<NetGuard> {
    let plan = NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?;
    let addresses = ve.config.ip_addresses();
    if !addresses.is_empty() {
        let list: Vec<String> = addresses.iter().map(|ip| ip.addr.to_string()).collect();
        ve.say(0, &format!("Adding IP address(es): {}", list.join(" ")));
    }
    Ok(netns::attach(&plan, netns)?)
}

/// The first half of that, for a VE that is restored: nothing from outside reaches it yet. The second is given back.
pub(crate) fn attach_inside(ve: &Ve<'_>, netns: BorrowedFd<'_>) -> Result<(NetGuard, NetPlan)> {
    let (inner, outer) = NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?.split();
    Ok((netns::attach(&inner, netns)?, outer))
}

/// Takes a VE off the networks, devices and all inside left as they are.
pub(crate) fn disconnect(ve: &Ve<'_>) -> Result<()> {
    Ok(netns::disconnect(&NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?)?)
}

/// The same, and what comes meanwhile is kept.
pub(crate) fn hold(ve: &Ve<'_>) -> Result<Hold> {
    Ok(netns::hold(&NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?)?)
}

/// Puts one back whose packets were kept, and gives it those.
pub(crate) fn give_back(ve: &Ve<'_>, state: &State, hold: Hold) -> Result<()> {
    if let Err(error) = hold.give_back() {
        ve.say(1, &format!("Packets are lost: {}", crate::describe(&error)));
        return reconnect(ve, state);
    }
    let ports = NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?.ports();
    if !ports.steps().is_empty() {
        let netns = namespace(ve, state)?;
        netns::attach(&ports, netns.as_fd())?.commit();
    }
    Ok(())
}

/// Puts it back.
pub(crate) fn reconnect(ve: &Ve<'_>, state: &State) -> Result<()> {
    let (_, outer) = NetPlan::new(&NetParams::from_config(ve.ctid, &ve.config))?.split();
    // It may be there still.
    netns::disconnect(&outer)?;
    let netns = namespace(ve, state)?;
    let guard = netns::attach(&outer, netns.as_fd())?;
    announce(ve, guard.commit());
    Ok(())
}

/// Connects a VE whose inside is [made][attach_inside].
pub(crate) fn connect(ve: &Ve<'_>, outer: &NetPlan, netns: BorrowedFd<'_>) -> Result<()> {
    let guard = netns::attach(outer, netns)?;
    announce(ve, guard.commit());
    Ok(())
}

/// Removes all that the VE has on the host's network; gone already is no error.
pub(crate) fn detach(ve: &Ve<'_>, devices: Devices) -> Result<()> {
    Ok(netns::detach(ve.ctid, &ve.node.paths, devices)?)
}

/// Tells the networks around where the VE's addresses are now, and looks whether another machine has one of
/// them, for a warning in the log. In the background: it takes longer than the start, and nobody waits for it.
pub(crate) fn announce(ve: &Ve<'_>, plan: NetPlan) {
    if !plan.steps().is_empty() {
        vzsys::spawn::in_background(|| {
            let _ = netns::announce(&plan);
            for (address, owner) in netns::probe(&plan).unwrap_or_default() {
                ve.say(-1, &format!("WARNING: address {address} is in use by {owner}"));
            }
        });
    }
}

/// The network namespace of a running VE.
pub(crate) fn namespace(ve: &Ve<'_>, state: &State) -> Result<OwnedFd> {
    let netns = process::namespace(state.init.pid, "net")
        .doing(Exit::System, || format!("cannot open the network of container {}", ve.ctid))?;
    // Opened first, compared after: the number may have changed hands before, and the namespace would be the
    // host's.
    if state.init.alive() {
        Ok(netns)
    } else {
        Err(Error::refused(Exit::VeNotRunning, "Container is not running"))
    }
}
