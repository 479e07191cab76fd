//! Members out of a stream: every dialect's extra headers folded into one shape.

use super::acl::Acl;
use super::error::Fault;
use super::header::{self, Header};
use super::pax;
use super::sparse::{Map, Records};
use super::stream::{BLOCK, Stream, padding};
use super::{Limits, base64};

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// Another name of the member with this path.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Directory,
    Fifo,
}

/// One member. Its data follows in the stream: `stored` bytes, then padding.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) stored: u64,
    pub(super) sparse: Option<Map>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) access: Option<Acl>,
    pub(super) default: Option<Acl>,
}

/// What extra headers said about the next member.
#[derive(Debug, Default, Clone)]
struct Extra {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Whether a hard link with a size has data: in PAX archives it has, in older ones it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkBody {
    Never,
    Posix,
}

/// Reads members one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stream: Stream,
    limits: Limits,
    global: Vec<(Vec<u8>, Vec<u8>)>,
    /// The name of the member being read, for errors.
    pub(super) at: Option<Vec<u8>>,
    members: u64,
}

impl Reader {
    pub(super) fn new(stream: Stream, limits: Limits) -> Self {
        Self { stream, limits, global: Vec::new(), at: None, members: 0 }
    }

    /// The next member. Its data must be taken from the stream before the next call.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Fault> {
        let mut extra = Extra::default();
        let mut begun = false;
        loop {
            let Some(block) = self.header_block()? else {
                if begun {
                    return Err(Fault::corrupt("it ends after a header that announces a member"));
                }
                self.at = None;
                self.drain()?;
                return Ok(None);
            };
            let header = Header::parse(block)?;
            let size = header.size()?;
            // Each of them costs memory or time: no member has more than a few.
            self.count()?;
            match header.kind() {
                b'L' => extra.long_name = Some(header::text(&self.body(size)?).to_vec()),
                b'K' => extra.long_link = Some(header::text(&self.body(size)?).to_vec()),
                b'x' | b'X' => extra.records.extend(pax::parse(&self.body(size)?)?),
                b'g' => {
                    let records = pax::parse(&self.body(size)?)?;
                    self.merge_global(records);
                }
                // A volume's label.
                b'V' => self.stream.skip(padded(size)?)?,
                _ => return self.member(&header, extra).map(Some),
            }
            begun = !matches!(header.kind(), b'g' | b'V') || begun;
        }
    }

    /// A block that is not zero; `None` at the end mark. A single zero block is skipped, as GNU tar does.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        for _ in 0..2 {
            // Without an end mark there may have been more.
            let block = self.stream.block()?.ok_or(Fault::Truncated)?;
            if block.iter().any(|&b| b != 0) {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Reads to the end of the file, so that the checksums of its compression are checked.
    fn drain(&mut self) -> Result<(), Fault> {
        const MOST: u64 = 64 << 20;
        let mut rest = 0;
        loop {
            let n = self.stream.peek()?.len();
            if n == 0 {
                return Ok(());
            }
            self.stream.consume(n);
            rest += n as u64;
            if rest > MOST {
                return Err(Fault::hostile("much data behind its end"));
            }
        }
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.members += 1;
        // With its extra headers a member takes four at most.
        if self.members > self.limits.entries.saturating_mul(4) {
            return Err(Fault::TooLarge { what: "number of members", limit: self.limits.entries });
        }
        Ok(())
    }

    fn body(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        let limit = self.limits.xattrs.saturating_add(4 * self.limits.path as u64);
        if size > limit {
            return Err(Fault::TooLarge { what: "extended header", limit });
        }
        self.stream.padded(size)
    }

    fn merge_global(&mut self, records: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in records {
            self.global.retain(|(k, _)| *k != key);
            self.global.push((key, value));
        }
    }

    fn member(&mut self, header: &Header, extra: Extra) -> Result<Member, Fault> {
        self.at = Some(extra.long_name.clone().unwrap_or_else(|| header.path()));
        let mut member = Member {
            path: extra.long_name.unwrap_or_else(|| header.path()),
            kind: Kind::File,
            mode: header.mode()?,
            uid: header.uid()?,
            gid: header.gid()?,
            mtime: (header.mtime()?, 0),
            stored: header.size()?,
            sparse: None,
            xattrs: Vec::new(),
            access: None,
            default: None,
        };
        let mut link = extra.long_link.unwrap_or_else(|| header.link());
        let mut device = header.device().unwrap_or_default();
        let mut sparse = Records::default();
        for (key, value) in self.global.iter().chain(&extra.records) {
            apply(&mut member, &mut link, &mut device, &mut sparse, key, value)?;
        }
        if let Some(name) = sparse.name.take() {
            member.path = name;
        }
        self.at = Some(member.path.clone());
        member.kind = kind(header, &member.path, link, device)?;
        let body = if extra.records.is_empty() { LinkBody::Never } else { LinkBody::Posix };
        self.data(header, &mut member, sparse, body)?;
        self.check(&member)?;
        Ok(member)
    }

    /// Finds out where the data is.
    fn data(
        &mut self,
        header: &Header,
        member: &mut Member,
        sparse: Records,
        link: LinkBody,
    ) -> Result<(), Fault> {
        if header.kind() == b'S' {
            let (mut segments, mut more, size) = header.sparse()?;
            while more {
                let block = self.stream.block()?.ok_or(Fault::Truncated)?;
                let (list, further) = header::sparse_block(&block)?;
                self.count()?;
                segments.extend(list);
                more = further;
            }
            // The last, empty piece only tells the size.
            member.sparse = Some(Map::new(segments, size, member.stored)?);
        } else if member.kind == Kind::File
            && let Some((map, stored)) = sparse.finish(&mut self.stream, member.stored)?
        {
            member.sparse = Some(map);
            member.stored = stored;
        }
        if member.kind != Kind::File {
            // Sizes of other kinds mean nothing; some writers put the inode's there.
            if link == LinkBody::Posix && matches!(member.kind, Kind::HardLink(_)) {
                self.stream.skip(padded(member.stored)?)?;
            }
            member.stored = 0;
        }
        padded(member.stored).map(drop)
    }

    fn check(&self, member: &Member) -> Result<(), Fault> {
        let limit = self.limits.path;
        let link = match &member.kind {
            Kind::HardLink(link) | Kind::Symlink(link) => link.as_slice(),
            _ => &[],
        };
        if member.path.len() > limit || link.len() > limit {
            return Err(Fault::TooLarge { what: "length of a path", limit: limit as u64 });
        }
        if member.path.contains(&0) || link.contains(&0) {
            return Err(Fault::hostile("a NUL in a path"));
        }
        let size: usize = member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size as u64 > self.limits.xattrs {
            return Err(Fault::TooLarge { what: "size of extended attributes", limit: self.limits.xattrs });
        }
        if member.xattrs.iter().any(|(name, _)| name.contains(&0)) {
            return Err(Fault::hostile("a NUL in an attribute's name"));
        }
        Ok(())
    }
}

