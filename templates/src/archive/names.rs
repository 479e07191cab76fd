//! Ids of user and group names: first by the unpacked tree's own files, then by the host's.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use super::acl::Tag;
use super::place::open_in;

/// A passwd file larger than this is none.
const MOST: u64 = 16 << 20;

/// The tables, read at the first use.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: Option<HashMap<String, u32>>,
    groups: Option<HashMap<String, u32>>,
}

impl Names {
    pub(super) fn find(&mut self, root: BorrowedFd<'_>, tag: Tag, name: &str) -> Option<u32> {
        let (table, file) = match tag {
            Tag::User => (&mut self.users, "etc/passwd"),
            _ => (&mut self.groups, "etc/group"),
        };
        table.get_or_insert_with(|| load(root, file)).get(name).copied()
    }
}

fn load(root: BorrowedFd<'_>, file: &str) -> HashMap<String, u32> {
    let mut table = HashMap::new();
    let host = std::fs::read(format!("/{file}")).unwrap_or_default();
    for text in [host, inside(root, file).unwrap_or_default()] {
        for line in String::from_utf8_lossy(&text).lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
                table.insert(name.to_owned(), id);
            }
        }
    }
    table
}

/// A regular file of the tree; it may be a link to another one, and anything else is refused.
fn inside(root: BorrowedFd<'_>, path: &str) -> Option<Vec<u8>> {
    let fd = open_in(root, path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
