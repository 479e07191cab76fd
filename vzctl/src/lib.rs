//! The commands: words in ([`cli`]), words out ([`report`], [`list`]), the tools that read the table of beancounters
//! ([`check`]), the tools that make configurations fit ([`fit`]), backups ([`backup`]), the live view ([`top`]) and
//! metrics ([`metrics`]) of what runs, moving to another host ([`migrate`]), and completion for shells ([`complete`]).
//!
//! What the words do is in the `ve` crate. See docs/architecture.md.
#![forbid(unsafe_code)]

pub mod backup;
pub mod check;
pub mod cli;
pub mod complete;
pub mod fit;
pub mod import;
pub mod list;
pub mod metrics;
pub mod migrate;
pub mod quota;
pub mod report;
pub mod run;
pub mod tmpl;
pub mod top;
