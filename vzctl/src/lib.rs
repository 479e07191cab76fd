//! The commands: words in ([`cli`]), words out ([`report`], [`list`]), the tools that read the table of beancounters
//! ([`check`]), and completion for shells ([`complete`]).
//!
//! What the words do is in the `ve` crate. See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod complete;
pub mod list;
pub mod report;
pub mod run;
pub mod tmpl;
