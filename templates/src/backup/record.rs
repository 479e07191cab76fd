//! What was seen of a tree that is in use, directory by directory: the list that a backup ends with.
//!
//! ```text
//! folders   path → what the stream will say of it: the directory, then each name in it with the pieces of its file
//! linked    inode → the same of the newest look at a file with several names: one may have changed under another's
//! ```
//! A directory is looked at again as a whole; what looks as it did, and was not told as changed, is kept and not read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::error::Fault;
use super::item::{Entry, Item, Kind, Time};
use super::walk::nanos;
use super::wire::{Bad, Cursor};

/// What was seen of one directory.
#[derive(Debug, Default)]
struct Folder {
    items: Vec<u8>,
    /// Paths of the directories in it.
    below: Vec<Vec<u8>>,
}

/// A name in a directory as it was seen last time.
#[derive(Debug)]
struct Old {
    inode: u64,
    ctime: Time,
    range: Range<usize>,
}

/// The directory that is being looked at.
#[derive(Debug, Default)]
struct Here {
    path: Vec<u8>,
    items: Vec<u8>,
    /// Where what is said of the last name begins.
    last: usize,
    before: HashMap<Vec<u8>, Old>,
    told: HashSet<Vec<u8>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Record {
    folders: HashMap<Vec<u8>, Folder>,
    linked: HashMap<u64, Vec<u8>>,
    /// Inodes of files that were read, and not only known.
    read: HashSet<u64>,
    here: Here,
    /// Directories that are in the stream since it last began anew.
    announced: HashSet<Vec<u8>>,
    /// Something is in the stream that has to be forgotten before the next pass.
    begun: bool,
    /// Nothing is told: what changed later than this may have changed again and look the same.
    pub(super) doubted: Option<i128>,
}

/// What the whole list holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) unread: u64,
}

impl Record {
    /// Begins; `begun` says that the stream holds a tree already.
    pub(super) fn new(begun: bool) -> Self {
        Self { begun, ..Self::default() }
    }

    /// The next look, at all or at some directories, those above before those below.
    pub(super) fn next_pass(&mut self) {
        self.announced.clear();
    }

    /// A directory is looked at; `told` are names in it that have changed whatever they look like.
    pub(super) fn begin(&mut self, path: &[u8], told: HashSet<Vec<u8>>) {
        let before = self.folders.get(path).map(|folder| olds(&folder.items)).unwrap_or_default();
        self.here = Here { path: path.to_owned(), before, told, ..Here::default() };
    }

    /// All of it was seen. One that is not there any more has no items.
    pub(super) fn end(&mut self, below: Vec<Vec<u8>>) {
        let here = std::mem::take(&mut self.here);
        if here.items.is_empty() {
            self.folders.remove(&here.path);
        } else {
            self.folders.insert(here.path, Folder { items: here.items, below });
        }
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.folders.contains_key(path)
    }

    pub(super) fn is_told(&self, name: &[u8]) -> bool {
        self.here.told.contains(name)
    }

    pub(super) fn add(&mut self, item: &Item) {
        if matches!(item, Item::Entry(_)) {
            self.here.last = self.here.items.len();
        }
        item.write(&mut self.here.items);
    }

    /// Keeps what is known of a name that looks as it did; `false` where nothing is.
    pub(super) fn keep(&mut self, name: &[u8], inode: u64, ctime: Time) -> bool {
        if self.doubted.is_some_and(|since| nanos(ctime) >= since) {
            return false;
        }
        if let Some(newest) = self.linked.get(&inode) {
            let mut cursor = Cursor(newest);
            let Ok(Some(Item::Entry(entry))) = Item::read(&mut cursor) else { return false };
            if entry.ctime != ctime || entry.kind != Kind::File {
                return false;
            }
            let rest = cursor.0.to_vec();
            self.add(&Item::Entry(Entry { name: name.to_owned(), ..entry }));
            self.here.items.extend(rest);
            return true;
        }
        let known = self.here.before.get(name).filter(|old| (old.inode, old.ctime) == (inode, ctime));
        let Some(range) = known.map(|old| old.range.clone()) else { return false };
        let Some(folder) = self.folders.get(&self.here.path) else { return false };
        self.here.last = self.here.items.len();
        self.here.items.extend_from_slice(&folder.items[range]);
        true
    }

    /// What was just added has this inode, and `names` names.
    pub(super) fn link(&mut self, inode: u64, names: u64) {
        // (One that is alone may have the number of one that had several.)
        if names > 1 || self.linked.contains_key(&inode) {
            self.linked.insert(inode, self.here.items[self.here.last..].to_vec());
        }
    }

    pub(super) fn was_read(&mut self, inode: u64) {
        self.read.insert(inode);
    }

    /// What has to be in the stream before a file of the present directory.
    pub(super) fn announced(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        if self.announced.is_empty() && std::mem::replace(&mut self.begun, true) {
            items.push(Item::Anew);
        }
        let path = self.here.path.clone();
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        let above = std::iter::once(0).chain(ends.filter(|end| *end > 0));
        for end in above {
            let dir = &path[..end];
            if !self.announced.contains(dir) {
                let items_of = if dir == path { Some(&self.here.items) } else { self.items(dir) };
                let entry = items_of.and_then(|bytes| Item::read(&mut Cursor(bytes)).ok().flatten());
                items.extend(entry);
                self.announced.insert(dir.to_owned());
            }
        }
        items
    }

    fn items(&self, path: &[u8]) -> Option<&Vec<u8>> {
        self.folders.get(path).map(|folder| &folder.items)
    }

