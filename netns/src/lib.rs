//! A VE's network: links, addresses, routes and the packet filter that pins a VE to its addresses.
//!
//! ```text
//!        the VE                              the host                          its networks
//!  venet0 10.0.0.1/32   <-- veth pair -->   venet101   <-- route 10.0.0.1 -->   eth0 (proxy ARP/NDP,
//!  default dev venet0       same MAC,       forwarding                          announcements)
//!                           no ARP          nft inet vz: fib saddr . iif
//! ```
//!
//! A [`NetPlan`] is pure data; [`attach`] carries it out and gives back a [`NetGuard`] that takes
//! everything away again unless it is committed. No daemon, no walk over other VEs, and no global
//! setting: what one VE costs does not depend on how many there are. [`Error::exit`] is the exit code.
//!
//! The table `inet vz` is the node's, not a VE's: made by the first start, it stays.
#![forbid(unsafe_code)]

mod attach;
mod device;
mod error;
pub mod filter;
mod frame;
mod gate;
mod hold;
mod link;
mod live;
mod namespace;
mod neighbour;
mod params;
mod plan;
mod record;
mod request;
mod sysctl;

pub use attach::{NetGuard, announce, attach, probe};
pub use device::{venet_ctid, venet_mac, venet_name};
pub use error::{Error, Owner, Subject};
pub use hold::{Hold, deliver, hold};
pub use live::{
    Devices, add_address, addresses, all_addresses, del_address, detach, disconnect, exists, netif_add,
    netif_del,
};
pub use neighbour::{forwarding_hint, host_mac};
pub use params::{Neighbours, NetParams, Probe};
pub use plan::{End, NetPlan, Pair, Step};
