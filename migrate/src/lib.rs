//! A VE leaves one host and arrives on another. See docs/migration.md.
//!
//! ```text
//!  vzmigrate ── Source ── Link ══ ssh ══ Link ── Target ── vzmigrate --serve
//!               coordinator                      participant
//!     Check ─────────▶ what speaks against it
//!     Reserve ───────▶ number, place, configuration      record: Reserved
//!     Tree, steps… ──▶ base, area, dump; in passes
//!     (stop, last pass)                                  record: Halted
//!     Prepare ───────▶ all on the disk                   record: Prepared
//!                                                        record: Committed  ◀─ point of no return
//!     Go ────────────▶ owns it, starts it                owned/ID
//!     (removes its own) ◀───────────── Running
//! ```
//! Nobody runs the VE without the other's word for it: never lost, never twice.
#![forbid(unsafe_code)]

mod error;
mod exit;
mod id;
mod interrupt;
mod observer;
mod phase;
pub mod resolve;
pub mod source;
pub mod target;
pub mod transport;
pub mod wire;

pub use error::{Error, Result};
pub use exit::Exit;
pub use interrupt::Interrupt;
pub use observer::{Observer, Quiet};
pub use phase::{Phase, Times};
