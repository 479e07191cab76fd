//! How a move ends: the VE is given away, or stays; and what is done when nobody answers.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ve::Node;
use ve::handover::{Handover, Leave, Part};
use ve::interrupted::{self, Wake};
use vzconf::Ctid;

use super::Attempt;
use super::talk::{Talk, unexpected};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::observer::Quiet;
use crate::phase::Phase;
use crate::transport::{Connection, Ssh};
use crate::wire::{Answer, Ask, Verdict};

/// How long the destination is asked again after a connection was lost in the last moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of packets in one message.
const BATCH: usize = 4 << 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

impl Attempt<'_> {
    /// The point of no return, and what follows.
    pub(super) fn give<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        kept: &mut Option<Handover>,
        packets: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> Result<()> {
        let Some(record) = kept.as_mut() else {
            return Err(Error::here(Exit::Usage, "there is no record of the move"));
        };
        self.begin(Phase::Commit)?;
        // From here on the answer of the destination decides, not the user.
        self.interrupt.ignore(true);
        let mut committed = record.clone();
        set(&mut committed, Leave::Committed);
        // COMMIT: the VE is not ours any more.
        committed.save(&self.node.paths).map_err(|error| Error::verb(Exit::Usage, &error))?;
        *record = committed;
        vzsys::fault::point("source.committed");
        self.outcome.times.begin(Phase::Start);
        self.observer.phase(Phase::Start);
        if matches!(&record.part, Part::Leaving(leaving) if leaving.running && !leaving.online) {
            self.observer.say(0, "Starting container");
        }
        match talk.call(&Ask::Go) {
            Ok(Answer::Running) => {}
            Ok(Answer::Aborted { failure, left }) => {
                talk.left(&left);
                let text = failure.as_ref().map_or("it was not taken", |failure| &failure.text);
                let exit = failure.as_ref().map_or(Exit::Start, |failure| failure.exit);
                let text = format!("{}: {text}", self.options.destination);
                let error = self.take_back(record, Error::here(exit, text));
                *kept = None;
                return Err(error);
            }
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => return Err(error),
        }
        vzsys::fault::point("source.answered");
        self.gone_on = Some(Instant::now());
        if matches!(&record.part, Part::Leaving(leaving) if leaving.online) {
            self.outcome.times.begin(Phase::Packets);
            self.observer.phase(Phase::Packets);
        }
        self.forward(talk, packets());
        self.arrived(record)?;
        // Nobody has to ask again.
        self.untold = talk.call(&Ask::Done { id: record.id.clone() }).is_err();
        Ok(())
    }

    /// Sends after it what came for it while it stood still. What does not arrive is sent again by who waits for it.
    fn forward<R: Read, W: Write>(&mut self, talk: &mut Talk<'_, R, W>, packets: Vec<Vec<u8>>) {
        self.outcome.packets = packets.len() as u64;
        let mut left = packets.into_iter().peekable();
        while left.peek().is_some() {
            let mut bytes = 0;
            let packets = std::iter::from_fn(|| {
                left.next_if(|packet| {
                    let first = bytes == 0;
                    bytes += packet.len();
                    first || bytes <= BATCH
                })
            });
            if talk.call(&Ask::Packets { packets: packets.collect() }).is_err() {
                break;
            }
        }
    }

    /// The destination has it.
    fn arrived(&mut self, record: &mut Handover) -> Result<()> {
        set(record, Leave::Done);
        record.save(&self.node.paths).map_err(|error| Error::verb(Exit::Usage, &error))?;
        self.outcome.times.end();
        Ok(())
    }

    /// What is left here of a VE that the destination has.
    pub(super) fn clean(&mut self, record: Option<&Handover>) {
        let Some((record, Part::Leaving(leaving))) = record.map(|record| (record, &record.part)) else {
            return;
        };
        self.outcome.times.begin(Phase::Clean);
        self.observer.phase(Phase::Clean);
        vzsys::fault::point("source.done");
        self.observer.say(0, "Cleaning up");
        if let Err(error) = interrupted::retire(self.node, self.ctid, record, leaving) {
            // The move went well; what is left here the next verb removes.
            self.observer.say(-1, &format!("WARNING: {}", ve::describe(&error)));
        }
    }

    /// Tells the destination that nobody will ask again, when the connection was lost before that could be said.
    pub(super) fn tell(&mut self, connection: &mut Connection, record: Option<&Handover>) {
        let Some(record) = record.filter(|_| std::mem::take(&mut self.untold)) else { return };
        connection.end();
        match open(&self.options.ssh, &record.peer) {
            Ok(connection) => tell_done(connection, &record.id),
            // It keeps a note that is of no use.
            Err(error) => self.observer.say(1, &ve::describe(&error)),
        }
    }

    /// The destination said that it does not have it: the VE is ours again.
    fn take_back(&mut self, record: &mut Handover, why: Error) -> Error {
        match reclaim(self.node, self.ctid, record) {
            Ok(()) => why,
            Err(error) => {
                Error::here(why.exit(), format!("{}; and here: {}", ve::describe(&why), ve::describe(&error)))
            }
        }
    }

    /// The connection was lost after the point of no return: only the destination knows.
    pub(super) fn after_commit(
        &mut self,
        connection: &mut Connection,
        kept: &mut Option<Handover>,
        error: Error,
    ) -> Result<()> {
        let why = match error {
            Error::Wire(wire) => connection.explain(wire),
            Error::There { .. } => error,
            // It has answered, and that was acted upon; or what failed is on this side and after it.
            other => return Err(other),
        };
        let Some(record) = kept.as_mut() else { return Err(why) };
        self.observer.say(-1, &format!("WARNING: {}; asking again", ve::describe(&why)));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match verdict(&self.options.ssh, record, Verdict::Given) {
                Ok((Verdict::Given, again)) => {
                    self.arrived(record)?;
                    tell_done(again, &record.id);
                    return Ok(());
                }
                Ok((Verdict::Kept, _)) => {
                    let error = self.take_back(record, why);
                    *kept = None;
                    return Err(error);
                }
                Ok((Verdict::Undecided, _)) | Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE)
                }
                Ok(_) | Err(_) => {
                    return Err(Error::InDoubt {
                        text: format!(
                            "{}; nobody knows whether CT {} runs on {} now; it does not run here",
                            ve::describe(&why),
                            self.ctid,
                            record.peer
                        ),
                        hint: format!(
                            "Once {} can be reached: vzmigrate --resolve {}",
                            record.peer, self.ctid
                        ),
                    });
                }
            }
        }
    }

    /// Tells the destination that the move is given up, if it can be told; whether it has cleaned up.
    pub(super) fn call_off(&self, connection: &mut Connection) -> bool {
        let Ok(link) = connection.link() else { return false };
        if link.is_broken() {
            // In the middle of something: the end of the connection tells it.
            return false;
        }
        Talk::new(link, &self.options.destination, self.observer).call_off()
    }

    /// The move failed, and the VE is ours: it becomes what it was.
    pub(super) fn restore(&self, record: Option<Handover>, confirmed: bool, error: Error) -> Result<()> {
        let Some(mut record) = record else { return Err(error) };
        if confirmed && super::stage(&record) == Leave::Offered {
            set(&mut record, Leave::Halted);
        }
        if let Err(more) = interrupted::keep(self.node, self.ctid, &record, Wake::Yes) {
            return Err(Error::here(
                error.exit(),
                format!("{}; and here: {}", ve::describe(&error), ve::describe(&more)),
            ));
        }
        // Not told yet: it may have everything, and waits for a word.
        if !confirmed
            && super::stage(&record) >= Leave::Offered
            && told(self.node, self.ctid, &self.options.ssh).is_err()
        {
            let text = format!(
                "WARNING: {} could not be told; once it can be reached: vzmigrate --resolve {}",
                record.peer, self.ctid
            );
            self.observer.say(-1, &text);
        }
        Err(error)
    }
}

