//! `vzctl start`.
//!
//! Checks, then plans, then acts under guards; one `COMMIT:` line, after which the VE runs. Whatever
//! fails before it undoes exactly what was done.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use templates::dist::{INITS, InitKind};
use vzconf::{Action, Ctid, Exit};
use vzsys::channel::Channel;
use vzsys::idmap::IdRange;
use vzsys::launch::{CgroupView, Confinement, LaunchError, LaunchPlan, Stage};
use vzsys::mount::MountGuard;
use vzsys::process::{Ended, PidFd, ProcRef};
use vzsys::{fault, process, spawn};

use crate::accounts;
use crate::cgroup;
use crate::confine;
use crate::dismantle::{self, Root};
use crate::error::{Doing, Error, Result, describe};
use crate::exec::{self, Door};
use crate::guest;
use crate::handover;
use crate::host_files;
use crate::ids;
use crate::life;
use crate::monitor::{Monitor, Order, Task};
use crate::mount::{self, Busy, Check, Scripts};
use crate::net;
use crate::node::Ve;
use crate::quota;
use crate::scripts;
use crate::state::{State, boottime};
use crate::suspend;
use crate::views;
use crate::wait;

/// How to start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Also when DISABLED=yes.
    pub force: bool,
    /// Return only when the guest has reached its default target.
    pub wait: bool,
    /// Use the root as it is mounted.
    pub skip_remount: bool,
    /// Whether its image is checked, if it has one.
    pub check: Check,
}

/// The longest that `--wait` waits.
const WAIT: Duration = Duration::from_secs(3600);
/// For what only the kernel can explain.
const SEE_KERNEL: &str = " (try to check kernel messages, e.g. \"dmesg | tail\")";
const NO_VIEWS: &str =
    "WARNING: this kernel has no FUSE: /proc shows the memory and the processors of the host";
/// Files of the kernel that are nobody's business in a VE.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/user_beancounters",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Without a user namespace the kernel's own permissions do not protect these.
const PRIVILEGED_READ_ONLY: [&str; 5] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// Starts a VE.
///
/// # Errors
/// 32 running, 105 disabled, 43 no private area, 28 missing beancounters, 47 no init, 7 launch failed,
/// 34/78 addresses, 79 scripts, 133 `--wait` failed. The VE is then as it was before.
pub fn start(ve: &Ve<'_>, options: Options) -> Result<()> {
    check(ve, options)?;
    if suspend::resume_at_start(ve)? {
        return Ok(());
    }
    ve.say(0, "Starting container...");
    match launch(ve, options) {
        Ok(state) if options.wait => wait_until_up(ve, &state),
        Ok(_) => {
            ve.say(0, "Container start in progress...");
            Ok(())
        }
        Err(error) => {
            let kernel = if error.exit() == Exit::EnvCreate { SEE_KERNEL } else { "" };
            ve.say(-1, &format!("Container start failed{kernel}"));
            Err(error)
        }
    }
}

/// Checks whether a VE could be started if it were stopped: a restart must not leave it down for want of it.
///
/// # Errors
/// 105 disabled, 43 no private area, 28 missing beancounters.
pub fn check_restart(ve: &Ve<'_>, options: Options) -> Result<()> {
    check_configured(ve, options)?;
    cgroup::check(ve)
}

fn check(ve: &Ve<'_>, options: Options) -> Result<()> {
    check_only(ve, options)?;
    dismantle::mend(ve).map(drop)
}

fn check_only(ve: &Ve<'_>, options: Options) -> Result<()> {
    check_configured(ve, options)?;
    if ve.running().is_some() {
        return Err(Error::refused(Exit::VeRunning, "Container is already running"));
    }
    cgroup::check(ve)
}

fn check_configured(ve: &Ve<'_>, options: Options) -> Result<()> {
    if ve.config.disabled() && !options.force {
        return Err(Error::refused(Exit::VeStartDisabled, "Container start disabled"));
    }
    handover::check(ve, options.force)?;
    ve.existing_private().map(drop)
}

