//! `vzmigrate --resolve CTID`: a move that was interrupted is brought to its end.

use ve::handover::{Handover, Leave, Leaving, Part, Then};
use ve::interrupted::{self, Wake};
use ve::{Node, arrive};
use vzconf::Ctid;

use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::source::{reclaim, set, tell_done, told, verdict};
use crate::transport::{Connection, Ssh};
use crate::wire::{Answer, Ask, Received, Verdict};

/// What the admin knows and no program can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dead {
    /// The destination will never run the VE: it is off, and its copy is gone or will be.
    pub destination: bool,
    /// The source will never run the VE again.
    pub source: bool,
}

/// Brings it to its end; asks the other host where that has to be.
///
/// # Errors
/// 4 when the other host cannot be reached, 20 when it is still at work, 7 and 8 as the verbs that are needed.
pub fn resolve(node: &Node, ctid: Ctid, ssh: &Ssh, dead: Dead, observer: &dyn Observer) -> Result<()> {
    let _lock = node.lock(ctid, "resolving").map_err(|error| Error::verb(Exit::Usage, &error))?;
    let load = || Handover::load(&node.paths, ctid).map_err(|error| Error::verb(Exit::Usage, &error));
    let Some(record) = load()? else {
        observer.say(0, &format!("CT {ctid}: there is nothing to resolve"));
        return Ok(());
    };
    match record.part.clone() {
        Part::Leaving(leaving) => {
            let ssh = Ssh { options: [ssh.options.clone(), leaving.ssh.clone()].concat(), ..ssh.clone() };
            as_source(node, ctid, &ssh, dead, record, &leaving, observer)
        }
        Part::Arriving(_) => as_destination(node, ctid, ssh, dead, &record, observer),
    }
}

fn as_source(
    node: &Node,
    ctid: Ctid,
    ssh: &Ssh,
    dead: Dead,
    mut record: Handover,
    leaving: &Leaving,
    observer: &dyn Observer,
) -> Result<()> {
    let stays = |text: &str| observer.say(0, &format!("CT {ctid} stays here{text}"));
    if leaving.stage < Leave::Committed {
        interrupted::mend(node, ctid, Wake::Yes).map_err(|error| Error::verb(Exit::Start, &error))?;
        if dead.destination {
            Handover::forget(&node.paths, ctid).map_err(|error| Error::verb(Exit::Usage, &error))?;
        } else {
            told(node, ctid, ssh)?;
        }
        stays("");
        return Ok(());
    }
    let given = if leaving.stage == Leave::Done {
        // It is known to be there; whether that one keeps a note of the move is of no weight.
        verdict(ssh, &record, Verdict::Given).ok().map(|(_, connection)| connection)
    } else if dead.destination {
        reclaim(node, ctid, &mut record)?;
        stays(&format!("; should {} come back, destroy its copy there before anything else", record.peer));
        return Ok(());
    } else {
        match verdict(ssh, &record, Verdict::Given)? {
            (Verdict::Given, connection) => Some(connection),
            (Verdict::Kept, _) => {
                reclaim(node, ctid, &mut record)?;
                stays(&format!("; {} could not take it", record.peer));
                return Ok(());
            }
            (Verdict::Undecided, _) => {
                return Err(Error::here(
                    Exit::Locked,
                    format!("{} is still at work on CT {ctid}", record.peer),
                ));
            }
        }
    };
    set(&mut record, Leave::Done);
    record.save(&node.paths).map_err(|error| Error::verb(Exit::Usage, &error))?;
    interrupted::retire(node, ctid, &record, leaving).map_err(|error| Error::verb(Exit::Usage, &error))?;
    given.into_iter().for_each(|connection| tell_done(connection, &record.id));
    observer.say(0, &format!("CT {ctid} is on {}", record.peer));
    Ok(())
}

fn as_destination(
    node: &Node,
    ctid: Ctid,
    ssh: &Ssh,
    dead: Dead,
    record: &Handover,
    observer: &dyn Observer,
) -> Result<()> {
    let waits = matches!(&record.part, Part::Arriving(arriving)
        if arriving.stage == ve::handover::Arrive::Prepared && !record.is_owned(&node.paths));
    if !waits {
        interrupted::mend(node, ctid, Wake::Yes).map_err(|error| Error::verb(Exit::Start, &error))?;
        let here = node.ve(ctid).is_ok_and(|ve| ve.config.exists());
        observer.say(0, &format!("CT {ctid} is {}", if here { "here" } else { "not here" }));
        return Ok(());
    }
    let theirs = if dead.source { Verdict::Given } else { ask_source(ssh, record)? };
    match theirs {
        Verdict::Given => {
            let taken = interrupted::take(node, record, Wake::Yes);
            let resumes = matches!(&record.part, Part::Arriving(arriving) if arriving.then == Then::Resume);
            let taken = match taken {
                // Nobody else has it any more.
                Err(error) if dead.source && resumes => {
                    let why = ve::describe(&error);
                    observer.say(-1, &format!("WARNING: {why}; CT {ctid} starts from its disk"));
                    let mut record = record.clone();
                    arrive::without_memory(node, &mut record)
                        .and_then(|()| interrupted::take(node, &record, Wake::Yes))
                }
                taken => taken,
            };
            taken.map_err(|error| Error::verb(Exit::Start, &error))?;
            observer.say(0, &format!("CT {ctid} is here"));
            Ok(())
        }
        Verdict::Kept => {
            let left = arrive::discard(node, record);
            if !left.is_empty() {
                return Err(Error::here(Exit::Copy, left.join("; ")));
            }
            observer.say(0, &format!("CT {ctid} is not here; it stayed on {}", record.peer));
            Ok(())
        }
        Verdict::Undecided => {
            Err(Error::here(Exit::Locked, format!("{} is still at work on CT {ctid}", record.peer)))
        }
    }
}

fn ask_source(ssh: &Ssh, record: &Handover) -> Result<Verdict> {
    let mut connection = Connection::open(ssh, &record.peer, &Interrupt::never())?;
    let ask = Ask::Resolve { id: record.id.clone(), ctid: record.ctid, verdict: None };
    let link = connection.link()?;
    link.send(&ask)?;
    link.flush()?;
    loop {
        match link.receive::<Answer>()? {
            Received::Message(Answer::Resolved(verdict)) => return Ok(verdict),
            Received::Message(Answer::Said(_)) => {}
            Received::Message(Answer::Failed { failure, .. }) => {
                return Err(Error::There { peer: record.peer.clone(), failure });
            }
            other => return Err(crate::wire::WireError::Protocol(format!("{other:?}")).into()),
        }
    }
}
