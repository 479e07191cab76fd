//! Saving a running VE: its processes into images, and everything else beside them.
//!
//! ```text
//!  vzctl                                        criu                         the VE
//!  ── DUMP ───────────────────────────────────▶ gets ready                   runs
//!     new connections held back   ◀── pre-dump ─                             accepts and ends those that it has
//!     frozen, off the networks                                               stands still
//!     cgroups, /dev, counters saved ──────────▶ holds and dumps the tasks
//!     frozen again                ◀─ post-dump ─                             stands still, held
//!     the caller decides ──▶ Kill: SIGKILL to all, thawed  ──▶ waits         is gone
//!                        └─▶ Keep: thawed, back on the networks              runs on
//! ```
//!
//! CRIU thaws the tasks while it holds them, and lets them go when it dies: so they are frozen again before anybody
//! decides. Until the first SIGKILL a failure of any kind leaves the VE running.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beancounters::{Hierarchies, VeCgroup};
use criu::{Answer, Criu, DUMP_LOG, Images, Program, Setting, Stage};
use netns::Hold;
use vzconf::Exit;
use vzsys::fault;

use crate::error::{Error, Result, describe};
use crate::externals::{Externals, Line};
use crate::inflight::InFlight;
use crate::marker::Marker;
use crate::node::Ve;
use crate::saved::{self, Saved};
use crate::state::State;
use crate::{net, watches};

/// How long the VE may take to stand still, and to be gone at the end.
const STILL: Duration = Duration::from_secs(10);
/// How long programs may take to accept the connections that are there once new ones are held back; it runs meanwhile.
const ACCEPT: Duration = Duration::from_secs(2);
/// How long clients may take to confirm what was closed: while it runs, and once more when it stands still.
const CONFIRM: Duration = Duration::from_millis(200);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(1);
/// How often CRIU is asked, when the VE runs on in between: what it cannot save may be gone in a moment, as a watch of a
/// cgroup that was just removed, or a message that nobody has read yet.
const TRIES: u32 = 3;
/// The largest deleted file that is saved: logs and packages that were replaced while they are open.
pub const GHOST_LIMIT: u32 = 1 << 30;

/// How a VE is saved.
#[derive(Debug)]
pub struct Options<'a> {
    /// Where the images are to be; written at `TARGET.tmp` until [`Images::publish`].
    pub target: &'a Path,
    /// Takes the VE off the networks before it stands still. Without it whoever calls sees to it that nothing reaches a
    /// VE whose sockets are gone.
    pub disconnect: bool,
    /// What comes for it while it is off them is kept, where the host can: it gets that when it runs on, or who decides
    /// takes it from [`Held::network`].
    pub hold: bool,
    /// As long as this file exists, only its owner decides what happens to the VE after a crash.
    pub keeper: Option<PathBuf>,
    /// It is frozen already, and by somebody else: it stays so when it is kept.
    pub frozen: bool,
}

/// A VE that is saved and stands still: nothing of it has run since, and nothing will until this is answered.
#[derive(Debug)]
pub struct Held<'a> {
    /// The images; to be listed and published by whoever wants to keep them here.
    pub images: &'a mut Images,
    /// What is saved beside them.
    pub saved: &'a Saved,
    /// When what was done.
    pub steps: Steps,
    /// What has come for it since, and comes.
    pub network: &'a mut Option<Hold>,
}

/// When the steps of a checkpoint began.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Taking it off the networks.
    pub part: Instant,
    /// Freezing it: from here on it stands still.
    pub freeze: Instant,
    /// Saving what CRIU does not.
    pub state: Instant,
    /// CRIU's work.
    pub dump: Instant,
    /// It is all in the images.
    pub dumped: Instant,
}

impl Steps {
    fn begin() -> Self {
        let now = Instant::now();
        Self { part: now, freeze: now, state: now, dump: now, dumped: now }
    }
}

