//! Locks of files.
use std::fs;

/// How many locks these processes hold, by the host's list: it names each lock's process by its number here.
pub(super) fn count(pids: &[i32]) -> Option<u64> {
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    Some(held_by(&pids, &fs::read_to_string("/proc/locks").ok()?))
}

/// `1: POSIX  ADVISORY  WRITE 812 08:01:131 0 EOF`; who waits for a lock has an arrow behind the number.
fn held_by(sorted: &[i32], text: &str) -> u64 {
    let mine = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let waits = words.next() == Some("->");
        let owner = words.nth(2).and_then(|word| word.parse().ok());
        !waits && owner.is_some_and(|pid: i32| sorted.binary_search(&pid).is_ok())
    };
    text.lines().filter(mine).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_and_strangers_do_not_count() {
        let text = "\
1: POSIX  ADVISORY  WRITE 812 08:01:131 0 EOF
1: -> POSIX  ADVISORY  WRITE 900 08:01:131 0 EOF
2: FLOCK  ADVISORY  WRITE 900 08:01:132 0 EOF
3: OFDLCK ADVISORY  READ -1 08:01:133 0 EOF
4: LEASE  ACTIVE    READ 7 08:01:134 0 EOF
";
        assert_eq!(held_by(&[812, 900], text), 2);
        assert_eq!(held_by(&[7], text), 1);
        assert_eq!(held_by(&[], text), 0);
    }

    #[test]
    fn a_lock_of_ours_is_found() {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let own = [i32::try_from(std::process::id()).unwrap()];
        // The kernel writes its list a page at a time, and who locks meanwhile moves what is next out of sight.
        assert!((0..1000).any(|_| count(&own).unwrap() >= 1));
    }
}
