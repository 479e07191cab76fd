//! Distributions: what a guest is, and how it is told its name, addresses, resolver and passwords.
//!
//! The original vzctl ran a shell script per distribution inside the VE. Here the host writes the same
//! files itself, whether the VE runs or not, in a tree of which it trusts nothing ([`GuestRoot`]).
//! No program of the guest runs.
//!
//! ```text
//! Guest::detect ─▶ set_hostname, set_dns, set_addresses    at start and at `set`
//!                  set_user_password                       at `set --userpasswd`
//!                  post_create                             once
//!                  pre_start (disk), run_files (/run)      before init
//!                  stop()                                  how to end it
//! ```
//!
//! Every action is idempotent: done again it changes nothing. To make new files belong to a VE's root,
//! the caller works with that root's file-system ids; nothing is given to the host's root here.

mod account;
mod boot;
mod create;
mod dns;
mod error;
mod family;
mod guest;
mod hostname;
mod init;
mod inittab;
mod network;
mod password;
mod root;
mod run_files;
mod skeleton;
mod text;
mod work;

pub use account::set_user_password;
pub use boot::pre_start;
pub use create::{Identity, post_create, post_import};
pub use dns::{DnsParams, set_dns};
pub use error::{DistError, Kind};
pub use family::{Family, Named, by_template};
pub use guest::{Guest, NetTools};
pub use hostname::set_hostname;
pub(crate) use init::is_32bit;
pub use init::{INITS, InitKind, Stop};
pub use network::set_addresses;
pub use root::{Durability, FILE_LIMIT, GuestRoot};
pub use run_files::{READY_MARK, run_files};
pub use work::Changes;
