//! Proof from outside: the built programs, run as root on real VEs.
//!
//! A test is an ordinary `#[test]` function that calls [`on_node`]. The test program runs itself again as
//! the first process of namespaces of its own, on a root made of the host's files with fresh `/etc/vz`,
//! `/vz`, `/run/vz` and `/var/lib/vzctl`: a throw-away host, a [`Node`].
//!
//! ```text
//!  nextest ─▶ test program ─▶ setpriv (dies with us) ─▶ unshare ─▶ sh (pid 1, reaps) ─▶ test program
//!             keeps NODE/lock                           mount, net, uts, ipc, pid       makes the root, runs the body
//! ```
//! When anything of that is killed, the kernel takes the whole tree with it: VEs, mounts, links. What can
//! be left, directories and cgroups, is swept by the next node that finds the lock free.
//!
//! After the body, every VE is destroyed and the [`World`] must be as it was before.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod btrfs;
mod ctid;
mod failing;
mod faults;
mod inside;
mod lan;
mod machine;
mod need;
mod node;
mod outside;
mod pair;
mod pty;
mod run;
mod source;
pub mod supervisor;
mod template;
mod ve;
mod wait;
mod witness;
mod world;

pub use btrfs::{Btrfs, on_btrfs};
pub use failing::FailingDisk;
pub use faults::fault_points;
pub use inside::{on_node, skip};
pub use lan::{Lan, in_netns};
pub use machine::on_machine;
pub use need::{Need, lacks};
pub use node::Node;
pub use pair::{Pair, on_two_nodes};
pub use pty::Pty;
pub use run::{Background, Run, alive, command, run};
pub use source::{compile, compile_bare, compile_i386};
pub use template::PROGRAMS;
pub use ve::Ve;
pub use wait::{holds, until};
pub use witness::{running, settled, watched};
pub use world::World;
