//! What our own init runs in a VE that was made of an image without one.

use serde::{Deserialize, Serialize};

/// Our init in such a VE: `vzinit`, put there when the image was imported.
pub const OWN_INIT: &str = "/.vz/init";

/// What it runs: an [`ImageCommand`] in JSON, which the VE's admin may edit.
pub const OWN_COMMAND: &str = "/.vz/command.json";

/// What our init runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageCommand {
    /// The program and its arguments; looked for in `PATH`.
    pub command: Vec<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; root when empty.
    pub user: String,
    /// Where it runs; `/` when empty.
    pub directory: String,
    /// What it is asked to end by: `SIGQUIT`, `3`, `SIGRTMIN+3`; SIGTERM when empty.
    pub stop_signal: String,
    /// Whether it is a shell for somebody at the console.
    pub shell: bool,
    /// Whether it is an init itself: then it takes our init's place instead of being its child.
    pub as_init: bool,
}

impl ImageCommand {
    /// The number of the signal that asks it to end; SIGTERM's for what is no signal.
    #[must_use]
    pub fn stop_number(&self) -> i32 {
        signal(&self.stop_signal).unwrap_or(libc::SIGTERM)
    }
}

/// Named signals that an image may ask to be ended by.
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CONT", libc::SIGCONT),
    ("WINCH", libc::SIGWINCH),
    ("PWR", libc::SIGPWR),
];

/// `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAX-1`.
fn signal(word: &str) -> Option<i32> {
    // As the kernel counts and glibc leaves them: the first two real-time signals are its own.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    if let Ok(number) = word.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return (0..=RTMAX - RTMIN).contains(&offset).then_some(RTMIN + offset);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
        return (0..=RTMAX - RTMIN).contains(&offset).then_some(RTMAX - offset);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (word, want) in [
            ("SIGQUIT", 3),
            ("winch", 28),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("", 15),
            ("SIGNOTHING", 15),
            ("0", 15),
            ("99999999999", 15),
            ("RTMIN+99", 15),
        ] {
            let command = ImageCommand { stop_signal: word.to_owned(), ..ImageCommand::default() };
            assert_eq!(command.stop_number(), want, "{word}");
        }
    }
}
