//! How the other host is reached: the `ssh` program, whose configuration, agent and known hosts are the admin's law.

mod explain;
mod pipe;
mod relay;
mod ssh;

pub use pipe::Pipe;
pub(crate) use relay::{End, Relay};
pub use ssh::{Connection, Ssh};
