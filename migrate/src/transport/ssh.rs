//! The `ssh` program as a connection.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::explain::explain;
use super::pipe::Pipe;
use super::relay::{End, Relay};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::wire::{Link, PATIENCE, WireError, greet};

/// How long the other side may take to clean up once its input has ended.
const GOODBYE: Duration = Duration::from_secs(60);
/// How much of what ssh said last is looked at for an explanation, in bytes.
const KEPT: u64 = 8 << 10;
/// Found wherever it was installed, whatever shell root has and whatever PATH that gives.
const REMOTE: &str =
    "exec sh -c 'PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\"; export PATH; exec vzmigrate --serve'";

/// How to reach hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Options for the ssh program.
    pub options: Vec<String>,
    /// Keep one connection open for later moves.
    pub mux: bool,
    /// Lines of ssh are shown.
    pub verbose: bool,
    /// A connection over which nothing has come for so long is given up.
    pub patience: Duration,
}

impl Default for Ssh {
    fn default() -> Self {
        Self { options: Vec::new(), mux: false, verbose: false, patience: PATIENCE }
    }
}

/// A running ssh with `vzmigrate --serve` at its far end.
#[derive(Debug)]
pub struct Connection {
    host: String,
    child: Child,
    /// Between us and ssh, once the greetings are said.
    relay: Option<Relay>,
    patience: Duration,
    link: Option<Link<Pipe, Pipe>>,
    /// What ssh says on its standard error: a file, because a thread that reads it would be in the way of starting
    /// containers. `None` when the user sees it.
    said: Option<File>,
}

impl Connection {
    /// Connects, and agrees on a version.
    ///
    /// # Errors
    /// Exit 4, with what ssh's words mean; [`Error::Interrupted`].
    pub fn open(ssh: &Ssh, destination: &str, interrupt: &Interrupt) -> Result<Self> {
        let host =
            if destination.contains('@') { destination.to_owned() } else { format!("root@{destination}") };
        if destination.is_empty() || destination.starts_with('-') {
            return Err(Error::here(Exit::Usage, format!("'{destination}' is no address")));
        }
        let failed =
            |error: &dyn std::fmt::Display| Error::here(Exit::Connect, format!("cannot run ssh: {error}"));
        let mut command = command(ssh, &host)?;
        let said = if ssh.verbose { None } else { tempfile::tempfile().ok() };
        if let Some(copy) = said.as_ref().and_then(|file| file.try_clone().ok()) {
            command.stderr(copy);
        }
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"no pipes"));
        };
        let patience = ssh.patience;
        let mut this = Self { host, child, relay: None, patience, link: None, said };
        match this.meet((stdout.into(), stdin.into()), interrupt) {
            Ok(()) => Ok(this),
            Err(error) => Err(this.explain(error)),
        }
    }

    /// The greetings; then the connection is a relay's.
    fn meet(
        &mut self,
        (from, out): (OwnedFd, OwnedFd),
        interrupt: &Interrupt,
    ) -> std::result::Result<(), WireError> {
        let pipe = |fd: OwnedFd| Pipe::new(fd, interrupt.clone());
        let (mut to, from) = (pipe(out.try_clone()?)?, pipe(from)?);
        // Of one byte, so that nothing is read that follows.
        let mut from = BufReader::with_capacity(1, from);
        greet(&mut to, &mut from, self.patience)?;
        let from = from.into_inner().into_fd();
        let (side, relay) = Relay::start(from, out, self.patience, End::Near)?;
        self.relay = Some(relay);
        self.link = Some(Link::new(pipe(side.try_clone()?)?, pipe(side)?));
        Ok(())
    }

    /// What is said over it; gone after [`Connection::explain`].
    ///
    /// # Errors
    /// [`WireError::Closed`] then.
    pub fn link(&mut self) -> std::result::Result<&mut Link<Pipe, Pipe>, WireError> {
        self.link.as_mut().ok_or(WireError::Closed)
    }

    /// Ends the connection and tells why it failed, in words that help.
    pub fn explain(&mut self, error: WireError) -> Error {
        match error {
            WireError::Closed => {
                let code = self.end();
                if self.stalled() {
                    let seconds = self.patience.as_secs();
                    let text = format!("nothing has come from {} for {seconds} s", self.host);
                    let hint = "Look at the network between the two hosts; --patience waits longer";
                    return Error::advised(Exit::Connect, text, hint);
                }
                let said = self.said.as_mut().map(last_words).unwrap_or_default();
                let explained = explain(&self.host, &said, code);
                Error::Here { text: explained.text, hint: explained.hint, exit: Exit::Connect }
            }
            WireError::Interrupted => {
                self.end();
                Error::Interrupted
            }
            other => {
                self.end();
                Error::Wire(other)
            }
        }
    }

    fn stalled(&mut self) -> bool {
        self.relay.as_mut().is_some_and(Relay::stalled)
    }

    /// Closes the other side's input and waits until it has cleaned up; returns ssh's exit code. An ssh that does
    /// not end, or to which nothing comes any more, is killed.
    pub fn end(&mut self) -> Option<i32> {
        // Without what waits to be sent: it may be half a message, and nobody may be there to take it.
        if let Some(link) = self.link.take() {
            link.discard();
        }
        let deadline = Instant::now() + GOODBYE;
        let mut status = None;
        while status.is_none() && Instant::now() < deadline && !self.stalled() {
            status = self.child.try_wait().ok().flatten();
            if status.is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if status.is_none() {
            let _ = self.child.kill();
            status = self.child.wait().ok();
        }
        status.and_then(|status| status.code())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.link.is_some() {
            self.end();
        }
    }
}

fn command(ssh: &Ssh, host: &str) -> Result<Command> {
    let mut command = vzsys::spawn::command("ssh").map_err(|error| {
        Error::advised(Exit::Connect, error.to_string(), "Install the package openssh-client")
    })?;
    // Its agent, its configuration and its name servers are the admin's.
    command.envs(std::env::vars_os());
    // Of each option the first value counts: the admin's.
    command.args(&ssh.options).arg("-T");
    for option in ["BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=10", "ServerAliveCountMax=3"] {
        command.args(["-o", option]);
    }
    if ssh.mux {
        let path = "ControlPath=/run/vz/ssh-%C";
        command.args(["-o", "ControlMaster=auto", "-o", path, "-o", "ControlPersist=60"]);
    }
    command.args(["--", host, REMOTE]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // A Ctrl-C at the terminal is for us: we end it in order.
    command.process_group(0);
    Ok(command)
}

/// ssh's last words.
fn last_words(file: &mut File) -> Vec<String> {
    let mut bytes = Vec::new();
    let from = file.metadata().map_or(0, |meta| meta.len().saturating_sub(KEPT));
    if file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    let plain = |line: &str| -> String {
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
    };
    String::from_utf8_lossy(&bytes).lines().map(plain).filter(|line| !line.is_empty()).collect()
}
