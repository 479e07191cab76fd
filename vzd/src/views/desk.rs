//! Answers requests, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use vzsys::fuse::Connection;

use super::files::{Files, Kind};
use super::wire::{self, Answer, ENOSYS, Read, Request, Wish};

/// A VE that reads all the time has it counted no more often, unless its limits are changed.
const FRESH: Duration = Duration::from_millis(50);
/// Longer than any text.
const LONGEST: u64 = 1 << 22;
/// As much text is kept for readers who come back for the rest. One that was forgotten gets the rest of a newer text.
const KEPT: usize = 512 * 1024;
const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
/// Texts of as many files are shown again.
const SHOWN: usize = 64;

/// What a request is answered.
enum Reply {
    Bytes(Answer),
    /// A part of a text.
    Text(Rc<str>, Read),
    Errno(i32),
    Silence,
}

/// When the next request is to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// As soon as whoever was answered runs again: whoever has opened a file reads it, and reads on until its end.
    AtOnce,
    Whenever,
}

impl Next {
    fn after(wish: Wish<'_>) -> Self {
        match wish {
            Wish::Open | Wish::Read(Read { offset: 0, direct: true, .. }) => Self::AtOnce,
            _ => Self::Whenever,
        }
    }
}

/// Who answers.
pub(super) struct Desk<F: Files> {
    files: F,
    /// What was shown last.
    last: BTreeMap<F::File, (Instant, Rc<str>)>,
    /// What open files show, by their handles, the oldest first.
    open: Vec<(u64, Rc<str>)>,
    next: u64,
    /// The kernel's version of the protocol.
    minor: u32,
    /// Files that the kernel takes to be as long as can be.
    long: BTreeSet<u64>,
    /// As long as that: longer than any text.
    reach: u64,
    /// Where an answer is put together.
    whole: Vec<u8>,
}

impl<F: Files> Desk<F> {
    pub(super) fn new(files: F) -> Self {
        Self {
            files,
            last: BTreeMap::new(),
            open: Vec::new(),
            next: 1,
            minor: 0,
            long: BTreeSet::new(),
            reach: LONGEST,
            whole: Vec::new(),
        }
    }

    /// How long [`Desk::tick`] can wait.
    pub(super) fn left(&self) -> Option<Duration> {
        self.files.left()
    }

    /// Goes on where another has died, of whom this is an older copy: what he gave out since is not known here.
    pub(super) fn inherit(&mut self) {
        self.files.close();
        self.open.clear();
        self.last.clear();
        self.long.clear();
        self.next += 1 << 32;
        self.reach += 1 << 32;
    }

    /// For whoever does not answer now: what the other one closes is to be closed.
    pub(super) fn stand_by(&mut self) {
        self.files.close();
    }

    /// Counts what has to be counted regularly.
    pub(super) fn tick(&mut self) {
        self.files.tick();
    }

    /// Answers the request in flight, if there is one.
    pub(super) fn serve(&mut self, connection: &mut Connection) -> Next {
        let mut next = Next::Whenever;
        let request = connection.pending().and_then(Request::parse);
        if let Some(Request { unique, node, wish }) = request {
            next = Next::after(wish);
            if matches!(self.files.kind(node), Some(Kind::File(_)))
                && let Some(size) = self.is_to_reach(node, wish)
            {
                connection.answer(&wire::reaches(node, size));
            }
            let reply = self.reply(node, wish);
            // In one piece, which the kernel takes in less time than two.
            let whole = &mut self.whole;
            let mut send = |errno, body: &[u8]| {
                whole.clear();
                whole.extend_from_slice(&wire::head(unique, errno, body.len()));
                whole.extend_from_slice(body);
                connection.answer(whole);
            };
            match &reply {
                Reply::Bytes(answer) => send(0, answer.bytes()),
                Reply::Text(text, part) => send(0, slice(text, part)),
                Reply::Errno(errno) => send(*errno, &[]),
                Reply::Silence => {}
            }
        }
        connection.answered();
        next
    }

    /// How far the kernel has to be told first that the file may reach: [`wire::reaches`]. That takes longer than all the
    /// rest, and it remembers until it learns where a file ends, by a read into its page cache.
    fn is_to_reach(&mut self, node: u64, wish: Wish<'_>) -> Option<u64> {
        match wish {
            Wish::Open => self.long.insert(node).then_some(self.reach),
            // Farther than ever, or it takes no notice, and the size that it is told now counts.
            Wish::Attributes => {
                self.long.insert(node);
                self.reach += 1;
                Some(self.reach)
            }
            Wish::Read(Read { direct: false, .. }) => {
                self.long.remove(&node);
                None
            }
            _ => None,
        }
    }

