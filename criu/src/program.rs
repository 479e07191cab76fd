//! Where CRIU is, and which version.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where `packaging/criu` puts it on a host whose distribution has none that is new enough.
pub const PRIVATE: &str = "/usr/lib/vz/criu/criu";

/// A version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 4 of 4.2.1
    pub major: u32,
    /// 2 of 4.2.1
    pub minor: u32,
    /// 1 of 4.2.1
    pub sublevel: u32,
}

impl Version {
    /// The oldest that can carry what guests of today use.
    pub const NEEDED: Version = Version { major: 4, minor: 2, sublevel: 0 };

    /// From the output of `criu --version`.
    fn parse(text: &str) -> Option<Version> {
        let word = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
        let mut numbers = word.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        let mut next = || numbers.next().flatten();
        Some(Version { major: next()?, minor: next()?, sublevel: next().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.sublevel > 0 { write!(f, ".{}", self.sublevel) } else { Ok(()) }
    }
}

/// A CRIU that is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

impl Program {
    /// The host's own, or the one that was put aside for us. Starts each once to ask its version (2 ms).
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn find() -> Result<Program> {
        let places = vzsys::spawn::find("criu").into_iter().chain([PathBuf::from(PRIVATE)]);
        let mut newest = None;
        for path in places {
            let Some(version) = version(&path) else { continue };
            if version >= Version::NEEDED {
                return Ok(Program { path, version });
            }
            newest = newest.max(Some(version));
        }
        Err(Error::Missing { found: newest })
    }
}

fn version(path: &Path) -> Option<Version> {
    let mut command = vzsys::spawn::program(path);
    command.arg("--version");
    let (_, text, _) = vzsys::spawn::feed(command, &[]).ok()?;
    Version::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let of = |text: &str| Version::parse(text);
        assert_eq!(of("Version: 4.2.1\nGitID: v4.2.1\n").unwrap().to_string(), "4.2.1");
        assert_eq!(of("Version: 4.2-rc1\n").unwrap().to_string(), "4.2");
        assert!(of("Version: 3.17.1\n").unwrap() < Version::NEEDED);
        assert!(of("Version: 5.0\n").unwrap() > Version::NEEDED);
        assert_eq!((of(""), of("Version: x.y\n"), of("Version: 4\n")), (None, None, None));
    }
}
