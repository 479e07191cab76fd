//! The near side: the coordinator. It owns the VE until its record says `Committed`, and never after that.
//!
//! ```text
//! Connect ─▶ Check ─▶ Reserve ─▶ Base ─▶ Copy ─▶ Stop ─▶ Sync ─▶ Prepare ─▶ Commit ─▶ Start ─▶ Clean
//! online:                                   └─▶ Rounds ─▶ Freeze ─▶ Sync ─▶ Memory ─▶ Prepare …
//!    any failure: the destination drops it, the VE is as it was  │            │  the destination's word decides
//!                                             record: Copying, Halted, Offered, Committed, Done
//! ```

mod area;
mod ending;
mod online;
mod talk;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use templates::layout::Layout;
use ve::depart::{self, Luggage};
use ve::fit::Needs;
use ve::handover::{self, Handover, Leave, Leaving, Part, Then};
use ve::interrupted::Wake;
use ve::state::State;
use ve::stop::{self, Stopped};
use ve::{Node, arrive, mount};
use vzconf::Ctid;

use self::area::Source as Files;
pub(crate) use self::ending::{reclaim, set, tell_done, told, verdict};
use self::talk::Talk;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::id;
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::phase::{Phase, Times};
use crate::transport::{Connection, Pipe, Ssh};
use crate::wire::{Answer, Ask, Compress, Tree};

/// What to move, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The other host, as ssh understands it.
    pub destination: String,
    /// How to reach it.
    pub ssh: Ssh,
    /// With its memory, without an end.
    pub online: bool,
    /// Leave its files here, and its configuration as `CTID.conf.migrated`.
    pub keep_source: bool,
    /// What was copied stays on the destination when the move fails.
    pub keep_destination: bool,
    /// Stop after the checks.
    pub check_only: bool,
    /// Failed checks that do not count.
    pub ignored: Ignored,
    /// Whether files are compressed on their way.
    pub compress: Compress,
}

/// Checks that the user does not care about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored {
    /// `cpu`
    pub cpu: bool,
    /// `ipv6`
    pub ipv6: bool,
    /// `all`: these, addresses and bridges.
    pub all: bool,
}

impl Ignored {
    fn covers(self, obstacle: arrive::Obstacle) -> bool {
        use arrive::Obstacle;
        match obstacle {
            Obstacle::Processor => self.cpu || self.all,
            Obstacle::Ipv6 => self.ipv6 || self.all,
            Obstacle::Bridge | Obstacle::Address => self.all,
            _ => false,
        }
    }
}

/// What a move did.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How long the phases took.
    pub times: Times,
    /// Bytes of files that were sent, by pass.
    pub passes: Vec<u64>,
    /// Bytes that went over the network.
    pub sent: u64,
    /// Bytes of memory and of all that belongs to it, of one that goes on.
    pub memory: u64,
    /// Packets that came for it meanwhile and were sent after it.
    pub packets: u64,
    /// For how long such a one stood still, until it went on there.
    pub frozen: Option<Duration>,
}

