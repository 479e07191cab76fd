//! `vzbackup`, `vzdump` and `vzrestore`: a VE becomes a stream, a stream becomes a VE.

mod dump;
mod reading;
mod rebuild;
mod save;
mod stand;

pub use dump::{Dump, DumpTo, dump};
pub use reading::{Reading, alone, hold};
pub use rebuild::{Rebuilt, Source, Wish, rebuild};
pub use save::{From, Made, Options, To, save};
