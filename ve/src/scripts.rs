//! Action scripts of the admin: on the host around mounting, in the VE before init and before stop.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use vzconf::{Action, Exit, Script};
use vzsys::Call;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;

/// What scripts and `exec` get as `PATH`.
pub(crate) use vzsys::spawn::PATH;

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
    let status = command(ve, path)
        .status()
        .call("execve", || path.display().to_string())
        .doing(Exit::ActionScript, || format!("cannot run {}", path.display()))?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("returned {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    };
    Err(Error::Script { path: path.to_owned(), how })
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
