//! Numbers with suffixes, and barrier:limit pairs.
use std::fmt;

/// No limit: `LONG_MAX` on every 64-bit host.
pub const UNLIMITED: u64 = i64::MAX as u64;

/// What a stored number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Things; takes no suffix.
    Items,
    /// Bytes.
    Bytes,
    /// Memory pages of this host.
    Pages,
    /// Kibibytes.
    Kib,
}

impl Unit {
    /// Bytes in one of these; 1 for items.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Unit::Items | Unit::Bytes => 1,
            Unit::Pages => page_size(),
            Unit::Kib => 1024,
        }
    }
}

/// The page size of this host in bytes.
#[must_use]
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// How a byte amount becomes whole units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Truncate, as the beancounter options do.
    Down,
    /// Round up, as `--ram` and `--swap` do.
    Up,
}

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with at most one known suffix.
    #[error("not a number")]
    Syntax,
    /// This parameter counts things.
    #[error("takes no suffix")]
    SuffixNotAllowed,
    /// Greater than `LONG_MAX`.
    #[error("too large")]
    TooLarge,
}

/// Parses `N`, `N.M<suffix>`, `N<suffix>` or `unlimited`; the result is in `unit`.
///
/// A number without suffix is already in `unit`. Suffixes: `T G M K P B`, any case, `P` being a page.
///
/// # Errors
/// [`SizeError`]; `TooLarge` for whatever exceeds [`UNLIMITED`].
pub fn parse_amount(text: &str, unit: Unit, rounding: Rounding) -> Result<u64, SizeError> {
    if text == "unlimited" {
        return Ok(UNLIMITED);
    }
    let (number, suffix) = match text.char_indices().next_back() {
        Some((at, c)) if c.is_ascii_alphabetic() => (&text[..at], Some(c)),
        _ => (text, None),
    };
    let Some(suffix) = suffix else {
        let value = digits(number)?;
        return if value > u128::from(UNLIMITED) { Err(SizeError::TooLarge) } else { Ok(value as u64) };
    };
    let scale = suffix_bytes(suffix).ok_or(SizeError::Syntax)?;
    if unit == Unit::Items {
        return Err(SizeError::SuffixNotAllowed);
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // More digits than these are below any unit's resolution.
    let fraction = if fraction.len() > 15 { checked_prefix(fraction)? } else { fraction };
    let power = 10u128.pow(fraction.len() as u32);
    let part = digits(fraction)?;
    let scaled = digits(whole)?
        .checked_mul(power)
        .and_then(|v| v.checked_add(part))
        .and_then(|v| v.checked_mul(u128::from(scale)))
        .ok_or(SizeError::TooLarge)?;
    let divisor = power * u128::from(unit.bytes());
    let value = match rounding {
        Rounding::Down => scaled / divisor,
        Rounding::Up => scaled.div_ceil(divisor),
    };
    if value > u128::from(UNLIMITED) { Err(SizeError::TooLarge) } else { Ok(value as u64) }
}

fn checked_prefix(fraction: &str) -> Result<&str, SizeError> {
    if fraction.bytes().all(|b| b.is_ascii_digit()) { Ok(&fraction[..15]) } else { Err(SizeError::Syntax) }
}

fn digits(text: &str) -> Result<u128, SizeError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SizeError::Syntax);
    }
    text.parse().map_err(|_| SizeError::TooLarge)
}

fn suffix_bytes(suffix: char) -> Option<u64> {
    Some(match suffix.to_ascii_uppercase() {
        'T' => 1 << 40,
        'G' => 1 << 30,
        'M' => 1 << 20,
        'K' => 1 << 10,
        'P' => page_size(),
        'B' => 1,
        _ => return None,
    })
}

/// A barrier and a limit, in the parameter's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Where it begins to be held back (soft limit for disks).
    pub barrier: u64,
    /// What is never exceeded.
    pub limit: u64,
}

impl Pair {
    /// No limit at all.
    pub const UNLIMITED: Pair = Pair { barrier: UNLIMITED, limit: UNLIMITED };

    /// Both the same.
    #[must_use]
    pub fn both(value: u64) -> Pair {
        Pair { barrier: value, limit: value }
    }

    /// Parses `barrier[:limit]`; one value sets both.
    ///
    /// # Errors
    /// As [`parse_amount`].
    pub fn parse(text: &str, unit: Unit) -> Result<Pair, SizeError> {
        Pair::parse_rounded(text, unit, Rounding::Down)
    }

    fn parse_rounded(text: &str, unit: Unit, rounding: Rounding) -> Result<Pair, SizeError> {
        let (barrier, limit) = text.split_once(':').unwrap_or((text, text));
        Ok(Pair {
            barrier: parse_amount(barrier, unit, rounding)?,
            limit: parse_amount(limit, unit, rounding)?,
        })
    }

