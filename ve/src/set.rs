//! `vzctl set`: applying changes to a running VE, then saving them. All or nothing: a change that cannot
//! be applied is not saved, and nothing else of the call is.

use std::net::IpAddr;
use std::os::fd::AsFd;

use netns::{NetGuard, NetParams, Probe};
use vzconf::change::{Changed, Changes, SetMode};
use vzconf::params::Applies;
use vzconf::{ConfFile, Config, Ctid, Exit, VeIp, names};

use crate::accounts;
use crate::cgroup;
use crate::confine;
use crate::create::change_node;
use crate::disk;
use crate::error::{Error, Result};
use crate::guest;
use crate::net;
use crate::node::Ve;
use crate::quota;
use crate::start;
use crate::state::State;
use crate::veth;
use crate::views;

const HOST_IS_FREE: &str =
    "WARNING: limits of the host itself (CT0) other than CPU units are stored and not applied";

/// What remains for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Done,
    /// Restart the VE (`--setmode restart`).
    Restart,
}

/// Applies and, with `--save`, saves.
///
/// # Errors
/// 31 for what only a running VE can take, 32 with `--setmode ignore` and a parameter that needs a
/// restart, and the code of whatever could not be applied.
pub fn set(ve: &mut Ve<'_>, changes: &Changes) -> Result<Then> {
    if changes.reset_ub {
        return reset_ub(ve).map(|()| Then::Done);
    }
    let mut file = ve.config.file().cloned().unwrap_or_else(|| ConfFile::parse(""));
    let named = changes.merge_into(&mut file, &ve.config, ve.ctid, &change_node())?;
    let changed: Vec<Changed> = named.iter().filter(|change| change.differs()).cloned().collect();
    for warning in changes.warnings() {
        ve.say(-1, &format!("Warning: {warning}"));
    }
    let old = ve.config.clone();
    let new = ve.node.global.with_file(ve.ctid, Some(file.clone()));
    check_name(ve, changes)?;
    check_devnodes(changes)?;
    disk::check(ve, changes, &changed)?;
    let state = ve.running();
    let then = match &state {
        Some(state) => apply(ve, &old, new, [&named, &changed], changes, state)?,
        None => {
            check_stopped(ve, changes, &changed)?;
            ve.config = new;
            disk::follow(ve, &changed)?;
            if ve.ctid == Ctid::HOST && changed.iter().any(|change| change.key == "CPUUNITS") {
                cgroup::set_host_share(ve)?;
            }
            Then::Done
        }
    };
    for password in &changes.passwords {
        guest::set_password(ve, state.as_ref(), &password.user, &password.password)?;
    }
    if changes.save {
        save(ve, &old, &file, changes)?
    } else {
        unsaved(ve, state.is_some(), &changed)
    }
    Ok(then)
}

fn check_name(ve: &Ve<'_>, changes: &Changes) -> Result<()> {
    match changes.value("name") {
        Some(name) if !name.is_empty() => Ok(names::check_free(&ve.node.paths, name, ve.ctid)?),
        _ => Ok(()),
    }
}

/// A device that the host does not have would only be missed at the next start.
fn check_devnodes(changes: &Changes) -> Result<()> {
    match changes.devnodes().find(|node| confine::host_device(&node.name).is_none()) {
        Some(node) => {
            let allowed = format!("a device of the host; there is no /dev/{}", node.name);
            let (option, value) = ("devnodes".to_owned(), node.to_string());
            Err(vzconf::Error::BadValue { option, value, allowed }.into())
        }
        None => Ok(()),
    }
}

/// `--reset_ub`: the configured beancounters once more.
fn reset_ub(ve: &Ve<'_>) -> Result<()> {
    if ve.ctid == Ctid::HOST {
        ve.say(-1, HOST_IS_FREE);
        return Ok(());
    }
    ve.must_run()?;
    cgroup::reapply(ve)?;
    views::renew(ve);
    ve.say(0, "UB limits were set successfully");
    Ok(())
}

/// Without `--save` a stopped VE has nothing that could take a run-time value.
fn check_stopped(ve: &Ve<'_>, changes: &Changes, changed: &[Changed]) -> Result<()> {
    let live = changed.iter().any(|change| change.applies == Applies::Live);
    if live && ve.ctid == Ctid::HOST {
        if changed.iter().any(|change| change.applies == Applies::Live && change.key != "CPUUNITS") {
            ve.say(-1, HOST_IS_FREE);
        }
        return Ok(());
    }
    if !changes.save && live {
        let hint = "Store the values for the next start with --save";
        return Err(Error::advised(Exit::VeNotRunning, "Container is not running", hint));
    }
    Ok(())
}

