//! The kernel's description of its own types (BTF), as far as programs at its functions need it: the number of a
//! function, and where in a struct a member is.
//!
//! ```text
//! header ─▶ types: name, kind and number of parts, size or type; then what the kind has, one after another
//!       └─▶ strings: names, ended by zero
//! ```
//!
//! A type's number is its place in the row, from 1. Nothing is believed of the bytes: what does not fit is "not found".

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
/// Types in types: unnamed members, or names of names.
const DEEPEST: u32 = 6;

/// Descriptions of types.
#[derive(Debug)]
pub(super) struct Btf<'d> {
    types: &'d [u8],
    strings: &'d [u8],
    /// Where each type begins.
    begins: Vec<usize>,
}

/// The part of a type that all kinds have.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    parts: u32,
    /// Members say how many bits they have.
    has_bits: bool,
    /// Its size, or the type that it is about.
    of: u32,
}

/// A member of a struct.
#[derive(Debug, Clone, Copy)]
struct Member {
    name: u32,
    of: u32,
    bit: u32,
}

impl<'d> Btf<'d> {
    /// `None` when these are no descriptions, or have kinds that came later.
    pub(super) fn parse(data: &'d [u8]) -> Option<Self> {
        let header = |at| number(data, at).and_then(|n| usize::try_from(n).ok());
        if u16::from_ne_bytes([*data.first()?, *data.get(1)?]) != MAGIC {
            return None;
        }
        let body = data.get(header(4)?..)?;
        let section = |at: usize| {
            let begin = header(at)?;
            body.get(begin..begin.checked_add(header(at + 4)?)?)
        };
        let mut btf = Self { types: section(8)?, strings: section(16)?, begins: Vec::new() };
        let mut at = 0;
        while at < btf.types.len() {
            let length = btf.read(at)?.length()?;
            btf.begins.push(at);
            at += length;
        }
        Some(btf)
    }

