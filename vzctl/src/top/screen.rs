//! The terminal: keys in, pictures out. It is given back as it was, whatever ends us but SIGKILL.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, kill_process};

use super::alarm::Alarms;
use super::draw::{Palette, Scene, draw, page};
use super::history::History;
use super::options::Options;
use super::sampler::{Sampler, Snapshot};
use super::view::{Effect, Key, View};
use crate::check::Error;

/// The second look comes early: until then there are no rates.
const FIRST: Duration = Duration::from_millis(400);

/// Shows it until the user has seen enough, a signal comes, or the terminal is gone.
///
/// # Errors
/// Without a terminal; that of the terminal.
pub(super) fn run(sampler: Sampler, options: &Options) -> Result<(), Error> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Error::Usage {
            program: "vztop",
            complaint: "standard input and output must be a terminal; text comes with: vztop -b".to_owned(),
            exit: 1,
        });
    }
    let fail = |source: io::Error| Error::io("use the terminal", source);
    let signals = catch().map_err(fail)?;
    let terminal = ratatui::try_init().map_err(fail)?;
    let ended = Screen::new(sampler, options, terminal, signals).run();
    let restored = ratatui::try_restore();
    ended.and(restored).map_err(fail)
}

/// Signals that end us, so that the terminal can be put right first.
fn catch() -> io::Result<SignalFd> {
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    let set: SigSet = ending.into_iter().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

struct Screen {
    sampler: Sampler,
    terminal: DefaultTerminal,
    signals: SignalFd,
    view: View,
    snapshot: Snapshot,
    history: History,
    alarms: Alarms,
    palette: Palette,
    /// How often is looked yet.
    left: Option<u64>,
}

/// What came.
enum Came {
    Input,
    Ending,
    Nothing,
}

impl Screen {
    fn new(mut sampler: Sampler, options: &Options, terminal: DefaultTerminal, signals: SignalFd) -> Self {
        let snapshot = sampler.look();
        Self {
            sampler,
            terminal,
            signals,
            view: View::new(options),
            snapshot,
            history: History::default(),
            alarms: Alarms::default(),
            palette: Palette::of_environment(),
            left: options.times,
        }
    }

    fn run(mut self) -> io::Result<()> {
        let (mut looked, mut delay) = (Instant::now(), self.view.delay.min(FIRST));
        loop {
            self.draw()?;
            let left = delay.saturating_sub(looked.elapsed());
            let effect = match self.wait(if self.view.paused { None } else { Some(left) })? {
                Came::Ending => return Ok(()),
                Came::Input => self.keys()?,
                Came::Nothing if !self.view.paused && looked.elapsed() >= delay => Effect::Look,
                Came::Nothing => Effect::Draw,
            };
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Suspend => self.suspend()?,
                Effect::Look => {
                    if self.left == Some(0) {
                        return Ok(());
                    }
                    self.look();
                    looked = Instant::now();
                }
                Effect::Draw => {}
            }
            delay = if self.snapshot.busy.is_some() { self.view.delay } else { delay };
        }
    }

    fn look(&mut self) {
        self.snapshot = self.sampler.look();
        self.history.take(&self.snapshot);
        self.alarms.take(&self.snapshot);
        self.left = self.left.map(|left| left - 1);
    }

    fn draw(&mut self) -> io::Result<()> {
        let scene = Scene {
            snapshot: &self.snapshot,
            view: &self.view,
            history: &self.history,
            alarms: &self.alarms,
            palette: self.palette,
        };
        self.terminal.draw(|frame| draw(frame, &scene)).map(drop)
    }

    fn wait(&self, left: Option<Duration>) -> io::Result<Came> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) if !fds[1].revents().is_empty() => Ok(Came::Ending),
            // The terminal is gone.
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => Ok(Came::Ending),
            Ok(0) => Ok(Came::Nothing),
            // Interrupted: the terminal's size has changed, or we were stopped and go on.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Came::Input),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All keys that were pressed by now; the last effect that is more than to draw.
    fn keys(&mut self) -> io::Result<Effect> {
        let mut effect = Effect::Draw;
        while event::poll(Duration::ZERO)? {
            let Event::Key(pressed) = event::read()? else { continue };
            let Some(key) = key_of(pressed) else { continue };
            let height = self.terminal.size()?.height;
            match self.view.key(key, &self.snapshot, page(height, &self.view)) {
                Effect::Draw => {}
                other => effect = other,
            }
            if matches!(effect, Effect::Quit | Effect::Suspend) {
                break;
            }
        }
        Ok(effect)
    }

    /// As the shell wants it when Ctrl-Z is pressed.
    fn suspend(&mut self) -> io::Result<()> {
        ratatui::try_restore()?;
        kill_process(getpid(), rustix::process::Signal::TSTP)?;
        self.terminal = ratatui::try_init()?;
        self.terminal.clear()
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('z') if control => Key::Suspend,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(letter) => Key::Letter(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
