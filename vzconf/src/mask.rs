//! Sets of CPU or node numbers, as `0-2,7`.
use std::fmt;
use std::str::FromStr;

const MAX: u32 = 4095;

/// A non-empty set of numbers, kept as sorted ranges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mask(Vec<(u32, u32)>);

/// Not a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of numbers and ranges up to {MAX}")]
pub struct BadMask;

impl Mask {
    /// The highest number a mask can hold.
    pub const MAX: u32 = MAX;

    /// The ranges, first and last inclusive, in order and apart.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Every number.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl FromStr for Mask {
    type Err = BadMask;

    fn from_str(text: &str) -> Result<Mask, BadMask> {
        let number = |text: &str| {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(BadMask);
            }
            text.parse::<u32>().ok().filter(|n| *n <= MAX).ok_or(BadMask)
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (number(first)?, number(last)?);
            if range.0 > range.1 {
                return Err(BadMask);
            }
            ranges.push(range);
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ok(Mask(merged))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, want) in [
            ("0-2,7", Some("0-2,7")),
            ("7,0,1,2", Some("0-2,7")),
            ("0-4,2-3", Some("0-4")),
            ("3", Some("3")),
            ("2-1", None),
            ("4096", None),
            ("", None),
            ("1,", None),
            ("-1", None),
            ("1-", None),
            ("all", None),
        ] {
            assert_eq!(text.parse::<Mask>().ok().map(|m| m.to_string()).as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn same_set_whatever_the_order(numbers in proptest::collection::btree_set(0u32..=MAX, 1..40)) {
            let text = numbers.iter().rev().map(u32::to_string).collect::<Vec<_>>().join(",");
            let mask: Mask = text.parse().unwrap();
            prop_assert!(mask.iter().eq(numbers.iter().copied()));
            prop_assert_eq!(mask.to_string().parse(), Ok(mask));
        }
    }
}
