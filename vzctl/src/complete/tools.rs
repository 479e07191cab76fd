//! The words of the tools that read the table of beancounters, and of those that make configurations fit.

use super::line::{Candidate, Proposal, containers};
use super::sources::Sources;
use crate::cli::Containers;

type Options = &'static [(&'static str, &'static str)];

const VZUBC: Options = &[
    ("--verbose", "resources without a barrier too"),
    ("--quiet", "only what was refused or is close to its limit"),
    ("-qh", "part of the barrier in use that counts as close"),
    ("-qm", "highest use that counts as close"),
    ("--relative", "refusals since the last run"),
    ("-rc", "forget the refusals of the last run"),
    ("-rd", "directory where runs are remembered"),
    ("--incremental", "what is held more since the last run"),
    ("-ic", "forget what was held at the last run"),
    ("-id", "directory where runs are remembered"),
    ("--watch", "again and again"),
    ("-wd", "highlight what changes"),
    ("-wt", "no title"),
    ("-wn", "seconds between two runs"),
    ("--color", "yellow and red for what needs attention"),
    ("--file", "a table in a file"),
    ("--help", "help"),
];
const DETAILS: Options = &[("--verbose", "each of them"), ("--help", "help")];
const VZMEMCHECK: Options =
    &[("--verbose", "each container"), ("--absolute", "megabytes instead of per cent"), ("--help", "help")];
const VZPID: Options = &[("--ctpid", "the number in the container too"), ("--help", "help")];
const VZQUOTA: Options = &[
    ("--batch", "numbers only"),
    ("--user-group", "users and groups inside too"),
    ("--version", "version"),
    ("--help", "help"),
];
const VZNNC: Options = &[
    ("-l", "wait for one connection"),
    ("-c", "connect"),
    ("-p", "port at localhost"),
    ("-f", "descriptor of the connection"),
    ("--help", "help"),
];
const VZCFGVALIDATE: Options = &[
    ("--repair", "mend what does not fit"),
    ("--interactive", "ask for each whether to mend it"),
    ("--vswap", "as a configuration of RAM and swap, or of beancounters"),
    ("--help", "help"),
];
const VZSPLIT: Options = &[
    ("--number", "how many containers"),
    ("--file", "the name of the sample to write"),
    ("--swap", "count with so much swap"),
    ("--vswap", "limit RAM and swap, or each beancounter"),
    ("--help", "help"),
];
const VZCFGSCALE: Options = &[
    ("--all", "scale everything"),
    ("--cpu-only", "scale CPU units and caps"),
    ("--disk-only", "scale disk space and inodes"),
    ("--ubc-only", "scale RAM, swap and beancounters"),
    ("--network-only", "scale bandwidth"),
    ("--remove", "leave out what belongs to one container"),
    ("--validate", "write nothing that is not valid"),
    ("--output-file", "where to write"),
    ("--help", "help"),
];

const VZIMPORT: Options = &[
    ("--conf", "its configuration"),
    ("--rootfs", "its files"),
    ("--kind", "whose it was"),
    ("--shift", "what its ids are shifted by"),
    ("--layout", "how its private area is kept"),
    ("--name", "its name here"),
    ("--dry-run", "only tell"),
    ("--json", "print JSON"),
    ("--quiet", "only errors"),
    ("--verbose", "more"),
    ("--help", "help"),
];

const VZTOP: Options = &[
    ("--delay", "seconds between two looks"),
    ("--iterations", "end after so many looks"),
    ("--sort", "by this column"),
    ("--reverse", "the other way round"),
    ("--filter", "only those with this in their number or name"),
    ("--batch", "text; needs no terminal"),
    ("--json", "JSON, an object a line"),
    ("--help", "help"),
];
const VZMIGRATE: Options = &[
    ("--remove-area", "remove it here afterwards: yes or no"),
    ("--ssh", "more options for ssh"),
    ("--ssh-mux", "keep the connection for later moves"),
    ("--patience", "seconds of silence after which a connection is given up"),
    ("--keep-dst", "keep what was copied when it fails"),
    ("--online", "live migration"),
    ("--compress", "compress on the way: auto or no"),
    ("--check-only", "only look whether it can be moved"),
    ("--nodeps", "go on when checks fail"),
    ("--times", "how long each phase took"),
    ("--verbose", "more"),
    ("--quiet", "only errors"),
    ("--json", "one JSON object at the end"),
    ("--resolve", "bring an interrupted move to its end"),
    ("--dst-is-dead", "the destination will never run it"),
    ("--src-is-dead", "the source will never run it"),
    ("--help", "help"),
];
const VZMETRICS: Options = &[("--output", "a file that is replaced at once"), ("--help", "help")];