/// Moves a VE, or checks whether it could be. The outcome tells how far it came, also of one that failed.
///
/// # Errors
/// [`Error`], with the exit code of the specification. The VE is then as it was, unless the error says otherwise.
pub fn run(
    node: &Node,
    ctid: Ctid,
    options: &Options,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> (Result<()>, Outcome) {
    let mut outcome = Outcome::default();
    let (lock, _) = match node.hold(ctid, "migrating", Wake::Yes) {
        Ok(held) => held,
        Err(error) => return (Err(Error::verb(Exit::Stop, &error)), outcome),
    };
    let result = prepare(node, ctid, options).and_then(|()| {
        observer.phase(Phase::Connect);
        outcome.times.begin(Phase::Connect);
        let mut connection = Connection::open(&options.ssh, &options.destination, interrupt)?;
        let mut attempt = Attempt {
            node,
            ctid,
            options,
            observer,
            interrupt,
            outcome: &mut outcome,
            gone_on: None,
            untold: false,
        };
        attempt.over(&mut connection)
    });
    outcome.times.end();
    drop(lock);
    (result, outcome)
}

/// What can be said without the destination.
fn prepare(node: &Node, ctid: Ctid, options: &Options) -> Result<()> {
    if let Some(Handover { peer, .. }) = load(node, ctid)? {
        (node.say)(1, &format!("An earlier move to {peer} was given up"));
        told(node, ctid, &options.ssh)?;
    }
    let ve = node.ve(ctid).map_err(|error| Error::verb(Exit::Missing, &error))?;
    if !ve.config.exists() {
        let hint = "All containers: vzlist -a".to_owned();
        return Err(Error::advised(Exit::Missing, format!("CT {ctid} does not exist"), hint));
    }
    let running = ve.running().is_some();
    if options.online && !running {
        let hint = format!("Without --online: vzmigrate {} {ctid}", options.destination);
        return Err(Error::advised(Exit::NotRunning, format!("CT {ctid} is not running"), hint));
    }
    if let Some(bound) = depart::bound(&ve).map_err(|error| Error::verb(Exit::Missing, &error))? {
        return Err(Error::advised(Exit::Layout, format!("CT {ctid} {}", bound.why), bound.hint));
    }
    handover::check(&ve, false).map_err(|error| Error::verb(Exit::Locked, &error))?;
    if options.online { online::check(&ve) } else { Ok(()) }
}

fn load(node: &Node, ctid: Ctid) -> Result<Option<Handover>> {
    Handover::load(&node.paths, ctid).map_err(|error| Error::verb(Exit::Usage, &error))
}

/// One try to move.
struct Attempt<'a> {
    node: &'a Node,
    ctid: Ctid,
    options: &'a Options,
    observer: &'a dyn Observer,
    interrupt: &'a Interrupt,
    outcome: &'a mut Outcome,
    /// When the destination said that it goes on there.
    gone_on: Option<Instant>,
    /// The destination has it, and does not know that nobody will ask again.
    untold: bool,
}

/// What is on its way.
struct Cargo {
    files: Files,
    /// The state of one that ran when the move began.
    state: Option<State>,
    /// What the other host must have for it to go on there.
    needs: Option<Needs>,
    /// It runs, or its root is mounted.
    in_use: bool,
    dump: bool,
}