fn padded(size: u64) -> Result<u64, Fault> {
    size.checked_add(padding(size)).ok_or_else(|| Fault::corrupt("a size beyond all bounds"))
}

fn kind(header: &Header, path: &[u8], link: Vec<u8>, (major, minor): (u32, u32)) -> Result<Kind, Fault> {
    Ok(match header.kind() {
        // Before POSIX a directory was a file whose name ends with a slash.
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink(link),
        b'2' => Kind::Symlink(link),
        b'3' => Kind::Char(major, minor),
        b'4' => Kind::Block(major, minor),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(Fault::Unsupported { what: format!("a member of type '{}'", other.escape_ascii()) });
        }
    })
}

/// Applies one PAX record.
fn apply(
    member: &mut Member,
    link: &mut Vec<u8>,
    device: &mut (u32, u32),
    sparse: &mut Records,
    key: &[u8],
    value: &[u8],
) -> Result<(), Fault> {
    let id = |value| -> Result<u32, Fault> {
        u32::try_from(pax::decimal(value)?).map_err(|_| Fault::corrupt("an id beyond 32 bits"))
    };
    match key {
        // An empty value takes back what was said before.
        b"path" if !value.is_empty() => member.path = value.to_vec(),
        b"linkpath" if !value.is_empty() => *link = value.to_vec(),
        b"size" if !value.is_empty() => member.stored = pax::decimal(value)?,
        b"uid" if !value.is_empty() => member.uid = id(value)?,
        b"gid" if !value.is_empty() => member.gid = id(value)?,
        b"mtime" if !value.is_empty() => member.mtime = pax::time(value)?,
        b"SCHILY.devmajor" if !value.is_empty() => device.0 = id(value)?,
        b"SCHILY.devminor" if !value.is_empty() => device.1 = id(value)?,
        b"SCHILY.acl.access" if !value.is_empty() => member.access = Some(Acl::parse(value)?),
        b"SCHILY.acl.default" if !value.is_empty() => member.default = Some(Acl::parse(value)?),
        b"RHT.security.selinux" => set(member, b"security.selinux".to_vec(), value.to_vec()),
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                set(member, name.to_vec(), value.to_vec());
            } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                set(member, unescape(name), base64::decode(value)?);
            } else if let Some(rest) = key.strip_prefix(b"GNU.sparse.") {
                sparse.take(rest, value)?;
            }
        }
    }
    Ok(())
}

fn set(member: &mut Member, name: Vec<u8>, value: Vec<u8>) {
    // libarchive stores each attribute twice.
    member.xattrs.retain(|(other, _)| *other != name);
    member.xattrs.push((name, value));
}

/// `%41` in the name of a `LIBARCHIVE.xattr` record.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut at = 0;
    while at < name.len() {
        let digits = name.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (name[at], digits.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}
