//! A directory of backups on another host, through the `ssh` program: the admin's configuration, agent, jump hosts and
//! known hosts count. The far side is `vzbackup --serve`.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vzsys::Call;

use super::error::Fault;
use super::frame::{HEADER, Header, Kind as FrameKind};
use super::head::Head;
use super::message::{HELLO, Kind, parse_fault, receive, request, send};
use super::reader::{Bare, Data, Frames, Pipe, failed};
use super::store::{PartWriter, ReadAt, Shelf, Stream};

/// How often something is said, so that the far side knows that we live.
const BEAT: Duration = Duration::from_secs(15);
/// How long a part may stay locked by the far side of a connection that broke.
const LINGERS: Duration = Duration::from_secs(90);
/// Users' own PATH over there may lack these.
const COMMAND: &str = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin exec vzbackup --serve";
/// What ssh needs of our environment to act as the admin's own.
const KEPT: [&str; 8] =
    ["HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "TERM"];

/// `ssh://[USER@]HOST[:PORT]/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `[USER@]HOST`.
    pub host: String,
    /// The port, where it is not the configured one.
    pub port: Option<u16>,
    /// The path over there.
    pub path: String,
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "ssh://{}{port}{}", self.host, self.path)
    }
}

impl Remote {
    /// Reads what follows `ssh://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        let (host, path) = rest.split_once('/').ok_or("it has no path; ssh://HOST/PATH")?;
        let (host, port) = match host.rsplit_once(':') {
            // An IPv6 address in brackets has colons of its own.
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| format!("'{port}' is no port"))?))
            }
            _ => (host, None),
        };
        let host = host.replace(['[', ']'], "");
        // ssh would take it for an option.
        if host.is_empty() || host.starts_with('-') || host.contains(|c: char| c.is_control() || c == ' ') {
            return Err(format!("'{host}' is no host"));
        }
        Ok(Self { host, port, path: format!("/{path}") })
    }

    /// The directory, and the name in it.
    pub(super) fn split(&self) -> (&str, &str) {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        (if dir.is_empty() { "/" } else { dir }, file)
    }
}

/// One ssh.
struct Connection {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
    host: String,
}

