//! vznnc(8): a program with a TCP connection of this host for its input and output.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags};

/// How an attempt ends that does not become the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command line that is none of ours.
    #[error("{0}\nTry `vznnc --help' for more information.")]
    Usage(String),
    /// No connection came about.
    #[error("vznnc: cannot {what}")]
    Network {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is nobody left to serve.
    #[error("vznnc: standard input or output is closed")]
    Abandoned,
    /// The program cannot be run.
    #[error("vznnc: cannot run {program}")]
    Exec {
        /// Which.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn network(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Network { what: what.into(), source: source.into() }
    }

    /// What it exits with; otherwise that is the program's affair.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => 1,
            Self::Exec { .. } => 127,
            Self::Network { .. } | Self::Abandoned => 220,
        }
    }
}

/// Runs vznnc: becomes the program, or says why not.
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let error = match parse(words) {
        Ok(None) => return super::print(include_str!("help/vznnc.txt")),
        Ok(Some(wish)) => match run(&wish) {
            Err(error) => error,
            Ok(never) => match never {},
        },
        Err(error) => error,
    };
    super::complain("Error", &ve::describe(&error));
    ExitCode::from(error.exit())
}

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Listen,
    Connect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    side: Side,
    port: u16,
    /// Instead of standard input and output.
    fd: Option<RawFd>,
    program: OsString,
    arguments: Vec<OsString>,
}

/// Reads the command line up to the program; `None` when the help is wanted.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Wish>, Error> {
    let refuse = |complaint: &str| Error::Usage(complaint.to_owned());
    let (mut side, mut port, mut fd, mut program) = (None, None, None, None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let mut value = |option: &str| {
            let glued = Some(text[option.len()..].to_owned()).filter(|value| !value.is_empty());
            let value = glued.or_else(|| Some(words.next()?.to_string_lossy().into_owned()));
            value.ok_or_else(|| Error::Usage(format!("option {option} requires an argument")))
        };
        match text.as_str() {
            "--" => program = words.next(),
            "-h" | "--help" => return Ok(None),
            "-l" | "-c" => {
                let wanted = if text == "-l" { Side::Listen } else { Side::Connect };
                if side.is_some_and(|side| side != wanted) {
                    return Err(refuse("options -l and -c are exclusive"));
                }
                side = Some(wanted);
                continue;
            }
            _ if text.starts_with("-p") => {
                let number = value("-p")?.parse().ok().filter(|port| *port != 0);
                port = Some(number.ok_or_else(|| refuse("option -p takes a port from 1 to 65535"))?);
                continue;
            }
            _ if text.starts_with("-f") => {
                let number = value("-f")?.parse().ok().filter(|fd: &RawFd| *fd >= 0);
                fd = Some(number.ok_or_else(|| refuse("option -f takes the number of a descriptor"))?);
                continue;
            }
            _ if text.starts_with('-') && text != "-" => {
                return Err(Error::Usage(format!("unrecognized option: {text}")));
            }
            _ => program = Some(word),
        }
        break;
    }
    Ok(Some(Wish {
        side: side.ok_or_else(|| refuse("either -l or -c is required"))?,
        port: port.ok_or_else(|| refuse("option -p is required"))?,
        fd,
        program: program.ok_or_else(|| refuse("no program is named"))?,
        arguments: words.collect(),
    }))
}

fn run(wish: &Wish) -> Result<Infallible, Error> {
    let address = (Ipv4Addr::LOCALHOST, wish.port);
    let port = wish.port;
    let stream = match wish.side {
        Side::Connect => TcpStream::connect(address)
            .map_err(|error| Error::network(format!("connect to port {port} of localhost"), error))?,
        Side::Listen => {
            let listener = TcpListener::bind(address)
                .map_err(|error| Error::network(format!("listen on port {port} of localhost"), error))?;
            await_caller(&listener)?;
            listener.accept().map_err(|error| Error::network("accept a connection", error))?.0
        }
    };
    let mut command = Command::new(&wish.program);
    command.args(&wish.arguments);
    let connection = OwnedFd::from(stream);
    match wish.fd {
        // Itself: it only has to survive.
        Some(fd) if fd == connection.as_raw_fd() => rustix::io::fcntl_setfd(&connection, FdFlags::empty())
            .map_err(|errno| Error::network("keep the connection", errno))?,
        Some(fd) => vzsys::raw::dup_onto(connection.as_fd(), fd)
            .map_err(|error| Error::network(format!("make it descriptor {fd}"), error.errno()))?,
        None => {
            let second =
                connection.try_clone().map_err(|error| Error::network("copy the connection", error))?;
            command.stdin(second).stdout(connection);
            return Err(failed(wish, command.exec()));
        }
    }
    Err(failed(wish, command.exec()))
}

fn failed(wish: &Wish, source: io::Error) -> Error {
    Error::Exec { program: wish.program.to_string_lossy().into_owned(), source }
}

/// Waits for somebody to connect. When who started us has gone (an ssh connection that broke), nobody will.
fn await_caller(listener: &TcpListener) -> Result<(), Error> {
    let (input, output) = (io::stdin(), io::stdout());
    let mut watched = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(&input, PollFlags::empty()),
        PollFd::new(&output, PollFlags::empty()),
    ];
    loop {
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::network("wait for a connection", errno)),
        }
        if watched[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        if watched[1..].iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP)) {
            return Err(Error::Abandoned);
        }
        if watched.iter().any(|fd| !fd.revents().is_empty()) {
            return Err(Error::network("wait for a connection", Errno::BADF));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Wish>, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        let wish = read("-l -p 5000 cat -l -x").unwrap().unwrap();
        assert_eq!((wish.side, wish.port, wish.fd), (Side::Listen, 5000, None));
        assert_eq!((wish.program, wish.arguments), ("cat".into(), vec!["-l".into(), "-x".into()]));
        let wish = read("-c -p80 -f3 -- -odd -- x").unwrap().unwrap();
        assert_eq!((wish.side, wish.port, wish.fd), (Side::Connect, 80, Some(3)));
        assert_eq!((wish.program, wish.arguments), ("-odd".into(), vec!["--".into(), "x".into()]));
        assert_eq!(read("-l --help").unwrap(), None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        for (line, told) in [
            ("-p 1 cat", "either -l or -c"),
            ("-l -c -p 1 cat", "exclusive"),
            ("-l cat", "-p is required"),
            ("-l -p", "requires an argument"),
            ("-l -p 0 cat", "from 1 to 65535"),
            ("-l -p 70000 cat", "from 1 to 65535"),
            ("-l -p 1 -f -1 cat", "number of a descriptor"),
            ("-l -p 1", "no program"),
            ("-l -p 1 --", "no program"),
            ("-z", "-z"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.to_string().contains(told) && error.exit() == 1, "{line}: {error}");
        }
    }
}