/// Changes how far the source is.
pub(crate) fn set(record: &mut Handover, stage: Leave) {
    if let Part::Leaving(leaving) = &mut record.part {
        leaving.stage = stage;
    }
}

/// The destination does not have it and never will: the VE is this host's, in an epoch of its own.
pub(crate) fn reclaim(node: &Node, ctid: Ctid, record: &mut Handover) -> Result<()> {
    let failed = |error: ve::Error| Error::verb(Exit::Start, &error);
    let epoch = ve::handover::Epoch { number: record.epoch + 1, left_for: None };
    ve::handover::set_epoch(&node.paths, ctid, &epoch).map_err(failed)?;
    set(record, Leave::Halted);
    record.save(&node.paths).map_err(failed)?;
    interrupted::keep(node, ctid, record, Wake::Yes).map_err(failed)
}

/// Asks the destination how a move ended, on a connection of its own.
pub(crate) fn verdict(ssh: &Ssh, record: &Handover, ours: Verdict) -> Result<(Verdict, Connection)> {
    let mut connection = open(ssh, &record.peer)?;
    let ask = Ask::Resolve { id: record.id.clone(), ctid: record.ctid, verdict: Some(ours) };
    let answer = Talk::new(connection.link()?, &record.peer, &Quiet).call(&ask)?;
    match answer {
        Answer::Resolved(verdict) => Ok((verdict, connection)),
        other => Err(unexpected(&other)),
    }
}

/// A connection of its own: one that is kept open may be the one that was lost.
fn open(ssh: &Ssh, peer: &str) -> Result<Connection> {
    Connection::open(&Ssh { mux: false, ..ssh.clone() }, peer, &Interrupt::never())
}

/// The other side may forget the move.
pub(crate) fn tell_done(mut connection: Connection, id: &str) {
    if let Ok(link) = connection.link() {
        let _ = Talk::new(link, "", &Quiet).call(&Ask::Done { id: id.to_owned() });
    }
    connection.end();
}

/// Tells a destination that may have everything that the move was given up, and forgets the move.
pub(crate) fn told(node: &Node, ctid: Ctid, ssh: &Ssh) -> Result<()> {
    let Some(record) = super::load(node, ctid)? else { return Ok(()) };
    match verdict(ssh, &record, Verdict::Kept)?.0 {
        Verdict::Kept => {
            Handover::forget(&node.paths, ctid).map_err(|error| Error::verb(Exit::Usage, &error))
        }
        Verdict::Undecided => {
            Err(Error::here(Exit::Locked, format!("CT {ctid} is locked on {}", record.peer)))
        }
        Verdict::Given => Err(Error::here(
            Exit::Exists,
            format!("{} says that CT {ctid} is its own, though it was never given away", record.peer),
        )),
    }
}
