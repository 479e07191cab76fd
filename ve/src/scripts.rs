//! Action scripts of the admin: on the host around mounting, in the VE before init and before stop.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use vzconf::{Action, Exit, Script};
use vzsys::Call;
use vzsys::process::PidFd;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;

/// What scripts and `exec` get as `PATH`.
pub(crate) use vzsys::spawn::PATH;

/// How long a script may take that has no time-out of its own: the VE's lock is held meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Which scripts come first: on the way up the node's, on the way down the VE's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `vps.*`, then `CTID.*`.
    NodeFirst,
    /// `CTID.*`, then `vps.*`.
    VeFirst,
}

/// Runs the node's and the VE's host script for an action, where they exist.
pub(crate) fn on_host(ve: &Ve<'_>, action: Action, order: Order) -> Result<()> {
    let (node, own) = (Script::Global(action), Script::Ve(ve.ctid, action));
    let scripts = if order == Order::NodeFirst { [node, own] } else { [own, node] };
    scripts.into_iter().try_for_each(|script| run(ve, &ve.node.paths.action_script(script)))
}

/// Runs one host script where it exists. Its environment is exactly what the manual says.
pub(crate) fn run(ve: &Ve<'_>, path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    ve.say(1, &format!("Running {}", path.display()));
    let ended = command(ve, path)
        .spawn()
        .call("execve", || path.display().to_string())
        .and_then(|mut child| ended_within(&mut child, PATIENCE))
        .doing(Exit::ActionScript, || format!("cannot run {}", path.display()))?;
    let how = match ended.map(|status| (status.code(), status.signal())) {
        Some((Some(0), _)) => return Ok(()),
        Some((Some(code), _)) => format!("returned {code}"),
        Some((None, Some(signal))) => format!("was killed by signal {signal}"),
        Some((None, None)) => "failed".to_owned(),
        None => too_slow(PATIENCE),
    };
    Err(Error::Script { path: path.to_owned(), how })
}

/// What is said of a script that was killed for its time.
pub(crate) fn too_slow(limit: Duration) -> String {
    format!("did not end in {} s", limit.as_secs())
}

/// Waits for a script; after the limit it is killed, and `None`.
fn ended_within(child: &mut Child, limit: Duration) -> vzsys::Result<Option<ExitStatus>> {
    let ended = match PidFd::open(child.id().cast_signed())? {
        Some(process) => process.wait_ended(Some(limit))?,
        None => true,
    };
    if !ended {
        child.kill().call("kill", || "the script")?;
    }
    let status = child.wait().call("waitpid", || "the script")?;
    Ok(ended.then_some(status))
}

#[allow(clippy::disallowed_methods)] // the admin's own script, by its own path
fn command(ve: &Ve<'_>, path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("HOME", "/")
        .env("TERM", "linux")
        .env("PATH", PATH)
        .env("VEID", ve.ctid.to_string())
        .env("VE_CONFFILE", ve.node.paths.ve_conf(ve.ctid))
        .stdin(Stdio::null());
    command
}

/// The text of the VE's in-VE script for an action, if it has one.
pub(crate) fn inside(ve: &Ve<'_>, action: Action) -> Result<Option<(std::path::PathBuf, Vec<u8>)>> {
    let path = ve.node.paths.action_script(Script::Ve(ve.ctid, action));
    match fs::read(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(Exit::ActionScript, || format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(line: &str) -> Child {
        vzsys::spawn::program(Path::new("/bin/sh")).args(["-c", line]).spawn().unwrap()
    }

    #[test]
    fn a_script_has_its_time_and_no_more() {
        let status = ended_within(&mut child("exit 3"), PATIENCE).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(3));
        let mut slow = child("exec sleep 1000");
        assert_eq!(ended_within(&mut slow, Duration::from_millis(10)).unwrap(), None);
        assert!(slow.try_wait().unwrap().is_some(), "it is killed and reaped");
        assert_eq!(too_slow(PATIENCE), "did not end in 600 s");
    }
}
