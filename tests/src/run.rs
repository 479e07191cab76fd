//! Running programs, with a limit on how long they may take.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::wait::holds;

/// No single command of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(240);

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Run {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; minus the number of the signal that killed it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
    /// How long it took until it had ended and its output was closed.
    pub took: Duration,
}

impl Run {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out()).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Both outputs.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out(), self.stderr)
    }

    /// Fails unless it exited with this code.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "exit code {code} expected of\n{self}");
        self
    }

    /// Fails unless it exited with 0.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails unless either output has the text.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.text().contains(text), "\"{text}\" expected of\n{self}");
        self
    }

    /// Fails if either output has the text.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(!self.text().contains(text), "\"{text}\" not expected of\n{self}");
        self
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "  $ {}", self.line)?;
        for line in self.out().lines().take(60) {
            writeln!(f, "  | {line}")?;
        }
        for line in self.stderr.lines().take(60) {
            writeln!(f, "  ! {line}")?;
        }
        write!(f, "  = {} after {:?}", self.code, self.took)
    }
}

/// A command with its arguments.
pub fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs a program of the host to its end.
///
/// # Panics
/// When it cannot be run, or takes too long.
#[track_caller]
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Run {
    Background::spawn(command(program, arguments), &[]).finish()
}

/// A program at work.
#[derive(Debug)]
pub struct Background {
    line: String,
    child: Child,
    started: Instant,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Background {
    /// Starts a program; `input` is what it can read.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn spawn(mut command: Command, input: &[u8]) -> Self {
        let line = line(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A program that does not read its input is no failure of ours.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        Self { line, child, started, stdout, stderr }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and for the end of its output.
    ///
    /// # Panics
    /// When it takes too long, or something holds its output open after its end.
    #[must_use]
    #[track_caller]
    pub fn finish(self) -> Run {
        self.finish_within(LIMIT)
    }

    /// The same with a limit.
    ///
    /// # Panics
    /// When it takes longer.
    #[must_use]
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Run {
        let mut status = None;
        let ended = holds(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let rest = Duration::from_secs(2);
            let said = |from: &Receiver<Vec<u8>>| from.recv_timeout(rest).unwrap_or_default();
            let (out, err) = (said(&self.stdout), said(&self.stderr));
            let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            panic!("still at work after {limit:?}: {}\n{out}\n{err}", self.line);
        }
        let held = "something that it started holds its output open:";
        let rest = Duration::from_secs(20);
        let stdout = self.stdout.recv_timeout(rest).unwrap_or_else(|_| panic!("{held} {}", self.line));
        let stderr = self.stderr.recv_timeout(rest).unwrap_or_else(|_| panic!("{held} {}", self.line));
        Run {
            line: self.line,
            code: code(status.unwrap()),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            took: self.started.elapsed(),
        }
    }
}

/// Whether a process is there and no zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let env = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), value?.to_string_lossy())));
    env.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

fn drain(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}
