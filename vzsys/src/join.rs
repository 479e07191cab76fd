//! Entering a running VE: `exec`, `enter`, scripts.

mod console;

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::bpf::FileGate;
use crate::channel::Channel;
use crate::error::{Call, Result, SysError};
use crate::launch::Confinement;
use crate::limits::{Lent, limit_files};
use crate::process::PidFd;
use crate::raw::{self, Cloned};
use crate::{notify, seccomp, trap};

pub use console::renew_console;

/// `PER_LINUX32` of linux/personality.h: uname(2) reports the 32-bit machine.
const PER_LINUX32: libc::c_int = 8;

/// How long the way in may take at most. The VE can stop or freeze what is inside already, or make it look up
/// paths on a file system of its own that never answers.
pub const WAY_IN: Duration = Duration::from_secs(10);
/// How long a killed process may take to go; one that is frozen or stuck in the kernel is left to the
/// host's init.
const KILLED: Duration = Duration::from_secs(2);

/// unshare(2).
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: descriptors and file-system state stay shared; only namespaces are given as flags here.
    unsafe { rustix::thread::unshare_unsafe(flags) }.call("unshare", || format!("{flags:?}"))
}

/// unshare(CLONE_NEWTIME), which is for the children of the caller.
pub(crate) fn unshare_time() -> Result<()> {
    unshare(UnshareFlags::NEWTIME)
}

/// Drops what a VE's processes may not have. Inside, as root of the VE, last before exec. `hand_over` gives away
/// where the trapped calls stop, and returns when they are answered.
pub(crate) fn confine(
    confinement: &Confinement,
    hand_over: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
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
    if let Some(bytes) = confinement.lockable {
        let bytes = getrlimit(Resource::Memlock).maximum.map_or(bytes, |most| most.min(bytes));
        setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: Some(bytes) })
            .call("setrlimit", || format!("MEMLOCK, {bytes}"))?;
    }
    raw::cloexec_from(3)?;
    seccomp::install(confinement.nesting)?;
    if confinement.trapped.any() {
        hand_over(trap::install(confinement.trapped)?.as_fd())?;
    }
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
    /// The socket of its supervisor, where one answers calls.
    pub supervisor: &'a Path,
    /// Where it has hardly any file left to open: the gate, which is not to refuse the program any.
    pub files: Option<&'a FileGate>,
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
    /// Words may be any bytes, as they are for execve(2).
    pub candidates: Vec<(OsString, Vec<OsString>)>,
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
    /// Whether the VE's supervisor is there and did not take it: its calls are answered by nobody but the kernel.
    pub unsupervised: bool,
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
        /// Whether it may have no more processes.
        full: bool,
    },
    /// The way in has no end: the VE is frozen, or its own processes stop what comes in.
    #[error("no program could be started in it for {} s: it is frozen, or its processes stop others", .0.as_secs())]
    Stuck(Duration),
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
    Listener,
    EnterFailed { error: String, full: bool },
    ExecFailed { error: String, missing: bool },
}

impl Report {
    fn failed(error: &SysError) -> Self {
        Self::EnterFailed { error: error.to_string(), full: error.errno() == Errno::AGAIN }
    }
}

impl JoinError {
    fn is_full(&self) -> bool {
        match self {
            Self::Call(error) => error.errno() == Errno::AGAIN,
            Self::Enter { full, .. } => *full,
            _ => false,
        }
    }
}

/// To the process that has sent its listener, or waits until the gate for files does not refuse it any.
#[derive(Debug, Serialize, Deserialize)]
struct Served;

/// Runs a program in a VE as its root, in all its namespaces and cgroups, confined as its init is. A VE that may have no
/// more processes gets this one all the same: it is made outside and moved in, which the kernel always allows. So does one
/// whose supervisor hangs, without its calls being trapped.
/// Returns when the program has been executed, or was not within `patience`. The caller must be
/// single-threaded and root.
///
/// # Errors
/// [`JoinError`]; no process is left behind.
pub fn run(
    target: &Target<'_>,
    program: &Program,
    stdio: Stdio,
    patience: Duration,
) -> std::result::Result<Session, JoinError> {
    let by_either_way = |target: &Target<'_>| match run_by(target, program, &stdio, patience, &Way::Joined) {
        Err(error) if error.is_full() => {
            run_by(target, program, &stdio, patience, &Way::Moved(procs_of(target)?))
        }
        done => done,
    };
    match by_either_way(target) {
        Err(JoinError::Call(error)) if notify::is_hanging(&error) => {
            let confinement = Confinement { trapped: trap::Trapped::default(), ..target.confinement.clone() };
            let session = by_either_way(&Target { confinement: &confinement, ..*target })?;
            Ok(Session { unsupervised: true, ..session })
        }
        done => done,
    }
}

