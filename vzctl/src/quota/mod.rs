//! vzquota(8): disk limits and usage of VEs, in the columns of OpenVZ's program of that name.

mod users;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use templates::quota::{Report, Row};
use vzconf::{Config, Ctid, Paths};
use vzsys::quota::Whose;

use crate::check::complain;
use users::Change;

const SYSTEM: u8 = 1;
const USAGE: u8 = 2;
const NOT_RUNNING: u8 = 6;
const UGID_INACTIVE: u8 = 9;
const NO_FILE: u8 = 11;

/// Commands of OpenVZ's program, and who does that here.
const ELSEWHERE: [(&str, &str); 7] = [
    ("on", "vzctl quotaon CTID"),
    ("off", "vzctl quotaoff CTID"),
    ("init", "vzctl quotainit CTID"),
    ("drop", "vzctl quotaoff CTID"),
    ("setlimit", "vzctl set CTID --diskspace S:H --diskinodes S:H --quotatime T"),
    ("reload2", "nothing: limits of users inside a container hold once they are set"),
    ("check", "nothing: what is in use is always exact"),
];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    command: Command,
    ctid: u32,
    batch: bool,
    users: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Of a quota that is on.
    Stat,
    /// Of any.
    Show,
    /// Nothing is shown: limits of users or groups inside are changed.
    Change(Change),
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Help,
    Version,
    Work(Request),
}

/// Why there is no answer: the exit code and what is said.
type Refusal = (u8, String);

fn usage(complaint: impl std::fmt::Display) -> Refusal {
    (USAGE, format!("{complaint}\nTry `vzquota --help' for more information."))
}

fn read(words: &[String]) -> Result<Asked, Refusal> {
    let (mut operands, mut batch, mut users, mut who) = (Vec::new(), false, false, None);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            // The time of all users, or groups, has no number of one.
            "-u" | "-g" => {
                let whose = if word == "-u" { Whose::User } else { Whose::Group };
                let is_time = operands.first() == Some(&"settime2");
                let id = if is_time { Some("") } else { words.next() };
                who = Some((whose, id.ok_or_else(|| usage(format!("{word} needs a number")))?));
            }
            "-h" | "--help" => return Ok(Asked::Help),
            "-V" | "--version" => return Ok(Asked::Version),
            "-b" | "--batch" => batch = true,
            "-t" | "--user-group" => users = true,
            // Nothing to be quiet or talkative about; usage is not kept in a file that could be left alone.
            "-q" | "-v" | "-f" => {}
            option if option.starts_with('-') => return Err(usage(format!("unrecognized option: {option}"))),
            operand => operands.push(operand),
        }
    }
    let (command, rest) = operands.split_first().ok_or_else(|| usage("no command is given"))?;
    let (command, rest) = match *command {
        "stat" => (Command::Stat, rest),
        "show" => (Command::Show, rest),
        "setlimit2" | "settime2" => {
            let (id, numbers) = rest.split_at(rest.len().min(1));
            (Command::Change(Change::read(command, who, numbers)?), id)
        }
        other => {
            let known = ELSEWHERE.iter().find(|(word, _)| *word == other);
            return Err(known.map_or_else(
                || usage(format!("unknown command: {other}")),
                |(word, instead)| (USAGE, format!("vzquota {word} is done by {instead}")),
            ));
        }
    };
    let [id] = rest else { return Err(usage("one quota id is needed, the number of a container")) };
    let ctid = id.parse().ok().filter(|id| *id > 0);
    let ctid = ctid.ok_or_else(|| usage(format!("{id} is not the number of a container")))?;
    Ok(Asked::Work(Request { command, ctid, batch, users }))
}

/// The whole of `vzquota`.
#[must_use]
pub fn main(paths: &Paths) -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    match answer(&words, paths) {
        Ok((text, code)) => {
            // `vzquota stat 1 | head` has read what it wants.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::from(code)
        }
        Err((code, text)) => {
            complain("Error", &text);
            ExitCode::from(code)
        }
    }
}

fn answer(words: &[String], paths: &Paths) -> Result<(String, u8), Refusal> {
    let request = match read(words)? {
        Asked::Help => return Ok((include_str!("quota.txt").to_owned(), 0)),
        Asked::Version => return Ok((format!("vzquota, {}\n", crate::cli::version_line().trim()), 0)),
        Asked::Work(request) => request,
    };
    if !rustix::process::geteuid().is_root() {
        return Err((SYSTEM, "This program can only be run under root.".to_owned()));
    }
    let ctid = Ctid::new(request.ctid).map_err(|error| usage(error.to_string()))?;
    if let Command::Change(change) = request.command {
        return users::change(paths, ctid, change).map(|()| (String::new(), 0));
    }
    let report = found(&request, ctid, paths)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let text = table(&report, request.batch, now);
    if request.users {
        let (more, are_counted) = users::table(paths, ctid, request.batch, now)?;
        return Ok((text + &more, if are_counted { 0 } else { UGID_INACTIVE }));
    }
    Ok((text, 0))
}

