//! See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod archive;
pub mod backup;
pub mod build;
pub mod cache;
pub mod changes;
pub mod dist;
pub mod foreign;
mod holes;
pub mod image;
pub mod layout;
pub mod mirror;
pub mod oci;
pub mod quota;
mod removal;
pub mod replica;
mod small_file;
pub mod snapshot;