impl Attempt<'_> {
    fn over(&mut self, connection: &mut Connection) -> Result<()> {
        let mut record = None;
        let done = match self.with(connection, |this, talk| this.open(talk, &mut record)) {
            Ok(None) => return Ok(()),
            Ok(Some(cargo)) if self.options.online => self.live(connection, &mut record, cargo),
            Ok(Some(cargo)) => self.halted(connection, &mut record, cargo),
            Err(error) => Err(error),
        };
        self.tell(connection, record.as_ref());
        let Err(error) = done else { return Ok(()) };
        // What is decided is decided.
        if is_committed(record.as_ref()) { Err(error) } else { self.undone(connection, record, error) }
    }

    /// Asks over the connection, and counts what was sent.
    fn with<T>(
        &mut self,
        connection: &mut Connection,
        work: impl FnOnce(&mut Self, &mut Talk<'_, Pipe, Pipe>) -> Result<T>,
    ) -> Result<T> {
        let link = connection.link()?;
        link.compress(self.options.compress);
        let done = work(self, &mut Talk::new(link, &self.options.destination, self.observer));
        self.outcome.sent = link.sent();
        done
    }

    /// One that does not run, or is stopped for it.
    fn halted(
        &mut self,
        connection: &mut Connection,
        record: &mut Option<Handover>,
        mut cargo: Cargo,
    ) -> Result<()> {
        let given = self.with(connection, |this, talk| {
            this.close(talk, record, &mut cargo)?;
            this.give(talk, record, Vec::new)
        });
        match given {
            // The words of ssh only explain.
            Err(error) if is_committed(record.as_ref()) => self.after_commit(connection, record, error)?,
            given => given?,
        }
        self.clean(record.as_ref());
        Ok(())
    }

    /// Nothing is decided: the destination drops what it has, and the VE becomes what it was.
    fn undone(&mut self, connection: &mut Connection, record: Option<Handover>, error: Error) -> Result<()> {
        self.interrupt.ignore(true);
        let confirmed = match (&error, record.as_ref()) {
            // It has undone everything before it said so.
            (Error::There { .. }, _) | (_, None) => true,
            _ => self.call_off(connection),
        };
        let error = match error {
            Error::Wire(wire) => connection.explain(wire),
            Error::Interrupted => {
                connection.end();
                Error::Interrupted
            }
            other => other,
        };
        self.restore(record, confirmed, error)
    }

    fn begin(&mut self, phase: Phase) -> Result<()> {
        // The fault points of all phases, for tests.
        fault(phase);
        self.outcome.times.begin(phase);
        self.observer.phase(phase);
        if self.interrupt.wanted() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Everything that is done while the VE is as it was. `None` when only checks were asked for.
    fn open<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        record: &mut Option<Handover>,
    ) -> Result<Option<Cargo>> {
        let ve = self.node.ve(self.ctid).map_err(|error| Error::verb(Exit::Missing, &error))?;
        let luggage = depart::luggage(&ve).map_err(|error| Error::verb(Exit::Missing, &error))?;
        let state = ve.running();
        let needs = match (&state, &luggage.dump) {
            (Some(state), _) if self.options.online => Some(Needs::of(&ve, state)),
            (None, Some(dump)) => Some(Needs::of_dump(dump)),
            _ => None,
        };
        let needs = needs.transpose().map_err(|error| Error::verb(Exit::Stop, &error))?;
        let mut files = Files::new(&luggage)?;
        self.begin(Phase::Check)?;
        let base_missing = self.check(talk, files.subject(self.ctid, &luggage, needs.clone()))?;
        if self.options.check_only {
            return Ok(None);
        }
        let in_use = state.is_some() || ve.mounted();
        if !in_use {
            depart::quiesce(&ve).map_err(|error| Error::verb(Exit::Stop, &error))?;
        }
        let leaving = Leaving {
            stage: Leave::Copying,
            ssh: self.options.ssh.options.clone(),
            running: state.is_some(),
            mounted: ve.mounted(),
            remove: !self.options.keep_source,
            online: self.options.online,
        };
        let live = state.is_some() && needs.is_some();
        let memory = needs.as_ref().filter(|_| live).map(|needs| needs.memory);
        self.reserve(talk, &luggage, memory, leaving, record)?;
        if base_missing && let Some((_, path)) = &luggage.base {
            self.begin(Phase::Base)?;
            self.observer.say(0, "Syncing template");
            let sent = Files::send_base(path, talk, &files)?;
            self.outcome.passes.push(sent);
        }
        if live && let Err(why) = files.track(&ve, &luggage) {
            self.observer.say(1, &format!("Each pass looks at all files: {why}"));
        }
        self.begin(Phase::Copy)?;
        self.observer.say(0, "Syncing private");
        self.outcome.passes.push(files.pass(Tree::Area, in_use, talk)?);
        if live {
            self.rounds(talk, &ve, &mut files)?;
        }
        Ok(Some(Cargo { files, state, needs, in_use, dump: luggage.dump.is_some() }))
    }

    /// A VE that is stopped for the last pass, up to the last moment at which it is ours.
    fn close<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        record: &mut Option<Handover>,
        cargo: &mut Cargo,
    ) -> Result<()> {
        let then = self.halt(record, cargo.state.is_some())?;
        if cargo.in_use {
            self.begin(Phase::Sync)?;
            self.outcome.passes.push(cargo.files.pass(Tree::Area, false, talk)?);
        }
        if cargo.dump {
            self.outcome.passes.push(cargo.files.pass(Tree::Dump, false, talk)?);
        }
        self.offer(talk, record, then)
    }

    /// The destination has all of it, and makes it last.
    fn offer<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        record: &mut Option<Handover>,
        then: Then,
    ) -> Result<()> {
        self.begin(Phase::Prepare)?;
        self.save(record, Leave::Offered)?;
        fault_point_offered();
        match talk.call(&Ask::Prepare { then })? {
            Answer::Prepared => Ok(()),
            other => Err(talk::unexpected(&other)),
        }
    }

    fn check<R: Read, W: Write>(&self, talk: &mut Talk<'_, R, W>, subject: arrive::Subject) -> Result<bool> {
        let answer = talk.call(&Ask::Check { subject })?;
        let Answer::Checked { problems, base_missing } = answer else {
            return Err(talk::unexpected(&answer));
        };
        let (ignored, fatal): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| self.options.ignored.covers(problem.obstacle));
        for problem in ignored {
            self.observer.say(-1, &format!("WARNING: {}: {}", self.options.destination, problem.text));
        }
        let Some(first) = fatal.first() else { return Ok(base_missing) };
        let texts: Vec<&str> = fatal.iter().map(|problem| problem.text.as_str()).collect();
        let failure = crate::error::Failure { exit: first.obstacle.into(), text: texts.join("; ") };
        Err(Error::There { peer: self.options.destination.clone(), failure })
    }

    fn reserve<R: Read, W: Write>(
        &mut self,
        talk: &mut Talk<'_, R, W>,
        luggage: &Luggage,
        memory: Option<u64>,
        leaving: Leaving,
        record: &mut Option<Handover>,
    ) -> Result<()> {
        self.begin(Phase::Reserve)?;
        self.observer.say(0, "Preparing remote node");
        let number = handover::epoch(&self.node.paths, self.ctid)
            .map_err(|error| Error::verb(Exit::Usage, &error))?
            .number;
        let peer = self.options.destination.clone();
        let handover = Handover::new(id::fresh()?, self.ctid, number + 1, peer, Part::Leaving(leaving));
        handover.save(&self.node.paths).map_err(|error| Error::verb(Exit::Usage, &error))?;
        let (id, epoch) = (handover.id.clone(), handover.epoch);
        *record = Some(handover);
        let scripts =
            luggage.scripts.iter().map(|(action, text)| (action.suffix().to_owned(), text.clone())).collect();
        let (conf, dump) = (luggage.conf.clone(), luggage.dump.is_some());
        let luggage = arrive::Luggage { conf, scripts, dump, memory };
        let from = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let keep = self.options.keep_destination;
        match talk.call(&Ask::Reserve { id, epoch, from, luggage, keep })? {
            Answer::Fine => Ok(()),
            other => Err(talk::unexpected(&other)),
        }
    }

    /// Nothing of the VE writes any more. Returns what the destination does with it.
    fn halt(&mut self, record: &mut Option<Handover>, ran: bool) -> Result<Then> {
        self.begin(Phase::Stop)?;
        let ve = self.node.ve(self.ctid).map_err(|error| Error::verb(Exit::Stop, &error))?;
        if ran {
            self.save(record, Leave::Halted)?;
            self.observer.say(0, "Stopping container");
            let stopped =
                stop::stop(&ve, stop::Options::default()).map_err(|error| Error::verb(Exit::Stop, &error))?;
            depart::quiesce(&ve).map_err(|error| Error::verb(Exit::Stop, &error))?;
            // It may have ended by itself meanwhile; then it stays so.
            return Ok(if stopped == Stopped::Now { Then::Start } else { Then::Rest });
        }
        if ve.mounted() {
            self.save(record, Leave::Halted)?;
            mount::umount(&ve).map_err(|error| Error::verb(Exit::Stop, &error))?;
            depart::quiesce(&ve).map_err(|error| Error::verb(Exit::Stop, &error))?;
            return Ok(Then::Mount);
        }
        Ok(Then::Rest)
    }

    fn save(&self, record: &mut Option<Handover>, stage: Leave) -> Result<()> {
        let Some(handover) = record else { return Ok(()) };
        if let Part::Leaving(leaving) = &mut handover.part {
            leaving.stage = stage;
        }
        handover.save(&self.node.paths).map_err(|error| Error::verb(Exit::Usage, &error))
    }
}

