//! Resources of a VE: its cgroups, limits and usage.
//!
//! ```text
//! Hierarchies::detect() ── where v1 and v2 are mounted; asked once
//!      │
//! VeCgroup::create / open ── vz/<CTID> in each of them
//!      ├── init_plan, exec_plan      how processes get in
//!      ├── processes, freeze, kill_all, wait_empty, remove
//!      ├── Limits::apply             what it may use: pure plan, then writes
//!      ├── DevicePolicy::apply       what it may open
//!      └── Usage::read               what it uses
//! ```
//!
//! Not here: what is printed about limits (the fronts), disk space (templates), traffic (netns).
//! All calls need root, but for detection and reading.
#![forbid(unsafe_code)]

mod beancounter;
mod devices;
mod disk;
mod error;
mod hierarchy;
mod join;
mod knob;
mod limit_apply;
mod limit_plan;
mod limits;
mod mountinfo;
mod population;
mod removal;
mod resource;
pub mod text;
mod tree;
mod usage;
mod ve_cgroup;

pub use beancounter::{Beancounter, Counter};
pub use devices::DevicePolicy;
pub use disk::Disk;
pub use error::{Error, Result};
pub use hierarchy::{Controller, Generation, Hierarchies, Layout};
pub use join::JoinPlan;
pub use limit_apply::Applied;
pub use limit_plan::Unenforced;
pub use limits::{Limits, Param, Selection};
pub use resource::{Counted, Resource};
pub use usage::{CpuTime, Usage};
pub use ve_cgroup::VeCgroup;