/// Everything that a start has made so far, undone in reverse by drop.
pub(crate) struct Made {
    pub(crate) net: Option<netns::NetGuard>,
    pub(crate) cgroup: beancounters::VeCgroup,
    pub(crate) root: Option<MountGuard>,
}

fn launch(ve: &Ve<'_>, options: Options) -> Result<State> {
    let run_dir = ve.run_dir();
    std::fs::create_dir_all(&run_dir)
        .doing(Exit::System, || format!("cannot create {}", run_dir.display()))?;
    let launched = attempt(ve, options);
    if launched.is_err() {
        // Guards have undone what was made; this directory says that there is nothing to mend.
        let _ = std::fs::remove_dir_all(&run_dir);
    }
    launched
}

/// The road that every launch takes before there is a process.
struct Prepared {
    ids: Option<IdRange>,
    found: guest::Found,
    plan: LaunchPlan,
    made: Made,
}

fn prepare(ve: &Ve<'_>, options: Options, scripts: Scripts) -> Result<Prepared> {
    let ids = ids::claim(&ve.config, ve.ctid)?;
    let root = mount_for_start(ve, options, ids, scripts)?;
    quota::widen(ve)?;
    fault::point("start.mounted");
    let found = guest::detect(ve, ids)?;
    let cgroup = cgroup::create(ve, ids)?;
    fault::point("start.cgroups");
    let plan = plan(ve, &found, ids, &cgroup)?;
    Ok(Prepared { ids, found, plan, made: Made { root, cgroup, net: None } })
}

/// What a failed launch means to the user.
fn launch_failed(ctid: Ctid) -> impl Fn(LaunchError) -> Error + Copy {
    move |source| match source.stage {
        Stage::FindInit => {
            let hint = format!("Looked for {}", INITS.join(", "));
            Error::advised(Exit::FsBadTmpl, "Unable to start init, probably incorrect template", hint)
        }
        _ => Error::Launch { ctid, source },
    }
}

fn attempt(ve: &Ve<'_>, options: Options) -> Result<State> {
    let monitor = start_monitor(ve)?;
    let Prepared { ids, found, plan, mut made } = prepare(ve, options, Scripts::Run)?;
    confine::tell(ve, &plan.confinement);
    let (monitor, monitor_ref) = monitor.order(Task::Launch(Box::new(plan.clone())))?;
    let launch_failed = launch_failed(ve.ctid);
    let (pid, views) = monitor.cloned().map_err(launch_failed)?;
    if !views {
        ve.say(-1, NO_VIEWS);
    }
    fault::point("start.cloned");
    let (init, net) = match furnish(ve, pid, ids, &found) {
        Ok(furnished) => furnished,
        // An init that failed meanwhile has gone, and that is what we met; it says itself why.
        Err(ours) if gone(pid) => return Err(monitor.furnished().err().map_or(ours, launch_failed)),
        Err(ours) => return Err(ours),
    };
    made.net = Some(net);
    monitor.furnished().map_err(launch_failed)?;
    cgroup::limit_inside(ve, &made.cgroup, pid)?;
    fault::point("start.furnished");
    run_start_script(ve, &init, &made, &plan.confinement, ids.is_some())?;
    let state = State {
        version: 1,
        ctid: ve.ctid.get(),
        init,
        monitor: monitor_ref,
        started_at_boottime: boottime(),
        started_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
        ids,
        confinement: plan.confinement,
        root: plan.root,
        stop: found.guest.stop().into(),
        tells_ready: found.guest.tells_ready(),
    };
    quota::settle(ve)?;
    accounts::begin(&ve.config, ve.ctid, &ve.run_dir());
    state.save(&ve.run_dir())?;
    life::begin(&ve.node.paths, ve.ctid)?;
    fault::point("start.saved");
    // COMMIT: init runs.
    monitor.release().map_err(launch_failed)?;
    fault::point("start.released");
    made.keep(ve);
    host_files::serve(ve.node);
    Ok(state)
}

