//! `vzctl runscript`: a script of the host in a VE, running or not.

use std::path::Path;

use vzconf::Exit;
use vzsys::process::Ended;

use crate::error::{Error, Result};
use crate::exec::{self, Door};
use crate::node::Ve;
use crate::start;

/// Feeds a script file to the VE's shell. A stopped VE gets its namespaces for as long as the script
/// runs, without init, scripts or services.
///
/// # Errors
/// 11 no such file, and as [`crate::exec::exec`] or [`crate::start::start`].
pub fn runscript(ve: &Ve<'_>, file: &Path) -> Result<Ended> {
    let text = std::fs::read(file).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("Script not found: {}", file.display()),
            _ => format!("cannot read the script {}: {error}", file.display()),
        };
        Error::refused(Exit::NoScript, message)
    })?;
    if ve.running().is_some() {
        return exec::feed_script(ve.ctid, &Door::open(ve)?, &text);
    }
    start::with_waiting_init(ve, |door| exec::feed_script(ve.ctid, door, &text))
}
