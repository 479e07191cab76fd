//! Members' names, taken apart.

use super::error::Fault;

/// A member's place below the root: no leading slash, no `.`, no `..`, no empty component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<u8>);

impl Place {
    /// Leading slashes are dropped; `..` is refused.
    pub(super) fn of(name: &[u8]) -> Result<Self, Fault> {
        let mut path = Vec::with_capacity(name.len());
        for part in name.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Fault::hostile("a name with '..'")),
                part if part.len() > 255 => {
                    return Err(Fault::TooLarge { what: "length of a name", limit: 255 });
                }
                part => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(Self(path))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory (empty for the root) and the name in it; `None` for the root itself.
    pub(super) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() { None } else { Some(split(&self.0)) }
    }
}

/// Cuts off the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, want) in
            [("./a/b", "a/b"), ("/etc//passwd", "etc/passwd"), ("./", ""), ("/", ""), ("a/./b/", "a/b")]
        {
            assert_eq!(Place::of(name.as_bytes()).unwrap().bytes(), want.as_bytes(), "{name}");
        }
        for name in ["..", "a/../b", "/../etc", "./.."] {
            assert!(Place::of(name.as_bytes()).is_err(), "{name}");
        }
        assert!(Place::of(&[b'x'; 256]).is_err());
        assert_eq!(Place::of(b"a/b/c").unwrap().split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(Place::of(b"./").unwrap().split(), None);
    }
}