/// What becomes of a held VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It runs on.
    Keep,
    /// It is killed: it is elsewhere now, or in the images. From here on there is no way back.
    Kill,
    /// It stands still until somebody knows whose it is: the owner of [`Options::keeper`] decides.
    Leave,
}

/// How a checkpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What became of the VE.
    pub after: After,
    /// For how long it stood still: until it ran on, or until it was killed.
    pub frozen: Duration,
}

/// Finds the host's CRIU.
///
/// # Errors
/// `exit`, with what to do about it.
pub(crate) fn program(exit: Exit) -> Result<Program> {
    Program::find().map_err(|error| Error::Criu { source: error, exit })
}

/// Saves a running VE. `post_dump` is called when it is all in the images, and decides. After [`After::Kill`] what the
/// VE had on the host (network, mounts, cgroups) is still there: [`clear`] removes it.
///
/// # Errors
/// 16: the VE runs on as before, and only `TARGET.fail` with CRIU's log is left. An error of `post_dump` is returned as
/// it is.
pub fn checkpoint(
    ve: &Ve<'_>,
    state: &State,
    options: &Options<'_>,
    post_dump: &mut dyn FnMut(Held<'_>) -> Result<After>,
) -> Result<Done> {
    let (mut decided, mut tries) = (false, TRIES);
    loop {
        let mut once = |held: Held<'_>| {
            decided = true;
            post_dump(held)
        };
        let done = attempt(ve, state, options, &mut once);
        tries -= 1;
        match done {
            Err(Error::Criu { source: criu::Error::Failed { reason }, .. })
                if tries > 0 && !decided && !options.frozen =>
            {
                ve.say(1, &format!("CRIU: {reason}; trying again"));
            }
            done => return done,
        }
    }
}

fn attempt(
    ve: &Ve<'_>,
    state: &State,
    options: &Options<'_>,
    post_dump: &mut dyn FnMut(Held<'_>) -> Result<After>,
) -> Result<Done> {
    let program = program(Exit::Chkpnt)?;
    let cgroup = VeCgroup::open(&Hierarchies::detect()?, ve.ctid)?
        .ok_or_else(|| Error::refused(Exit::Chkpnt, "the container's cgroups are gone"))?;
    let images = Images::create(options.target).map_err(failed)?;
    let setting =
        Setting { images: images.path(), log: DUMP_LOG, fds: &[], shown: &[], place: PathBuf::new() };
    let started = Criu::start(&program.path, setting);
    let criu = match started {
        Ok(criu) => criu,
        Err(error) => {
            let _ = criu::remove(images.path());
            return Err(failed(error));
        }
    };
    let mut job = Job {
        ve,
        state,
        options,
        cgroup,
        program,
        images: Some(images),
        post_dump,
        criu: criu.pid(),
        saved: None,
        steps: None,
        network: None,
        after: None,
        error: None,
        frozen: Duration::ZERO,
    };
    let marker = Marker::set(ve, criu.pid(), options);
    let dumped = marker.and_then(|()| job.dump(criu));
    job.finish(dumped)
}

fn failed(source: criu::Error) -> Error {
    Error::Criu { source, exit: Exit::Chkpnt }
}

struct Job<'j> {
    ve: &'j Ve<'j>,
    state: &'j State,
    options: &'j Options<'j>,
    cgroup: VeCgroup,
    program: Program,
    images: Option<Images>,
    post_dump: &'j mut dyn FnMut(Held<'_>) -> Result<After>,
    criu: i32,
    saved: Option<Saved>,
    /// From the moment on at which it stands still.
    steps: Option<Steps>,
    network: Option<Hold>,
    after: Option<After>,
    /// What made us say no.
    error: Option<Error>,
    frozen: Duration,
}