fn is_committed(record: Option<&Handover>) -> bool {
    record.is_some_and(|record| stage(record) >= Leave::Committed)
}

fn stage(record: &Handover) -> Leave {
    match &record.part {
        Part::Leaving(leaving) => leaving.stage,
        Part::Arriving(_) => Leave::Copying,
    }
}

/// Kills at the beginning of a phase, when a test asks for it.
fn fault(phase: Phase) {
    match phase {
        Phase::Connect => {}
        Phase::Check => vzsys::fault::point("source.check"),
        Phase::Reserve => vzsys::fault::point("source.reserve"),
        Phase::Base => vzsys::fault::point("source.base"),
        Phase::Copy => vzsys::fault::point("source.copy"),
        Phase::Rounds => vzsys::fault::point("source.rounds"),
        Phase::Ready => vzsys::fault::point("source.ready"),
        Phase::Memory => vzsys::fault::point("source.memory"),
        Phase::Stop => vzsys::fault::point("source.stop"),
        Phase::Sync => vzsys::fault::point("source.sync"),
        Phase::Prepare => vzsys::fault::point("source.prepare"),
        Phase::Commit => vzsys::fault::point("source.commit"),
        // These are parts of a checkpoint, or the points are at what is decided.
        Phase::Part | Phase::Freeze | Phase::State | Phase::Dump | Phase::Complete => {}
        Phase::Start | Phase::Packets | Phase::Clean => {}
    }
}

fn fault_point_offered() {
    vzsys::fault::point("source.offered");
}

/// What is to be left out of a private area: what belongs to the mount, not to the VE.
pub(crate) fn hollow(layout: Layout) -> &'static [&'static str] {
    if layout.shares_template() { &["work"] } else { &[] }
}
