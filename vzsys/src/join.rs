//! Entering a running VE: `exec`, `enter`, scripts.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::launch::Confinement;
use crate::process::PidFd;
use crate::raw::{self, Cloned};
use crate::seccomp;

/// `PER_LINUX32` of linux/personality.h: uname(2) reports the 32-bit machine.
const PER_LINUX32: libc::c_int = 8;

/// unshare(2).
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: descriptors and file-system state stay shared; only namespaces are given as flags here.
    unsafe { rustix::thread::unshare_unsafe(flags) }.call("unshare", || format!("{flags:?}"))
}

/// unshare(CLONE_NEWTIME), which is for the children of the caller.
pub(crate) fn unshare_time() -> Result<()> {
    unshare(UnshareFlags::NEWTIME)
}

/// Drops what a VE's processes may not have. Inside, as root of the VE, last before exec.
pub(crate) fn confine(confinement: &Confinement) -> Result<()> {
    raw::join_new_keyring();
    if confinement.personality_32 {
        nix::sys::personality::set(nix::sys::personality::Persona::from_bits_retain(PER_LINUX32))
            .call("personality", || "PER_LINUX32")?;
    }
    raw::reset_signals();
    for cap in (0..64).filter(|cap| confinement.capabilities & (1 << cap) == 0) {
        match raw::drop_bounding(cap) {
            Err(error) if error.errno() == Errno::INVAL => break, // past the last one of this kernel
            done => done?,
        }
    }
    raw::cloexec_from(3)?;
    seccomp::install(confinement.nesting)?;
    raw::set_caps(raw::permitted()? & confinement.capabilities)
}

/// The VE to enter.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its init.
    pub init: &'a PidFd,
    /// v1 `tasks` files of its cgroups, open for writing.
    pub cgroup_tasks: &'a [OwnedFd],
    /// The v2 cgroup for new sessions.
    pub cgroup_unified: Option<BorrowedFd<'a>>,
    /// Limits of its processes.
    pub confinement: &'a Confinement,
    /// Whether it has a user namespace.
    pub user_namespace: bool,
}

/// The standard files of the program to run.
#[derive(Debug)]
pub enum Stdio {
    /// These three.
    Files([OwnedFd; 3]),
    /// A new pseudo-terminal of the VE, which becomes its controlling terminal.
    Terminal,
}

/// What to run.
#[derive(Debug)]
pub struct Program {
    /// Programs to try, in order; a name without a slash is looked up along `PATH` of `environment`.
    pub candidates: Vec<(String, Vec<String>)>,
    /// The whole environment.
    pub environment: Vec<String>,
}