impl Job<'_> {
    fn dump(&mut self, mut criu: Criu) -> Result<()> {
        let externals = Externals::of(self.state.init.pid);
        let dump = criu::Dump {
            pid: self.state.init.pid,
            root: self.state.root.display().to_string(),
            freezer: self.cgroup.freezer_dir().map(|dir| dir.display().to_string()),
            external: saved::at_dump(&externals),
            leave_running: false,
            ghost_limit: GHOST_LIMIT,
            watched: self.watched(),
            parent: None,
            pages_to_fd: false,
        };
        let mut externals = Some(externals);
        let dumped = criu.dump(&dump, &mut |stage| {
            let done = match stage {
                Stage::PreDump => self.stop(externals.take().unwrap_or_default()),
                Stage::PostDump => self.decide(),
                Stage::Killing => self.cgroup.thaw().map_err(Error::from),
                _ => Ok(()),
            };
            let after = self.after;
            match done {
                Ok(()) if stage == Stage::PostDump && after != Some(After::Kill) => Answer::No,
                Ok(()) => Answer::Yes,
                Err(error) => {
                    self.error.get_or_insert(error);
                    Answer::No
                }
            }
        });
        criu.end();
        dumped.map_err(failed)
    }

    /// Only an overlay has no names for its inodes.
    fn watched(&self) -> Vec<String> {
        let root = Line::of(self.state.init.pid).into_iter().find(|line| line.place == Path::new("/"));
        if root.is_some_and(|root| root.kind == "overlay") {
            watches::names(self.state.init.pid, &self.cgroup.processes().unwrap_or_default())
        } else {
            Vec::new()
        }
    }

    /// CRIU is ready: from here on the VE stands still.
    fn stop(&mut self, externals: Externals) -> Result<()> {
        if let Some(ids) = self.state.ids {
            Criu::become_owner(self.criu, ids.base).map_err(failed)?;
        }
        fault::point("chkpnt.begun");
        let mut steps = Steps::begin();
        self.steps = Some(steps);
        if self.options.disconnect {
            self.part()?;
        }
        fault::point("chkpnt.gated");
        steps.freeze = self.freeze()?;
        self.steps = Some(steps);
        fault::point("chkpnt.frozen");
        steps.state = Instant::now();
        let images = self.images.as_ref().ok_or_else(gone)?;
        self.saved = Some(Saved::of(self.ve, self.state, externals, images, &self.program, &self.cgroup)?);
        steps.dump = Instant::now();
        self.steps = Some(steps);
        Ok(())
    }

    /// It stands still, and off the networks: since when.
    fn freeze(&mut self) -> Result<Instant> {
        let Some(hold) = &self.network else {
            let since = Instant::now();
            self.cgroup.freeze(since + STILL)?;
            return Ok(since);
        };
        let until = Instant::now() + ACCEPT;
        let (since, lost) = loop {
            self.settle(until, |now| now.waiting == 0);
            self.settle(until.min(Instant::now() + CONFIRM), InFlight::is_empty);
            let since = Instant::now();
            self.cgroup.freeze(since + STILL)?;
            let left = self.settle(Instant::now() + CONFIRM, |now| now.closing == 0 || now.waiting > 0);
            if left.waiting == 0 || Instant::now() >= until {
                break (since, left);
            }
            // They came at the last moment: who is to accept them has to run.
            self.cgroup.thaw()?;
        };
        hold.silence()?;
        if !lost.is_empty() {
            self.ve.say(-1, &format!("WARNING: connections that cannot be saved: {}", lost.words()));
        }
        Ok(since)
    }

    /// Waits until its connections are so, or until a moment; what there is then.
    fn settle(&self, until: Instant, enough: impl Fn(&InFlight) -> bool) -> InFlight {
        loop {
            let now = InFlight::of(self.state.init.pid);
            if enough(&now) || Instant::now() >= until {
                return now;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// New connections are held back; where that cannot be, it is off the networks.
    fn part(&mut self) -> Result<()> {
        if self.options.hold {
            match net::hold(self.ve) {
                Ok(hold) => {
                    if let Some(error) = hold.ungated() {
                        self.ve.say(1, &format!("New connections may be lost: {}", describe(error)));
                    }
                    self.network = Some(hold);
                    return Ok(());
                }
                Err(error) => {
                    self.ve.say(1, &format!("What comes meanwhile is lost: {}", describe(&error)));
                }
            }
        }
        net::disconnect(self.ve)
    }

    fn decide(&mut self) -> Result<()> {
        let dumped = Instant::now();
        self.cgroup.hold()?;
        fault::point("chkpnt.dumped");
        let (Some(images), Some(saved), Some(steps)) = (&mut self.images, &self.saved, self.steps) else {
            return Err(gone());
        };
        let steps = Steps { dumped, ..steps };
        watches::correct(self.state.init.pid, images.path())?;
        let network = &mut self.network;
        let after = (self.post_dump)(Held { images, saved, steps, network })?;
        self.after = Some(after);
        if after == After::Kill {
            fault::point("chkpnt.decided");
            // COMMIT: the images are the VE. Its init is the first to be killed.
            self.cgroup.kill_frozen(self.state.init.pid)?;
            fault::point("chkpnt.killed");
        }
        self.frozen = steps.freeze.elapsed();
        Ok(())
    }

    fn finish(mut self, dumped: Result<()>) -> Result<Done> {
        if self.after == Some(After::Kill) && self.error.is_none() {
            // Whatever CRIU says now, they have their SIGKILL.
            self.end_all()?;
            Marker::remove(self.ve);
            return Ok(Done { after: After::Kill, frozen: self.frozen });
        }
        if self.after == Some(After::Leave) && self.error.is_none() {
            // Who kept it may have let it go a moment ago.
            self.cgroup.hold()?;
            return Ok(Done { after: After::Leave, frozen: self.frozen });
        }
        let mut left = self.let_go();
        let kept = self.after == Some(After::Keep) && self.error.is_none();
        if let Some(steps) = self.steps.filter(|_| kept) {
            self.frozen = steps.freeze.elapsed();
        }
        if !kept && let Some(images) = self.images.take() {
            match images.fail() {
                Ok(path) => self.ve.say(1, &format!("CRIU's log is {}", path.join(DUMP_LOG).display())),
                Err(error) => left.push(describe(&error)),
            }
        }
        Marker::remove(self.ve);
        if kept {
            left.iter().for_each(|text| self.ve.say(-1, &format!("WARNING: {text}")));
            return Ok(Done { after: After::Keep, frozen: self.frozen });
        }
        let cause = self.error.take().or(dumped.err()).unwrap_or_else(gone);
        Err(cause.with_cleanup(left))
    }

    fn end_all(&self) -> Result<()> {
        self.cgroup.kill_all()?;
        match self.cgroup.wait_empty(Instant::now() + STILL)? {
            true => Ok(()),
            false => {
                Err(Error::refused(Exit::Chkpnt, "the container is saved, but its processes do not end"))
            }
        }
    }

    /// The VE runs on. CRIU has let it go, or died.
    fn let_go(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if self.steps.is_some() && !self.options.frozen {
            left.extend(self.cgroup.thaw().err().map(|error| describe(&error)));
        }
        if self.options.disconnect && !self.options.frozen {
            let connected = match self.network.take() {
                Some(hold) => net::give_back(self.ve, self.state, hold),
                None => net::reconnect(self.ve, self.state),
            };
            left.extend(connected.err().map(|error| describe(&error)));
        }
        left
    }
}

fn gone() -> Error {
    Error::refused(Exit::Chkpnt, "CRIU ended before the container was saved")
}

/// Removes what a VE that was saved and killed had on the host.
///
/// # Errors
/// 3, naming what could not be removed.
pub fn clear(ve: &Ve<'_>) -> Result<()> {
    crate::start::tear_down(ve, crate::dismantle::Root::Unmount)
}
