//! What a snapshot is called by programs: a UUID, told in braces.

use std::fmt;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};
use vzsys::Call;

/// The id of a snapshot. Told as `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}` in lower case; read with or without
/// braces, in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

/// The word is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no snapshot id (such as {{0f0e0d0c-0b0a-4908-8706-050403020100}})")]
pub struct BadId(String);

/// Where the dashes are.
const DASHES: [usize; 4] = [8, 13, 18, 23];
/// Characters of an id without braces.
const LENGTH: usize = 36;

impl Id {
    /// A new one, random (version 4 of RFC 9562).
    ///
    /// # Errors
    /// The errno of getrandom(2).
    pub fn random() -> vzsys::Result<Self> {
        let mut bytes = [0; 16];
        getrandom(&mut bytes, GetRandomFlags::empty()).call("getrandom", || 16)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// The id without braces: names of files are made of it.
    #[must_use]
    pub fn bare(self) -> String {
        let mut text = String::with_capacity(LENGTH);
        for (at, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.bare())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(word: &str) -> Result<Self, BadId> {
        let bad = || BadId(word.chars().take(64).collect());
        let inner = word.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(word);
        let text = inner.as_bytes();
        if text.len() != LENGTH || DASHES.iter().any(|at| text[*at] != b'-') {
            return Err(bad());
        }
        let digits: Vec<u8> =
            text.iter().enumerate().filter(|(at, _)| !DASHES.contains(at)).map(|(_, c)| *c).collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
            let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else { return Err(bad()) };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_is_read_as_it_is_told(bytes: [u8; 16]) {
            let id = Id(bytes);
            prop_assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
            prop_assert_eq!(id.bare().to_uppercase().parse::<Id>().unwrap(), id);
        }

        #[test]
        fn any_word_is_an_id_or_none(word in "\\PC{0,40}") {
            let _ = word.parse::<Id>();
        }
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for word in [
            "",
            "{}",
            "101",
            "{0f0e0d0c-0b0a-4908-8706-050403020100",
            "0f0e0d0c-0b0a-4908-8706-05040302010",
            "0f0e0d0c-0b0a-4908-8706-0504030201zz",
            "../../../../../../../../etc/passwd00",
        ] {
            assert!(word.parse::<Id>().is_err(), "{word}");
        }
    }

    #[test]
    fn new_ids_differ_and_say_that_they_are_random() {
        let (a, b) = (Id::random().unwrap(), Id::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.bare().as_bytes()[14], b'4');
    }
}
