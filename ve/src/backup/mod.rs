//! `vzbackup` and `vzrestore`: a VE becomes a stream, a stream becomes a VE.

mod reading;
mod rebuild;
mod save;

pub use reading::{Reading, alone, hold};
pub use rebuild::{Rebuilt, Wish, rebuild};
pub use save::{From, Made, Options, To, save};