/// How the program's process gets into the cgroups.
#[derive(Debug)]
enum Way {
    /// Whoever opens the door joins them, and what it clones is in them. In a frozen VE it waits outside of the VE's pid
    /// namespace, whose init could not go while one of us is left there.
    Joined,
    /// The process itself when it is there: a clone needs room for one more, to be moved does not. With the file by which
    /// the v2 cgroup is joined.
    Moved(Option<OwnedFd>),
}

fn procs_of(target: &Target<'_>) -> Result<Option<OwnedFd>> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |unified| rustix::fs::openat(unified, "cgroup.procs", flags, Mode::empty());
    target.cgroup_unified.map(open).transpose().call("openat", || "cgroup.procs")
}

fn run_by(
    target: &Target<'_>,
    program: &Program,
    stdio: &Stdio,
    patience: Duration,
    way: &Way,
) -> std::result::Result<Session, JoinError> {
    let (ours, theirs) = Channel::pair()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open", || "/dev/null")?;
    let unified = target.cgroup_unified.filter(|_| matches!(way, Way::Joined));
    match raw::clone3(0, unified, libc::SIGCHLD)? {
        Cloned::Child => {
            drop(ours);
            if let Some(bytes) = target.confinement.lockable {
                let _ = Lent::at_least(Resource::Memlock, bytes).map(std::mem::forget);
            }
            if let Err(error) = hide().and_then(|()| excuse_ourselves(target)) {
                let _ = theirs.send(&Report::failed(&error), None);
                raw::exit_now(1)
            }
            enter(target, program, Given { stdio, null, way }, &theirs)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            // The first process only opens the door; the program itself is our child as well.
            let door = PidFd::from_fd(pidfd);
            let entered = listen(&ours, target, patience);
            end(&door)?;
            entered
        }
    }
}

/// Before anything is joined: between joining the VE's user namespace and becoming its program we are a copy
/// of `vzctl` that its root could trace, and whose descriptors and memory it could take. What is executed in
/// the end is as open to it as any program of the VE.
fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .call("prctl", || "PR_SET_DUMPABLE")
}

/// The descriptor of the program's process is a file that this one opens as the VE's root.
fn excuse_ourselves(target: &Target<'_>) -> Result<()> {
    let Some(gate) = target.files else { return Ok(()) };
    let ourselves = PidFd::open(rustix::process::getpid().as_raw_pid())?;
    ourselves.map_or(Ok(()), |process| gate.excuse(process))
}

fn listen(
    channel: &Channel,
    target: &Target<'_>,
    patience: Duration,
) -> std::result::Result<Session, JoinError> {
    let deadline = Instant::now() + patience;
    let mut process = None;
    let mut terminal = None;
    let mut failed = None;
    loop {
        if !channel.ready_by(deadline)? {
            failed = Some(JoinError::Stuck(patience));
            break;
        }
        let Some((report, fd)) = channel.receive::<Report>()? else { break };
        match report {
            Report::Pid(pid) => {
                process = PidFd::open(pid)?.map(|fd| (pid, fd));
                let excused = process.as_ref().zip(target.files).map_or(Ok(()), |((_, process), gate)| {
                    gate.excuse(process)?;
                    channel.send(&Served, None)
                });
                if let Err(error) = excused {
                    failed = Some(JoinError::Call(error));
                    break;
                }
            }
            Report::Terminal => terminal = fd,
            Report::Listener => match serve(channel, target.supervisor, fd) {
                Ok(()) => {}
                Err(error) => {
                    failed = Some(JoinError::Call(error));
                    break;
                }
            },
            Report::EnterFailed { error, full } => failed = Some(JoinError::Enter { error, full }),
            Report::ExecFailed { error, missing } => failed = Some(JoinError::Exec { error, missing }),
        }
    }
    match (failed, process) {
        (None, Some((pid, process))) => Ok(Session { pid, process, terminal, unsupervised: false }),
        (failed, process) => {
            if let Some((_, process)) = process {
                end(&process)?;
            }
            let at_once = || JoinError::Enter { error: "it ended at once".to_owned(), full: false };
            Err(failed.unwrap_or_else(at_once))
        }
    }
}

fn serve(channel: &Channel, supervisor: &Path, listener: Option<OwnedFd>) -> Result<()> {
    let listener = listener.ok_or_else(|| SysError::new("recvmsg", "no listener", Errno::BADMSG))?;
    notify::entrust(supervisor, listener.as_fd())?;
    channel.send(&Served, None)
}

/// Ends and reaps a process of the way in, which has nothing left to do.
fn end(process: &PidFd) -> Result<()> {
    process.signal(rustix::process::Signal::KILL)?;
    if process.wait_ended(Some(KILLED))? { process.reap().map(drop) } else { Ok(()) }
}

/// What the program gets from the host.
struct Given<'a> {
    stdio: &'a Stdio,
    null: OwnedFd,
    way: &'a Way,
}

