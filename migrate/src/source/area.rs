//! The files of a VE, pass by pass.

use std::io::{Read, Write};
use std::path::Path;

use templates::replica::{Measure, More, ReplicaError, Scan};
use ve::arrive::Subject;
use ve::depart::Luggage;
use ve::fit::Needs;
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
        Ok(Self { area, dump, size, base, saved: saved.unwrap_or_default().bytes })
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
            (Tree::Area, _) => send(tree, &mut self.area, more, ("private", total), talk),
            (Tree::Dump, Some(dump)) => send(tree, dump, more, ("dump", self.saved), talk),
            _ => Ok(0),
        }
    }

    /// Sends the images of a VE's memory.
    pub(super) fn send_memory<R: Read, W: Write>(images: &Path, talk: &mut Talk<'_, R, W>) -> Result<u64> {
        let mut scan = Scan::new(images).map_err(|error| unreadable(&error))?;
        let size = scan.measure().map_err(|error| unreadable(&error))?;
        send(Tree::Memory, &mut scan, More::Nothing, ("memory", size.bytes), talk)
    }

    /// Sends the unpacked template.
    pub(super) fn send_base<R: Read, W: Write>(
        path: &Path,
        talk: &mut Talk<'_, R, W>,
        this: &Self,
    ) -> Result<u64> {
        let mut scan = Scan::new(path).map_err(|error| unreadable(&error))?;
        send(Tree::Base, &mut scan, More::Nothing, ("template", this.base), talk)
    }
}

fn send<R: Read, W: Write>(
    tree: Tree,
    scan: &mut Scan,
    more: More,
    (label, total): (&'static str, u64),
    talk: &mut Talk<'_, R, W>,
) -> Result<u64> {
    match talk.call(&Ask::Tree { tree })? {
        Answer::Fine => {}
        other => return Err(unexpected(&other)),
    }
    talk.copying(label, total);
    let passed = match scan.pass(more, talk) {
        Ok(passed) => passed,
        Err(error) => return Err(talk.copy_failed(error)),
    };
    match talk.call(&Ask::PassEnd)? {
        Answer::Passed { bytes } if bytes == passed.bytes => Ok(bytes),
        other => Err(unexpected(&other)),
    }
}
