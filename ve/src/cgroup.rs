//! A VE's cgroups, as the verbs use them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use beancounters::{
    Applied, DevicePolicy, Disk, Hierarchies, Limits, Param, Resource, Standing, Undo, Unenforced, VeCgroup,
    standing,
};
use rustix::fs::{Mode, OFlags};
use vzconf::change::Changed;
use vzconf::{Config, Ctid, Exit};
use vzsys::channel::Channel;
use vzsys::idmap::IdRange;
use vzsys::spawn;

use crate::error::{Error, Result};
use crate::node::{Node, Ve};

/// How long the last processes of a killed VE may take to leave its cgroups.
const REMOVE: Duration = Duration::from_secs(20);

/// Open cgroup files through which a process joins a VE.
#[derive(Debug)]
pub(crate) struct JoinPoints {
    /// v1 `tasks` files.
    pub(crate) tasks: Vec<OwnedFd>,
    /// The v2 directory.
    pub(crate) unified: Option<OwnedFd>,
}

/// Mandatory for a VE that is not limited by RAM and swap alone.
const UBC: [&str; 20] = [
    "kmemsize",
    "lockedpages",
    "privvmpages",
    "shmpages",
    "numproc",
    "physpages",
    "vmguarpages",
    "oomguarpages",
    "numtcpsock",
    "numflock",
    "numpty",
    "numsiginfo",
    "tcpsndbuf",
    "tcprcvbuf",
    "othersockbuf",
    "dgramrcvbuf",
    "numothersock",
    "numfile",
    "dcachesize",
    "numiptent",
];

