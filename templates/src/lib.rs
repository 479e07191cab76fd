//! See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod archive;
pub mod dist;
pub mod layout;
