//! `vzctl exec`, `exec2`, `exec3`, `enter`, and scripts in a running VE.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use beancounters::Memory;
use vzconf::{Ctid, Exit};
use vzsys::bpf::FileGate;
use vzsys::join::{self, JoinError, Program, Session, Stdio, Target, WAY_IN};
use vzsys::launch::Confinement;
use vzsys::notify;
use vzsys::process::{Ended, PidFd};
use vzsys::trap::Trapped;

use crate::cgroup::{self, JoinPoints};
use crate::error::{Doing, Error, Result, describe};
use crate::monitor::supervisor_socket;
use crate::node::Ve;
use crate::scripts::PATH;
use crate::session::{self, Input};
use crate::start;

/// How long an init that was never released may take to go.
const ENDS: Duration = Duration::from_secs(10);

/// What `exec` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The words, joined by blanks, for the VE's shell (`exec`, `exec2`).
    Shell(Vec<OsString>),
    /// The program and its arguments as they are (`exec3`).
    Direct(Vec<OsString>),
}

/// A VE's init and all that is needed to run a program beside it.
#[derive(Debug)]
pub(crate) struct Door {
    init: PidFd,
    points: JoinPoints,
    confinement: Confinement,
    user_namespace: bool,
    supervisor: PathBuf,
    files: Option<FileGate>,
}

impl Door {
    pub(crate) fn new(
        ve: &Ve<'_>,
        init: PidFd,
        points: JoinPoints,
        mut confinement: Confinement,
        user_namespace: bool,
    ) -> Self {
        let supervisor = supervisor_socket(&ve.run_dir());
        if confinement.trapped.any() && !notify::reachable(&supervisor) {
            // Nobody answers: with the filter this session could open nothing.
            ve.say(-1, "WARNING: the container's supervisor was killed; restart the container");
            confinement.trapped = Trapped::default();
        }
        Self { init, points, confinement, user_namespace, supervisor, files: None }
    }

    /// The door of a running VE.
    pub(crate) fn open(ve: &Ve<'_>) -> Result<Self> {
        let state = ve.must_run()?;
        // The VE can be entered without a monitor; a failure to get it one must not hinder that.
        if let Err(error) = start::adopt(ve, &state) {
            ve.say(-1, &format!("WARNING: the container has no monitor: {}", describe(&error)));
        }
        let gone = || Error::refused(Exit::VeNotRunning, "Container is not running");
        let init = state.init.open().doing(Exit::System, || entering(ve.ctid))?.ok_or_else(gone)?;
        let points = cgroup::join_points(ve)?;
        let files = beancounters::short_of_files(ve.ctid, state.init.pid);
        let door = Self::new(ve, init, points, state.confinement, state.ids.is_some());
        Ok(Self { files, ..door })
    }

    /// Waits until the VE's init has ended.
    pub(crate) fn wait_ended(&self) -> Result<()> {
        let ended = self.init.wait_ended(Some(ENDS));
        ended.map(drop).doing(Exit::System, || "cannot wait for the end of the container".to_owned())
    }