    fn reply(&mut self, node: u64, wish: Wish<'_>) -> Reply {
        let Some(kind) = self.files.kind(node) else { return self.without_node(wish) };
        match (wish, kind) {
            (Wish::Lookup(name), Kind::Directory) => self.lookup(node, name),
            (Wish::Lookup(_) | Wish::OpenDirectory | Wish::ReadDirectory(_), Kind::File(_) | Kind::Link) => {
                Reply::Errno(ENOTDIR)
            }
            (Wish::Open | Wish::Read(_), Kind::Directory) => Reply::Errno(EISDIR),
            (Wish::ReadLink, Kind::Link) => self
                .files
                .target(node)
                .map_or(Reply::Errno(ENOENT), |text| Reply::Bytes(Answer::target(&text))),
            (Wish::ReadLink, _) => Reply::Errno(EINVAL),
            (Wish::Attributes, _) => self
                .files
                .attributes(node)
                .map_or(Reply::Errno(ENOENT), |of| Reply::Bytes(Answer::attributes(of, self.minor))),
            (Wish::Open, Kind::File(_)) => {
                self.next += 1;
                Reply::Bytes(Answer::opened(self.next))
            }
            (Wish::Read(part), Kind::File(file)) => Reply::Text(self.shown(file, &part), part),
            (Wish::OpenDirectory, Kind::Directory) => Reply::Bytes(Answer::opened_directory()),
            (Wish::ReadDirectory(part), Kind::Directory) => Reply::Bytes(self.list(node, &part)),
            (other, _) => self.without_node(other),
        }
    }

    fn without_node(&mut self, wish: Wish<'_>) -> Reply {
        match wish {
            Wish::Hello { minor } => {
                self.minor = minor;
                Reply::Bytes(Answer::hello(minor))
            }
            Wish::Statistics => Reply::Bytes(Answer::statistics()),
            Wish::Release(handle) => {
                self.open.retain(|(open, _)| *open != handle);
                Reply::Bytes(Answer::default())
            }
            Wish::ReleaseDirectory => Reply::Bytes(Answer::default()),
            Wish::Forget => {
                self.long.clear();
                Reply::Silence
            }
            Wish::Nothing => Reply::Silence,
            Wish::Unknown => Reply::Errno(ENOSYS),
            _ => Reply::Errno(ENOENT),
        }
    }

    fn lookup(&mut self, parent: u64, name: &[u8]) -> Reply {
        let found = self.files.find(parent, name).and_then(|node| self.files.attributes(node));
        found.map_or(Reply::Errno(ENOENT), |of| {
            // It comes with a size, which counts.
            self.long.remove(&of.node);
            Reply::Bytes(Answer::found(of, self.minor))
        })
    }

    fn list(&mut self, parent: u64, part: &Read) -> Answer {
        let mut answer = Answer::default();
        let room = usize::try_from(part.size).unwrap_or(0);
        let skip = usize::try_from(part.offset).unwrap_or(usize::MAX);
        for (next, (node, name)) in (1..).zip(self.files.below(parent)).skip(skip) {
            let mode = self.files.attributes(node).map_or(0, |of| of.mode);
            if !answer.entry(room, next, node, mode, &name) {
                break;
            }
        }
        answer
    }

    /// Who reads from the start gets what is so now; who goes on, what he began with.
    fn shown(&mut self, file: F::File, part: &Read) -> Rc<str> {
        if part.offset > 0
            && let Some((_, text)) = self.open.iter().find(|(handle, _)| *handle == part.handle)
        {
            return Rc::clone(text);
        }
        let text = self.now(file);
        self.open.retain(|(handle, _)| *handle != part.handle);
        self.open.push((part.handle, Rc::clone(&text)));
        let mut kept: usize =
            self.open.iter().map(|(_, text)| text.len() + size_of::<(u64, Rc<str>)>()).sum();
        while kept > KEPT && self.open.len() > 1 {
            kept -= self.open.remove(0).1.len() + size_of::<(u64, Rc<str>)>();
        }
        text
    }

    fn now(&mut self, file: F::File) -> Rc<str> {
        if self.files.changed() {
            self.last.clear();
        }
        if let Some((at, text)) = self.last.get(&file)
            && at.elapsed() < FRESH
        {
            return Rc::clone(text);
        }
        let text: Rc<str> = self.files.text(file).into();
        if self.last.len() >= SHOWN {
            self.last.clear();
        }
        self.last.insert(file, (Instant::now(), Rc::clone(&text)));
        text
    }
}

fn slice<'t>(text: &'t str, part: &Read) -> &'t [u8] {
    let begin = usize::try_from(part.offset).unwrap_or(usize::MAX).min(text.len());
    let end = begin.saturating_add(usize::try_from(part.size).unwrap_or(0)).min(text.len());
    &text.as_bytes()[begin..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_the_text_does() {
        let part = |offset, size| Read { handle: 1, offset, size, direct: true };
        assert_eq!(slice("abc", &part(0, 2)), b"ab");
        assert_eq!(slice("abc", &part(2, 9)), b"c");
        assert_eq!(slice("abc", &part(3, 9)), b"");
        assert_eq!(slice("abc", &part(u64::MAX, u32::MAX)), b"");
    }
}
