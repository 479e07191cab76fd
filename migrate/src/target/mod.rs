//! The far side: `vzmigrate --serve`. It does what the source says, in order, and trusts none of it.
//!
//! ```text
//! Greeted ─Check▶ Checked ─Reserve▶ Reserved ─Tree▶ Receiving ─PassEnd▶ Reserved ─Prepare▶ Prepared ─Go▶ Owner
//!                                     │ the connection ends: all is removed          │ ends: all stays   │
//! ```

mod receive;
mod verdict;

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use templates::replica::Digests;
use ve::arrive::{self, Luggage, Subject};
use ve::handover::{self, Handover, Then};
use ve::interrupted::Wake;
use ve::{Node, describe};
use vzconf::{Ctid, Lock, Paths};
use vzsys::spawn::Beside;

use self::receive::Receiving;
use crate::error::{Error, Failure, Result};
use crate::exit::Exit;
use crate::transport::{End, Relay};
use crate::wire::{Answer, Ask, Link, Received, Report, Tree, WireError, accept};

/// Serves one source over `from` and `out` until the connection ends. Returns what to exit with.
pub fn serve(paths: Paths, from: OwnedFd, out: OwnedFd) -> Exit {
    let (side, mut relay) = match meet(from, out) {
        Ok(met) => met,
        Err(error) => {
            eprintln!("vzmigrate: {error}");
            return Exit::Usage;
        }
    };
    let exit = match side.try_clone() {
        Ok(from) => serve_over(paths, Link::new(from, side)),
        Err(_) => Exit::Connect,
    };
    relay.wait();
    exit
}

/// The greetings; then the connection is a relay's.
fn meet(from: OwnedFd, out: OwnedFd) -> std::result::Result<(UnixStream, Relay), WireError> {
    // Of one byte, so that nothing is read that follows.
    let mut reader = BufReader::with_capacity(1, File::from(from));
    let mut writer = File::from(out);
    let (_, patience) = accept(&mut writer, &mut reader)?;
    let (side, relay) = Relay::start(reader.into_inner().into(), writer.into(), patience, End::Far)?;
    Ok((side.into(), relay))
}

fn serve_over(paths: Paths, mut link: Link<UnixStream, UnixStream>) -> Exit {
    let said = Rc::new(RefCell::new(Vec::new()));
    let lines = Rc::clone(&said);
    let say = Box::new(move |level: i32, text: &str| {
        lines.borrow_mut().push(Report { level, text: text.to_owned() });
    });
    let node = match Node::open(paths, say) {
        Ok(node) => node,
        Err(error) => {
            let failure = Failure { exit: Exit::RemoteConf, text: describe(&error) };
            let _ = link.send(&Answer::Failed { failure, left: Vec::new() }).and_then(|()| link.flush());
            return Exit::RemoteConf;
        }
    };
    let mut target = Target { link, node, said, lock: None };
    target.run()
}

/// How far the source has come.
enum State {
    Greeted,
    Checked(Box<Subject>),
    Reserved(Box<Move>),
    Receiving(Box<Move>, Box<Receiving>),
    Prepared(Box<Move>),
    /// The VE of this number is ours.
    Owner(u32),
}

/// A VE that is arriving.
struct Move {
    handover: Handover,
    /// What was copied stays when it fails.
    keep: bool,
    /// The hashes of its memory, made when it came.
    digests: Option<Digests>,
    /// What puts onto the disk what came last.
    syncing: Vec<Beside>,
}

impl Move {
    /// Waits until all that came is on the disk.
    fn settle(syncing: &mut Vec<Beside>) -> std::result::Result<(), String> {
        // Each one is waited for, also after one that failed.
        let failed =
            syncing.drain(..).filter_map(|mut sync| sync.ended(true)).filter(|code| *code != 0).count();
        if failed == 0 { Ok(()) } else { Err("what came cannot be written to the disk".to_owned()) }
    }
}

struct Target<R: Read, W: Write> {
    link: Link<R, W>,
    node: Node,
    said: Rc<RefCell<Vec<Report>>>,
    lock: Option<Lock>,
}

