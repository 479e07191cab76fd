//! `vzctl console`: our terminal on the VE's console.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use vzconf::Exit;
use vzsys::{Call, Result as SysResult, SysError, process};

use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::session::{self, Raw};
use crate::start;

const ESC: u8 = 0x1b;
/// How often a stopped VE is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Attaches to the console until the user detaches with `Esc .` at the start of a line. Waits for a VE
/// that is stopped, and goes on when it stops and starts again.
///
/// # Errors
/// 21 for a terminal that the VE does not have.
pub fn console(ve: &Ve<'_>, tty: u32) -> Result<()> {
    if tty > 0 {
        let message = format!("container {} has one console, tty 0", ve.ctid);
        return Err(Error::refused(Exit::InvalidValue, message));
    }
    if let Some(state) = ve.running() {
        start::adopt(ve, &state)?;
    }
    eprintln!("Attached to CT {} (ESC . to detach)", ve.ctid);
    let done = attend(&ve.run_dir().join("console"))
        .doing(Exit::System, || format!("the console of container {}", ve.ctid));
    eprintln!("\nDetached from CT {}", ve.ctid);
    done
}

fn attend(path: &Path) -> SysResult<()> {
    let signals = session::catch_signals()?;
    let _raw = std::io::stdin().is_terminal().then(Raw::enter);
    let mut keys = Keys::default();
    let mut socket = None;
    // A console that is lost as soon as it is found (too many people are at it) is not asked without pause.
    let mut next_try = Instant::now();
    loop {
        if socket.is_none() && Instant::now() >= next_try {
            socket = open(path);
            next_try = Instant::now() + LOOK;
        }
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(stdin, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        if let Some(socket) = &socket {
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        let timeout = process::timespec(socket.is_none().then_some(LOOK));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll", "console", errno)),
        }
        let ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        let (typed, signal, output) = (ready(0), ready(1), ready(2));
        if signal && !session::only_resized(&signals) {
            return Ok(());
        }
        if signal && let Some(socket) = &socket {
            send_size(socket);
        }
        if typed && !keys.pass(socket.as_ref())? {
            return Ok(());
        }
        if output && !show(socket.as_ref()) {
            socket = None;
        }
    }
}

fn open(path: &Path) -> Option<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    send_size(&socket);
    Some(socket)
}

fn send_size(socket: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let [r1, r2] = size.ws_row.to_be_bytes();
        let [c1, c2] = size.ws_col.to_be_bytes();
        let _ = send(socket, &[b'w', r1, r2, c1, c2], SendFlags::NOSIGNAL);
    }
}

/// `false` when the VE's console is gone.
fn show(socket: Option<&OwnedFd>) -> bool {
    let Some(socket) = socket else { return false };
    let mut packet = vec![0_u8; 16 * 1024];
    match recv(socket, &mut packet[..], RecvFlags::empty()) {
        Ok((0, _)) | Err(_) => false,
        Ok((n, _)) => {
            let mut out = std::io::stdout();
            out.write_all(&packet[..n]).and_then(|()| out.flush()).is_ok()
        }
    }
}

/// What is typed, with the escape at the start of a line taken out.
#[derive(Debug)]
struct Keys {
    line_start: bool,
    escape: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self { line_start: true, escape: false }
    }
}

impl Keys {
    /// `false` when the user wants to leave, or the input has ended.
    fn pass(&mut self, socket: Option<&OwnedFd>) -> SysResult<bool> {
        let mut bytes = [0_u8; 1024];
        let n = rustix::io::read(rustix::stdio::stdin(), &mut bytes).call("read", || "stdin")?;
        let Some(out) = self.translate(&bytes[..n]) else { return Ok(false) };
        if n == 0 {
            return Ok(false);
        }
        if let Some(socket) = socket.filter(|_| !out.is_empty()) {
            let packet: Vec<u8> = std::iter::once(b'd').chain(out).collect();
            let _ = send(socket, &packet, SendFlags::NOSIGNAL);
        }
        Ok(true)
    }

    /// The bytes for the VE; `None` on `Esc .`.
    fn translate(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if std::mem::take(&mut self.escape) {
                if byte == b'.' {
                    return None;
                }
                out.push(ESC);
            }
            if byte == ESC && self.line_start {
                self.escape = true;
            } else {
                out.push(byte);
                self.line_start = byte == b'\r' || byte == b'\n';
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_and_dot_leave_only_at_the_start_of_a_line() {
        let mut keys = Keys::default();
        assert_eq!(keys.translate(b"a\x1b.").unwrap(), b"a\x1b.");
        assert_eq!(keys.translate(b"\r").unwrap(), b"\r");
        assert_eq!(keys.translate(b"\x1b[A").unwrap(), b"\x1b[A");
        assert_eq!(keys.translate(b"\r\x1b").unwrap(), b"\r");
        assert_eq!(keys.translate(b"."), None);
    }
}
