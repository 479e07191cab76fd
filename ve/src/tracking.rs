//! What of a running VE's files has changed since somebody looked: for whoever copies them pass by pass.

use beancounters::{Hierarchies, VeCgroup};
use templates::changes::{self, Change, Drained, Open, Watch};
use templates::layout;

use crate::depart::Luggage;
use crate::describe;
use crate::node::Ve;

/// Its area, under watch.
#[derive(Debug)]
pub struct Tracking {
    watch: Watch,
    cgroup: VeCgroup,
    /// The VE's own files in it.
    below: &'static str,
}

/// What a pass has to look at; paths are below the area.
#[derive(Debug)]
pub struct Changed {
    /// Told by the kernel.
    pub changes: Vec<Change>,
    /// Those that somebody can write to without being told.
    pub open: Vec<Open>,
}

impl Tracking {
    /// Begins to watch. What happens from now on is told.
    ///
    /// # Errors
    /// Why it cannot be told here: passes then have to look at everything.
    pub fn start(ve: &Ve<'_>, luggage: &Luggage) -> Result<Self, String> {
        let below = layout::tells(luggage.layout, &luggage.area)?;
        let cgroup = Hierarchies::detect().and_then(|all| VeCgroup::open(&all, ve.ctid));
        let cgroup = cgroup.map_err(|error| describe(&error))?.ok_or("it does not run")?;
        let watch = Watch::start(&luggage.area).map_err(|error| error.to_string())?;
        Ok(Self { watch, cgroup, below })
    }

    /// What changed since the last call, or since the beginning. Costs nothing that grows with the number of files.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn changed(&mut self) -> Result<Changed, String> {
        let processes = self.cgroup.processes().map_err(|error| describe(&error))?;
        let mut open = changes::writable(&processes).map_err(|error| error.to_string())?;
        for open in &mut open {
            open.path = std::path::Path::new(self.below).join(&open.path);
        }
        match self.watch.drain().map_err(|error| error.to_string())? {
            Drained::Changes(changes) => Ok(Changed { changes, open }),
            Drained::Lost => Err("the kernel has lost what changed".to_owned()),
        }
    }
}
