//! Numbers as people like them: `1.5M`, `37%`.

use beancounters::{Counted, Resource};
use vzconf::units::UNLIMITED;

/// What stands for nothing and for no limit; the blank is where others have their suffix.
const NONE: &str = "- ";

/// A number of a resource: pages are shown in bytes, 0 and "unlimited" as `-`.
pub(super) fn number(resource: Resource, value: u64) -> String {
    match resource.counted() {
        Counted::Pages => pages(value),
        Counted::Bytes | Counted::Items => plain(value),
    }
}

/// Bytes or pieces, in multiples of 1024.
pub(super) fn plain(value: u64) -> String {
    if is_none(value) { NONE.to_owned() } else { scaled(value as f64, 0) }
}

/// Pages, as bytes.
pub(super) fn pages(value: u64) -> String {
    // A page has 4 KiB, so the first suffix is K.
    if is_none(value) { NONE.to_owned() } else { scaled(value as f64 * 4.0, 1) }
}

/// How many per cent of `whole` a part is; `-` of nothing, of no limit, and for less than a tenth of a per cent.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if is_none(whole) {
        return NONE.to_owned();
    }
    let tenths = format!("{:.1}", part as f64 / whole as f64 * 100.0);
    let value: f64 = tenths.parse().unwrap_or(0.0);
    // Below 2 one digit counts, above that whole per cents that are full: so it always was.
    match value {
        0.0 => NONE.to_owned(),
        value if value < 1.0 => format!("{value:.1}%"),
        value if value < 2.0 => format!("{value:.0}%"),
        value => format!("{:.0}%", value.trunc()),
    }
}

fn is_none(value: u64) -> bool {
    value == 0 || value >= UNLIMITED
}

/// Three digits below 100, whole numbers above.
fn scaled(mut value: f64, mut step: usize) -> String {
    const SUFFIXES: [char; 7] = [' ', 'K', 'M', 'G', 'T', 'P', 'E'];
    while value >= 1024.0 && step + 1 < SUFFIXES.len() {
        value /= 1024.0;
        step += 1;
    }
    let suffix = SUFFIXES[step];
    if value >= 100.0 {
        return format!("{:.0}{suffix}", value.trunc());
    }
    let digits = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_keep_three_digits_below_a_hundred() {
        for (value, text) in [
            (0, "- "),
            (1, "1 "),
            (99, "99 "),
            (100, "100 "),
            (1023, "1023 "),
            (1024, "1K"),
            (1536, "1.5K"),
            (10_240, "10K"),
            (11_055_923, "10.5M"),
            (102_349, "100K"),
            (104_857_600, "100M"),
            (1_073_741_824, "1G"),
            (UNLIMITED - 1, "8E"),
            (UNLIMITED, "- "),
        ] {
            assert_eq!(plain(value), text, "{value}");
        }
    }

    #[test]
    fn pages_are_shown_in_bytes() {
        for (value, text) in [
            (0, "- "),
            (1, "4K"),
            (25, "100K"),
            (256, "1M"),
            (65536, "256M"),
            (262_144, "1G"),
            (UNLIMITED, "- "),
        ] {
            assert_eq!(pages(value), text, "{value}");
            assert_eq!(number(Resource::Physpages, value), text);
        }
        assert_eq!(number(Resource::Numproc, 1024), "1K");
        assert_eq!(number(Resource::Kmemsize, 25), "25 ");
    }

    #[test]
    fn per_cents_have_one_digit_when_they_are_few() {
        for (part, whole, text) in [
            (0, 100, "- "),
            (1, 10_000, "- "),
            (1, 1000, "0.1%"),
            (4, 1000, "0.4%"),
            (10, 1000, "1%"),
            (15, 1000, "2%"),
            (19, 1000, "2%"),
            (29, 1000, "2%"),
            (99, 1000, "9%"),
            (999, 1000, "99%"),
            (1000, 1000, "100%"),
            (5000, 1000, "500%"),
            (5, 0, "- "),
            (5, UNLIMITED, "- "),
        ] {
            assert_eq!(percent(part, whole), text, "{part}/{whole}");
        }
    }

    fn back(text: &str) -> f64 {
        let (digits, suffix) = text.split_at(text.len() - 1);
        let power = " KMGTPE".find(suffix).unwrap();
        digits.parse::<f64>().unwrap() * 1024_f64.powi(i32::try_from(power).unwrap())
    }

    proptest! {
        #[test]
        fn a_number_fits_its_column_and_says_what_it_was(value in 1..UNLIMITED) {
            let text = plain(value);
            prop_assert!(text.len() <= 5, "{text}");
            let off = (back(&text) - value as f64).abs() / value as f64;
            prop_assert!(off <= 0.01, "{value} is {text}");
        }

        #[test]
        fn pages_are_four_times_as_many_kib(value in 1..UNLIMITED / 4096) {
            prop_assert_eq!(pages(value), plain(value * 4096));
        }

        #[test]
        fn more_is_never_shown_as_less(small in 1..UNLIMITED, more in 0..UNLIMITED) {
            let large = small.saturating_add(more).min(UNLIMITED - 1);
            prop_assert!(back(&plain(small)) <= back(&plain(large)));
        }

        #[test]
        fn a_per_cent_is_never_too_wide(part in 0..1000_u64, whole in 100..1000_u64) {
            prop_assert!(percent(part, whole).len() <= 5);
        }
    }
}