const VZBACKUP: Options = &[
    ("--to", "file, directory, or - for standard output"),
    ("--base", "earlier backup to go on from"),
    ("--full", "go on from no earlier backup"),
    ("--level", "compression, 1 to 19"),
    ("--list", "list the backups"),
    ("--quiet", "nothing but errors"),
    ("--verbose", "more"),
    ("--json", "what was done as JSON"),
    ("--help", "help"),
];
const VZDUMP: Options = &[
    ("--to", "file, directory, or - for standard output"),
    ("--compress", "zst, gz, xz or none"),
    ("--quiet", "nothing but errors"),
    ("--verbose", "more"),
    ("--json", "what was done as JSON"),
    ("--help", "help"),
];
const VZRESTORE: Options = &[
    ("--as", "number of the new container"),
    ("--name", "name of the new container"),
    ("--layout", "simfs or ploop"),
    ("--base", "where the backups are that it goes on from"),
    ("--scripts", "install its action scripts too"),
    ("--check", "verify all of it, and write nothing"),
    ("--list", "tell what is in it"),
    ("--quiet", "nothing but errors"),
    ("--verbose", "more"),
    ("--json", "what was done as JSON"),
    ("--help", "help"),
];

/// What may stand at the cursor in a line of one of these tools; `None` when it is none of them.
pub(super) fn propose(sources: &Sources, program: &str, before: &[&str], current: &str) -> Option<Proposal> {
    let listed = |options: Options| {
        Proposal::Words(options.iter().map(|(word, about)| Candidate::new(*word, *about)).collect())
    };
    let nothing = || Proposal::Words(Vec::new());
    let dashed = current.starts_with('-');
    Some(match program {
        "vzubc" => match before.last() {
            Some(&("-f" | "--file" | "-rd" | "-id")) => Proposal::Paths,
            Some(&("-qh" | "-qm" | "-wn")) => nothing(),
            _ if dashed => listed(VZUBC),
            _ => Proposal::Words(containers(sources, Containers::Running)),
        },
        "vztop" | "vzstat" => match before.last() {
            Some(&("-s" | "--sort")) => {
                Proposal::Words(crate::top::columns().map(|name| Candidate::new(name, "column")).collect())
            }
            Some(&("-d" | "-n" | "-f" | "--delay" | "--iterations" | "--filter")) => nothing(),
            _ if dashed => listed(VZTOP),
            _ => Proposal::Words(containers(sources, Containers::Running)),
        },
        "vzbackup" | "vzdump" | "vzrestore" => backup(sources, program, before.last().copied(), dashed),
        "vzimport" => import(before.last().copied(), current),
        "vzmetrics" if matches!(before.last(), Some(&("-o" | "--output"))) => Proposal::Paths,
        "vzmetrics" => listed(VZMETRICS),
        "vzmigrate" => migration(sources, before.last().copied(), dashed),
        "vzcalc" if dashed => listed(DETAILS),
        "vzcalc" => numbers(sources),
        "vzmemcheck" => listed(VZMEMCHECK),
        "vzcpucheck" => listed(DETAILS),
        "vzoversell" if dashed => listed(&[("--help", "help")]),
        "vzoversell" => Proposal::Paths,
        "vzquota" if dashed && before.iter().any(|word| matches!(*word, "setlimit2" | "settime2")) => {
            listed(&[("-u", "user, by its number inside"), ("-g", "group, by its number inside")])
        }
        "vzquota" if dashed => listed(VZQUOTA),
        "vzquota" if matches!(before.last(), Some(&("stat" | "show" | "setlimit2" | "settime2"))) => {
            let mut numbers = containers(sources, Containers::Any);
            numbers.retain(|candidate| candidate.word.parse::<u32>().is_ok());
            Proposal::Words(numbers)
        }
        "vzquota" if before.iter().all(|word| word.starts_with('-')) => listed(&[
            ("stat", "of limits that hold"),
            ("show", "of any container"),
            ("setlimit2", "limits of a user or group inside"),
            ("settime2", "time of their soft limits"),
        ]),
        "vzquota" => nothing(),
        "vzpid" if dashed => listed(VZPID),
        "vznnc" if dashed => listed(VZNNC),
        "vzpid" | "vznnc" => nothing(),
        "vzcfgvalidate" | "vzsplit" | "vzcfgscale" => configuration(program, before.last().copied(), current),
        _ => return None,
    })
}

