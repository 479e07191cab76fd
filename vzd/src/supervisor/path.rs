//! Which path a caller means.

/// The file that is not there, in `/proc`.
const NAME: &[u8] = b"user_beancounters";

/// Whether it could be the one: nearly all are not, and cost no more than this.
pub(super) fn may_be_table(path: &[u8]) -> bool {
    path.ends_with(NAME)
}

/// Whether it is, from this directory. Only by its words: links are followed by the kernel, not by us.
pub(super) fn is_table(directory: &[u8], path: &[u8]) -> bool {
    let from: &[u8] = if path.starts_with(b"/") { b"" } else { directory };
    let mut words: Vec<&[u8]> = Vec::new();
    for word in from.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match word {
            b"" | b"." => {}
            // `/proc/self/..` and `/proc/1/..`; elsewhere a word may be a link to anywhere.
            b".." if words.len() == 2 && words[0] == b"proc" => drop(words.pop()),
            b".." => return false,
            word => words.push(word),
        }
    }
    words == [b"proc".as_slice(), NAME]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_known_by_its_forms() {
        let forms: &[(&str, &str)] = &[
            ("/root", "/proc/user_beancounters"),
            ("/root", "//proc/./user_beancounters"),
            ("/root", "/proc/self/../user_beancounters"),
            ("/proc", "user_beancounters"),
            ("/proc", "./user_beancounters"),
            ("/", "proc/user_beancounters"),
            ("/proc/17", "../user_beancounters"),
        ];
        for (directory, path) in forms {
            assert!(may_be_table(path.as_bytes()), "{path}");
            assert!(is_table(directory.as_bytes(), path.as_bytes()), "{directory} {path}");
        }
    }

    #[test]
    fn others_are_not_it() {
        let others: &[(&str, &str)] = &[
            ("/root", "user_beancounters"),
            ("/proc", "/user_beancounters"),
            ("/", "/root/proc/user_beancounters"),
            ("/", "/proc/1/user_beancounters"),
            ("/", "/x/../proc/user_beancounters"),
            ("/", "/proc/1/root/../user_beancounters"),
            ("/proc", "../user_beancounters"),
            ("/", "/proc/my_user_beancounters"),
        ];
        for (directory, path) in others {
            assert!(!is_table(directory.as_bytes(), path.as_bytes()), "{directory} {path}");
        }
        assert!(!may_be_table(b"/proc/user_beancounters/") && !may_be_table(b""));
    }
}
