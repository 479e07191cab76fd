//! vzpid(8): which VE a process of the host belongs to.

use std::fmt::Write as _;
use std::io::Read as _;

use beancounters::VeCgroup;
use vzconf::Paths;

use super::words::{Grammar, Request};
use super::{Answer, Error};

const GRAMMAR: Grammar =
    Grammar { program: "vzpid", flags: &[('p', "ctpid")], operands: usize::MAX, exit: 1 };
/// More pids than a host can have, in words.
const MOST: u64 = 64 << 20;

/// Runs vzpid.
///
/// # Errors
/// Those of the command line, of standard input and of `/proc`.
pub fn run(words: &[String], _paths: &Paths) -> Result<Answer, Error> {
    let Request::Work { flags, mut operands } = GRAMMAR.read(words)? else {
        return Ok(include_str!("help/vzpid.txt").to_owned().into());
    };
    if operands == ["-"] {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(MOST).read_to_string(&mut text);
        read.map_err(|source| Error::io("read standard input", source))?;
        operands = text.split_whitespace().map(str::to_owned).collect();
    } else if operands.is_empty() {
        return Err(GRAMMAR.refuse("no process is named"));
    }
    let inner = flags.contains(&'p');
    let mut text = if inner { "Pid\tCT/Pid\tCTID\tName\n" } else { "Pid\tCTID\tName\n" }.to_owned();
    for word in &operands {
        let pid: i32 = word
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| GRAMMAR.refuse(format!("{word} is not the number of a process")))?;
        if let Some(process) = Process::of(pid)? {
            let _ = writeln!(text, "{}", process.line(pid, inner));
        }
    }
    Ok(text.into())
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// 0 is the host.
    ctid: u32,
    /// Its number in the VE; on the host that on the host.
    inner: i32,
    name: String,
}

impl Process {
    /// `None` when there is no such process (any more).
    fn of(pid: i32) -> Result<Option<Self>, Error> {
        let file = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                // The second is the answer of a file that was opened in time.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    Ok(None)
                }
                Err(error) => Err(Error::io(format!("read {path}"), error)),
            }
        };
        let (Some(status), Some(cgroup)) = (file("status")?, file("cgroup")?) else { return Ok(None) };
        Ok(Some(Self::parse(&status, &cgroup)))
    }

    fn parse(status: &str, cgroup: &str) -> Self {
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let ctid = cgroup.lines().find_map(|line| VeCgroup::of_path(line.splitn(3, ':').nth(2)?));
        // The numbers from the outermost namespace inwards; that of the VE is the second.
        let numbers: Vec<i32> =
            value("NSpid:").split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let inner = if ctid.is_some() { numbers.get(1) } else { None };
        // A VE chooses its processes' names.
        let name = value("Name:").trim().replace(char::is_control, "\u{fffd}");
        Self {
            ctid: ctid.map_or(0, vzconf::Ctid::get),
            inner: inner.or(numbers.first()).copied().unwrap_or(0),
            name,
        }
    }

    fn line(&self, pid: i32, inner: bool) -> String {
        let Self { ctid, inner: number, name } = self;
        if inner { format!("{pid}\t{number}\t{ctid}\t{name}") } else { format!("{pid}\t{ctid}\t{name}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsleep\nUmask:\t0022\nNSpid:\t4321\t17\t3\n";

    #[test]
    fn a_process_of_a_ve_has_two_numbers() {
        let process = Process::parse(STATUS, "5:pids:/vz/101/user\n0::/vz/101/user\n");
        assert_eq!(process.line(4321, true), "4321\t17\t101\tsleep");
        assert_eq!(process.line(4321, false), "4321\t101\tsleep");
    }

    #[test]
    fn a_process_of_the_host_has_one() {
        let process = Process::parse("Name:\tbash\nNSpid:\t99\n", "0::/user.slice/vz/x\n");
        assert_eq!(process.line(99, true), "99\t99\t0\tbash");
        let contained = Process::parse(STATUS, "0::/machine.slice\n");
        assert_eq!(contained.line(4321, true), "4321\t4321\t0\tsleep");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let process = Process::parse("Name:\t\u{1b}[2Ja\tb\nNSpid:\t9\t8\n", "0::/vz/7\n");
        assert_eq!(process.line(9, false), "9\t7\t\u{fffd}[2Ja\u{fffd}b");
    }

    #[test]
    fn we_are_a_process_and_nobody_is_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Process::of(own).unwrap().is_some());
        assert_eq!(Process::of(i32::MAX).unwrap(), None);
    }
}