/// A program that runs in the VE.
#[derive(Debug)]
pub struct Session {
    /// Its pid on the host, and its process group; good until it is reaped.
    pub pid: i32,
    /// The process; our child.
    pub process: PidFd,
    /// The terminal's master, for [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A call on our side failed.
    #[error(transparent)]
    Call(#[from] SysError),
    /// The VE's namespaces or cgroups could not be joined; its init may have just ended.
    #[error("cannot enter the container: {error}")]
    Enter {
        /// The call and its errno.
        error: String,
    },
    /// None of the candidates could be executed.
    #[error("{error}")]
    Exec {
        /// The call and its errno.
        error: String,
        /// Whether there was no such program.
        missing: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Pid(i32),
    Terminal,
    EnterFailed(String),
    ExecFailed { error: String, missing: bool },
}

/// Runs a program in a VE as its root, in all its namespaces and cgroups, confined as its init is.
/// Returns when the program has been executed. The caller must be single-threaded and root.
///
/// # Errors
/// [`JoinError`]; no process is left behind.
pub fn run(target: &Target<'_>, program: &Program, stdio: Stdio) -> std::result::Result<Session, JoinError> {
    let (ours, theirs) = Channel::pair()?;
    match raw::clone3(0, target.cgroup_unified, libc::SIGCHLD)? {
        Cloned::Child => {
            drop(ours);
            enter(target, program, stdio, &theirs)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            drop(stdio);
            let entered = listen(&ours);
            // The first process only opens the door; the program itself is our child as well.
            PidFd::from_fd(pidfd).reap()?;
            entered
        }
    }
}

fn listen(channel: &Channel) -> std::result::Result<Session, JoinError> {
    let mut process = None;
    let mut terminal = None;
    let mut failed = None;
    while let Some((report, fd)) = channel.receive::<Report>()? {
        match report {
            Report::Pid(pid) => process = PidFd::open(pid)?.map(|fd| (pid, fd)),
            Report::Terminal => terminal = fd,
            Report::EnterFailed(error) => failed = Some(JoinError::Enter { error }),
            Report::ExecFailed { error, missing } => failed = Some(JoinError::Exec { error, missing }),
        }
    }
    match (failed, process) {
        (None, Some((pid, process))) => Ok(Session { pid, process, terminal }),
        (failed, process) => {
            if let Some((_, process)) = process {
                process.reap()?;
            }
            Err(failed.unwrap_or(JoinError::Enter { error: "it ended at once".to_owned() }))
        }
    }
}

/// First child, on its way in: joins cgroups and namespaces, then clones the program's process (only
/// a child is in a joined pid namespace) as a child of our parent.
fn enter(target: &Target<'_>, program: &Program, stdio: Stdio, channel: &Channel) -> ! {
    let cloned = join_all(target).and_then(|()| raw::clone_sibling());
    match cloned {
        Ok(Cloned::Child) => inside(target, program, stdio, channel),
        Ok(Cloned::Parent { pid, .. }) => {
            let _ = channel.send(&Report::Pid(pid), None);
            raw::exit_now(0)
        }
        Err(error) => {
            let _ = channel.send(&Report::EnterFailed(error.to_string()), None);
            raw::exit_now(1)
        }
    }
}

fn join_all(target: &Target<'_>) -> Result<()> {
    for fd in target.cgroup_tasks {
        rustix::io::write(fd, b"0").call("write", || "tasks, \"0\"")?;
    }
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    if target.user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    let fd = target.init.as_fd();
    match raw::setns(fd, flags as u64 | raw::CLONE_NEWTIME) {
        Err(error) if error.errno() == Errno::INVAL => raw::setns(fd, flags as u64),
        done => done,
    }
}

/// Second child, inside the VE: root, session, standard files, confinement, exec.
fn inside(target: &Target<'_>, program: &Program, stdio: Stdio, channel: &Channel) -> ! {
    let ready =
        become_root().and_then(|()| take_stdio(stdio, channel)).and_then(|()| confine(target.confinement));
    let report = match ready {
        Ok(()) => execute(program),
        Err(error) => Report::EnterFailed(error.to_string()),
    };
    let _ = channel.send(&report, None);
    raw::exit_now(1)
}

/// Inside a VE's user namespace (or, for a privileged VE, as we are): its root, in a session of its own.
pub(crate) fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).call("setgroups", || "[]")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).call("setresgid", || "0")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call("setresuid", || "0")?;
    rustix::process::setsid().call("setsid", || "")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

fn take_stdio(stdio: Stdio, channel: &Channel) -> Result<()> {
    match stdio {
        Stdio::Files(files) => {
            for (number, fd) in files.iter().enumerate() {
                raw::dup_onto(fd.as_fd(), i32::try_from(number).unwrap_or(0))?;
            }
            // Not closed by drop below 3: the three numbers now belong to the program.
            std::mem::forget(files);
            Ok(())
        }
        Stdio::Terminal => {
            let (master, slave) = crate::launch::open_pty()?;
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            let slave = rustix::fs::open(&slave, flags, rustix::fs::Mode::empty()).call("open", || &slave)?;
            raw::set_controlling_tty(slave.as_fd())?;
            for number in 0..3 {
                raw::dup_onto(slave.as_fd(), number)?;
            }
            channel.send(&Report::Terminal, Some(master.as_fd()))
        }
    }
}