/// What the host does for an init that prepares itself at the same time.
fn furnish(
    ve: &Ve<'_>,
    pid: i32,
    ids: Option<IdRange>,
    found: &guest::Found,
) -> Result<(ProcRef, netns::NetGuard)> {
    let init = ProcRef::of(pid).doing(Exit::EnvCreate, || format!("cannot start container {}", ve.ctid))?;
    let netns = process::namespace(pid, "net")
        .doing(Exit::EnvCreate, || format!("cannot open the network of container {}", ve.ctid))?;
    let net = net::attach(ve, netns.as_fd())?;
    fault::point("start.network");
    guest::configure(ve, ids, found)?;
    Ok((init, net))
}

/// A process that has ended has no namespaces any more, even if it was not waited for.
fn gone(pid: i32) -> bool {
    process::namespace(pid, "net").is_err()
}

impl Made {
    pub(crate) fn keep(mut self, ve: &Ve<'_>) {
        if let Some(root) = self.root {
            root.keep();
        }
        self.cgroup.commit();
        if let Some(net) = self.net {
            net::announce(ve, net.commit());
        }
    }
}

/// A root that is mounted already has the ids of the disk, for the admin; the VE needs its own.
pub(crate) fn mount_for_start(
    ve: &Ve<'_>,
    options: Options,
    ids: Option<IdRange>,
    scripts: Scripts,
) -> Result<Option<MountGuard>> {
    if ve.mounted() {
        if options.skip_remount {
            return Ok(None);
        }
        match scripts {
            Scripts::Run => mount::umount_root(ve, Busy::Refuse)?,
            Scripts::Skip => mount::umount_tree(&ve.root()?, Busy::Refuse)?,
        }
    }
    mount::mount_root(ve, ids, scripts, options.check).map(Some)
}

fn plan(
    ve: &Ve<'_>,
    found: &guest::Found,
    ids: Option<IdRange>,
    cgroup: &beancounters::VeCgroup,
) -> Result<LaunchPlan> {
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let hostname = match ve.config.hostname() {
        Some(name) => name.to_owned(),
        None => found.hostname.clone().unwrap_or_else(|| "localhost".to_owned()),
    };
    Ok(LaunchPlan {
        root: ve.root()?,
        ids,
        hostname,
        cgroup_tasks: cgroup.v1_task_paths(),
        cgroup_unified: cgroup.v2_dir(),
        cgroup_view: view(found.guest.init),
        devices: confine::devices(&ve.config, ve.ctid)?,
        views: views::places(),
        masked: paths(&MASKED),
        read_only: if ids.is_some() { Vec::new() } else { paths(&PRIVILEGED_READ_ONLY) },
        run_files: guest::run_files(ve, found),
        confinement: confine::confinement(&ve.config, found.guest.is_32bit),
        init: paths(&INITS),
        arguments: vec!["-z".to_owned(), "      ".to_owned()],
        environment: vec![
            "HOME=/".to_owned(),
            "TERM=linux".to_owned(),
            format!("PATH={}", scripts::PATH),
            // systemd and OpenRC learn from this that they are in a container (systemd.io/CONTAINER_INTERFACE).
            "container=lxc".to_owned(),
            // What systemd asks the kernel to be told of pressure is not restored with it; it would hear of pressure
            // all the time. Its services have the same from their settings.
            "MEMORY_PRESSURE_WATCH=/dev/null".to_owned(),
        ],
        signals: beancounters::queueable(&ve.config),
    })
}

/// systemd reads a pure cgroup2 since 233; what is older knows only its own v1 hierarchy.
fn view(init: InitKind) -> CgroupView {
    match init {
        InitKind::Systemd { version: Some(version) } if version < 233 => CgroupView::Named,
        _ => CgroupView::Unified,
    }
}

/// A monitor that was started and waits for its order. Dropped, it ends.
pub(crate) struct Idle<'v> {
    ve: &'v Ve<'v>,
    channel: Channel,
    monitor: ProcRef,
}