impl<R: Read, W: Write> Target<R, W> {
    fn run(&mut self) -> Exit {
        let mut state = State::Greeted;
        loop {
            match self.step(&mut state) {
                Ok(true) => {}
                Ok(false) => return Exit::Ok,
                Err(Error::Wire(WireError::Closed)) => {
                    self.lost(&state);
                    return Exit::Connect;
                }
                Err(error) => {
                    let left = self.undo(&state);
                    let failure = error.failure();
                    let exit = failure.exit;
                    let _ = self.answer(&Answer::Failed { failure, left });
                    return exit;
                }
            }
        }
    }

    /// One message; `false` when the source is done.
    fn step(&mut self, state: &mut State) -> Result<bool> {
        let ask = match self.link.receive::<Ask>()? {
            Received::Message(ask) => ask,
            Received::Piece(offset) => {
                let State::Receiving(_, receiving) = state else {
                    return Err(out_of_order("a piece of a file"));
                };
                receiving.data(offset, self.link.piece())?;
                return Ok(true);
            }
        };
        if let Ask::Step(op) = ask {
            let State::Receiving(_, receiving) = state else { return Err(out_of_order("a step of a copy")) };
            receiving.op(op)?;
            return Ok(true);
        }
        if let Ask::Done { id } = &ask
            && matches!(state, State::Owner(_) | State::Greeted)
        {
            handover::disown(&self.node.paths, id).map_err(|error| own(&error))?;
            self.answer(&Answer::Fine)?;
            return Ok(false);
        }
        let answer = self.reply(state, ask)?;
        self.answer(&answer)?;
        Ok(true)
    }

    /// What a question changes, and its answer.
    fn reply(&mut self, state: &mut State, ask: Ask) -> Result<Answer> {
        match ask {
            Ask::Check { subject } if matches!(state, State::Greeted) => {
                let answer = self.check(&subject)?;
                *state = State::Checked(Box::new(subject));
                Ok(answer)
            }
            Ask::Reserve { id, epoch, from, luggage, keep } => {
                let State::Checked(subject) = &*state else { return Err(out_of_order("Reserve")) };
                let handover = self.reserve(subject, &luggage, (&id, epoch, &from))?;
                *state =
                    State::Reserved(Box::new(Move { handover, keep, digests: None, syncing: Vec::new() }));
                Ok(Answer::Fine)
            }
            Ask::Tree { tree } => self.tree(state, tree).map(|()| Answer::Fine),
            Ask::PassEnd { later } => self.pass_end(state, later),
            Ask::Prepare { then: Then::Resume } => self.resume(state),
            Ask::Prepare { then } => self.prepare(state, then),
            Ask::Go => {
                let State::Prepared(moving) = std::mem::replace(state, State::Greeted) else {
                    return Err(out_of_order("Go"));
                };
                let answer = self.go(&moving);
                if answer == Answer::Running {
                    *state = State::Owner(moving.handover.ctid);
                }
                Ok(answer)
            }
            Ask::Packets { packets } => {
                let State::Owner(ctid) = *state else { return Err(out_of_order("Packets")) };
                let ctid = Ctid::new(ctid).map_err(|error| Error::here(Exit::Usage, error.to_string()))?;
                arrive::deliver(&self.node.ve(ctid).map_err(|error| own(&error))?, &packets);
                Ok(Answer::Fine)
            }
            Ask::Abort => {
                let left = self.undo(state);
                *state = State::Greeted;
                self.lock = None;
                Ok(Answer::Aborted { failure: None, left })
            }
            Ask::Resolve { id, ctid, verdict } if matches!(state, State::Greeted) => {
                Ok(Answer::Resolved(verdict::answer(&self.node, &id, ctid, verdict)?))
            }
            other => Err(out_of_order(&format!("{other:?}").chars().take(40).collect::<String>())),
        }
    }

    fn prepare(&self, state: &mut State, then: Then) -> Result<Answer> {
        vzsys::fault::point("target.prepare");
        let State::Reserved(moving) = state else { return Err(out_of_order("Prepare")) };
        Move::settle(&mut moving.syncing).map_err(|why| Error::here(Exit::Copy, why))?;
        arrive::prepared(&self.node, &mut moving.handover, then).map_err(|error| own(&error))?;
        let State::Reserved(moving) = std::mem::replace(state, State::Greeted) else {
            return Err(out_of_order("Prepare"));
        };
        *state = State::Prepared(moving);
        Ok(Answer::Prepared)
    }