    /// Inode and ctime of each name in a directory as it was seen last, and ctimes of the directories in it.
    pub(super) fn seen(&self, path: &[u8]) -> HashMap<Vec<u8>, (Option<u64>, Time)> {
        let Some(folder) = self.folders.get(path) else { return HashMap::new() };
        let newest = |inode| self.linked.get(&inode).and_then(|items| first(items)).map(|entry| entry.ctime);
        let files = olds(&folder.items).into_iter().map(|(name, old)| {
            let ctime = newest(old.inode).unwrap_or(old.ctime);
            (name, (Some(old.inode), ctime))
        });
        let below = folder.below.iter().filter_map(|dir| {
            let entry = self.items(dir).and_then(|items| first(items))?;
            let name = dir.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
            Some((name, (None, entry.ctime)))
        });
        files.chain(below).collect()
    }

    /// Paths of files with an inode, or with one whose lower half it is: an overlay may add to the upper.
    pub(super) fn paths_of(&self, inode: u64) -> Vec<Vec<u8>> {
        let is_it = |other: u64| other == inode || other & 0xffff_ffff == inode;
        let mut found = Vec::new();
        for (path, folder) in &self.folders {
            let names = olds(&folder.items).into_iter().filter(|(_, old)| is_it(old.inode));
            found.extend(names.map(|(name, _)| joined(path, &name)));
        }
        found
    }

    /// Tells the whole list, in the order of a stream.
    ///
    /// # Errors
    /// What `put` says.
    pub(super) fn tell(&self, put: &mut dyn FnMut(&Item) -> Result<(), Fault>) -> Result<Counted, Fault> {
        let mut telling = Telling { record: self, firsts: HashMap::new(), counted: Counted::default(), put };
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let Some(folder) = self.folders.get(&path) else { continue };
            telling.folder(&path, &folder.items)?;
            waiting.extend(folder.below.iter().rev().cloned());
        }
        Ok(telling.counted)
    }
}

struct Telling<'a> {
    record: &'a Record,
    /// The first path of each inode that has several.
    firsts: HashMap<u64, Vec<u8>>,
    counted: Counted,
    put: &'a mut dyn FnMut(&Item) -> Result<(), Fault>,
}

impl Telling<'_> {
    fn folder(&mut self, path: &[u8], items: &[u8]) -> Result<(), Fault> {
        let mut cursor = Cursor(items);
        let mut told = true;
        while let Some(item) = Item::read(&mut cursor).map_err(odd)? {
            let Item::Entry(entry) = item else {
                if told {
                    self.one(&item)?;
                }
                continue;
            };
            let newest = self.record.linked.get(&entry.inode).filter(|_| entry.kind != Kind::Dir);
            let Some(newest) = newest else {
                told = true;
                self.one(&Item::Entry(entry))?;
                continue;
            };
            told = false;
            if let Some(first) = self.firsts.get(&entry.inode) {
                let kind = Kind::Hard(first.clone());
                self.one(&Item::Entry(Entry { kind, size: 0, xattrs: Vec::new(), ..entry }))?;
                continue;
            }
            self.firsts.insert(entry.inode, joined(path, &entry.name));
            self.again(newest, &entry.name)?;
        }
        Ok(())
    }

    /// The newest look at a file, under the name that it has here.
    fn again(&mut self, newest: &[u8], name: &[u8]) -> Result<(), Fault> {
        let mut cursor = Cursor(newest);
        while let Some(item) = Item::read(&mut cursor).map_err(odd)? {
            match item {
                Item::Entry(entry) => self.one(&Item::Entry(Entry { name: name.to_owned(), ..entry }))?,
                item => self.one(&item)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, item: &Item) -> Result<(), Fault> {
        match item {
            Item::Entry(entry) => {
                self.counted.entries += 1;
                let known = entry.kind == Kind::File && !self.record.read.contains(&entry.inode);
                self.counted.unread += u64::from(known);
            }
            Item::Ref { length, .. } => self.counted.bytes += u64::from(*length),
            _ => {}
        }
        (self.put)(item)
    }
}

/// It is our own, and was written a moment ago.
fn odd(bad: Bad) -> Fault {
    Fault::Restless(format!("the list of files cannot be read again: {}", bad.0))
}

fn first(items: &[u8]) -> Option<Entry> {
    match Item::read(&mut Cursor(items)) {
        Ok(Some(Item::Entry(entry))) => Some(entry),
        _ => None,
    }
}

/// What was said of each name in a directory; the directory itself comes first, and is none of them.
fn olds(items: &[u8]) -> HashMap<Vec<u8>, Old> {
    let mut olds: HashMap<Vec<u8>, Old> = HashMap::new();
    let mut open: Option<Vec<u8>> = None;
    let mut cursor = Cursor(items);
    loop {
        let at = items.len() - cursor.0.len();
        // (It is our own, and can be read.)
        let Ok(Some(item)) = Item::read(&mut cursor) else { return olds };
        let end = items.len() - cursor.0.len();
        if let Item::Entry(entry) = item {
            open = (entry.kind != Kind::Dir).then(|| {
                let old = Old { inode: entry.inode, ctime: entry.ctime, range: at..end };
                olds.insert(entry.name.clone(), old);
                entry.name
            });
        } else if let Some(old) = open.as_ref().and_then(|name| olds.get_mut(name)) {
            old.range.end = end;
        }
    }
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_owned() } else { [path, b"/", name].concat() }
}
