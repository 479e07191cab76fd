//! Named points at which a test may end the process, as a crash would.

/// Ends the process by `SIGKILL` when the environment variable `VZ_FAULT` names this point. Only a
/// caller who is root already can set that variable, and killing itself is all that it does.
pub fn point(name: &str) {
    if std::env::var_os("VZ_FAULT").is_some_and(|wanted| wanted == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
