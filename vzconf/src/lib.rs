//! CTID, names, paths, units, config files, the parameter table, exit codes, locks and status words.
//!
//! No I/O but config files, the name registry and lock files. Start at [`Config`] to read a VE's parameters,
//! [`ConfFile`] to change them on disk, [`Paths`] for where things are.
#![forbid(unsafe_code)]

pub mod change;
mod conf_file;
mod config;
mod ctid;
mod device;
mod error;
mod exit;
pub mod foreign;
pub mod ip;
pub mod lock;
mod mask;
pub mod names;
pub mod netif;
pub mod params;
mod paths;
pub mod samples;
mod status;
mod toggle;
pub mod units;

pub use change::{Changed, Changes};
pub use conf_file::{ConfFile, canonical_key};
pub use config::Config;
pub use ctid::Ctid;
pub use device::{Access, DevNode, DeviceKind, DeviceRule, Pci};
pub use error::{Error, SaveFailure};
pub use exit::Exit;
pub use ip::VeIp;
pub use lock::Lock;
pub use mask::Mask;
pub use netif::{Mac, NetIf, NewNetIf};
pub use paths::{Action, Paths, Script};
pub use status::{Status, Word};
pub use toggle::Toggle;
pub use units::{Pair, Unit};