    /// The VE is made of all that came, and waits for the source's word.
    fn resume(&mut self, state: &mut State) -> Result<Answer> {
        vzsys::fault::point("target.resume");
        let State::Reserved(mut moving) = std::mem::replace(state, State::Greeted) else {
            return Err(out_of_order("Prepare"));
        };
        let (link, said) = (&mut self.link, &self.said);
        let mut heard = None;
        let Move { handover, digests, syncing, .. } = &mut *moving;
        let known = digests.take().unwrap_or_default();
        let durable = &mut || Move::settle(syncing);
        let resumed = arrive::resume(&self.node, handover, &known, durable, &mut || {
            let asked = answer(link, said, &Answer::Prepared).and_then(|()| Ok(link.receive::<Ask>()?));
            vzsys::fault::point("target.heard");
            heard.insert(asked).as_ref().is_ok_and(|asked| *asked == Received::Message(Ask::Go))
        });
        match (heard, resumed) {
            (None, resumed) => {
                *state = State::Reserved(moving);
                let error = resumed.err().map_or_else(|| "it did not wait".to_owned(), |e| describe(&e));
                Err(Error::here(Exit::Start, error))
            }
            (Some(Ok(Received::Message(Ask::Go))), resumed) => {
                let resumed = resumed.map_err(|error| Failure { exit: Exit::Start, text: describe(&error) });
                let answer = self.concluded(&moving, resumed);
                if answer == Answer::Running {
                    *state = State::Owner(moving.handover.ctid);
                }
                Ok(answer)
            }
            (Some(Ok(Received::Message(Ask::Abort))), _) => {
                self.lock = None;
                Ok(Answer::Aborted { failure: None, left: self.undo(&State::Prepared(moving)) })
            }
            (Some(heard), _) => {
                // The source is gone: it may have said Go, and will be asked.
                *state = State::Prepared(moving);
                Err(heard.err().unwrap_or_else(|| out_of_order("something else than Go")))
            }
        }
    }

    fn answer(&mut self, message: &Answer) -> Result<()> {
        answer(&mut self.link, &self.said, message)
    }

    fn check(&mut self, subject: &Subject) -> Result<Answer> {
        let ctid = Ctid::new(subject.ctid).map_err(|error| Error::here(Exit::Usage, error.to_string()))?;
        // Held from here on, so that what was checked stays so.
        match self.node.hold(ctid, "arriving", Wake::Yes) {
            Ok((lock, _)) => self.lock = Some(lock),
            // Whoever has it, and what stays in doubt, is among the problems.
            Err(error) if error.exit() == vzconf::Exit::Locked => {}
            Err(error) => return Err(own(&error)),
        }
        let problems = arrive::check(&self.node, subject).map_err(|error| own(&error))?;
        let cache = templates::cache::Cache::open(&self.node.global.template_dir());
        let base_missing = subject.base.as_ref().is_some_and(|id| !cache.has_base(id));
        Ok(Answer::Checked { problems, base_missing })
    }

    fn reserve(
        &mut self,
        subject: &Subject,
        luggage: &Luggage,
        record: (&str, u64, &str),
    ) -> Result<Handover> {
        let ctid = Ctid::new(subject.ctid).map_err(|error| Error::here(Exit::Usage, error.to_string()))?;
        if self.lock.is_none() {
            return Err(Error::here(Exit::Locked, format!("container {ctid} is locked")));
        }
        // Asked again: the source may not have cared.
        let problems = arrive::check(&self.node, subject).map_err(|error| own(&error))?;
        let fatal = [arrive::Obstacle::Exists, arrive::Obstacle::Locked, arrive::Obstacle::Name];
        if let Some(problem) = problems.into_iter().find(|problem| fatal.contains(&problem.obstacle)) {
            return Err(Error::here(problem.obstacle.into(), problem.text));
        }
        if !handover::is_id(record.0) {
            return Err(out_of_order("an id that is none"));
        }
        // An address is where it can be asked; its name may be known to nobody here.
        let address = std::env::var("SSH_CONNECTION").ok();
        let address =
            address.as_deref().and_then(|text| text.split(' ').next()).filter(|text| !text.is_empty());
        let record = (record.0, record.1, address.unwrap_or(record.2));
        arrive::reserve(&self.node, subject, luggage, record).map_err(|error| own(&error))
    }

