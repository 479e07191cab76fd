//! The commands: words in ([`cli`]), words out ([`report`], [`list`]), and completion for shells ([`complete`]).
//!
//! What the words do is in the `ve` crate. See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod cli;
pub mod complete;
pub mod list;
pub mod report;
pub mod run;
pub mod tmpl;
