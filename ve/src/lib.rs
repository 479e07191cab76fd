//! The lifecycle of a VE: one file per verb, composed of the nouns.
#![forbid(unsafe_code)]

pub mod monitor;