/// Of all containers, for a tool that takes no names.
fn numbers(sources: &Sources) -> Proposal {
    let mut numbers = containers(sources, Containers::Any);
    numbers.retain(|candidate| candidate.word.parse::<u32>().is_ok());
    Proposal::Words(numbers)
}

fn migration(sources: &Sources, last: Option<&str>, dashed: bool) -> Proposal {
    let listed = |options: Options| {
        Proposal::Words(options.iter().map(|(word, about)| Candidate::new(*word, *about)).collect())
    };
    match last {
        Some("-r" | "--remove-area") => listed(&[("yes", "remove it"), ("no", "keep its files")]),
        _ if dashed => listed(VZMIGRATE),
        // A host, or the container after it: hosts are ssh's, and not known here.
        _ => Proposal::Words(containers(sources, Containers::Any)),
    }
}

fn import(last: Option<&str>, current: &str) -> Proposal {
    let words = |words: Options| {
        Proposal::Words(words.iter().map(|(word, about)| Candidate::new(*word, *about)).collect())
    };
    match last {
        Some("--kind") => words(&[("openvz", "and Virtuozzo"), ("lxc", "LXC"), ("pct", "Proxmox")]),
        Some("--layout") => words(&[("simfs", "a directory"), ("ploop", "an image")]),
        Some("--name" | "--shift") => words(&[]),
        _ if current.starts_with('-') => words(VZIMPORT),
        _ => Proposal::Paths,
    }
}

fn backup(sources: &Sources, program: &str, last: Option<&str>, dashed: bool) -> Proposal {
    let words = |words: Options| {
        Proposal::Words(words.iter().map(|(word, about)| Candidate::new(*word, *about)).collect())
    };
    match (program, last) {
        (_, Some("--to" | "--base")) => Proposal::Paths,
        (_, Some("--level" | "--name")) => words(&[]),
        (_, Some("--as")) => Proposal::Words(containers(sources, Containers::New)),
        (_, Some("--layout")) => words(&[("simfs", "a plain directory"), ("ploop", "an image")]),
        (_, Some("--compress")) => words(&[("zst", "zstd"), ("gz", "gzip"), ("xz", "xz"), ("none", "plain")]),
        ("vzbackup", _) if dashed => words(VZBACKUP),
        ("vzdump", _) if dashed => words(VZDUMP),
        (_, _) if dashed => words(VZRESTORE),
        ("vzrestore", _) => Proposal::Paths,
        _ => Proposal::Words(containers(sources, Containers::Any)),
    }
}

fn configuration(program: &str, last: Option<&str>, current: &str) -> Proposal {
    let options = match program {
        "vzcfgvalidate" => VZCFGVALIDATE,
        "vzsplit" => VZSPLIT,
        _ => VZCFGSCALE,
    };
    let words = |words: Options| {
        Proposal::Words(words.iter().map(|(word, about)| Candidate::new(*word, *about)).collect())
    };
    match (program, last) {
        ("vzcfgvalidate", Some("-v")) | ("vzsplit", Some("-v")) | (_, Some("--vswap")) => {
            words(&[("yes", "RAM and swap"), ("no", "beancounters")])
        }
        ("vzcfgscale", Some("-o" | "--output-file")) => Proposal::Paths,
        ("vzsplit", Some("-n" | "-f" | "-s" | "--number" | "--file" | "--swap")) => words(&[]),
        ("vzcfgscale", Some("-a" | "-c" | "-d" | "-u" | "-n")) => words(&[]),
        ("vzcfgscale", Some("--all" | "--cpu-only" | "--disk-only" | "--ubc-only" | "--network-only")) => {
            words(&[])
        }
        ("vzsplit", _) => words(options),
        _ if current.starts_with('-') => words(options),
        _ => Proposal::Paths,
    }
}
