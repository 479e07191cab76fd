//! Named points at which a test may end the process, as a crash would, or stop it.

use rustix::process::{Signal, getpid, kill_process};

/// Ends the process by `SIGKILL` when the environment variable `VZ_FAULT` names this point; with `:stop` after the name
/// it is stopped there until somebody lets it go on. Only a caller who is root already can set that variable, and this
/// is all that it does.
pub fn point(name: &str) {
    let Some(wanted) = std::env::var_os("VZ_FAULT") else { return };
    let Some(rest) = wanted.to_str().and_then(|wanted| wanted.strip_prefix(name)) else { return };
    let _ = match rest {
        "" => kill_process(getpid(), Signal::KILL),
        ":stop" => kill_process(getpid(), Signal::STOP),
        _ => Ok(()),
    };
}
