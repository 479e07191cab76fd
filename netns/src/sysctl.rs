//! Settings below `/proc/sys/net`: those of the calling thread's network namespace.

use std::fs;
use std::io::{ErrorKind, Write};

use crate::error::Error;

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// Writes one setting; `name` is relative to `/proc/sys/net`. One that this kernel does not have is
/// left out: it belongs to a newer kernel or to a protocol that is not built in.
pub(crate) fn write(name: &str, value: &str) -> Result<(), Error> {
    let path = path(name);
    let done = fs::OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(value.as_bytes()));
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Sysctl { path, source }),
        Ok(()) => Ok(()),
    }
}

/// Whether a switch is on; `None` when the kernel has no such switch.
pub(crate) fn is_on(name: &str) -> Option<bool> {
    fs::read_to_string(path(name)).ok().map(|text| text.trim() != "0")
}
