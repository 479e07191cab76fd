//! The number of a VE.
use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The numeric id of a VE: `0..=2147483644`, 0 being the host.
///
/// Printed without leading zeros (shells read those as octal), accepted with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ctid(u32);

impl Ctid {
    /// The host itself.
    pub const HOST: Ctid = Ctid(0);
    /// The greatest id the field's tools accept.
    pub const MAX: u32 = 2_147_483_644;

    /// Checks the range.
    ///
    /// # Errors
    /// [`Error::BadCtid`] above [`Ctid::MAX`].
    pub fn new(id: u32) -> Result<Ctid, Error> {
        if id > Ctid::MAX {
            return Err(Error::BadCtid { arg: id.to_string() });
        }
        Ok(Ctid(id))
    }

    /// The bare number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Whether this is the host (CTID 0).
    #[must_use]
    pub fn is_host(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Ctid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Ctid {
    type Err = Error;

    /// Pure decimal digits only: no sign, no blank.
    fn from_str(text: &str) -> Result<Ctid, Error> {
        let bad = || Error::BadCtid { arg: text.to_string() };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let id: u32 = text.parse().map_err(|_| bad())?;
        Ctid::new(id).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_whole_range_and_leading_zeros() {
        for (text, id) in [("0", 0), ("101", 101), ("0101", 101), ("2147483644", Ctid::MAX)] {
            assert_eq!(text.parse::<Ctid>().unwrap(), Ctid(id));
        }
        assert_eq!("0101".parse::<Ctid>().unwrap().to_string(), "101");
        assert_eq!(format!("{:>10}", Ctid(7)), "         7");
    }

    #[test]
    fn rejects_signs_blanks_names_and_overflow() {
        for text in ["", "+1", "-1", " 1", "1 ", "1.0", "0x1", "web", "2147483645", "4294967297", "١"] {
            assert!(text.parse::<Ctid>().is_err(), "{text:?}");
        }
    }
}