/// Checks that the configuration has the beancounters that a VE needs: RAM and swap, or all of the
/// older set.
///
/// # Errors
/// Exit 28, naming those that are missing.
pub(crate) fn check(ve: &Ve<'_>) -> Result<()> {
    let unlimited = [u64::from(i32::MAX.unsigned_abs()), vzconf::units::UNLIMITED];
    let vswap = ve.config.ubc("physpages").is_some_and(|pages| !unlimited.contains(&pages.limit));
    let needed: &[&str] = if vswap { &["physpages", "swappages"] } else { &UBC };
    let missing: Vec<&str> = needed.iter().copied().filter(|name| ve.config.ubc(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lines = missing.iter().map(|name| format!("Error: required UB parameter {name} not set"));
    let message = lines.collect::<Vec<_>>().join("\n");
    let hint = format!("Take them from a sample: vzctl set {} --applyconfig vswap-256m --save", ve.ctid);
    Err(Error::advised(Exit::NotEnoughUbcParams, message, hint))
}

/// Makes the cgroups, sets limits and device rules; undone on drop unless committed.
pub(crate) fn create(ve: &Ve<'_>, ids: Option<IdRange>) -> Result<VeCgroup> {
    let hierarchies = Hierarchies::detect()?;
    let cgroup = VeCgroup::create(&hierarchies, ve.ctid, ids.map(|ids| (ids.base, ids.base)))?;
    let host = ve.node.global.for_ve(Ctid::HOST).ok();
    beancounters::share_with_host(&hierarchies, host_units(ve, host.as_ref()))?;
    limits(ve)?.apply(&cgroup).map(|applied| tell_unenforced(ve, &applied))?;
    // A VE whose files are not counted is better than none.
    if let Err(error) = beancounters::count_files() {
        ve.say(1, &format!("Open files of containers are not limited here: {error}"));
    }
    policy(ve).apply(&cgroup)?;
    Ok(cgroup)
}

/// `vzctl set 0 --cpuunits`: the host's share against all VEs, at once.
pub(crate) fn set_host_share(ve: &Ve<'_>) -> Result<()> {
    let units = host_units(ve, Some(&ve.config));
    beancounters::share_with_host(&Hierarchies::detect()?, units)?;
    ve.say(0, &format!("Setting CPU units: {units}"));
    Ok(())
}

/// Those of its own file; CPUUNITS in vz.conf is for VEs.
fn host_units(ve: &Ve<'_>, host: Option<&Config>) -> u32 {
    let own = host.and_then(Config::file).and_then(|file| file.get("CPUUNITS")?.parse().ok());
    own.unwrap_or_else(|| ve.node.global.ve0_cpuunits())
}

fn limits(ve: &Ve<'_>) -> Result<Limits> {
    let disk = ve.config.ve_private().and_then(|path| Disk::of(&path));
    Ok(Limits::from_config(&ve.config, disk)?)
}

fn policy(ve: &Ve<'_>) -> DevicePolicy {
    let mut policy = DevicePolicy::default();
    for rule in ve.config.devices() {
        policy = policy.with_rule(&rule);
    }
    crate::confine::device_rules(&ve.config).iter().fold(policy, |policy, rule| policy.with_rule(rule))
}

fn tell_unenforced(ve: &Ve<'_>, applied: &Applied) {
    for lost in &applied.unenforced {
        ve.say(1, &told(lost));
    }
}

fn told(lost: &Unenforced) -> String {
    format!("{} is stored and not enforced here: {}", lost.param, lost.why)
}

/// The cgroups of a VE; none of one that was not started.
pub(crate) fn open(ve: &Ve<'_>) -> Result<Option<VeCgroup>> {
    Ok(VeCgroup::open(&Hierarchies::detect()?, ve.ctid)?)
}

/// What a new session of a running VE needs to join.
pub(crate) fn join_points(ve: &Ve<'_>) -> Result<JoinPoints> {
    match open(ve)? {
        Some(cgroup) => points(&cgroup),
        None => Ok(JoinPoints { tasks: Vec::new(), unified: None }),
    }
}

/// The same for cgroups at hand.
pub(crate) fn points(cgroup: &VeCgroup) -> Result<JoinPoints> {
    let plan = cgroup.exec_plan()?;
    Ok(JoinPoints { tasks: plan.v1_tasks, unified: plan.unified })
}

/// The v2 directory for monitors: they live as long as their VEs, whatever started them.
pub(crate) fn monitors() -> Option<PathBuf> {
    let dir = Hierarchies::detect().ok()?.v2()?.join("vz").join("monitors");
    std::fs::create_dir_all(&dir).ok().map(|()| dir)
}

/// The same, open; `None` where there is none.
pub(crate) fn monitors_fd() -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(monitors()?, flags, Mode::empty()).ok()
}

/// Starts the monitor's program with other work that outlives us. Whether it does that is nobody's to wait for.
pub(crate) fn start_aside(node: &Node, arguments: &[&str]) {
    let group = monitors_fd();
    let started = Channel::pair().and_then(|(_, theirs)| {
        spawn::detached(&node.vzmon, arguments, &theirs, group.as_ref().map(AsFd::as_fd))
    });
    drop(started);
}

/// Kills every process of the VE.
pub(crate) fn kill(ve: &Ve<'_>) -> Result<()> {
    if let Some(cgroup) = open(ve)? {
        cgroup.kill_all()?;
    }
    Ok(())
}

/// Removes the cgroups; gone already is no error.
pub(crate) fn remove(ve: &Ve<'_>) -> Result<()> {
    match open(ve)? {
        Some(mut cgroup) => cgroup.remove(Instant::now() + REMOVE)?,
        None => beancounters::forget_files(ve.ctid)?,
    }
    Ok(())
}

/// Sets the limits that are set inside, on a VE whose init waits.
pub(crate) fn limit_inside(ve: &Ve<'_>, cgroup: &VeCgroup, init: i32) -> Result<()> {
    let unenforced = limits(ve)?.apply_inside(init, cgroup)?;
    tell_unenforced(ve, &Applied { unenforced, ..Applied::default() });
    Ok(())
}

/// Sets all configured limits again on a running VE.
pub(crate) fn reapply(ve: &Ve<'_>) -> Result<()> {
    if let Some(cgroup) = open(ve)? {
        tell_unenforced(ve, &apply(ve, &cgroup, &limits(ve)?)?);
    }
    Ok(())
}

/// What a change that failed set where no file tells what was before: as configured, and what nobody had set is
/// lifted. A [`LimitGuard`] does this for files.
pub(crate) fn put_back(ve: &Ve<'_>, changed: &[Changed]) -> Result<()> {
    let Some(cgroup) = open(ve)? else { return Ok(()) };
    if devices_changed(changed) {
        policy(ve).apply(&cgroup)?;
    }
    let params: Vec<Param> = params_of(changed).into_iter().filter(|param| !param.is_in_a_file()).collect();
    let applied = apply(ve, &cgroup, &limits(ve)?.or_unlimited(&params).only(&params))?;
    tell_unenforced(ve, &applied);
    Ok(())
}

/// Whether a running VE has this as a limit of its cgroups or processes.
pub(crate) fn is_limit(key: &str) -> bool {
    Param::CHANGED_WHILE_RUNNING.iter().any(|param| param.key() == key)
}

fn params_of(changed: &[Changed]) -> Vec<Param> {
    let is_changed = |param: &Param| changed.iter().any(|change| change.key == param.key());
    Param::CHANGED_WHILE_RUNNING.into_iter().filter(is_changed).collect()
}

/// Sets limits on a running VE.
fn apply(ve: &Ve<'_>, cgroup: &VeCgroup, limits: &Limits) -> Result<Applied> {
    let mut applied = limits.apply(cgroup)?;
    match apply_beyond(ve, cgroup, limits) {
        Ok(unenforced) => applied.unenforced.extend(unenforced),
        Err(error) => {
            // Of two failures the first is the one to tell.
            let _ = applied.undo.undo();
            return Err(error);
        }
    }
    Ok(applied)
}

/// Sets what no cgroup has.
fn apply_beyond(ve: &Ve<'_>, cgroup: &VeCgroup, limits: &Limits) -> Result<Vec<Unenforced>> {
    let Some(state) = ve.running() else { return Ok(Vec::new()) };
    let mut unenforced = limits.apply_inside(state.init.pid, cgroup)?;
    unenforced.extend(limits.apply_to_processes(cgroup)?);
    Ok(unenforced)
}

/// Limits that were changed on a running VE; back to what they were on drop unless committed.
#[derive(Debug, Default)]
pub(crate) struct LimitGuard(Undo);

impl LimitGuard {
    pub(crate) fn commit(mut self) {
        self.0 = Undo::default();
    }
}

impl Drop for LimitGuard {
    fn drop(&mut self) {
        // What made the caller give up is what is told.
        let _ = std::mem::take(&mut self.0).undo();
    }
}

/// Sets the limits whose keys changed on a running VE; returns the lines to print.
pub(crate) fn reapply_changed(ve: &Ve<'_>, changed: &[Changed]) -> Result<(Vec<String>, LimitGuard)> {
    let Some(cgroup) = open(ve)? else { return Ok(Default::default()) };
    let is_changed = |key: &str| changed.iter().any(|change| change.key == key);
    let params = params_of(changed);
    let mut applied = apply(ve, &cgroup, &limits(ve)?.only(&params))?;
    let guard = LimitGuard(std::mem::take(&mut applied.undo));
    tell_standings(ve, &cgroup, changed, &applied);
    if devices_changed(changed) {
        policy(ve).apply(&cgroup)?;
    }
    Ok((lines(ve, &params, changed, is_changed("DEVICES")), guard))
}

fn devices_changed(changed: &[Changed]) -> bool {
    changed.iter().any(|change| matches!(change.key.as_str(), "DEVICES" | "DEVNODES"))
}

/// Whoever sets a limit learns that it is none here.
fn tell_standings(ve: &Ve<'_>, cgroup: &VeCgroup, changed: &[Changed], applied: &Applied) {
    for resource in changed.iter().filter_map(|change| resource_of(&change.key)) {
        let (standing, why) = standing(resource, cgroup.hierarchies());
        let lost = applied.unenforced.iter().find(|lost| resource_of(lost.param.key()) == Some(resource));
        if standing != Standing::Enforced || resource == Resource::Numsiginfo {
            ve.say(0, &format!("WARNING: {} is {standing}: {why}", resource.name().to_ascii_uppercase()));
        } else if let Some(lost) = lost {
            ve.say(0, &format!("WARNING: {}", told(lost)));
        }
    }
    let others = applied.unenforced.iter().filter(|lost| resource_of(lost.param.key()).is_none());
    others.for_each(|lost| ve.say(1, &told(lost)));
}

fn resource_of(key: &str) -> Option<Resource> {
    Resource::named(&key.to_ascii_lowercase())
}

fn lines(ve: &Ve<'_>, params: &[Param], changed: &[Changed], devices: bool) -> Vec<String> {
    let config = &ve.config;
    let mut lines = Vec::new();
    if changed.iter().any(|change| resource_of(&change.key).is_some()) {
        lines.push("UB limits were set successfully".to_owned());
    }
    for param in params {
        lines.push(match param {
            Param::Cpuunits => format!("Setting CPU units: {}", config.cpuunits().unwrap_or(1000)),
            Param::Cpulimit => format!("Setting CPU limit: {}", config.cpulimit().unwrap_or(0)),
            Param::Cpuburst => format!("Setting CPU burst: {}", config.cpuburst().unwrap_or(0)),
            Param::Cpus => format!("Setting CPUs: {}", config.cpus().unwrap_or(0)),
            Param::Cpumask => format!("Setting CPU mask: {}", config.cpumask().unwrap_or("all")),
            Param::Nodemask => format!("Setting NUMA node mask: {}", config.nodemask().unwrap_or("all")),
            Param::Iolimit => match config.iolimit().unwrap_or(0) {
                0 => "Setting iolimit: 0 (unlimited)".to_owned(),
                n => format!("Setting iolimit: {n} bytes/sec"),
            },
            Param::Iopslimit => format!("Setting iopslimit: {} iops", config.iopslimit().unwrap_or(0)),
            _ => continue,
        });
    }
    if devices {
        lines.push("Setting devices".to_owned());
    }
    lines
}
