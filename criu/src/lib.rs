//! Checkpoint and restore of a VE's processes by CRIU, driven through `criu swrk`.
//!
//! ```text
//! Program::find ── the host's CRIU, if it is new enough
//!      │
//! Images::create / open ── a directory of images, with a list of hashes
//!      │
//! Criu::start ── a process of its own, with mounts that only it sees
//!      ├── dump       its stages are answered by a closure: go on, or undo
//!      └── restore    the same; init becomes our child
//! ```
//!
//! Not here: what a VE is (cgroups, network, mounts); freezing; what is saved beside the images (the verbs).
#![forbid(unsafe_code)]

mod error;
mod images;
mod job;
mod log;
mod program;
mod talk;
pub mod watches;
mod wire;

pub use error::{Error, Result};
pub use images::{Hashes, Images, MANIFEST, failed, remove, rename, set_aside, temporary};
pub use job::{DUMP_LOG, Dump, External, RESTORE_LOG, Restore, log_level};
pub use log::first_error;
pub use program::{PRIVATE, Program, Version};
pub use talk::{Answer, Criu, Setting, Stage};
