//! How busy a VE is: load averages as the kernel makes them, of its own processes.

use std::time::{Duration, Instant};

use beancounters::VeCgroup;

/// How often the kernel counts.
const EVERY: Duration = Duration::from_secs(5);
/// Minutes of the three averages.
const MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Load averages, kept by whoever counts regularly.
#[derive(Debug)]
pub(crate) struct Load {
    averages: [f64; 3],
    active: usize,
    due: Instant,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { averages: [0.0; 3], active: 0, due: Instant::now() + EVERY }
    }

    /// How long until it is to be counted again.
    pub(crate) fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Counts, if it is time.
    pub(crate) fn count(&mut self, cgroup: &VeCgroup) {
        if self.left().is_zero() {
            let pids = cgroup.processes().unwrap_or_default();
            self.add(pids.into_iter().filter(|pid| is_active(*pid)).count());
            self.due = Instant::now() + EVERY;
        }
    }

    #[allow(clippy::cast_precision_loss)] // no VE has 2^52 processes
    fn add(&mut self, active: usize) {
        self.active = active;
        for (average, minutes) in self.averages.iter_mut().zip(MINUTES) {
            let kept = (-EVERY.as_secs_f64() / (minutes * 60.0)).exp();
            *average = *average * kept + active as f64 * (1.0 - kept);
        }
    }

    /// How many there were when they were counted last.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// In 65536ths.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // never negative, and small
    pub(crate) fn fixed(&self) -> [u64; 3] {
        self.averages.map(|average| (average * 65536.0) as u64)
    }
}

/// Running, or waiting for a disk.
fn is_active(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end = stat.iter().rposition(|b| *b == b')');
    end.and_then(|end| stat.get(end + 2)).is_some_and(|state| matches!(state, b'R' | b'D'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_the_count_at_their_own_pace() {
        let mut load = Load::new();
        for _ in 0..12 {
            load.add(2);
        }
        // After a minute: 1 - 1/e of it, and less of the slower ones.
        let [one, five, fifteen] = load.averages;
        assert!((one - 2.0 * (1.0 - (-1.0_f64).exp())).abs() < 1e-9, "{one}");
        assert!(one > five && five > fifteen && fifteen > 0.0);
        (0..10_000).for_each(|_| load.add(0));
        assert_eq!(load.fixed(), [0; 3]);
    }
}
