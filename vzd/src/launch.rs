//! The monitor's first task: get the VE's init running.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use ve::monitor::{Charge, FromMonitor, Order, Task, ToMonitor};
use vzsys::bpf::FileGate;
use vzsys::channel::Channel;
use vzsys::fuse::Connection;
use vzsys::launch::{self, FromInit, LaunchError, LaunchPlan, Stage, ToInit, Waiting};
use vzsys::process::ProcRef;
use vzsys::{Result, SysError, join, spawn};

use crate::restore;
use crate::supervisor;
use crate::watch::{Init, Watch};

/// Open files that a VE's processes may ask for; systemd's own default since 240.
const FILES: u64 = 524_288;

/// Takes the order from the inherited channel, carries it out, and watches until init has ended.
pub(crate) fn main() -> ExitCode {
    let Ok(fd) = vzsys::raw::inherited_fd(spawn::CHANNEL_FD) else {
        eprintln!("vzmon is started by vzctl, one for each running container");
        return ExitCode::from(20);
    };
    let channel = Channel::from_fd(fd);
    let Ok(Some((ToMonitor::Order(order), fd))) = channel.receive::<ToMonitor>() else {
        return ExitCode::from(20);
    };
    let _ = nix_name(&order);
    let taken = match &order.task {
        Task::Launch(plan) => start(&order, plan, &channel),
        Task::Adopt { init, user_namespace } => adopt(*init, *user_namespace),
        Task::Restore(plan) => restore::restore(&order, plan, fd, &channel),
    };
    match taken {
        Ok(Some((init, console))) => {
            // Whether vzctl still listens does not matter: init runs.
            let watch = Watch::new(&order, init, console);
            let _ = channel.send(&FromMonitor::Started, None);
            drop(channel);
            watch.run()
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = channel.send(&FromMonitor::Failed(error), None);
            ExitCode::from(7)
        }
    }
}

/// `ps` shows whose monitor it is by its first argument; the short name says so too.
fn nix_name(order: &Order) -> Result<()> {
    let name = std::ffi::CString::new(format!("vzmon {}", order.ctid)).unwrap_or_default();
    rustix::thread::set_name(&name).map_err(|errno| SysError::new("prctl", "PR_SET_NAME", errno))
}

pub(crate) type Taken = Option<(Init, Option<OwnedFd>)>;

fn start(order: &Order, plan: &LaunchPlan, vzctl: &Channel) -> std::result::Result<Taken, LaunchError> {
    raise_limits();
    // A VE without views is better than none.
    let (connection, views) = crate::views::open().map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let waiting = launch::clone_init(plan, views.as_ref(), |pid| count_files(order.ctid, pid))?;
    drop(views);
    let started = announce(&waiting, vzctl, connection.is_some())
        .and_then(|()| serve(order, plan, waiting.pid, connection))
        .and_then(|()| escort(&waiting, vzctl, &order.run_dir));
    if !matches!(started, Ok(Some(_))) {
        let _ = waiting.pidfd.signal(Signal::KILL);
        let _ = waiting.pidfd.reap();
    }
    let Some(console) = started? else { return Ok(None) };
    let init = ProcRef::of(waiting.pid).map_err(failed)?;
    Ok(Some((Init::Child(waiting.pidfd, init), console)))
}

/// A VE whose files are not counted is better than none: vzctl finds that out when it sets their limit.
pub(crate) fn count_files(ctid: u32, init: i32) {
    if let Ok(Some(gate)) = FileGate::find() {
        let _ = gate.admit(ctid, init);
    }
}

/// `vzctl` sets the network up meanwhile.
fn announce(init: &Waiting, vzctl: &Channel, views: bool) -> std::result::Result<(), LaunchError> {
    vzctl.send(&FromMonitor::Cloned { pid: init.pid, views }, None).map_err(failed)
}

