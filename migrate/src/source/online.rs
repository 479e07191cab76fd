//! A VE that goes on: it stands still from the dump here until it runs there, and all that is decided meanwhile is
//! decided while CRIU holds it.

use std::io::{Read, Write};
use std::time::Instant;

use ve::checkpoint::{self, After, Held};
use ve::handover::{self, Handover, Leave, Then};
use ve::{Ve, depart, obstacles};

use super::area::Source as Files;
use super::talk::Talk;
use super::{Attempt, Cargo, is_committed};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::phase::Phase;
use crate::transport::Connection;

/// Passes over the files of a VE that runs, after the first, at most.
const ROUNDS: usize = 8;
/// A pass that sent no more than this was short enough, in bytes.
const LITTLE: u64 = 1 << 20;

/// What is in the way on this host, all of it at once.
pub(super) fn check(ve: &Ve<'_>) -> Result<()> {
    let state = ve.must_run().map_err(|error| Error::verb(Exit::NotRunning, &error))?;
    let found = obstacles::find(ve, &state);
    if found.is_empty() {
        return Ok(());
    }
    let exit = if found.iter().any(|o| o.kind == "criu") { Exit::CriuVersion } else { Exit::Stop };
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    let text = format!("CT {} cannot be moved while it runs: {}", ve.ctid, all.join("; "));
    Err(Error::advised(exit, text, "Without --online it is stopped, moved and started"))
}

/// It is there now: nothing here answers for it any more. What came for it is to follow it.
fn leave(ve: &Ve<'_>, held: &mut Held<'_>) -> Vec<Vec<u8>> {
    let left = held.network.take().map(|hold| hold.leave()).transpose();
    left.unwrap_or_else(|error| {
        ve.say(1, &format!("What came for it is lost: {}", ve::describe(&error)));
        None
    })
    .unwrap_or_default()
}

impl Attempt<'_> {
    /// More passes, while it runs, until little has changed in one or there is no end to it.
    pub(super) fn rounds<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        ve: &Ve<'_>,
        files: &mut Files,
    ) -> Result<()> {
        let (mut before, mut poor) = (u64::MAX, 0);
        for _ in 0..ROUNDS {
            self.begin(Phase::Rounds)?;
            depart::flush(ve);
            let sent = files.round(true, talk)?;
            self.outcome.passes.push(sent);
            // It writes as fast as we send.
            poor += u32::from(sent > before / 10 * 9);
            if sent <= LITTLE || poor > 1 {
                break;
            }
            before = sent;
        }
        Ok(())
    }

    /// From its dump to its end here.
    pub(super) fn live(
        &mut self,
        connection: &mut Connection,
        record: &mut Option<Handover>,
        mut cargo: Cargo,
    ) -> Result<()> {
        let stop = |error: &ve::Error| Error::verb(Exit::Stop, error);
        let ve = self.node.ve(self.ctid).map_err(|error| stop(&error))?;
        let (Some(state), Some(needs)) = (&cargo.state, &cargo.needs) else {
            return Err(Error::here(Exit::NotRunning, format!("CT {} is not running", self.ctid)));
        };
        self.begin(Phase::Ready)?;
        self.observer.say(0, "Live migrating container...");
        depart::flush(&ve);
        let target = depart::memory(&ve, needs.memory).map_err(|error| stop(&error))?;
        self.save(record, Leave::Halted)?;
        let options = checkpoint::Options {
            target: &target,
            disconnect: true,
            hold: true,
            keeper: Some(handover::path(&self.node.paths, self.ctid)),
            frozen: false,
        };
        let mut handed = None;
        let files = &mut cargo.files;
        let done = checkpoint::checkpoint(&ve, state, &options, &mut |held| {
            let (after, result) = self.hand_over(connection, record, (&ve, &mut *files), held);
            handed = Some(result);
            Ok(after)
        });
        let result = match (handed, done) {
            (Some(Ok(())), done) => {
                // It runs there, whatever is left here.
                let cleared = done.and_then(|_| checkpoint::clear(&ve));
                if let Err(error) = cleared {
                    self.observer.say(-1, &format!("WARNING: {}", ve::describe(&error)));
                }
                self.clean(record.as_ref());
                Ok(())
            }
            (Some(Err(error)), Ok(_)) => Err(error),
            (Some(Err(error)), Err(more)) => {
                let text = format!("{}; and here: {}", ve::describe(&error), ve::describe(&more));
                Err(Error::here(error.exit(), text))
            }
            (None, Err(error)) => Err(stop(&error)),
            (None, Ok(_)) => Err(Error::here(Exit::Stop, "CRIU did not wait for an answer")),
        };
        if let Err(error) = depart::forget_memory(&target) {
            self.observer.say(-1, &format!("WARNING: {}", ve::describe(&error)));
        }
        result
    }

    /// All of it is in the images, and stands still. What becomes of it here, and how the move went.
    fn hand_over(
        &mut self,
        connection: &mut Connection,
        record: &mut Option<Handover>,
        (ve, files): (&Ve<'_>, &mut Files),
        mut held: Held<'_>,
    ) -> (After, Result<()>) {
        let steps = held.steps;
        for (phase, since) in [
            (Phase::Part, steps.part),
            (Phase::Freeze, steps.freeze),
            (Phase::State, steps.state),
            (Phase::Dump, steps.dump),
            (Phase::Complete, steps.dumped),
        ] {
            self.outcome.times.begin_at(phase, since);
        }
        vzsys::fault::point("source.frozen");
        let since = steps.freeze;
        let given = self.with(connection, |this, talk| {
            this.send_frozen(talk, ve, files, &mut held)?;
            this.offer(talk, record, Then::Resume)?;
            this.give(talk, record, || leave(ve, &mut held))
        });
        let given = match given {
            Err(error) if is_committed(record.as_ref()) => self.after_commit(connection, record, error),
            given => given,
        };
        let until = self.gone_on.unwrap_or_else(Instant::now);
        self.outcome.frozen = given.is_ok().then(|| until.saturating_duration_since(since));
        match given {
            Ok(()) => (After::Kill, Ok(())),
            // Nobody knows whose it is.
            Err(error) if is_committed(record.as_ref()) => (After::Leave, Err(error)),
            Err(error) => (After::Keep, Err(error)),
        }
    }

    fn send_frozen<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        ve: &Ve<'_>,
        files: &mut Files,
        held: &mut Held<'_>,
    ) -> Result<()> {
        let failed = |error: &dyn std::error::Error| Error::here(Exit::Stop, ve::describe(error));
        held.images.complete(held.saved).map_err(|error| failed(&error))?;
        self.begin(Phase::Sync)?;
        let still = depart::still(ve).map_err(|error| failed(&error))?;
        vzsys::fault::point("source.still");
        self.outcome.passes.push(files.round(false, talk)?);
        drop(still);
        self.begin(Phase::Memory)?;
        self.outcome.memory = Files::send_memory(held.images, talk)?;
        Ok(())
    }
}