fn apply(
    ve: &mut Ve<'_>,
    old: &Config,
    new: Config,
    [named, changed]: [&[Changed]; 2],
    changes: &Changes,
    state: &State,
) -> Result<Then> {
    // A limit of a running VE may be another one than the configuration's.
    let limits: Vec<Changed> =
        named.iter().filter(|change| change.differs() || cgroup::is_limit(&change.key)).cloned().collect();
    refuse_moved_paths(changed)?;
    let restart = restart_needed(ve, changed, changes)?;
    ve.config = new;
    match apply_live(ve, old, [&limits, changed], changes, state) {
        Ok(()) => {
            accounts::changed(&ve.config, ve.ctid, &ve.run_dir(), changed);
            views::renew(ve);
        }
        Err(error) => {
            if changes.save {
                ve.say(-1, "Error: failed to apply some parameters, not saving configuration file!");
            }
            ve.config = old.clone();
            // Limits may have been set in part.
            let undone = cgroup::put_back(ve, &limits).err().map(|e| crate::describe(&e));
            return Err(error.with_cleanup(undone.into_iter().collect()));
        }
    }
    if changed.iter().any(|change| change.key == "LOCKEDPAGES") {
        confine_later(ve, state)?;
    }
    start::adopt(ve, state)?;
    Ok(restart)
}

/// What comes in from now on has the new limit of its own.
fn confine_later(ve: &Ve<'_>, state: &State) -> Result<()> {
    let mut state = state.clone();
    state.confinement.lockable = beancounters::lockable(&ve.config);
    state.save(&ve.run_dir())
}

fn refuse_moved_paths(changed: &[Changed]) -> Result<()> {
    match changed.iter().find(|change| matches!(change.key.as_str(), "VE_PRIVATE" | "VE_ROOT")) {
        Some(change) => {
            let message = format!("Unable to change {} on a running container", change.key);
            Err(Error::refused(Exit::VeRunning, message))
        }
        None => Ok(()),
    }
}

fn restart_needed(ve: &Ve<'_>, changed: &[Changed], changes: &Changes) -> Result<Then> {
    let needs: Vec<&str> = changed
        .iter()
        .filter(|change| change.applies == Applies::Restart)
        .map(|change| change.key.as_str())
        .collect();
    if needs.is_empty() {
        return Ok(Then::Done);
    }
    if changes.setmode == Some(SetMode::Restart) {
        return Ok(Then::Restart);
    }
    for key in &needs {
        ve.say(-1, &format!("Unable to change {key} on a running container"));
    }
    if changes.setmode == Some(SetMode::Ignore) {
        return Err(Error::refused(Exit::VeRunning, "some parameters need a restart of the container"));
    }
    ve.say(-1, "WARNING: Some of the parameters could not be applied to a running container.");
    ve.say(-1, "Please consider using --setmode option");
    Ok(Then::Done)
}

/// Network first: its failures are the likeliest, and its guards undo it when what follows fails. What cannot be had back
/// as it was goes last: devices that become others, and what is deleted.
fn apply_live(
    ve: &Ve<'_>,
    old: &Config,
    [limited, changed]: [&[Changed]; 2],
    changes: &Changes,
    state: &State,
) -> Result<()> {
    let touched = |keys: &[&str]| changed.iter().any(|change| keys.contains(&change.key.as_str()));
    let mut guards = Vec::new();
    let mut limits = cgroup::LimitGuard::default();
    let mut disk = None;
    if touched(&["IP_ADDRESS"]) {
        add_addresses(ve, old, changes.skip_arpdetect, state, &mut guards)?;
    }
    if touched(&["NETIF"]) {
        veth::add(ve, old, state, &mut guards)?;
    }
    if limited.iter().any(|change| change.applies == Applies::Live) {
        let (lines, guard) = cgroup::reapply_changed(ve, limited)?;
        limits = guard;
        for line in lines {
            ve.say(0, &line);
        }
    }
    if touched(&["DISKSPACE", "DISKINODES", "QUOTATIME"]) {
        disk = Some(quota::change(ve)?);
    }
    disk::follow(ve, changed)?;
    if touched(&["IP_ADDRESS", "HOSTNAME", "NAMESERVER", "SEARCHDOMAIN"]) {
        guest::reconfigure(ve, state)?;
    }
    if touched(&["HOSTNAME"]) {
        guest::set_live_hostname(ve, state)?;
    }
    if touched(&["NETIF"]) {
        veth::replace(ve, old, state, &mut guards)?;
        veth::delete(ve, old)?;
    }
    if touched(&["IP_ADDRESS"]) {
        delete_addresses(ve, old, state)?;
    }
    limits.commit();
    if let Some(disk) = disk {
        disk.keep();
    }
    for guard in guards {
        net::announce(ve, guard.commit());
    }
    Ok(())
}

