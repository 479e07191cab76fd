//! See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod archive;
pub mod backup;
pub mod build;
pub mod cache;
pub mod dist;
pub mod image;
pub mod layout;
pub mod oci;
mod removal;
pub mod replica;
