//! How the other host is reached: the `ssh` program, whose configuration, agent and known hosts are the admin's law.

mod explain;
mod pipe;
mod ssh;

pub use pipe::Pipe;
pub use ssh::{Connection, Ssh};