    /// Runs a program, which has until `deadline` to begin.
    fn run(
        &self,
        program: &Program,
        stdio: Stdio,
        deadline: Option<Instant>,
    ) -> std::result::Result<Session, JoinError> {
        let target = Target {
            init: &self.init,
            cgroup_tasks: &self.points.tasks,
            cgroup_unified: self.points.unified.as_ref().map(AsFd::as_fd),
            confinement: &self.confinement,
            user_namespace: self.user_namespace,
            supervisor: &self.supervisor,
            files: self.files.as_ref(),
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        join::run(&target, program, stdio, left.map_or(WAY_IN, |left| left.min(WAY_IN)))
    }
}

/// To be told to whoever came in without it.
fn tell_supervision(ve: &Ve<'_>, session: &Session) {
    if session.unsupervised {
        ve.say(-1, "WARNING: the container's supervisor does not answer; this session goes on without it");
    }
}

/// Who was killed in a VE whose memory is full learns why, and what makes room without coming in.
fn tell_full(ve: &Ve<'_>, ended: Ended) {
    let killed = ended == Ended::Killed(9);
    let Some(cgroup) = killed.then(|| cgroup::open(ve).ok().flatten()).flatten() else { return };
    let memory = Memory::read(&cgroup);
    // What the kernel can take away for others is not held.
    let held = memory.used.saturating_sub(memory.parts.file.saturating_sub(memory.parts.shmem));
    if memory.limit.is_some_and(|limit| held >= limit / 8 * 7) {
        let hint = format!("vzctl set {} --ram SIZE gives it more for a while", ve.ctid);
        ve.say(-1, &format!("WARNING: killed, and its memory is full; {hint}"));
    }
}

fn entering(ctid: Ctid) -> String {
    format!("cannot enter container {ctid}")
}

fn refused(ctid: Ctid) -> impl FnOnce(JoinError) -> Error {
    move |error| match error {
        JoinError::Call(source) => Error::Call { what: entering(ctid), source, exit: Exit::System },
        JoinError::Exec { error, .. } => {
            Error::refused(Exit::FsBadTmpl, format!("cannot run the program in container {ctid}: {error}"))
        }
        JoinError::Stuck(_) => Error::advised(
            Exit::System,
            format!("container {ctid}: {error}"),
            format!("vzctl stop {ctid} --fast ends it; vzctl restart {ctid} --fast starts it anew"),
        ),
        other => Error::refused(Exit::System, format!("container {ctid}: {other}")),
    }
}

/// The same of a program that is one of the VE's shells.
fn no_shell(ctid: Ctid) -> impl FnOnce(JoinError) -> Error {
    move |error| match error {
        JoinError::Exec { missing: true, .. } => {
            Error::refused(Exit::FsBadTmpl, format!("container {ctid} has no shell (/bin/bash or /bin/sh)"))
        }
        other => refused(ctid)(other),
    }
}

fn plain_environment() -> Vec<String> {
    vec!["HOME=/".to_owned(), "TERM=linux".to_owned(), format!("PATH={PATH}")]
}

/// The words with a blank between each two.
fn joined<'a>(words: impl Iterator<Item = &'a OsStr>) -> OsString {
    let mut line = OsString::new();
    for (at, word) in words.enumerate() {
        if at > 0 {
            line.push(" ");
        }
        line.push(word);
    }
    line
}

/// The shell's command string: words joined by blanks, an empty one as `''`.
fn shell_line(argv: &[OsString]) -> OsString {
    let mut line = joined(argv.iter().map(|word| if word.is_empty() { OsStr::new("''") } else { word }));
    line.push(" ");
    line
}

fn program(what: &What) -> Program {
    let candidates = match what {
        What::Direct(argv) => vec![(argv.first().cloned().unwrap_or_default(), argv.clone())],
        What::Shell(argv) => {
            let shell = |name: &str| match argv.first() {
                Some(first) if first == "-" => vec![name.into()],
                _ => vec![name.into(), "-c".into(), shell_line(argv)],
            };
            vec![("/bin/bash".into(), shell("bash")), ("/bin/sh".into(), shell("sh"))]
        }
    };
    Program { candidates, environment: plain_environment() }
}

/// Runs a command with our standard files connected through pipes, and waits for it.
///
/// # Errors
/// 31 not running, 47 no such program or shell, 3 cannot enter.
pub fn exec(ve: &Ve<'_>, what: &What) -> Result<Ended> {
    let door = Door::open(ve)?;
    let failed = || entering(ve.ctid);
    let signals = session::catch_signals().doing(Exit::System, failed)?;
    let (ours, theirs) = session::pipes().doing(Exit::System, failed)?;
    let session = door.run(&program(what), Stdio::Files(theirs), None).map_err(|error| match what {
        What::Shell(_) => no_shell(ve.ctid)(error),
        What::Direct(_) => refused(ve.ctid)(error),
    })?;
    tell_supervision(ve, &session);
    let ended = session::carry(&session, ours, Input::Ours, &signals, None);
    let ended = ended.doing(Exit::System, failed)?.unwrap_or(Ended::Killed(0));
    tell_full(ve, ended);
    Ok(ended)
}

