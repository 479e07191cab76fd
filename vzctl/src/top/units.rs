//! Numbers as a narrow column can hold them.

use std::time::Duration;

/// At most five letters: `0`, `1023`, `1.5K`, `312M`, `24G`.
pub(super) fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let (mut value, mut unit) = (bytes.max(0.0), 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // What rounds to 10.0 has no room for the fraction.
    if unit == 0 || value >= 9.95 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

/// The two highest parts: `12s`, `3m05s`, `2h07m`, `15d03h`.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// As much of a text as fits, its end marked when it does not. Control characters take no effect.
pub(super) fn cut(text: &str, width: usize) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    if text.chars().count() <= width {
        return text.chars().map(safe).collect();
    }
    let head = text.chars().take(width.saturating_sub(1)).map(safe);
    head.chain((width > 0).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit() {
        for (bytes, want) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1.0K"),
            (1536.0, "1.5K"),
            (10_189.0, "10K"),
            (1_048_576.0, "1.0M"),
            (327_155_712.0, "312M"),
            (1_073_741_824.0 * 24.0, "24G"),
            (-1.0, "0"),
            (1e30, "888178419700125P"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn times_have_two_parts() {
        for (seconds, want) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (7_620, "2h07m"), (1_306_800, "15d03h")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn texts_are_cut_and_cannot_steer_the_terminal() {
        assert_eq!(cut("web", 3), "web");
        assert_eq!(cut("webserver", 4), "web…");
        assert_eq!(cut("\u{1b}[2J", 9), "\u{fffd}[2J");
        assert_eq!(cut("web", 0), "");
    }
}
