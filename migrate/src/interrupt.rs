//! The user's wish to stop, as something that a wait on a connection sees.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT, SIGTERM and SIGHUP, taken up instead of ending the process. Copies share what they have seen.
#[derive(Debug, Clone)]
pub struct Interrupt(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    signals: Option<SignalFd>,
    seen: Cell<bool>,
    ignored: Cell<bool>,
}

impl Interrupt {
    /// Takes the signals of this process over. Before there are threads.
    ///
    /// # Errors
    /// The errno of signalfd(2) or of blocking them.
    pub fn listen() -> std::io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self::of(Some(signals)))
    }

    /// None ever comes.
    #[must_use]
    pub fn never() -> Self {
        Self::of(None)
    }

    fn of(signals: Option<SignalFd>) -> Self {
        Self(Rc::new(Inner { signals, seen: Cell::new(false), ignored: Cell::new(false) }))
    }

    /// Whether the user wants to stop; always `false` once it is too late for that.
    #[must_use]
    pub fn wanted(&self) -> bool {
        if let Some(signals) = &self.0.signals {
            while let Ok(Some(_)) = signals.read_signal() {
                self.0.seen.set(true);
            }
        }
        self.0.seen.get() && !self.0.ignored.get()
    }

    /// It is too late (`true`), or possible again.
    pub fn ignore(&self, ignored: bool) {
        self.0.ignored.set(ignored);
    }

    /// What to wait on; `None` while nothing counts.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.0.ignored.get() { None } else { self.0.signals.as_ref().map(AsFd::as_fd) }
    }
}
