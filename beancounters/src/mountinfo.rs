//! `/proc/self/mountinfo`, as far as cgroups are concerned. Pure text.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mounted cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Whether its own root is visible there, and not just a part of the tree.
    pub(crate) whole: bool,
    /// v1: its controllers and `name=`, sorted; `None` for v2.
    pub(crate) v1: Option<Vec<String>>,
}

/// Super block options of v1 that are no controllers.
const V1_OPTIONS: [&str; 7] = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none"];

/// Reads one line; `None` for what is not a cgroup mount.
pub(crate) fn parse_line(line: &str) -> Option<CgroupMount> {
    // ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG:N]... - TYPE SOURCE SUPER-OPTIONS
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let v1 = match filesystem.next()? {
        "cgroup2" => None,
        "cgroup" => {
            let options = filesystem.nth(1)?.trim_end();
            let mut names: Vec<String> = options
                .split(',')
                .filter(|o| !V1_OPTIONS.contains(o) && !o.starts_with("release_agent="))
                .map(str::to_owned)
                .collect();
            names.sort();
            Some(names)
        }
        _ => return None,
    };
    let mut mount = mount.split(' ').skip(3);
    let whole = mount.next()? == "/";
    Some(CgroupMount { point: unescape(mount.next()?), whole, v1 })
}

/// `\ooo` stands for a byte that would split the line.
pub(crate) fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_generations_are_known() {
        let v2 =
            parse_line("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate")
                .unwrap();
        assert_eq!(v2, CgroupMount { point: "/sys/fs/cgroup/unified".into(), whole: true, v1: None });
        let v1 = parse_line(
            "33 31 0:30 /docker/x /sys/fs/cgroup/a\\040b rw shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/a,cpuacct,cpu",
        )
        .unwrap();
        assert_eq!(v1.point, PathBuf::from("/sys/fs/cgroup/a b"));
        assert!(!v1.whole);
        assert_eq!(v1.v1.unwrap(), ["cpu", "cpuacct"]);
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in ["", " - ", "22 27 0:21 / /proc rw - proc proc rw", "1 2 3 - cgroup", "a - cgroup2 x rw"]
        {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[ -~]{0,80}") {
            let _ = parse_line(&line);
            let _ = parse_line(&format!("1 2 0:3 / {line} rw - cgroup c rw,cpu"));
        }
    }
}