/// First child, on its way in: joins cgroups and namespaces, then clones the program's process (only a child is in a
/// joined pid namespace) as a child of our parent.
fn enter(target: &Target<'_>, program: &Program, given: Given<'_>, channel: &Channel) -> ! {
    let joined = match given.way {
        Way::Joined => join_cgroups(target.cgroup_tasks),
        Way::Moved(_) => Ok(()),
    };
    let cloned = joined.and_then(|()| join_namespaces(target)).and_then(|()| raw::clone_sibling());
    match cloned {
        Ok(Cloned::Child) => inside(target, program, given, channel),
        Ok(Cloned::Parent { pid, .. }) => {
            let _ = channel.send(&Report::Pid(pid), None);
            raw::exit_now(0)
        }
        Err(error) => {
            let _ = channel.send(&Report::failed(&error), None);
            raw::exit_now(1)
        }
    }
}

fn join_cgroups<'a>(files: impl IntoIterator<Item = &'a OwnedFd>) -> Result<()> {
    for fd in files {
        rustix::io::write(fd, b"0").call("write", || "tasks, \"0\"")?;
    }
    Ok(())
}

fn join_namespaces(target: &Target<'_>) -> Result<()> {
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
fn inside(target: &Target<'_>, program: &Program, given: Given<'_>, channel: &Channel) -> ! {
    let joined = match given.way {
        Way::Joined => Ok(()),
        Way::Moved(unified) => join_cgroups(target.cgroup_tasks.iter().chain(unified)),
    };
    let ready = joined
        .and_then(|()| target.files.map_or(Ok(()), |_| served(channel)))
        .and_then(|()| become_root())
        .and_then(|()| leave_the_host(given, channel))
        .and_then(|terminal| if terminal { open_terminal(channel) } else { Ok(()) })
        .and_then(|()| limit_files())
        .and_then(|()| confine(target.confinement, |listener| hand_over(channel, listener)))
        // Nothing else is ever said to us but the end: our starter has given up, or is dead. Thawed later, the
        // program must not run after all.
        .and_then(|()| channel.ready(Some(Duration::ZERO)));
    let report = match ready {
        Ok(false) => execute(program),
        Ok(true) => raw::exit_now(1),
        Err(error) => Report::failed(&error),
    };
    let _ = channel.send(&report, None);
    raw::exit_now(1)
}

/// Without somebody who answers, no file could be opened.
fn hand_over(channel: &Channel, listener: BorrowedFd<'_>) -> Result<()> {
    channel.send(&Report::Listener, Some(listener))?;
    served(channel)
}

fn served(channel: &Channel) -> Result<()> {
    channel.receive::<Served>()?.map(drop).ok_or_else(|| SysError::new("recvmsg", "our starter", Errno::PIPE))
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

/// Puts the standard files in place and closes all else but the channel, before any path of the VE is
/// looked up: a link of its to `/proc/self/fd/N` must find nothing of the host. Whether a terminal is still
/// to be opened.
fn leave_the_host(given: Given<'_>, channel: &Channel) -> Result<bool> {
    let Given { stdio, null, .. } = given;
    let terminal = matches!(stdio, Stdio::Terminal);
    for number in 0..3_u8 {
        let file = match stdio {
            Stdio::Files(files) => files[usize::from(number)].as_fd(),
            Stdio::Terminal => null.as_fd(),
        };
        raw::dup_onto(file, number.into())?;
    }
    // What it owned is closed here.
    std::mem::forget(null);
    raw::close_all_but(&[channel.as_fd()])?;
    rustix::process::chdir("/").call("chdir", || "/")?;
    Ok(terminal)
}

fn open_terminal(channel: &Channel) -> Result<()> {
    let (master, slave) = match crate::launch::open_pty() {
        // The VE has as many as it may have.
        Err(error) if error.errno() == Errno::NOSPC => crate::launch::own_pty()?,
        done => done?,
    };
    raw::set_controlling_tty(slave.as_fd())?;
    for number in 0..3 {
        raw::dup_onto(slave.as_fd(), number)?;
    }
    channel.send(&Report::Terminal, Some(master.as_fd()))
}

fn execute(program: &Program) -> Report {
    fn strings<T: AsRef<OsStr>>(list: &[T]) -> Vec<CString> {
        list.iter().filter_map(|text| CString::new(text.as_ref().as_bytes()).ok()).collect()
    }
    let env = strings(&program.environment);
    let path = program.environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/bin");
    let mut last = (String::new(), nix::errno::Errno::ENOENT);
    for (name, argv) in &program.candidates {
        let argv = strings(argv);
        let places: Vec<OsString> = if name.as_bytes().contains(&b'/') {
            vec![name.clone()]
        } else {
            path.split(':').map(|dir| Path::new(dir).join(name).into_os_string()).collect()
        };
        for place in places {
            let Ok(file) = CString::new(place.as_bytes()) else { continue };
            if let Err(errno) = nix::unistd::execve(&file, &argv, &env)
                && (last.0.is_empty() || errno != nix::errno::Errno::ENOENT)
            {
                last = (name.to_string_lossy().into_owned(), errno);
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