impl Connection {
    fn open(remote: &Remote) -> Result<Self, Fault> {
        let mut command = vzsys::spawn::command("ssh")?;
        for key in KEPT {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command.args(["-T", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        if let Some(port) = remote.port {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", &remote.host, COMMAND]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.call("execve", || "ssh")?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault::Remote("ssh has no pipes".to_owned()));
        };
        let (to, from) = (BufWriter::with_capacity(256 << 10, to), BufReader::with_capacity(256 << 10, from));
        let mut connection = Self { child, to, from, host: remote.host.clone() };
        let hello = [HELLO, remote.split().0.as_bytes()].concat();
        connection.say(Kind::Hello, &hello)?;
        Ok(connection)
    }

    fn say(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Fault> {
        send(&mut self.to, kind, bytes).map_err(|_| self.broken())
    }

    /// The next bytes of an answer; `None` at its end.
    fn hear(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        if self.to.flush().is_err() {
            return Err(self.broken());
        }
        match receive(&mut self.from) {
            Ok(Some((Kind::Bytes, bytes))) => Ok(Some(bytes)),
            Ok(Some((Kind::Done, _))) => Ok(None),
            Ok(Some((Kind::Error, bytes))) => Err(parse_fault(&bytes, &self.host)),
            _ => Err(self.broken()),
        }
    }

    fn ask(&mut self, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        self.say(kind, bytes)?;
        let mut answer = Vec::new();
        while let Some(bytes) = self.hear()? {
            answer.extend_from_slice(&bytes);
        }
        Ok(answer)
    }

    /// Why the connection is of no use any more: its last word, or how ssh ended.
    fn broken(&mut self) -> Fault {
        while let Ok(Some((kind, bytes))) = receive(&mut self.from) {
            if kind == Kind::Error {
                return parse_fault(&bytes, &self.host);
            }
        }
        let host = &self.host;
        Fault::Remote(match self.child.wait().ok().and_then(|status| status.code()) {
            Some(127) => format!("vzbackup is not installed on {host}"),
            Some(255) => format!("ssh cannot reach {host}, or lost it; the same command goes on"),
            _ => format!("the connection to {host} broke; the same command goes on"),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.to.flush();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Shared = Arc<Mutex<Connection>>;

fn lock(connection: &Shared) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A directory over there.
pub(super) struct Vault {
    remote: Remote,
    control: Option<Shared>,
}

impl Vault {
    pub(super) fn new(remote: Remote) -> Self {
        Self { remote, control: None }
    }

    /// The connection for short questions.
    fn control(&mut self) -> Result<Shared, Fault> {
        if let Some(control) = &self.control {
            return Ok(Arc::clone(control));
        }
        let control = self.another()?;
        self.control = Some(Arc::clone(&control));
        Ok(control)
    }

    fn another(&self) -> Result<Shared, Fault> {
        Ok(Arc::new(Mutex::new(Connection::open(&self.remote)?)))
    }
}

impl Shelf for Vault {
    fn frames(&mut self, file: &str) -> Result<Stream, Fault> {
        let control = self.control()?;
        lock(&control).say(Kind::Frames, &request(file, &[]))?;
        Ok(Box::new(Bare(Answer::begin(control)?)))
    }

    fn stream(&mut self, file: &str, at: u64) -> Result<Stream, Fault> {
        let own = self.another()?;
        lock(&own).say(Kind::Stream, &request(file, &[at]))?;
        Ok(Box::new(Pipe(Answer::begin(own)?)))
    }

    fn blocks(&mut self, file: &str) -> Result<Box<dyn ReadAt>, Fault> {
        Ok(Box::new(Blocks { control: self.control()?, file: file.to_owned() }))
    }

    fn part(&mut self, file: &str) -> Result<(Stream, Data, Box<dyn PartWriter>), Fault> {
        let own = self.another()?;
        let until = Instant::now() + LINGERS;
        let answer = loop {
            lock(&own).say(Kind::Part, &request(file, &[]))?;
            match Answer::begin(Arc::clone(&own)) {
                // The far side of a connection that broke has it until it notices.
                Err(Fault::Busy) if Instant::now() < until => std::thread::sleep(Duration::from_secs(1)),
                done => break done?,
            }
        };
        Ok((Box::new(Bare(answer)), Data::Leave, Box::new(Part::new(own)?)))
    }

    fn head(&mut self, file: &str) -> Result<Head, Fault> {
        // Not all frames for the sake of one.
        let mut blocks = self.blocks(file)?;
        let mut first = vec![0; HEADER];
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::NotOurs,
            _ => failed(&error),
        };
        blocks.read_at(&mut first, 0).map_err(short)?;
        let header = first.as_slice().try_into().ok().and_then(|start| Header::parse(start).ok());
        let header = header.filter(|header| header.kind == FrameKind::Head).ok_or(Fault::NotOurs)?;
        first.resize(HEADER + header.body(), 0);
        blocks.read_at(&mut first[HEADER..], HEADER as u64).map_err(short)?;
        Ok(Frames::open(Pipe(first.as_slice()))?.head)
    }

    fn names(&mut self) -> Result<Vec<String>, Fault> {
        let control = self.control()?;
        let names = lock(&control).ask(Kind::Names, &[])?;
        let names = String::from_utf8_lossy(&names).into_owned();
        Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

/// The bytes of one answer. It is heard to its end, whoever wants it or not.
struct Answer {
    connection: Shared,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Answer {
    /// Waits for its beginning, by which one knows whether there is one.
    fn begin(connection: Shared) -> Result<Self, Fault> {
        let first = lock(&connection).hear()?;
        let ended = first.is_none();
        Ok(Self { connection, bytes: first.unwrap_or_default(), at: 0, ended })
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() && !self.ended {
            match lock(&self.connection).hear() {
                Ok(Some(bytes)) => (self.bytes, self.at) = (bytes, 0),
                Ok(None) => self.ended = true,
                Err(fault) => {
                    self.ended = true;
                    return Err(io::Error::other(fault.to_string()));
                }
            }
        }
        let n = buffer.len().min(self.bytes.len() - self.at);
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A stream of its own ends with its connection.
        while !self.ended && Arc::strong_count(&self.connection) > 1 {
            self.ended = !matches!(lock(&self.connection).hear(), Ok(Some(_)));
        }
    }
}

struct Blocks {
    control: Shared,
    file: String,
}

impl ReadAt for Blocks {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let words = request(&self.file, &[at, buffer.len() as u64]);
        let bytes = lock(&self.control).ask(Kind::Read, &words);
        let bytes = bytes.map_err(|fault| io::Error::other(fault.to_string()))?;
        if bytes.len() != buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn size(&mut self) -> io::Result<u64> {
        let bytes = lock(&self.control).ask(Kind::Size, &request(&self.file, &[]));
        let bytes = bytes.map_err(|fault| io::Error::other(fault.to_string()))?;
        let bytes = bytes.try_into().map_err(|_| io::Error::other("an answer that is no size"))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A backup that is written over there.
struct Part {
    connection: Shared,
}

impl Part {
    fn new(connection: Shared) -> Result<Self, Fault> {
        let beat = Arc::downgrade(&connection);
        let heart = move || {
            loop {
                std::thread::sleep(BEAT);
                let Some(connection) = beat.upgrade() else { return };
                let mut connection = lock(&connection);
                if connection.say(Kind::Append, &[]).is_err() || connection.to.flush().is_err() {
                    return;
                }
            }
        };
        let beating = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(heart);
        beating.call("clone3", || "heartbeat")?;
        Ok(Self { connection })
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(1 << 20)];
        match lock(&self.connection).say(Kind::Append, piece) {
            Ok(()) => Ok(piece.len()),
            Err(Fault::System(error)) => Err(io::Error::from_raw_os_error(error.errno().raw_os_error())),
            Err(fault) => Err(io::Error::other(fault.to_string())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.connection).to.flush()
    }
}

impl PartWriter for Part {
    fn cut(&mut self, at: u64) -> Result<(), Fault> {
        lock(&self.connection).ask(Kind::Cut, &request("x", &[at])).map(drop)
    }

    fn commit(self: Box<Self>) -> Result<(), Fault> {
        vzsys::fault::point("sshbackup.commit");
        lock(&self.connection).ask(Kind::Commit, &[]).map(drop)
    }

    fn abandon(self: Box<Self>) {
        let _ = lock(&self.connection).ask(Kind::Abandon, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_other_hosts_are_taken_apart() {
        let parse = |text: &str| Remote::parse(text.strip_prefix("ssh://").unwrap());
        let remote = parse("ssh://me@vault:2222/srv/vz/a.vzb").unwrap();
        assert_eq!((remote.host.as_str(), remote.port), ("me@vault", Some(2222)));
        assert_eq!(remote.split(), ("/srv/vz", "a.vzb"));
        assert_eq!(remote.to_string(), "ssh://me@vault:2222/srv/vz/a.vzb");
        let remote = parse("ssh://[::1]/a.vzb").unwrap();
        assert_eq!((remote.host.as_str(), remote.port, remote.split()), ("::1", None, ("/", "a.vzb")));
        assert_eq!(parse("ssh://[fe80::1]:22/x/").unwrap().split(), ("/x", ""));
        for bad in ["ssh://vault", "ssh:///x", "ssh://-oProxyCommand=x/y", "ssh://vault:ssh/x", "ssh://a b/x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
