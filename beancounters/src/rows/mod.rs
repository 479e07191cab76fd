//! The rows of the table that no cgroup file counts.
//!
//! ```text
//! of_init   a small file of init, and gates: sockets by number, files  (tables of all VEs)
//! of_all    the VE's own processes, its terminals, its sockets' memory,
//!           locks, packet filter                                       (one VE, and its monitor now and then)
//! ```
//!
//! Whatever cannot be read is left out: the VE may be ending, or its root may have hidden it.
mod locks;
mod processes;
pub(crate) mod ptys;
mod rules;
mod sockets;

use crate::files;
use crate::reading::Reading;
use crate::resource::Resource;
use crate::ve_cgroup::VeCgroup;

use processes::Processes;
pub(crate) use processes::{networks, other_networks};
pub use sockets::Sockets;
pub(crate) use sockets::counted_as;

impl Reading {
    /// What one file of the VE's init and gates tell, whatever the VE does: tens of microseconds.
    #[must_use]
    pub fn of_init(init: i32, ve: &VeCgroup) -> Reading {
        let mut reading = Reading::default();
        sockets::count(init, ve, &mut reading);
        files::count(init, ve.ctid(), &mut reading);
        reading
    }

    /// The same, and what takes a walk through the VE's own processes and network namespaces.
    #[must_use]
    pub fn of_all(init: i32, ve: &VeCgroup) -> Reading {
        let mut reading = Reading::of_init(init, ve);
        if let Some(ptys) = ptys::count(init) {
            reading.hold(Resource::Numpty, ptys);
        }
        let pids = ve.processes().unwrap_or_default();
        let processes = Processes::of(&pids, init);
        reading.hold(Resource::Privvmpages, processes.private_pages);
        if reading.count(Resource::Numfile).held.is_none() {
            reading.hold(Resource::Numfile, processes.files);
        }
        reading.hold(Resource::Numsiginfo, processes.signals);
        if let Some(locks) = locks::count(&pids) {
            reading.hold(Resource::Numflock, locks);
        }
        sockets::measure(&processes.networks, &mut reading);
        if let Some(rules) = rules::count(&processes.networks) {
            reading.hold(Resource::Numiptent, rules);
        }
        reading
    }
}
