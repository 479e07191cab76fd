//! vzmigrate(8): words in, words out; the move itself is the `migrate` crate.

mod watch;
mod words;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;

use migrate::source::{self, Options, Outcome};
use migrate::{Error, Exit, Interrupt, Observer as _, resolve, target};
use ve::Node;
use vzconf::{Ctid, Paths};

use self::watch::Watch;
use self::words::{Manner, Request};
use crate::cli::Flags;
use crate::report::Report;

/// The whole of `vzmigrate`; `arguments` without the program's name.
pub fn main(arguments: &[String], paths: Paths) -> ExitCode {
    let (request, manner) = match words::parse(arguments) {
        Ok(parsed) => parsed,
        Err(complaint) => {
            eprintln!("Error: {complaint}");
            eprintln!("See: vzmigrate --help");
            return Exit::Usage.into();
        }
    };
    if let Request::Help = request {
        Report::new(Flags::default()).output(include_str!("usage.txt"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("Error: vzmigrate must be run by root");
        return Exit::Usage.into();
    }
    raise_limit();
    if let Request::Serve = request {
        return match standard_streams() {
            Ok((from, out)) => target::serve(paths, from, out).into(),
            Err(error) => {
                eprintln!("Error: cannot use the standard streams: {error}");
                Exit::Usage.into()
            }
        };
    }
    let verbose = if manner.json { -1 } else { manner.verbose };
    let report = Report::of_program(manner.quiet, Some(verbose));
    match attempt(&report, manner, paths, request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.line(-1, &format!("Error: {}", ve::describe(&error)));
            if let Some(hint) = error.hint() {
                report.hint(hint);
            }
            error.exit().into()
        }
    }
}

fn standard_streams() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let from = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok((from, std::io::stdout().as_fd().try_clone_to_owned()?))
}

/// A tree's directories are open on the way down it.
fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Without it only very deep trees fail, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now });
}

fn attempt(report: &Rc<Report>, manner: Manner, paths: Paths, request: Request) -> Result<(), Error> {
    let interrupt =
        Interrupt::listen().map_err(|error| Error::here(Exit::Usage, format!("signalfd(): {error}")))?;
    // What its verbs say are details of a move.
    let details = Rc::clone(report);
    let say = Box::new(move |level: i32, text: &str| {
        let (level, text) =
            if level < 0 { (level, text.to_owned()) } else { (level + 1, format!("   {text}")) };
        details.line(level, &text);
    });
    let node = Node::open(paths, say).map_err(|error| Error::verb(Exit::Missing, &error))?;
    report.configure(&node.global);
    let find = |ct: &str| node.find(ct).map_err(|error| Error::verb(Exit::Missing, &error));
    let watch = Watch::new(report, manner);
    match request {
        Request::Help | Request::Serve => Ok(()),
        Request::Resolve { ct, ssh, dead } => {
            let ctid = find(&ct)?;
            report.about(ctid);
            resolve::resolve(&node, ctid, &ssh, dead, &watch)
        }
        Request::Move { ct, options } => {
            let ctid = find(&ct)?;
            report.about(ctid);
            moving(report, manner, &node, ctid, &options, &interrupt)
        }
    }
}

fn moving(
    report: &Rc<Report>,
    manner: Manner,
    node: &Node,
    ctid: Ctid,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let watch = Watch::new(report, manner);
    let (doing, kind) = (
        if options.check_only { "Checking" } else { "Starting" },
        if options.online { "live migration" } else { "migration" },
    );
    watch.say(0, &format!("{doing} {kind} of CT {ctid} to {}", options.destination));
    let (done, outcome) = source::run(node, ctid, options, &watch, interrupt);
    drop(watch);
    if manner.json {
        json(report, ctid, options, &done, &outcome);
    } else if manner.times && !options.check_only {
        report.output(&watch::table(&outcome));
    }
    done
}

fn json(report: &Report, ctid: Ctid, options: &Options, done: &Result<(), Error>, outcome: &Outcome) {
    let failed = done.as_ref().err().map(|error| (error.exit().code(), ve::describe(error)));
    let failed = failed.as_ref().map(|(exit, text)| (*exit, text.as_str()));
    report.output(&watch::object(&ctid.to_string(), &options.destination, failed, outcome));
}