/// The addresses of one configuration that another one has not.
fn difference(of: &Config, without: &Config) -> Vec<IpAddr> {
    let list = |config: &Config| config.ip_addresses().iter().map(|ip: &VeIp| ip.addr).collect::<Vec<_>>();
    let without = list(without);
    list(of).into_iter().filter(|ip| !without.contains(ip)).collect()
}

fn text(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn add_addresses(
    ve: &Ve<'_>,
    old: &Config,
    skip_arpdetect: bool,
    state: &State,
    guards: &mut Vec<NetGuard>,
) -> Result<()> {
    let added = difference(&ve.config, old);
    if added.is_empty() {
        return Ok(());
    }
    let netns = net::namespace(ve, state)?;
    let mut params = NetParams::from_config(ve.ctid, &ve.config);
    if skip_arpdetect {
        params.probe = Probe::Skip;
    }
    ve.say(0, &format!("Adding IP address(es): {}", text(&added)));
    for ip in added {
        guards.push(netns::add_address(&params, ip, netns.as_fd())?);
    }
    Ok(())
}

fn delete_addresses(ve: &Ve<'_>, old: &Config, state: &State) -> Result<()> {
    let deleted = difference(old, &ve.config);
    if deleted.is_empty() {
        return Ok(());
    }
    let netns = net::namespace(ve, state)?;
    let params = NetParams::from_config(ve.ctid, &ve.config);
    let all = if ve.config.ip_addresses().is_empty() { "all " } else { "" };
    ve.say(0, &format!("Deleting {all}IP address(es): {}", text(&deleted)));
    for ip in deleted {
        netns::del_address(&params, ip, netns.as_fd())?;
    }
    Ok(())
}

fn save(ve: &Ve<'_>, old: &Config, file: &ConfFile, changes: &Changes) -> Result<()> {
    let path = ve.node.paths.ve_conf(ve.ctid);
    let same = old.file().is_some_and(|before| before.to_string() == file.to_string());
    if (same || changes.is_empty()) && !changes.applyconfig_map {
        ve.say(0, "No changes in CT configuration, not saving");
        return Ok(());
    }
    if !old.exists() {
        ve.say(-1, &format!("WARNING: {} not found", path.display()));
    }
    file.save(&path)?;
    let name = changes.value("name").or_else(|| changes.applyconfig_map.then(|| ve.config.name()).flatten());
    if let Some(name) = name {
        names::assign(&ve.node.paths, ve.ctid, name, old.name())?;
        if !name.is_empty() {
            ve.say(0, &format!("Name {name} assigned"));
        }
    }
    ve.say(0, &format!("CT configuration saved to {}", path.display()));
    Ok(())
}

fn unsaved(ve: &Ve<'_>, running: bool, changed: &[Changed]) {
    if changed.is_empty() {
        return;
    }
    let lost = if running { " and will be lost after CT restart" } else { "" };
    ve.say(0, &format!("WARNING: Settings were not saved to config{lost} (use --save flag)"));
}

/// `--dry-run`: which keys would get another value, and when that takes effect.
///
/// # Errors
/// As a set would fail before it touches anything.
pub fn plan_text(ve: &Ve<'_>, changes: &Changes) -> Result<String> {
    let mut file = ve.config.file().cloned().unwrap_or_else(|| ConfFile::parse(""));
    let changed = changes.apply_to(&mut file, &ve.config, ve.ctid, &change_node())?;
    check_name(ve, changes)?;
    check_devnodes(changes)?;
    if ve.running().is_some() {
        refuse_moved_paths(&changed)?;
    } else {
        check_stopped(ve, changes, &changed)?;
    }
    let mut text = String::new();
    for Changed { key, old, new, applies } in &changed {
        let when = match applies {
            Applies::Live => "at once",
            Applies::Restart => "after a restart",
            Applies::ConfigOnly => "stored",
        };
        text += &format!("{key}: \"{}\" -> \"{new}\" ({when})\n", old.as_deref().unwrap_or_default());
    }
    for password in &changes.passwords {
        text += &format!("password of {}: changed\n", password.user);
    }
    if changes.save && !changed.is_empty() {
        text += &format!("save {}\n", ve.node.paths.ve_conf(ve.ctid).display());
    }
    Ok(text)
}
