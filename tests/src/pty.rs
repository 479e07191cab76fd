//! A person at a terminal.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::run::command;
use crate::wait::holds;

/// A program with a terminal of its own.
pub struct Pty {
    master: OwnedFd,
    child: Child,
    seen: String,
    screen: vt100::Parser,
}

/// Rows and columns of a new terminal.
const SIZE: (u16, u16) = (24, 80);
/// As long may be waited for the end of what an ended program wrote.
const LAST: Duration = Duration::from_secs(2);

impl Pty {
    /// Starts a program on a new terminal of 24 rows and 80 columns.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(program: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        resize(&master, SIZE.0, SIZE.1);
        // A session of its own, with the terminal as the controlling one.
        let mut session = command("setsid", &["--ctty", "--wait", "--"]);
        session.arg(program.get_program()).args(program.get_args()).env("TERM", "vt100");
        for (key, value) in program.get_envs() {
            session.env(key, value.unwrap_or_default());
        }
        session.stdin(Stdio::from(slave.try_clone().unwrap()));
        session.stdout(Stdio::from(slave.try_clone().unwrap())).stderr(Stdio::from(slave));
        let child = session.spawn().unwrap();
        Self { master, child, seen: String::new(), screen: vt100::Parser::new(SIZE.0, SIZE.1, 0) }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let n = rustix::io::write(&self.master, bytes).unwrap();
            bytes = &bytes[n..];
        }
    }

    /// Changes the size of the window.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.screen.screen_mut().set_size(rows, columns);
        resize(&self.master, rows, columns);
    }

    /// What the person sees now.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until the person sees what is wanted, lines and all; returns the whole screen.
    ///
    /// # Panics
    /// When that does not come within 30 seconds.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.screen();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < deadline && self.read(), "{what}? The screen is:\n{text}");
        }
    }

    /// Whether what is typed shows, and lines are edited: not so for a program that takes each key.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        use rustix::termios::LocalModes;
        let modes = rustix::termios::tcgetattr(&self.master).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// The program (its session's first process, which waits for it).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program has written the text since the last call; returns what came before it.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + text.len());
                return before;
            }
            let more = Instant::now() < deadline && self.read();
            assert!(more || self.seen.contains(text), "no {text:?} on the terminal, but {:?}", self.seen);
        }
    }

    /// Reads what there is; `false` when the terminal is closed.
    fn read(&mut self) -> bool {
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).unwrap_or(0) == 0 {
            return true;
        }
        let mut bytes = [0_u8; 4096];
        match rustix::io::read(&self.master, &mut bytes) {
            Ok(n) if n > 0 => {
                self.screen.process(&bytes[..n]);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
                true
            }
            _ => false,
        }
    }

    /// Waits for the end of the program; returns its exit code and what it wrote last.
    ///
    /// # Panics
    /// When it does not end within 30 seconds.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> (i32, String) {
        let mut status = None;
        let ended = holds(Duration::from_secs(30), || {
            self.read();
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            panic!("the program on the terminal does not end; it wrote {:?}", self.seen);
        }
        // The kernel hands on in its own time what was written last. A process left behind may keep the terminal open.
        let deadline = Instant::now() + LAST;
        while self.read() && Instant::now() < deadline {}
        (status.and_then(|status| status.code()).unwrap_or(-1), std::mem::take(&mut self.seen))
    }
}

impl std::fmt::Debug for Pty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pty").field("child", &self.child).field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}
