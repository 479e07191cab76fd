//! Resources of a VE: its cgroups, limits and usage.
//!
//! ```text
//! Hierarchies::detect() ── where v1 and v2 are mounted; asked once
//!      │
//! VeCgroup::create / open ── vz/<CTID> in each of them
//!      ├── init_plan, exec_plan      how processes get in
//!      ├── processes, freeze, kill_all, wait_empty, remove
//!      ├── Branches                  the cgroups that a VE has made itself: recorded, made again
//!      ├── Limits::apply             what it may use: pure plan, then writes
//!      ├── Limits::apply_inside      the same where no cgroup has it: its terminals, its System V memory, its locks
//!      ├── count_files, forget_files what the host's gate for files does for a VE
//!      ├── resync                    what its gate for sockets has counted, put right
//!      ├── standing                  which limits hold on this host
//!      ├── DevicePolicy::apply       what it may open
//!      ├── Usage::read               what it uses, for lists
//!      ├── Memory, Cpus, CpuTime     what it uses and may use, for its own /proc
//!      ├── Reading::of_cgroup        what it uses, for the table: about ten files
//!      ├── Reading::of_init          the rows without a cgroup file, by a few files of init
//!      └── Reading::of_all           the same, and all that takes a walk through the VE
//!             │
//!          Record ── highest uses and refusals, kept in /run/vz/CTID while the VE runs
//!             │
//!          Beancounter ── text       the table
//! ```
//!
//! Not here: what is printed about limits (the fronts), disk space (templates), traffic (netns).
//! All calls need root, but for detection and reading.
#![forbid(unsafe_code)]

mod beancounter;
mod branches;
mod configured;
mod cpus;
mod devices;
mod disk;
mod error;
mod files;
mod gate;
mod hierarchy;
mod host_share;
mod inside;
mod io;
mod join;
mod kept;
mod knob;
mod limit_apply;
mod limit_plan;
mod limit_undo;
mod limits;
mod memory;
mod mountinfo;
pub mod node_text;
mod population;
mod reading;
mod record;
mod removal;
mod resource;
mod rows;
mod standing;
pub mod text;
mod tree;
mod usage;
mod ve_cgroup;

pub use beancounter::{Beancounter, Counter};
pub use branches::Branches;
pub use configured::configured;
pub use cpus::Cpus;
pub use devices::DevicePolicy;
pub use disk::Disk;
pub use error::{Error, Result};
pub use files::{count_files, forget_files, short_of_files};
pub use gate::resync;
pub use hierarchy::{Controller, Generation, Hierarchies, Layout};
pub use host_share::share_with_host;
pub use inside::{lockable, queueable};
pub use io::{IoMeter, IoUsage};
pub use join::JoinPlan;
pub use limit_apply::Applied;
pub use limit_plan::Unenforced;
pub use limit_undo::Undo;
pub use limits::{Limits, Param, Selection};
pub use memory::{Memory, Parts};
pub use reading::{Count, Reading};
pub use record::{Record, RecordFile};
pub use resource::{Counted, Resource};
pub use rows::Sockets;
pub use standing::{Standing, standing};
pub use usage::{CpuTime, Usage};
pub use ve_cgroup::VeCgroup;