fn execute(program: &Program) -> Report {
    let strings = |list: &[String]| -> Vec<CString> {
        list.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect()
    };
    let env = strings(&program.environment);
    let path = program.environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/bin");
    let mut last = (String::new(), nix::errno::Errno::ENOENT);
    for (name, argv) in &program.candidates {
        let argv = strings(argv);
        let places: Vec<String> = if name.contains('/') {
            vec![name.clone()]
        } else {
            path.split(':').map(|dir| format!("{dir}/{name}")).collect()
        };
        for place in places {
            let Ok(file) = CString::new(place) else { continue };
            if let Err(errno) = nix::unistd::execve(&file, &argv, &env)
                && (last.0.is_empty() || errno != nix::errno::Errno::ENOENT)
            {
                last = (name.clone(), errno);
            }
        }
    }
    let missing = last.1 == nix::errno::Errno::ENOENT;
    let error = SysError::new("execve", last.0, Errno::from_raw_os_error(last.1 as i32));
    Report::ExecFailed { error: error.to_string(), missing }
}

/// Gives a running VE another host name.
///
/// # Errors
/// The errno of entering its UTS namespace or of sethostname(2).
pub fn set_hostname(init: &PidFd, name: &str) -> Result<()> {
    match raw::clone3(0, None, libc::SIGCHLD)? {
        Cloned::Child => {
            let done = raw::setns(init.as_fd(), libc::CLONE_NEWUTS as u64)
                .and_then(|()| rustix::system::sethostname(name.as_bytes()).call("sethostname", || name));
            raw::exit_now(done.map_or_else(|error| error.errno().raw_os_error(), |()| 0))
        }
        Cloned::Parent { pidfd, .. } => match PidFd::from_fd(pidfd).reap()? {
            crate::process::Ended::Exited(0) => Ok(()),
            crate::process::Ended::Exited(errno) => {
                Err(SysError::new("sethostname", name, Errno::from_raw_os_error(errno)))
            }
            crate::process::Ended::Killed(_) => Err(SysError::new("sethostname", name, Errno::INTR)),
        },
    }
}

/// Gives a running VE a new console after the old one's master was lost: a new pseudo-terminal of its
/// devpts, mounted on `/dev/console`. Programs that open the console anew, as init systems do, use it.
/// Returns the master.
///
/// # Errors
/// The errno of entering the VE or of its terminal or mount calls.
pub fn renew_console(init: &PidFd, user_namespace: bool) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    let Cloned::Parent { pidfd, .. } = raw::clone3(0, None, libc::SIGCHLD)? else {
        drop(ours);
        let failed = renew_inside(init, user_namespace, &theirs).err();
        let _ = failed.map(|error| theirs.send(&Report::EnterFailed(error.to_string()), None));
        raw::exit_now(0)
    };
    drop(theirs);
    let report = ours.receive::<Report>();
    PidFd::from_fd(pidfd).reap()?;
    match report? {
        Some((Report::Terminal, Some(master))) => Ok(master),
        Some((Report::EnterFailed(error), _)) => Err(SysError::new("console", error, Errno::IO)),
        _ => Err(SysError::new("console", "the helper process ended", Errno::IO)),
    }
}

fn renew_inside(init: &PidFd, user_namespace: bool, channel: &Channel) -> Result<()> {
    let user = if user_namespace { libc::CLONE_NEWUSER } else { 0 };
    raw::setns(init.as_fd(), (user | libc::CLONE_NEWNS) as u64)?;
    become_root()?;
    let (master, slave) = crate::launch::open_pty()?;
    let console = std::path::Path::new("/dev/console");
    crate::mount::umount_lazy(console)?;
    crate::mount::Detached::copy_of(std::path::Path::new(&slave), false)?.attach(console)?;
    channel.send(&Report::Terminal, Some(master.as_fd()))
}