/// Feeds a script to the VE's shell, output to ours, and waits for it.
///
/// # Errors
/// As [`exec`].
pub(crate) fn feed_script(ctid: Ctid, door: &Door, script: &[u8]) -> Result<Ended> {
    Ok(feed_script_until(ctid, door, script, None)?.unwrap_or(Ended::Killed(0)))
}

/// The same, until a point in time at which it is killed: `None`. It is the VE's shell that runs it, and
/// the VE may stop it.
///
/// # Errors
/// As [`exec`].
pub(crate) fn feed_script_until(
    ctid: Ctid,
    door: &Door,
    script: &[u8],
    deadline: Option<Instant>,
) -> Result<Option<Ended>> {
    let program = program(&What::Shell(vec!["-".into()]));
    let failed = || entering(ctid);
    let signals = session::catch_signals().doing(Exit::System, failed)?;
    let (ours, theirs) = session::pipes().doing(Exit::System, failed)?;
    let session = door.run(&program, Stdio::Files(theirs), deadline).map_err(no_shell(ctid))?;
    session::carry(&session, ours, Input::Bytes(script), &signals, deadline).doing(Exit::System, failed)
}

/// Runs a program silently, such as the guest's own `halt`, if that can begin by then.
pub(crate) fn run_quietly(ctid: Ctid, door: &Door, argv: &[String], by: Instant) -> Result<Session> {
    let program = program(&What::Direct(argv.iter().map(OsString::from).collect()));
    let files = session::nothing().doing(Exit::System, || entering(ctid))?;
    door.run(&program, Stdio::Files(files), Some(by)).map_err(refused(ctid))
}

/// Opens an interactive shell of the VE on a terminal of its own; `typed` is entered into it first.
///
/// # Errors
/// 31 not running, 47 no shell, 3 cannot enter.
pub fn enter(ve: &Ve<'_>, typed: Option<&[OsString]>) -> Result<Ended> {
    let door = Door::open(ve)?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let mut environment = vec![format!("PATH={PATH}")];
    for entry in ["HISTFILE=/dev/null", "USER=root", "HOME=/root", "LOGNAME=root"] {
        environment.push(entry.to_owned());
    }
    environment.push(format!("TERM={term}"));
    let shells = [("/bin/bash", "-bash"), ("/bin/sh", "-sh")];
    let candidates = shells.map(|(file, name)| (file.into(), vec![name.into()])).to_vec();
    let mut line = OsString::new();
    if let Some(argv) = typed {
        line = joined(argv.iter().map(OsString::as_os_str));
        line.push("\n");
    }
    let failed = || entering(ve.ctid);
    let signals = session::catch_signals().doing(Exit::System, failed)?;
    let session =
        door.run(&Program { candidates, environment }, Stdio::Terminal, None).map_err(no_shell(ve.ctid))?;
    tell_supervision(ve, &session);
    ve.say(0, &format!("entered into CT {}", ve.ctid));
    let ended = session::converse(&session, line.as_bytes(), &signals).doing(Exit::System, failed)?;
    ve.say(0, &format!("exited from CT {}", ve.ctid));
    tell_full(ve, ended);
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn words_become_a_line_for_the_shell_whatever_their_bytes() {
        let words =
            |list: &[&[u8]]| list.iter().map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>();
        assert_eq!(shell_line(&words(&[b"echo", b"", b"a  b"])).as_bytes(), b"echo '' a  b ");
        assert_eq!(shell_line(&words(&[b"echo", b"\xff\xfe"])).as_bytes(), b"echo \xff\xfe ");
        let stdin = program(&What::Shell(words(&[b"-", b"ignored"])));
        assert_eq!(stdin.candidates[0].1, ["bash"]);
    }
}
