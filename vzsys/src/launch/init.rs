//! The child's side of the launch, from clone3 to exec.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use super::{AtStage, FromInit, LaunchError, LaunchPlan, Stage, ToInit, console, furnish};
use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::mount::Detached;
use crate::raw;

/// Mounts made on the host's side for the child to put in place.
#[derive(Clone, Copy)]
pub(super) struct Trees<'a> {
    /// A copy of the VE's root.
    pub(super) root: &'a Detached,
    /// Its /dev.
    pub(super) dev: &'a Detached,
    /// Its views, if it gets some.
    pub(super) views: Option<&'a Detached>,
}

/// Child, inside its namespaces. Never returns: becomes init, or reports why not and exits.
pub(super) fn run(plan: &LaunchPlan, trees: Trees<'_>, tasks: Vec<OwnedFd>, channel: &Channel) -> ! {
    let failed = match furnish_and_wait(plan, trees, tasks, channel) {
        Ok(Some(init)) => execute(plan, &init, channel),
        // The parent closed the channel: nobody wants this VE any more.
        Ok(None) => raw::exit_now(0),
        Err(error) => error,
    };
    let _ = channel.send(&FromInit::Failed { stage: failed.stage, error: failed.error }, None);
    raw::exit_now(1)
}

fn furnish_and_wait(
    plan: &LaunchPlan,
    trees: Trees<'_>,
    tasks: Vec<OwnedFd>,
    channel: &Channel,
) -> std::result::Result<Option<CString>, LaunchError> {
    if !matches!(channel.receive().at(Stage::Identity)?, Some((ToInit::MapsWritten, _))) {
        return Ok(None);
    }
    crate::join::become_root().at(Stage::Identity)?;
    join_cgroups(tasks).at(Stage::Cgroups)?;
    enter_time_namespace().at(Stage::Time)?;
    // From here on paths of the VE are looked up: a link of its to /proc/self/fd/N must find nothing but
    // what is its own.
    let mut kept = vec![channel.as_fd(), trees.root.as_fd(), trees.dev.as_fd()];
    kept.extend(trees.views.map(AsFd::as_fd));
    raw::close_all_but(&kept).at(Stage::Mounts)?;
    furnish::furnish(plan, trees).at(Stage::Mounts)?;
    raw::close_all_but(&[channel.as_fd()]).at(Stage::Mounts)?;
    let master = console::open_console().at(Stage::Console)?;
    channel.send(&FromInit::Console, Some(master.as_fd())).at(Stage::Console)?;
    drop(master);
    sethostname(plan.hostname.as_bytes()).call("sethostname", || &plan.hostname).at(Stage::Hostname)?;
    let init = find_init(plan).at(Stage::FindInit)?;
    channel.send(&FromInit::Furnished, None).at(Stage::Exec)?;
    match channel.receive().at(Stage::Exec)? {
        Some((ToInit::Release, _)) => Ok(Some(init)),
        _ => Ok(None),
    }
}

/// Writing "0" to a v1 `tasks` file moves the writer alone, without the global lock and its RCU grace
/// period that a pid in `cgroup.procs` costs (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
fn join_cgroups(tasks: Vec<OwnedFd>) -> Result<()> {
    for fd in &tasks {
        rustix::io::write(fd, b"0").call("write", || "tasks, \"0\"")?;
    }
    // Only now: the namespace's root is where its maker is.
    crate::join::unshare(UnshareFlags::NEWCGROUP)
}

/// An own time namespace whose clocks start at zero, as on a machine that has just booted.
fn enter_time_namespace() -> Result<()> {
    let now = |clock| rustix::time::clock_gettime(clock).tv_sec;
    let (monotonic, boottime) = (now(rustix::time::ClockId::Monotonic), now(rustix::time::ClockId::Boottime));
    match crate::join::unshare_time() {
        Ok(()) => {}
        Err(error) if error.errno() == Errno::INVAL => return Ok(()), // a kernel without time namespaces
        Err(error) => return Err(error),
    }
    let offsets = format!("monotonic {} 0\nboottime {} 0\n", -monotonic, -boottime);
    // A process that changed its ids is not dumpable, and its files in /proc are not its own.
    let dumpable =
        |behavior| rustix::process::set_dumpable_behavior(behavior).call("prctl", || "PR_SET_DUMPABLE");
    dumpable(rustix::process::DumpableBehavior::Dumpable)?;
    fs::write("/proc/self/timens_offsets", &offsets).call("write", || "timens_offsets")?;
    dumpable(rustix::process::DumpableBehavior::NotDumpable)?;
    let ns = fs::File::open("/proc/self/ns/time_for_children").call("open", || "ns/time_for_children")?;
    raw::setns(ns.as_fd(), raw::CLONE_NEWTIME)
}

fn find_init(plan: &LaunchPlan) -> Result<CString> {
    for path in &plan.init {
        if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && !Path::new(path).is_dir() {
            return CString::new(path.to_string_lossy().as_bytes())
                .map_err(|_| SysError::new("execve", path.display(), Errno::INVAL));
        }
    }
    let tried: Vec<_> = plan.init.iter().map(|p| p.display().to_string()).collect();
    Err(SysError::new("execve", tried.join(" or "), Errno::NOENT))
}

fn execute(plan: &LaunchPlan, init: &CString, channel: &Channel) -> LaunchError {
    let hand_over = |listener: BorrowedFd<'_>| {
        channel.send(&FromInit::Listener, Some(listener))?;
        match channel.receive()? {
            Some((ToInit::Served, _)) => Ok(()),
            _ => Err(SysError::new("recvmsg", "supervisor", Errno::PIPE)),
        }
    };
    let confined = furnish::stdio()
        .and_then(|()| crate::limits::limit_files())
        .and_then(|()| crate::join::confine(&plan.confinement, hand_over))
        .at(Stage::Confine);
    if let Err(error) = confined {
        return error;
    }
    let strings = |list: &mut dyn Iterator<Item = &str>| -> Vec<CString> {
        list.filter_map(|text| CString::new(text).ok()).collect()
    };
    let argv = strings(&mut std::iter::once("init").chain(plan.arguments.iter().map(String::as_str)));
    let env = strings(&mut plan.environment.iter().map(String::as_str));
    let result = nix::unistd::execve(init, &argv, &env);
    let errno = result.err().unwrap_or(nix::errno::Errno::UnknownErrno);
    let error = SysError::new("execve", init.to_string_lossy(), Errno::from_raw_os_error(errno as i32));
    LaunchError { stage: Stage::Exec, error: error.to_string() }
}