/// Who answers what the VE asks: init looks its views up at once, and the supervisor has to be there before the first
/// session can come, and before init is released.
fn serve(
    order: &Order,
    plan: &LaunchPlan,
    init: i32,
    views: Option<Connection>,
) -> std::result::Result<(), LaunchError> {
    let trapped = plan.confinement.trapped;
    let begun = ProcRef::of(init).and_then(|init| {
        let base = plan.ids.map_or(0, |ids| ids.base);
        let charge = |load| Charge { ctid: order.ctid, run_dir: order.run_dir.clone(), init, base, load };
        views.map_or(Ok(()), |connection| crate::views::begin(connection, charge(true)))?;
        if trapped.any() { supervisor::begin(&charge(trapped.sysinfo)) } else { Ok(()) }
    });
    begun.map_err(|error| LaunchError { stage: Stage::Confine, error: error.to_string() })
}

/// Where init's calls stop goes to the supervisor; init may then run.
fn pass_on(listener: Option<OwnedFd>, init: &Waiting, run_dir: &Path) -> Result<()> {
    let listener = listener.ok_or_else(|| SysError::new("recvmsg", "no listener", Errno::BADMSG))?;
    supervisor::entrust(run_dir, &listener)?;
    init.channel.send(&ToInit::Served, None)
}

fn failed(error: SysError) -> LaunchError {
    LaunchError { stage: Stage::Clone, error: error.to_string() }
}

/// Carries the messages between vzctl and init until init runs (the console's master), or vzctl gives
/// up (`None`).
fn escort(
    init: &Waiting,
    vzctl: &Channel,
    run_dir: &Path,
) -> std::result::Result<Option<Option<OwnedFd>>, LaunchError> {
    let mut console = None;
    let mut released = false;
    loop {
        let (from_init, from_vzctl) = wait(init, vzctl, released).map_err(failed)?;
        if from_init {
            match init.channel.receive::<FromInit>().map_err(failed)? {
                Some((FromInit::Console, fd)) => console = fd,
                Some((FromInit::Furnished, _)) => {
                    vzctl.send(&FromMonitor::Furnished, None).map_err(failed)?;
                }
                Some((FromInit::Listener, fd)) => pass_on(fd, init, run_dir).map_err(failed)?,
                Some((FromInit::Failed { stage, error }, _)) => return Err(LaunchError { stage, error }),
                // Closed by exec.
                None if released => return Ok(Some(console)),
                None => {
                    let error = "the first process of the container was killed".to_owned();
                    return Err(LaunchError { stage: Stage::Clone, error });
                }
            }
        } else if from_vzctl {
            match vzctl.receive::<ToMonitor>().map_err(failed)? {
                Some((ToMonitor::Release, _)) => {
                    init.channel.send(&ToInit::Release, None).map_err(failed)?;
                    released = true;
                }
                Some((ToMonitor::Order(_) | ToMonitor::Wired, _)) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Waits for either; once init is released, vzctl's death no longer matters.
fn wait(init: &Waiting, vzctl: &Channel, released: bool) -> Result<(bool, bool)> {
    let init_fd = init.channel.as_fd();
    let vzctl_fd = vzctl.as_fd();
    let mut fds = vec![PollFd::new(&init_fd, PollFlags::IN)];
    if !released {
        fds.push(PollFd::new(&vzctl_fd, PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(SysError::new("poll", "channels", errno)),
    }
    let ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
    Ok((ready(0), ready(1)))
}

/// A monitor died, and the console with it; init runs on and gets a new one of each.
fn adopt(init: ProcRef, user_namespace: bool) -> std::result::Result<Taken, LaunchError> {
    let Some(pidfd) = init.open().map_err(failed)? else { return Ok(None) };
    // A VE without a console is better than none watched.
    let console = join::renew_console(&pidfd, user_namespace).ok();
    Ok(Some((Init::Stranger(pidfd, init), console)))
}

/// Guests set limits of their own up to the hard one, which our starter may have lowered. Without
/// CAP_SYS_RESOURCE it stays.
pub(crate) fn raise_limits() {
    let files = getrlimit(Resource::Nofile);
    if files.maximum.is_some_and(|hard| hard < FILES) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.current, maximum: Some(FILES) });
    }
}
