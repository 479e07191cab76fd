//! Waiting for what comes in its own time: by polling with a deadline, never by sleeping and hoping.

use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(10);

/// Whether the condition comes true within the time.
pub fn holds(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// Waits for a condition.
///
/// # Panics
/// When it does not come true in time; `what` says what was waited for.
#[track_caller]
pub fn until(what: &str, within: Duration, condition: impl FnMut() -> bool) {
    assert!(holds(within, condition), "not within {within:?}: {what}");
}