/// Starts the VE's monitor: its program is loaded while the rest is prepared.
pub(crate) fn start_monitor<'v>(ve: &'v Ve<'v>) -> Result<Idle<'v>> {
    let what = || format!("cannot start {} for container {}", ve.node.vzmon.display(), ve.ctid);
    let (channel, theirs) = Channel::pair().doing(Exit::Resource, what)?;
    let ctid = ve.ctid.to_string();
    let group = cgroup::monitors_fd();
    let pid = spawn::detached(&ve.node.vzmon, &[&ctid], &theirs, group.as_ref().map(AsFd::as_fd))
        .doing(Exit::Resource, what)?;
    let monitor = ProcRef::of(pid).doing(Exit::Resource, what)?;
    Ok(Idle { ve, channel, monitor })
}

impl Idle<'_> {
    fn order(self, task: Task) -> Result<(Monitor, ProcRef)> {
        self.order_with(task, None)
    }

    /// The same with a descriptor.
    pub(crate) fn order_with(self, task: Task, fd: Option<BorrowedFd<'_>>) -> Result<(Monitor, ProcRef)> {
        let Self { ve, channel, monitor } = self;
        let order = Order { ctid: ve.ctid.get(), run_dir: ve.run_dir(), vzctl: ve.node.vzctl.clone(), task };
        match Monitor::order_with(channel, order, fd) {
            Ok(ordered) => Ok((ordered, monitor)),
            Err(source) => Err(Error::Launch { ctid: ve.ctid, source }),
        }
    }
}

/// `CTID.start` runs inside when all is set up and before init is executed.
fn run_start_script(
    ve: &Ve<'_>,
    init: &ProcRef,
    made: &Made,
    confinement: &Confinement,
    user_namespace: bool,
) -> Result<()> {
    let Some((path, text)) = scripts::inside(ve, Action::Start)? else { return Ok(()) };
    let what = || format!("cannot enter container {}", ve.ctid);
    let Some(pidfd) = PidFd::open(init.pid).doing(Exit::System, what)? else { return Ok(()) };
    let door = Door::new(ve, pidfd, cgroup::points(&made.cgroup)?, confinement.clone(), user_namespace);
    // The VE's own shell runs it, and what it starts can hold it up.
    match exec::feed_script_until(ve.ctid, &door, &text, Some(Instant::now() + scripts::PATIENCE))? {
        Some(Ended::Exited(0)) => Ok(()),
        Some(ended) => Err(Error::Script { path, how: how(ended) }),
        None => Err(Error::Script { path, how: scripts::too_slow(scripts::PATIENCE) }),
    }
}

/// How a script ended, in words.
pub(crate) fn how(ended: Ended) -> String {
    match ended {
        Ended::Exited(code) => format!("returned {code}"),
        Ended::Killed(signal) => format!("was killed by signal {signal}"),
    }
}

fn wait_until_up(ve: &Ve<'_>, state: &State) -> Result<()> {
    if !state.tells_ready {
        ve.say(-1, "WARNING: this guest's init is unknown and does not tell when it is up; not waiting");
        return Ok(());
    }
    ve.say(0, "Container start in progress, waiting ...");
    match wait::until_up(state, WAIT) {
        wait::Outcome::Up => {
            ve.say(0, "Container started successfully");
            Ok(())
        }
        wait::Outcome::TimedOut => {
            Err(Error::refused(Exit::WaitFailed, "Container wait failed - timeout expired"))
        }
        wait::Outcome::Ended => Err(Error::advised(
            Exit::WaitFailed,
            "Container wait failed",
            format!("It ended before it was up; see: vzctl console {}", ve.ctid),
        )),
    }
}

/// Starts a new monitor for a VE whose monitor died. It adopts init and serves from then on. Verbs that
/// take no lock call this too: whoever comes second leaves it to the first. Who serves its views is replaced as well.
pub(crate) fn adopt(ve: &Ve<'_>, state: &State) -> Result<()> {
    views::mend(ve);
    if state.monitor.alive() {
        return Ok(());
    }
    let path = ve.run_dir().join("adopt.lock");
    let lock =
        std::fs::File::create(&path).doing(Exit::System, || format!("cannot create {}", path.display()))?;
    let current = ve.running();
    let Some(state) = current.filter(|state| lock.try_lock().is_ok() && !state.monitor.alive()) else {
        return Ok(());
    };
    ve.say(1, "The monitor of the container died; starting a new one");
    let task = Task::Adopt { init: state.init, user_namespace: state.ids.is_some() };
    let (monitor, monitor_ref) = start_monitor(ve)?.order(task)?;
    monitor.started().map_err(|source| Error::Launch { ctid: ve.ctid, source })?;
    State { monitor: monitor_ref, ..state }.save(&ve.run_dir())
}

