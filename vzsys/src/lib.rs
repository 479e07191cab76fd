//! How Linux does it: the only crate with `unsafe`.
//!
//! Raw system calls live in [`raw`]; everything above it is safe Rust with errors that print like a
//! line of strace ([`SysError`]).

pub mod affinity;
pub mod apart;
pub mod block;
pub mod bpf;
pub mod btrfs;
pub mod channel;
pub mod elsewhere;
pub mod error;
pub mod fanotify;
pub mod fault;
pub mod fuse;
pub mod idmap;
pub mod join;
pub mod launch;
pub mod limits;
pub mod mount;
pub mod netlink;
pub mod notify;
pub mod packet;
pub mod process;
pub mod quota;
pub mod raw;
pub mod room;
pub mod seccomp;
pub mod serve;
pub mod spawn;
pub mod trace;
pub mod trap;
pub mod tun;

pub use error::{Call, Result, SysError};
