//! The lifecycle of a VE: one file per verb, and the only place that composes the nouns.
//!
//! A verb takes the lock (its caller does), checks everything, makes pure plans, acts under guards, and
//! has one `COMMIT:` line. What fails before it undoes exactly what was done; what is killed before it
//! is mended by the next verb.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod arrive;
pub mod backup;
mod cgroup;
pub mod checkpoint;
pub mod clone;
pub mod confine;
pub mod console;
pub mod convert;
pub mod create;
pub mod creating;
pub mod depart;
pub mod destroy;
pub mod disk;
mod dismantle;
pub mod ended;
mod error;
pub mod exec;
mod externals;
pub mod fit;
mod guest;
pub mod handover;
mod hold;
mod host_accounts;
pub mod host_files;
mod ids;
mod inflight;
pub mod inside;
pub mod interrupted;
mod known;
mod life;
mod load;
pub mod marker;
pub mod monitor;
pub mod mount;
mod net;
mod node;
pub mod obstacles;
pub mod quota;
mod record;
pub mod restore;
pub mod runscript;
mod saved;
mod scripts;
mod session;
pub mod set;
pub mod snapshot;
pub mod start;
pub mod state;
pub mod stop;
pub mod suspend;
pub mod tracking;
pub mod tree;
pub mod user_quota;
mod veth;
pub mod views;
pub mod vitals;
mod wait;
mod watches;

pub use error::{Error, Result, describe};
pub use externals::{Externals, Kept, Origin};
pub use node::{Node, Progress, Say, Ve, helper};
pub use saved::Saved;
