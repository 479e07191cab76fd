//! By how much something becomes larger or smaller, without the surprises of binary fractions.

use vzconf::Pair;
use vzconf::units::UNLIMITED;

/// Digits on either side of the point: more would be nothing anybody means, and products have to fit.
const DIGITS: usize = 9;

/// A decimal number above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Factor {
    numerator: u128,
    denominator: u128,
}

impl Factor {
    /// Reads `2`, `0.75` or `.5`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.len() <= DIGITS && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let numerator: u128 = format!("{whole}{fraction}").parse().ok()?;
        let denominator = (0..fraction.len()).fold(1, |power, _| power * 10);
        (numerator > 0).then_some(Self { numerator, denominator })
    }

    /// That many times `value`, rounded down. What there is something of does not vanish: 0 often means "none".
    pub(super) fn of(self, value: u64) -> u64 {
        let scaled = u128::from(value) * self.numerator / self.denominator;
        let scaled = u64::try_from(scaled).unwrap_or(UNLIMITED).min(UNLIMITED);
        if value > 0 { scaled.max(1) } else { scaled }
    }

    /// The same of a barrier and a limit; what is unlimited stays so.
    pub(super) fn of_pair(self, pair: Pair) -> Pair {
        let each = |value| if value == UNLIMITED { value } else { self.of(value) };
        Pair { barrier: each(pair.barrier), limit: each(pair.limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_decimal() {
        for (text, value, want) in [
            ("2", 7, 14),
            ("0.5", 7, 3),
            (".5", 1, 1),
            ("1.15", 100, 115),
            ("3.", 2, 6),
            ("1000000000.5", 1, 0),
            ("0.000000001", 5, 1),
            ("999999999", UNLIMITED - 1, UNLIMITED),
        ] {
            assert_eq!(Factor::parse(text).map_or(0, |factor| factor.of(value)), want, "{text} × {value}");
        }
        for text in
            ["", ".", "0", "0.00", "-1", "+1", "1e3", "1,5", "nan", "inf", "1.2.3", "2x", "0.1234567890"]
        {
            assert_eq!(Factor::parse(text), None, "{text:?}");
        }
        let factor = Factor::parse("3").unwrap();
        let pair = Pair { barrier: 0, limit: UNLIMITED };
        assert_eq!((factor.of(0), factor.of_pair(pair)), (0, pair));
    }

    proptest! {
        #[test]
        fn back_again_is_where_it_was_but_for_the_rounding(value in 0u64..1 << 50, power in 0u32..10) {
            let there = Factor::parse(&(1u64 << power).to_string()).unwrap();
            let back = Factor::parse(&format!("{:.9}", 1.0 / f64::from(1u32 << power))).unwrap();
            // 1/2^9 has nine decimal digits: these are exact.
            prop_assert_eq!(back.of(there.of(value)), value);
            let lost = value - there.of(back.of(value)).min(value);
            prop_assert!(lost < 1 << power, "{} lost of {}", lost, value);
        }

        #[test]
        fn order_stays(a in 0..=UNLIMITED, b in 0..=UNLIMITED, whole in 0u32..1000, thousandths in 1u32..1000) {
            let factor = Factor::parse(&format!("{whole}.{thousandths:03}")).unwrap();
            prop_assert_eq!(factor.of(a.min(b)) <= factor.of(a.max(b)), true);
        }
    }
}