/// Runs `work` in a stopped VE that has all but a running init, and takes it down again. No action script
/// runs, and a root that the admin has mounted is mounted again afterwards.
pub(crate) fn with_waiting_init<T>(ve: &Ve<'_>, work: impl FnOnce(&Door) -> Result<T>) -> Result<T> {
    // A root that a killed verb left mounted is not the admin's.
    dismantle::mend(ve)?;
    let run_dir = ve.run_dir();
    std::fs::create_dir_all(&run_dir)
        .doing(Exit::System, || format!("cannot create {}", run_dir.display()))?;
    let mounted = ve.mounted();
    let done = waiting(ve, work);
    let mut left = dismantle::dismantle(ve, Root::Keep);
    if mounted && !ve.mounted() {
        match mount::for_the_admin(ve) {
            Ok(guard) => guard.keep(),
            Err(error) => left.push(describe(&error)),
        }
    }
    match done {
        Ok(value) => {
            left.iter().for_each(|failure| ve.say(-1, &format!("WARNING: {failure}")));
            Ok(value)
        }
        Err(error) => Err(error.with_cleanup(left)),
    }
}

fn waiting<T>(ve: &Ve<'_>, work: impl FnOnce(&Door) -> Result<T>) -> Result<T> {
    let monitor = start_monitor(ve)?;
    let Prepared { ids, plan, made, .. } = prepare(ve, Options::default(), Scripts::Skip)?;
    let (monitor, _) = monitor.order(Task::Launch(Box::new(plan.clone())))?;
    let launch_failed = launch_failed(ve.ctid);
    let (pid, _) = monitor.cloned().map_err(launch_failed)?;
    let what = || format!("cannot enter container {}", ve.ctid);
    let pidfd = PidFd::open(pid).doing(Exit::System, what)?;
    let pidfd = pidfd.ok_or_else(|| Error::refused(Exit::EnvCreate, what()))?;
    monitor.furnished().map_err(launch_failed)?;
    let door = Door::new(ve, pidfd, cgroup::points(&made.cgroup)?, plan.confinement, ids.is_some());
    let done = work(&door);
    // The monitor kills its init when nobody is left to release it.
    drop(monitor);
    door.wait_ended()?;
    quota::settle(ve)?;
    // Processes first: they are in the root.
    let Made { root, cgroup, .. } = made;
    drop(cgroup);
    drop(root);
    done
}

/// `--dry-run`: what a start would do.
///
/// # Errors
/// As a start would fail in its checks.
pub fn plan_text(ve: &Ve<'_>, options: Options) -> Result<String> {
    check_only(ve, options)?;
    let private = ve.existing_private()?;
    let net = netns::NetPlan::new(&netns::NetParams::from_config(ve.ctid, &ve.config))?;
    let confinement = confine::confinement(&ve.config, false);
    Ok(format!(
        "mount {} ({}) at {}\ncgroup vz/{}\n{net}capabilities {:#x}, nesting {:?}\nexecute {}\n",
        private.display(),
        ve.layout(&private)?,
        ve.root()?.display(),
        ve.ctid,
        confinement.capabilities,
        confinement.nesting,
        INITS.join(" or "),
    ))
}

/// Undoes a started VE that must not go on.
pub(crate) fn tear_down(ve: &Ve<'_>, root: Root) -> Result<()> {
    let failures = dismantle::dismantle(ve, root);
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::refused(Exit::System, format!("not everything of container {} could be removed", ve.ctid))
        .with_cleanup(failures))
}
