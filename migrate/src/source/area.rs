//! The files of a VE, pass by pass.

use std::io::{Read, Write};
use std::path::Path;

use criu::{Images, MANIFEST};
use templates::replica::{
    Content, Digests, Hashing, Measure, Meta, More, Op, PIECE, Passed, ReplicaError, Scan, Sink,
};
use ve::Ve;
use ve::arrive::Subject;
use ve::depart::Luggage;
use ve::fit::Needs;
use ve::tracking::{Changed, Tracking};
use vzconf::Ctid;

use super::hollow;
use super::talk::{Talk, unexpected};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::wire::{Answer, Ask, Tree};

/// What there is to send.
#[derive(Debug)]
pub(super) struct Source {
    area: Scan,
    /// Tells what changed in the area since its last pass.
    tracking: Option<Tracking>,
    dump: Option<Scan>,
    size: Measure,
    base: u64,
    /// Bytes of the dump.
    saved: u64,
}

fn unreadable(error: &ReplicaError) -> Error {
    Error::here(Exit::Copy, format!("cannot read the files: {error}"))
}

impl Source {
    /// Opens the trees, and counts what is in them.
    pub(super) fn new(luggage: &Luggage) -> Result<Self> {
        let open = |path: &Path| Scan::new(path).map_err(|error| unreadable(&error));
        let area = open(&luggage.area)?.hollow(hollow(luggage.layout));
        let dump = luggage.dump.as_deref().map(open).transpose()?;
        let size = area.measure().map_err(|error| unreadable(&error))?;
        let base = match &luggage.base {
            Some((_, path)) => open(path)?.measure().map_err(|error| unreadable(&error))?.bytes,
            None => 0,
        };
        let saved = dump.as_ref().map(Scan::measure).transpose().map_err(|error| unreadable(&error))?;
        Ok(Self { area, tracking: None, dump, size, base, saved: saved.unwrap_or_default().bytes })
    }

    /// What the destination has to know.
    pub(super) fn subject(&self, ctid: Ctid, luggage: &Luggage, needs: Option<Needs>) -> Subject {
        Subject {
            ctid: ctid.get(),
            name: luggage.name.clone(),
            addresses: luggage.addresses.clone(),
            bridges: luggage.bridges.clone(),
            layout: luggage.layout.word().to_owned(),
            image: luggage.image,
            base: luggage.base.as_ref().map(|(id, _)| id.clone()),
            bytes: self.size.bytes + self.base + self.saved,
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            needs,
        }
    }

    /// From now on passes look only at what has changed, where that is told; before the first one. Why it is not told.
    pub(super) fn track(&mut self, ve: &Ve<'_>, luggage: &Luggage) -> std::result::Result<(), String> {
        self.tracking = Some(Tracking::start(ve, luggage)?);
        Ok(())
    }

    /// Sends what has changed since the last pass over the area. Returns bytes of files.
    pub(super) fn round<R: Read, W: Write>(&mut self, more: bool, talk: &mut Talk<'_, R, W>) -> Result<u64> {
        let Some(tracking) = &mut self.tracking else { return self.pass(Tree::Area, more, talk) };
        let Changed { changes, open } = match tracking.changed() {
            Ok(changed) => changed,
            Err(why) => {
                talk.say(1, &format!("All files are looked at: {why}"));
                self.tracking = None;
                return self.pass(Tree::Area, more, talk);
            }
        };
        let (area, more) = (&mut self.area, if more { More::ToCome } else { More::Nothing });
        let later = more == More::Nothing;
        let copied = Copied { later, ..copied(Tree::Area, "private", self.size.bytes) };
        send(copied, talk, |talk| area.pass_over(&changes, &open, more, talk).map(bytes))
    }

    /// Sends what has changed since the last pass, all of it in the first one. Returns bytes of files.
    pub(super) fn pass<R: Read, W: Write>(
        &mut self,
        tree: Tree,
        more: bool,
        talk: &mut Talk<'_, R, W>,
    ) -> Result<u64> {
        let more = if more { More::ToCome } else { More::Nothing };
        let total = self.size.bytes;
        match (tree, &mut self.dump) {
            (Tree::Area, _) => {
                send(copied(tree, "private", total), talk, |talk| self.area.pass(more, talk).map(bytes))
            }
            (Tree::Dump, Some(dump)) => {
                send(copied(tree, "dump", self.saved), talk, |talk| dump.pass(more, talk).map(bytes))
            }
            _ => Ok(0),
        }
    }

    /// Sends the images of a VE's memory, which are complete but for their list: their hashes are made on the way.
    pub(super) fn send_memory<R: Read, W: Write>(images: &Images, talk: &mut Talk<'_, R, W>) -> Result<u64> {
        let mut scan = Scan::new(images.path()).map_err(|error| unreadable(&error))?;
        let size = scan.measure().map_err(|error| unreadable(&error))?;
        let copied = Copied { later: true, ..copied(Tree::Memory, "memory", size.bytes) };
        send(copied, talk, |talk| {
            let mut hashing = Hashing { sink: talk, digests: Digests::default() };
            let passed = scan.pass(More::Nothing, &mut hashing)?;
            let digests = hashing.digests;
            let list = images.list_known(&|name| digests.of(name));
            let list = list.map_err(|error| ReplicaError::Sink(Box::new(error)))?;
            let path = MANIFEST.as_bytes().to_vec();
            talk.op(Op::File { path, content: Content::New })?;
            for (number, piece) in list.as_bytes().chunks(PIECE).enumerate() {
                talk.data((number * PIECE) as u64, piece)?;
            }
            let meta = Meta { mode: 0o644, ..Meta::default() };
            talk.op(Op::Close { size: list.len() as u64, meta })?;
            Ok(passed.bytes + list.len() as u64)
        })
    }

    /// Sends the unpacked template.
    pub(super) fn send_base<R: Read, W: Write>(
        path: &Path,
        talk: &mut Talk<'_, R, W>,
        this: &Self,
    ) -> Result<u64> {
        let mut scan = Scan::new(path).map_err(|error| unreadable(&error))?;
        send(copied(Tree::Base, "template", this.base), talk, |talk| {
            scan.pass(More::Nothing, talk).map(bytes)
        })
    }
}

/// What a pass is over.
struct Copied {
    tree: Tree,
    /// For the user, with about so many bytes.
    label: &'static str,
    total: u64,
    /// The destination does not wait until it is on its disk.
    later: bool,
}

fn copied(tree: Tree, label: &'static str, total: u64) -> Copied {
    Copied { tree, label, total, later: false }
}

fn bytes(passed: Passed) -> u64 {
    passed.bytes
}

fn send<R: Read, W: Write>(
    copied: Copied,
    talk: &mut Talk<'_, R, W>,
    pass: impl FnOnce(&mut Talk<'_, R, W>) -> std::result::Result<u64, ReplicaError>,
) -> Result<u64> {
    match talk.call(&Ask::Tree { tree: copied.tree })? {
        Answer::Fine => {}
        other => return Err(unexpected(&other)),
    }
    talk.copying(copied.label, copied.total);
    let sent = match pass(talk) {
        Ok(sent) => sent,
        Err(error) => return Err(talk.copy_failed(error)),
    };
    match talk.call(&Ask::PassEnd { later: copied.later })? {
        Answer::Passed { bytes } if bytes == sent => Ok(bytes),
        other => Err(unexpected(&other)),
    }
}