    /// The number of a function.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.find(FUNC, name).next()
    }

    /// Where in a struct a member is, in bytes: `["ns", "inum"]` is a member of its member.
    pub(super) fn offset(&self, of: &str, path: &[&str]) -> Option<u32> {
        // There may be structs of the same name that are others.
        self.find(STRUCT, of).find_map(|id| {
            let (mut id, mut bits) = (id, 0_u32);
            for name in path {
                let (bit, of) = self.member(id, name, DEEPEST)?;
                (id, bits) = (of, bits.checked_add(bit)?);
            }
            (bits % 8 == 0).then_some(bits / 8)
        })
    }

    fn find<'a>(&'a self, kind: u32, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        let is_it =
            move |at: usize| self.read(at).is_some_and(|t| t.kind == kind && self.is_named(t.name, name));
        let numbered = (1_u32..).zip(&self.begins);
        numbered.filter(move |(_, at)| is_it(**at)).map(|(id, _)| id)
    }

    /// The bit at which a member begins, and its type; those of unnamed members are members too.
    fn member(&self, id: u32, name: &str, deep: u32) -> Option<(u32, u32)> {
        let (at, of) = self.composite(id)?;
        for part in 0..of.parts as usize {
            let member = self.member_at(at + 12 + part * 12, of.has_bits)?;
            if self.is_named(member.name, name) {
                return Some((member.bit, member.of));
            }
            if self.is_named(member.name, "")
                && let Some(deeper) = deep.checked_sub(1)
                && let Some((bit, of)) = self.member(member.of, name, deeper)
            {
                return Some((member.bit.checked_add(bit)?, of));
            }
        }
        None
    }

    fn member_at(&self, at: usize, has_bits: bool) -> Option<Member> {
        let word = |n: usize| number(self.types, at + n * 4);
        let bit = word(2)?;
        // Of bit fields the upper eight bits are their length.
        Some(Member { name: word(0)?, of: word(1)?, bit: if has_bits { bit & 0xff_ffff } else { bit } })
    }

    /// The struct or union behind names and qualifiers, and where it begins.
    fn composite(&self, mut id: u32) -> Option<(usize, Type)> {
        const NAMES: [u32; 5] = [8, 9, 10, 11, 18];
        for _ in 0..=DEEPEST {
            let at = *self.begins.get(usize::try_from(id.checked_sub(1)?).ok()?)?;
            let found = self.read(at)?;
            match found.kind {
                STRUCT | UNION => return Some((at, found)),
                kind if NAMES.contains(&kind) => id = found.of,
                _ => return None,
            }
        }
        None
    }

    fn read(&self, at: usize) -> Option<Type> {
        let info = number(self.types, at + 4)?;
        Some(Type {
            name: number(self.types, at)?,
            kind: info >> 24 & 0x1f,
            parts: info & 0xffff,
            has_bits: info >> 31 != 0,
            of: number(self.types, at + 8)?,
        })
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let rest = usize::try_from(at).ok().and_then(|at| self.strings.get(at..)).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl Type {
    /// In bytes, with all that its kind has. The kernel's Documentation/bpf/btf.rst lists them.
    fn length(&self) -> Option<usize> {
        let parts = self.parts as usize;
        let more = match self.kind {
            2 | 7..=12 | 16 | 18 => 0,
            1 | 14 | 17 => 4,
            3 => 12,
            6 | 13 => parts * 8,
            STRUCT | UNION | 15 | 19 => parts * 12,
            _ => return None,
        };
        Some(12 + more)
    }
}

fn number(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct a { int x; struct { int y; T z; }; }`, `typedef const struct b T`, `struct b { int; int w; }`, a function
    /// f; with one kind of each length before them.
    fn example() -> Vec<u8> {
        let strings = b"\0a\0b\0x\0y\0z\0w\0f\0T\0";
        let kind = |kind: u32, parts: u32| kind << 24 | parts;
        let types: Vec<u32> = [
            vec![0, kind(1, 0), 4, 32],                                          // 1: int
            vec![0, kind(3, 0), 0, 1, 1, 2],                                     // 2: array
            vec![0, kind(6, 2), 4, 5, 0, 7, 1],                                  // 3: enum
            vec![0, kind(19, 1), 8, 5, 0, 0],                                    // 4: enum64
            vec![3, kind(STRUCT, 2), 8, 0, 1, 0, 11, 1, 32],                     // 5: struct b
            vec![0, kind(10, 0), 5],                                             // 6: const
            vec![15, kind(8, 0), 6],                                             // 7: T
            vec![0, kind(STRUCT, 2) | 1 << 31, 12, 7, 1, 0, 9, 7, 4 << 24 | 32], // 8: unnamed
            vec![1, kind(STRUCT, 2), 16, 5, 1, 0, 0, 8, 32],                     // 9: struct a
            vec![13, kind(FUNC, 1), 1],                                          // 10: f
        ]
        .concat();
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let header = [24, 0, length(types.len() * 4), length(types.len() * 4), length(strings.len())];
        let mut data = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        data.extend(header.iter().chain(&types).flat_map(|word: &u32| word.to_ne_bytes()));
        data.extend(strings);
        data
    }

    #[test]
    fn functions_and_members_are_found() {
        let data = example();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!((btf.function("f"), btf.function("a"), btf.function("")), (Some(10), None, None));
        for (path, want) in [
            (&["x"][..], Some(0)),
            (&["y"], Some(4)),
            (&["z"], Some(8)),
            (&["z", "w"], Some(12)),
            (&["w"], None),
            (&["x", "w"], None),
        ] {
            assert_eq!(btf.offset("a", path), want, "{path:?}");
        }
        assert_eq!(btf.offset("T", &["w"]), None);
    }

    /// Asked of the running kernel, where it tells.
    #[test]
    fn the_kernels_own_are_read() {
        let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::parse(&data).unwrap();
        assert!(btf.offset("file", &["f_cred"]).is_some_and(|offset| offset > 0));
        assert_eq!(btf.offset("list_head", &["prev"]), Some(8));
        assert!(btf.offset("user_namespace", &["ns", "inum"]).is_some());
        assert!(btf.function("schedule").is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..400, bytes in prop::collection::vec(any::<u8>(), 0..24), cut in 0_usize..400) {
            let mut data = example();
            let end = data.len();
            for (place, byte) in data[at.min(end)..].iter_mut().zip(bytes) {
                *place = byte;
            }
            data.truncate(cut.max(1));
            if let Some(btf) = Btf::parse(&data) {
                let _ = (btf.function("f"), btf.offset("a", &["z", "w"]), btf.offset("b", &["w"]));
            }
        }

        #[test]
        fn nor_do_any_others(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Btf::parse(&data);
        }
    }
}
