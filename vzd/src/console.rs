//! The VE's console: its terminal's master, and those who look at it through a socket.
//!
//! The socket `RUN_DIR/console` is `SOCK_SEQPACKET`, mode 0600. A client's packet is `d` and the bytes
//! typed, or `w` and rows and columns (two big-endian `u16`). Ours are the bytes the VE wrote. A new
//! client first gets what was written last.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with,
};
use rustix::termios::{Winsize, tcsetwinsize};

/// How much of the past a new client sees.
const BACKLOG: usize = 8 * 1024;
/// More people than this at one console are refused.
const CLIENTS: usize = 8;

/// The console of one VE.
#[derive(Debug)]
pub(crate) struct Console {
    master: OwnedFd,
    /// Held open, or the master would report a hang-up whenever the VE has its console closed.
    _slave: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    path: PathBuf,
    clients: Vec<OwnedFd>,
    past: VecDeque<u8>,
}

impl Console {
    /// Serves the console. Without a socket (a full tmpfs) its output is still drained, so that the VE
    /// never blocks on it.
    pub(crate) fn serve(run_dir: &Path, master: OwnedFd) -> Option<Self> {
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            rustix::pty::OpenptFlags::RDWR
                | rustix::pty::OpenptFlags::NOCTTY
                | rustix::pty::OpenptFlags::CLOEXEC,
        )
        .ok();
        let flags = rustix::fs::fcntl_getfl(&master).ok()?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).ok()?;
        let path = run_dir.join("console");
        let listener = open_socket(&path).ok();
        Some(Self { master, _slave: slave, listener, path, clients: Vec::new(), past: VecDeque::new() })
    }

    /// Adds what to wait for: the master, the listener if any, then each client.
    pub(crate) fn register<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.master, PollFlags::IN));
        fds.extend(self.listener.iter().chain(&self.clients).map(|fd| PollFd::new(fd, PollFlags::IN)));
    }

    /// Serves those that are ready, in the order of [`Console::register`].
    pub(crate) fn serve_ready(&mut self, ready: &[PollFlags]) {
        let is_ready = |i: usize| ready.get(i).is_some_and(|flags| !flags.is_empty());
        let first_client = 1 + usize::from(self.listener.is_some());
        let gone: Vec<usize> =
            (0..self.clients.len()).filter(|&i| is_ready(first_client + i) && !self.take_input(i)).collect();
        for i in gone.into_iter().rev() {
            self.clients.swap_remove(i);
        }
        if self.listener.is_some() && is_ready(1) {
            self.accept();
        }
        if is_ready(0) {
            self.spread_output();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(client) = accept_with(listener, flags) else { return };
        if self.clients.len() < CLIENTS {
            // An empty packet would look like the end.
            if !self.past.is_empty() {
                let _ = send(&client, self.past.make_contiguous(), SendFlags::NOSIGNAL);
            }
            self.clients.push(client);
        }
    }

    /// `false` when the client is gone.
    fn take_input(&self, client: usize) -> bool {
        let mut packet = [0_u8; 4096];
        match recv(&self.clients[client], &mut packet[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => return false,
            Ok((n, _)) => match (packet[0], &packet[1..n]) {
                // A full terminal drops what was typed, as a real line does.
                (b'd', bytes) => drop(rustix::io::write(&self.master, bytes)),
                (b'w', &[r1, r2, c1, c2]) => {
                    let size = Winsize {
                        ws_row: u16::from_be_bytes([r1, r2]),
                        ws_col: u16::from_be_bytes([c1, c2]),
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    let _ = tcsetwinsize(&self.master, size);
                }
                _ => {}
            },
        }
        true
    }

    fn spread_output(&mut self) {
        let mut bytes = [0_u8; 4096];
        let Ok(n) = rustix::io::read(&self.master, &mut bytes) else { return };
        let bytes = &bytes[..n];
        self.past.extend(bytes);
        let surplus = self.past.len().saturating_sub(BACKLOG);
        self.past.drain(..surplus);
        // A client that does not read loses output; the VE is never held up for it.
        self.clients.retain(|client| {
            !matches!(send(client, bytes, SendFlags::NOSIGNAL), Err(rustix::io::Errno::PIPE))
        });
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) fn open_socket(path: &Path) -> rustix::io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(mask);
    bound?;
    listen(&socket, 4)?;
    Ok(socket)
}