    fn tree(&mut self, state: &mut State, tree: Tree) -> Result<()> {
        let State::Reserved(moving) = state else { return Err(out_of_order("Tree")) };
        let receiving = Receiving::begin(&self.node, &moving.handover, tree)?;
        let State::Reserved(moving) = std::mem::replace(state, State::Greeted) else {
            return Err(out_of_order("Tree"));
        };
        *state = State::Receiving(moving, Box::new(receiving));
        Ok(())
    }

    fn pass_end(&mut self, state: &mut State, later: bool) -> Result<Answer> {
        let State::Receiving(..) = state else { return Err(out_of_order("PassEnd")) };
        let State::Receiving(mut moving, receiving) = std::mem::replace(state, State::Greeted) else {
            return Err(out_of_order("PassEnd"));
        };
        let received = receiving.finish(later);
        vzsys::fault::point("target.pass");
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                *state = State::Reserved(moving);
                return Err(error);
            }
        };
        moving.digests = received.digests.or(moving.digests);
        moving.syncing.extend(received.syncing);
        *state = State::Reserved(moving);
        Ok(Answer::Passed { bytes: received.bytes })
    }

    /// The VE is ours, or, when it cannot be started, is given back.
    fn go(&self, moving: &Move) -> Answer {
        let taken = arrive::settle(&self.node, &moving.handover)
            .map_err(|error| {
                let exit = if error.exit() == vzconf::Exit::SetName { Exit::Name } else { Exit::Start };
                Failure { exit, text: describe(&error) }
            })
            .and_then(|()| {
                arrive::wake(&self.node, &moving.handover)
                    .map_err(|error| Failure { exit: Exit::Start, text: describe(&error) })
            });
        self.concluded(moving, taken)
    }

    fn concluded(&self, moving: &Move, taken: std::result::Result<(), Failure>) -> Answer {
        match taken {
            Ok(()) => {
                vzsys::fault::point("target.running");
                // The VE is ours whatever happens to these files; the next verb removes them.
                if let Err(error) = arrive::conclude(&self.node, &moving.handover) {
                    (self.node.say)(-1, &format!("WARNING: {}", describe(&error)));
                }
                Answer::Running
            }
            Err(failure) => {
                let left = arrive::discard(&self.node, &moving.handover);
                Answer::Aborted { failure: Some(failure), left }
            }
        }
    }

    /// Removes what came, unless the source asked for keeping it.
    fn undo(&self, state: &State) -> Vec<String> {
        let moving = match state {
            State::Reserved(moving) | State::Receiving(moving, _) | State::Prepared(moving) => moving,
            State::Greeted | State::Checked(_) | State::Owner(_) => return Vec::new(),
        };
        if moving.keep
            && let Some(kept) = arrive::keep_copy(&self.node, &moving.handover)
        {
            (self.node.say)(0, &format!("What was copied is kept there in {}", kept.display()));
        }
        arrive::discard(&self.node, &moving.handover)
    }

    /// The connection has ended. Whoever has everything waits for the source's word: it may come on another one.
    fn lost(&self, state: &State) {
        if !matches!(state, State::Prepared(_)) {
            self.undo(state);
        }
    }
}

/// Says what its verbs have said, and then this.
fn answer<R: Read, W: Write>(
    link: &mut Link<R, W>,
    said: &RefCell<Vec<Report>>,
    message: &Answer,
) -> Result<()> {
    for report in said.borrow_mut().drain(..) {
        link.send(&Answer::Said(report))?;
    }
    link.send(message)?;
    Ok(link.flush()?)
}

/// A verb of this host failed.
fn own(error: &ve::Error) -> Error {
    let exit = match error.exit() {
        vzconf::Exit::Locked => Exit::Locked,
        vzconf::Exit::SetName => Exit::Name,
        vzconf::Exit::FsPrvtAreaExist => Exit::Exists,
        _ => Exit::Copy,
    };
    Error::here(exit, describe(error))
}

fn copy_failed(error: &templates::replica::ReplicaError) -> Error {
    Error::here(Exit::Copy, format!("cannot write the copy: {error}"))
}

fn out_of_order(what: &str) -> Error {
    Error::Wire(WireError::Protocol(format!("{what} at the wrong time")))
}
