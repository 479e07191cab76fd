//! A command line that cannot be understood: the sentence, what may help, and the exit code.

use vzconf::Exit;

/// Why the command line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// The sentence clients match.
    message: String,
    /// The exit code.
    exit: Exit,
    /// What to try instead.
    advice: Option<String>,
    /// `--quiet` came before the verb: print nothing.
    pub(super) quiet: bool,
}

impl UsageError {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit, advice: None, quiet: false }
    }

    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(Exit::InvalidSyntax, message)
    }

    pub(super) fn value(message: impl Into<String>) -> Self {
        Self::new(Exit::InvalidValue, message)
    }

    pub(super) fn with_exit(exit: Exit, message: impl Into<String>) -> Self {
        Self::new(exit, message)
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to try instead; a line for people, after the sentence.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// Whether nothing may be printed.
    pub fn quiet(&self) -> bool {
        self.quiet
    }
}

/// The candidate most like `word`, if one is close enough to be what was meant.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits that turn `a` into `b`; two neighbours swapped count as one.
fn distance(a: &str, b: &str) -> usize {
    // Longer words are no typing errors, and a hostile argument must not cost quadratic time.
    const MAX: usize = 32;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(MAX).collect(), b.chars().take(MAX).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn a_typing_error_is_recognised_and_nonsense_is_not() {
        let verbs = ["start", "stop", "status", "destroy", "set"];
        for (typed, meant) in
            [("sart", Some("start")), ("stauts", Some("status")), ("detsroy", Some("destroy"))]
        {
            assert_eq!(closest(typed, verbs.into_iter()), meant, "{typed}");
        }
        assert_eq!(closest("frobnicate", verbs.into_iter()), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("stop", "stop"), 0);
        assert_eq!(distance("", "set"), 3);
        assert_eq!(distance("sotp", "stop"), 1);
        assert_eq!(distance(&"x".repeat(100_000), "stop"), 32);
    }
}
