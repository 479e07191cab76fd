//! Limits of processes that the starter sets for what it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Call, Result};

const NOFILE_SOFT: u64 = 1024;

/// The limit of open files that programs may count on (select(2) breaks above it), as init has it: what the
/// starter's shell happened to set does not reach the VE.
pub(crate) fn limit_files() -> Result<()> {
    let files = getrlimit(Resource::Nofile);
    let soft = files.maximum.map_or(NOFILE_SOFT, |hard| hard.min(NOFILE_SOFT));
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: files.maximum })
        .call("setrlimit", || "NOFILE")?;
    let core = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: core.maximum }).call("setrlimit", || "CORE")
}

/// A limit of this process, raised for what it starts; as it was again on drop.
#[derive(Debug)]
pub struct Lent {
    resource: Resource,
    usual: Rlimit,
}

impl Lent {
    /// The soft limit becomes this number, whatever the hard one is. Only the host's root can raise that.
    ///
    /// # Errors
    /// The errno of setrlimit(2).
    pub fn at_least(resource: Resource, number: u64) -> Result<Self> {
        let usual = getrlimit(resource);
        let maximum = usual.maximum.map(|maximum| maximum.max(number));
        setrlimit(resource, Rlimit { current: Some(number), maximum })
            .call("setrlimit", || format!("{resource:?}, {number}"))?;
        Ok(Self { resource, usual })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whoever could raise it may lower it.
        let _ = setrlimit(self.resource, self.usual);
    }
}
