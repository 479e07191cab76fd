//! What CRIU's log says about a failure.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the end of a log is looked at.
const TAIL: u64 = 256 * 1024;

/// Errors that CRIU logs and goes on after.
const HARMLESS: [&str; 2] = ["rlimit: Can't setup RLIMIT_NOFILE", "Can't keep kdat cache"];

/// The first error in a log; later ones follow from it.
#[must_use]
pub fn first_error(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    first_in(&String::from_utf8_lossy(&bytes))
}

fn first_in(text: &str) -> Option<String> {
    let errors =
        text.lines().filter(|line| line.contains("Error (") && !HARMLESS.iter().any(|h| line.contains(h)));
    errors.map(words).find(|line| !line.is_empty())
}

/// `(00.04) 12: Error (criu/tty.c:2399): tty: Unable …`, without what only CRIU's authors need. Names of a VE may be
/// in it: control characters go.
fn words(line: &str) -> String {
    let text = line.split_once("): ").map_or(line, |(_, text)| text);
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

pub(crate) fn because(log: Option<&str>) -> String {
    log.map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_that_matters_is_told() {
        let text = "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
            (00.2) Warn  (criu/x.c:1): nothing\n\
            (00.3)     12: Error (criu/tty.c:2399): tty: Unable to find a master for /0\u{1b}[1m\n\
            (00.4) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        assert_eq!(first_in(text).unwrap(), "tty: Unable to find a master for /0[1m");
        assert_eq!(first_in("(00.1) all is well\n"), None);
    }
}
