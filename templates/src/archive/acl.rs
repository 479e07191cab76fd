//! POSIX ACLs: text in archives, binary in the kernel.

use super::error::Fault;

/// The attribute of an access ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory's default ACL.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

/// Whom an entry is for; the numbers are the kernel's, and their order is the one it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(super) enum Tag {
    Owner = 1,
    User = 2,
    OwningGroup = 4,
    Group = 8,
    Mask = 16,
    Other = 32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Id(u32),
    Name(String),
}

/// One ACL as an archive has it; names are not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acl(Vec<(Tag, u16, Who)>);

impl Acl {
    /// Reads the text form of GNU tar, star and libarchive.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Fault> {
        let wrong = || Fault::corrupt(format!("no ACL: '{}'", text.escape_ascii()));
        let readable = std::str::from_utf8(text).map_err(|_| wrong())?;
        let mut entries = Vec::new();
        for line in readable.split(['\n', ',']) {
            let line = line.split('#').next().unwrap_or_default().trim();
            let line = line.strip_prefix("default:").unwrap_or(line);
            if !line.is_empty() {
                entries.push(entry(line).ok_or_else(wrong)?);
            }
        }
        if entries.is_empty() {
            return Err(wrong());
        }
        Ok(Self(entries))
    }

    /// Whether a name has to be looked up.
    pub(super) fn has_names(&self) -> bool {
        self.0.iter().any(|(_, _, who)| matches!(who, Who::Name(_)))
    }

    /// The kernel's form; `find` looks up the id of a user or group name.
    pub(super) fn binary(&self, mut find: impl FnMut(Tag, &str) -> Option<u32>) -> Result<Vec<u8>, Fault> {
        let mut entries = Vec::with_capacity(self.0.len());
        for (tag, bits, who) in &self.0 {
            let id = match who {
                Who::Id(id) => *id,
                Who::Name(name) => find(*tag, name).ok_or_else(|| Fault::Unsupported {
                    what: format!("an ACL for '{name}', who is neither in the archive nor on this host"),
                })?,
            };
            entries.push((*tag, id, *bits));
        }
        entries.sort_unstable();
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, id, bits) in entries {
            bytes.extend_from_slice(&(tag as u16).to_le_bytes());
            bytes.extend_from_slice(&bits.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        Ok(bytes)
    }
}

fn entry(line: &str) -> Option<(Tag, u16, Who)> {
    let mut fields = line.split(':').map(str::trim);
    let (kind, who, bits, id) = (fields.next()?, fields.next()?, fields.next(), fields.next());
    // `mask:r-x` and `other:r--` do without the empty field.
    let (who, bits) = match bits {
        Some(bits) => (who, bits),
        None => ("", who),
    };
    let tag = match (kind, who.is_empty()) {
        ("user" | "u", true) => Tag::Owner,
        ("user" | "u", false) => Tag::User,
        ("group" | "g", true) => Tag::OwningGroup,
        ("group" | "g", false) => Tag::Group,
        ("mask" | "m", true) => Tag::Mask,
        ("other" | "o", true) => Tag::Other,
        _ => return None,
    };
    let mut mask = 0;
    for c in bits.chars() {
        mask |= match c {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    let who = match (who, id.and_then(|id| id.parse().ok())) {
        ("", _) => Who::Id(NO_ID),
        (_, Some(id)) => Who::Id(id),
        (name, None) => name.parse().map_or_else(|_| Who::Name(name.to_owned()), Who::Id),
    };
    Some((tag, mask, who))
}

/// The text of a kernel's ACL, with numbers for names and `shift` taken off each id. `None` if it is none.
pub(super) fn text(binary: &[u8], shift: u32) -> Option<String> {
    let (version, entries) = binary.split_at_checked(4)?;
    if version != VERSION.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let mut lines = Vec::new();
    for entry in entries.chunks_exact(8) {
        let (tag, bits) =
            (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]).wrapping_sub(shift);
        let who = match tag {
            1 => "user:".to_owned(),
            2 => format!("user:{id}"),
            4 => "group:".to_owned(),
            8 => format!("group:{id}"),
            16 => "mask:".to_owned(),
            32 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |mask, c| if bits & mask != 0 { c } else { '-' };
        lines.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(lines.join("\n") + "\n")
}

/// Takes `shift` off each id of a kernel's ACL. What is none stays as it is.
pub(crate) fn shift_acl(binary: &mut [u8], shift: u32) {
    if binary.len() < 4 || binary[..4] != VERSION.to_le_bytes() {
        return;
    }
    for entry in binary[4..].chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if tag == Tag::User as u16 || tag == Tag::Group as u16 {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..].copy_from_slice(&super::pack::shifted(id, shift).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_are_the_same() {
        let text_form = "user::rw-\nuser:1000:r--\ngroup::r--\ngroup:7:rwx\nmask::rwx\nother::---\n";
        let acl = Acl::parse(text_form.as_bytes()).unwrap();
        let binary = acl.binary(|_, _| None).unwrap();
        assert_eq!(binary.len(), 4 + 6 * 8);
        assert_eq!(text(&binary, 0).unwrap(), text_form);
        assert!(text(&binary, 1000).unwrap().contains("user:0:r--"));
    }

    #[test]
    fn other_spellings_are_understood() {
        let acl = Acl::parse(b"u::rwx,u:lisa:rw-:502,g::r-x\t#effective:r--,m:r--,o::---").unwrap();
        let binary = acl.binary(|_, _| None).unwrap();
        assert_eq!(text(&binary, 0).unwrap(), "user::rwx\nuser:502:rw-\ngroup::r-x\nmask::r--\nother::---\n");
    }

    #[test]
    fn names_are_looked_up_or_refused() {
        let acl = Acl::parse(b"user::rwx\nuser:daemon:r-x\ngroup::r-x\nmask::r-x\nother::r-x").unwrap();
        assert!(acl.has_names());
        assert!(acl.binary(|_, _| None).is_err());
        let found = acl.binary(|tag, name| (tag == Tag::User && name == "daemon").then_some(1)).unwrap();
        assert!(text(&found, 0).unwrap().contains("user:1:r-x"));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [&b""[..], b"user", b"user::rwz", b"\xff", b"king::rwx", b"mask:bob:r--"] {
            assert!(Acl::parse(bad).is_err(), "{bad:?}");
        }
    }
}