    /// As [`Pair::parse`] for config files: what is too large becomes [`UNLIMITED`]. The flag tells whether that happened.
    ///
    /// # Errors
    /// [`SizeError`], never `TooLarge`.
    pub fn parse_clamped(text: &str, unit: Unit) -> Result<(Pair, bool), SizeError> {
        let mut clamped = false;
        let mut side = |part: &str| match parse_amount(part, unit, Rounding::Down) {
            Err(SizeError::TooLarge) => {
                clamped = true;
                Ok(UNLIMITED)
            }
            other => other,
        };
        let (barrier, limit) = text.split_once(':').unwrap_or((text, text));
        let pair = Pair { barrier: side(barrier)?, limit: side(limit)? };
        Ok((pair, clamped))
    }
}

/// One number, or `unlimited`.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == UNLIMITED { f.write_str("unlimited") } else { write!(f, "{}", self.0) }
    }
}

/// The stored form of one number: digits or `unlimited`.
#[must_use]
pub fn format_amount(value: u64) -> String {
    Amount(value).to_string()
}

/// The stored form: one value if both are equal.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.barrier == self.limit {
            return Amount(self.barrier).fmt(f);
        }
        write!(f, "{}:{}", Amount(self.barrier), Amount(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_in_every_unit() {
        let page = page_size();
        for (text, unit, want) in [
            ("0", Unit::Items, Ok(0)),
            ("240", Unit::Items, Ok(240)),
            ("1K", Unit::Items, Err(SizeError::SuffixNotAllowed)),
            ("unlimited", Unit::Items, Ok(UNLIMITED)),
            ("14372700", Unit::Bytes, Ok(14_372_700)),
            ("2.5m", Unit::Bytes, Ok(5 << 19)),
            ("7b", Unit::Bytes, Ok(7)),
            ("256M", Unit::Pages, Ok((256 << 20) / page)),
            ("256", Unit::Pages, Ok(256)),
            ("3p", Unit::Pages, Ok(3)),
            ("2.2G", Unit::Kib, Ok(2_306_867)),
            ("1023B", Unit::Kib, Ok(0)),
            ("1048576", Unit::Kib, Ok(1_048_576)),
            ("1T", Unit::Kib, Ok(1 << 30)),
            ("2.2", Unit::Kib, Err(SizeError::Syntax)),
            ("", Unit::Bytes, Err(SizeError::Syntax)),
            ("K", Unit::Bytes, Err(SizeError::Syntax)),
            (".5K", Unit::Bytes, Err(SizeError::Syntax)),
            ("5.K", Unit::Bytes, Err(SizeError::Syntax)),
            ("-1", Unit::Bytes, Err(SizeError::Syntax)),
            ("+1", Unit::Bytes, Err(SizeError::Syntax)),
            ("1 K", Unit::Bytes, Err(SizeError::Syntax)),
            ("1KB", Unit::Bytes, Err(SizeError::Syntax)),
            ("1E", Unit::Bytes, Err(SizeError::Syntax)),
            ("1.1.1G", Unit::Bytes, Err(SizeError::Syntax)),
            ("0.1234567890123456x7G", Unit::Bytes, Err(SizeError::Syntax)),
            ("0x10", Unit::Bytes, Err(SizeError::Syntax)),
            ("9223372036854775807", Unit::Bytes, Ok(UNLIMITED)),
            ("9223372036854775808", Unit::Bytes, Err(SizeError::TooLarge)),
            ("99999999999999999999999999999999999999999999", Unit::Bytes, Err(SizeError::TooLarge)),
            ("8388608T", Unit::Bytes, Err(SizeError::TooLarge)),
        ] {
            assert_eq!(parse_amount(text, unit, Rounding::Down), want, "{text} {unit:?}");
        }
        assert_eq!(parse_amount("1B", Unit::Pages, Rounding::Up), Ok(1));
        assert_eq!(parse_amount("0B", Unit::Pages, Rounding::Up), Ok(0));
    }

    #[test]
    fn pairs() {
        assert_eq!(Pair::parse("5", Unit::Items), Ok(Pair::both(5)));
        assert_eq!(Pair::parse("0:unlimited", Unit::Pages), Ok(Pair { barrier: 0, limit: UNLIMITED }));
        assert!(Pair::parse("1:2:3", Unit::Items).is_err());
        assert!(Pair::parse("1:", Unit::Items).is_err());
        assert_eq!(
            Pair::parse_clamped("1:9223372036854775809", Unit::Bytes),
            Ok((Pair { barrier: 1, limit: UNLIMITED }, true))
        );
    }

    proptest! {
        #[test]
        fn pair_round_trips(barrier in 0..=UNLIMITED, limit in 0..=UNLIMITED) {
            let pair = Pair { barrier, limit };
            for unit in [Unit::Items, Unit::Bytes, Unit::Pages, Unit::Kib] {
                prop_assert_eq!(Pair::parse(&pair.to_string(), unit), Ok(pair));
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = Pair::parse(&text, Unit::Bytes);
        }

        #[test]
        fn up_is_down_or_one_more(n in 0u64..1 << 40) {
            let down = parse_amount(&format!("{n}b"), Unit::Pages, Rounding::Down).unwrap();
            let up = parse_amount(&format!("{n}b"), Unit::Pages, Rounding::Up).unwrap();
            prop_assert_eq!(up - down, u64::from(n % page_size() != 0));
        }
    }
}
