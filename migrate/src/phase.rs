//! The phases of a move, and how long each took.

use std::time::{Duration, Instant};

macro_rules! phases {
    ($($name:ident = $word:literal, $about:literal;)*) => {
        /// A phase, as the source sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Phase {
            $(#[doc = $about] $name,)*
        }

        impl Phase {
            /// All, in their order.
            pub const ALL: &'static [Phase] = &[$(Phase::$name,)*];

            /// The word for tables and JSON.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Phase::$name => $word,)* }
            }

            /// What is done in it.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Phase::$name => $about,)* }
            }
        }
    };
}

phases! {
    Connect = "connect", "ssh, and agreeing on a version";
    Check = "check", "what speaks against it";
    Reserve = "reserve", "number, place and configuration at the destination";
    Base = "base", "the template that the container lies on";
    Copy = "copy", "first pass over the files";
    Rounds = "rounds", "what changed meanwhile, until little does";
    Ready = "ready", "CRIU getting ready";
    Stop = "stop", "stopping the container";
    Part = "part", "new connections wait, open ones are accepted and ended";
    Freeze = "freeze", "freezing the container, taking it off the networks: it stands still";
    State = "state", "saving what CRIU does not";
    Dump = "dump", "saving its memory";
    Complete = "complete", "correcting and completing the images";
    Sync = "sync", "what changed since";
    Memory = "memory", "sending its memory";
    Prepare = "prepare", "everything on the disk of the destination; its restore there";
    Commit = "commit", "giving it away";
    Start = "start", "its start there";
    Packets = "packets", "what came for it meanwhile follows";
    Clean = "clean", "removing it here";
}

/// How long phases took.
#[derive(Debug, Clone, Default)]
pub struct Times {
    taken: Vec<(Phase, Duration)>,
    now: Option<(Phase, Instant)>,
}

impl Times {
    /// A phase begins; the one before is over.
    pub fn begin(&mut self, phase: Phase) {
        self.begin_at(phase, Instant::now());
    }

    /// The same a moment ago.
    pub fn begin_at(&mut self, phase: Phase, since: Instant) {
        if let Some((before, began)) = self.now.take() {
            self.taken.push((before, since.saturating_duration_since(began)));
        }
        self.now = Some((phase, since));
    }

    /// The last phase is over.
    pub fn end(&mut self) {
        if let Some((phase, since)) = self.now.take() {
            self.taken.push((phase, since.elapsed()));
        }
    }

    /// Phases in the order in which they were, with the time each took.
    #[must_use]
    pub fn taken(&self) -> &[(Phase, Duration)] {
        &self.taken
    }
}