fn found(request: &Request, ctid: Ctid, paths: &Paths) -> Result<Report, Refusal> {
    let config = Config::global(paths).and_then(|global| global.for_ve(ctid)).ok();
    let report = config.and_then(|config| ve::quota::report(paths, ctid, &config));
    let on = |report: &Report| report.space.bounds.limit != 0 || report.inodes.bounds.limit != 0;
    match (request.command, report) {
        (Command::Stat, Some(report)) if on(&report) => Ok(report),
        (Command::Stat, _) => Err((NOT_RUNNING, format!("Quota accounting is off, try vzquota show {ctid}"))),
        (_, Some(report)) => Ok(report),
        (_, None) => Err((NO_FILE, format!("nothing is counted for container {}", request.ctid))),
    }
}

fn table(report: &Report, batch: bool, now: u64) -> String {
    let mut text = String::new();
    if !batch {
        let _ = writeln!(
            text,
            "{:>11} {:>14}  {:>14} {:>14} {:>8}",
            "resource", "usage", "softlimit", "hardlimit", "grace"
        );
    }
    for (name, row) in [("1k-blocks", report.space), ("inodes", report.inodes)] {
        let Row { usage, bounds, expires } = row;
        let (soft, hard) = (bounds.barrier, bounds.limit);
        if batch {
            let _ = writeln!(
                text,
                "{usage:>14} {soft:>14} {hard:>14} {:>14} {:>14}",
                expires.unwrap_or(0),
                report.grace
            );
        } else {
            let over = if soft != 0 && usage > soft || hard != 0 && usage > hard { '*' } else { ' ' };
            let _ = writeln!(
                text,
                "{name:>11} {usage:>14}{over} {soft:>14} {hard:>14} {:>8}",
                left(expires, now)
            );
        }
    }
    text
}

/// What is left of the time that a soft limit may be exceeded.
fn left(expires: Option<u64>, now: u64) -> String {
    const DAY: u64 = 86_400;
    match expires {
        None => String::new(),
        Some(at) if at <= now => "none".to_owned(),
        Some(at) if at - now >= 2 * DAY => format!("{}days", (at - now + DAY / 2) / DAY),
        Some(at) => {
            let minutes = (at - now + 30) / 60;
            format!("{:02}:{:02}", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use templates::quota::Bounds;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_columns_are_openvzs() {
        let bounds = Bounds { barrier: 100, limit: 110 };
        let report = Report {
            space: Row { usage: 105, bounds, expires: Some(1_000_060) },
            inodes: Row { usage: 7, bounds, expires: None },
            grace: 3600,
        };
        assert_eq!(
            table(&report, false, 1_000_000),
            "   resource          usage       softlimit      hardlimit    grace\n  \
             1k-blocks            105*            100            110    00:01\n     \
             inodes              7             100            110         \n"
        );
        assert_eq!(
            table(&report, true, 0),
            "           105            100            110        1000060           3600\n             \
             7            100            110              0           3600\n"
        );
    }

    #[test]
    fn time_is_told_as_quota_tools_do() {
        for (expires, text) in [
            (None, ""),
            (Some(10), "none"),
            (Some(11), "00:00"),
            (Some(10 + 7200), "02:00"),
            (Some(10 + 3 * 86_400), "3days"),
        ] {
            assert_eq!(left(expires, 10), text);
        }
    }

    #[test]
    fn command_lines_are_understood_or_refused_with_2() {
        let work = |command, batch, users| Asked::Work(Request { command, ctid: 101, batch, users });
        assert_eq!(read(&words("-b stat 101")), Ok(work(Command::Stat, true, false)));
        assert_eq!(read(&words("show 101 -t")), Ok(work(Command::Show, false, true)));
        assert_eq!(read(&words("--help")), Ok(Asked::Help));
        for line in ["", "stat", "stat 1 2", "stat web", "stat 0", "fly 1", "stat 1 -z", "on 1", "setlimit 1"]
        {
            assert_eq!(read(&words(line)).unwrap_err().0, USAGE, "{line}");
        }
        for line in [
            "setlimit2 1 -u 5 1 2 3",
            "setlimit2 1 1 2 3 4",
            "setlimit2 -u",
            "settime2 1 2 3",
            "setlimit2 -u 5 1 2 3 4",
        ] {
            assert_eq!(read(&words(line)).unwrap_err().0, USAGE, "{line}");
        }
        for line in ["setlimit2 101 -u 5 1 2 3 4", "settime2 101 -g 60 60", "settime2 -u 101 60 60"] {
            assert!(matches!(read(&words(line)), Ok(Asked::Work(Request { ctid: 101, .. }))), "{line}");
        }
        assert!(read(&words("setlimit 1")).unwrap_err().1.contains("vzctl set"));
    }
}
