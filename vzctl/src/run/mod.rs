//! From a command line to an exit code: finds the container, takes its lock, calls the verb.

mod snapshots;
mod verbs;

use std::cell::RefCell;
use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ve::ended::{Life, Reason};
use ve::interrupted::Wake;
use ve::{Error, Node, Ve};
use vzconf::{Ctid, Exit, Lock, Paths};

use crate::cli::{self, CtWord, Invocation, Request, Verb};
use crate::complete::{Sources, answer};
use crate::report::{Bar, Failure, Report};

/// What a monitor executes when its VE has ended: not for people.
const ENDED: &str = "__ended";
/// What a monitor runs when the kernel has killed processes of its VE for want of memory: not for people.
const OOM: &str = "__oom";
/// What a monitor runs when somebody who saved its VE was killed: not for people.
const MEND: &str = "__mend";
/// How long the end of a VE waits for the verb that is at work on it.
const ENDED_LOCK: Duration = Duration::from_secs(4000);

/// The whole of `vzctl`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|word| word == ENDED) {
        return ended(&args[1..]);
    }
    if args.first().is_some_and(|word| word == OOM) {
        return out_of_memory(&args[1..]);
    }
    if args.first().is_some_and(|word| word == MEND) {
        return left_frozen(&args[1..]);
    }
    match cli::parse(args) {
        Ok(invocation) => serve(invocation),
        Err(error) => {
            Report::usage_error(&error);
            error.exit().into()
        }
    }
}

fn serve(invocation: Invocation) -> ExitCode {
    let report = Report::new(invocation.flags);
    match invocation.request {
        Request::Help(text) => report.help(&text),
        Request::Version => report.output(&cli::version_line()),
        Request::Completion(shell) => report.output(shell.script()),
        Request::Complete(words) => report.output(&answer(&Sources::of(&Paths::host()), &words)),
        Request::Container { ct, verb } => return container(&report, &invocation.flags, &ct, &verb),
    }
    ExitCode::SUCCESS
}

fn container(report: &Rc<Report>, flags: &cli::Flags, ct: &CtWord, verb: &Verb) -> ExitCode {
    report.serve(verb);
    match attempt(report, flags, ct, verb) {
        Ok(code) => ExitCode::from(verb.exit_code(code)),
        Err(error) => {
            report.failure(verb, &ct.0, error.exit(), &error, error.hint());
            ExitCode::from(verb.failure_code(error.exit()))
        }
    }
}

fn refused(exit: Exit, message: &str) -> Error {
    Error::Refused { message: message.to_owned(), hint: None, exit }
}

fn attempt(report: &Rc<Report>, flags: &cli::Flags, ct: &CtWord, verb: &Verb) -> Result<u8, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(refused(Exit::NoAccess, "vzctl must be run by root"));
    }
    let mut node = Node::open(Paths::host(), report.say())?;
    node.progress = progress(report);
    report.configure(&node.global);
    let ctid = node.find(&ct.0).map_err(unknown)?;
    report.about(ctid);
    if flags.dry_run {
        let ve = node.ve(ctid)?;
        check(&ve, verb)?;
        return verbs::dry_run(&ve, verb, report);
    }
    if !verb.locks() {
        return act(node.ve(ctid)?, verb, report);
    }
    // Who has no configuration is told so before anybody's lock gets in the way.
    let begun = node.is_marked(ctid);
    if !begun {
        check(&node.ve(ctid)?, verb)?;
    }
    // A verb that is itself about running or not decides that.
    let decides = matches!(verb, Verb::Start(_) | Verb::Stop(_) | Verb::Restart(..) | Verb::Destroy);
    let wake = if decides { Wake::No } else { Wake::Yes };
    let (lock, ve) = if flags.skip_lock {
        (None, node.mended(ctid, wake)?)
    } else {
        let (lock, ve) = node.hold(ctid, verb.word(), wake)?;
        (Some(lock), ve)
    };
    let done = if begun && matches!(verb, Verb::Destroy) && !ve.config.exists() {
        // What there was of it is gone, as was asked.
        report.line(0, "Container private area was destroyed");
        Ok(0)
    } else {
        act(ve, verb, report)
    };
    if let Some(lock) = lock {
        lock.release()?;
    }
    done
}

fn act(mut ve: Ve<'_>, verb: &Verb, report: &Rc<Report>) -> Result<u8, Error> {
    check(&ve, verb)?;
    warn(&ve, verb, report);
    verbs::run(&mut ve, verb, report)
}

/// What is wrong with the files is said by the verbs that act on them, and not in the output of a program that
/// `exec` runs. A create says it together with what is wrong with the sample.
fn warn(ve: &Ve<'_>, verb: &Verb, report: &Rc<Report>) {
    if verb.locks() && !matches!(verb, Verb::Create(_)) {
        ve.config.warnings().iter().for_each(|warning| report.line(-1, &format!("Warning: {warning}")));
    }
}

/// The word on the command line is no container.
fn unknown(error: Error) -> Error {
    match error.exit() {
        Exit::InvalidValue => Error::Refused {
            message: error.to_string(),
            hint: Some("All containers and their names: vzlist -a -o ctid,name".to_owned()),
            exit: Exit::InvalidValue,
        },
        _ => error,
    }
}

/// The node, for a program of root's that speaks through a report. With `aside`, what is for people does not get between
/// what is for programs on standard output.
pub(crate) fn node(report: &Rc<Report>, paths: &Paths, aside: bool) -> Result<Node, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::NoAccess, "it must be run by root"));
    }
    let voice = Rc::clone(report);
    let say = move |level: i32, text: &str| {
        if level < 0 || !aside { voice.line(level, text) } else { voice.aside(level, text) }
    };
    let mut node = Node::open(paths.clone(), Box::new(say))?;
    node.progress = progress(report);
    report.configure(&node.global);
    Ok(node)
}

/// A bar for each thing that takes long, gone when the next one begins.
pub(crate) fn progress(report: &Rc<Report>) -> ve::Progress {
    let report = Rc::clone(report);
    let bar: RefCell<Option<(String, Bar)>> = RefCell::new(None);
    Box::new(move |label, done, total| {
        let mut bar = bar.borrow_mut();
        if bar.as_ref().is_none_or(|(shown, _)| shown != label) {
            *bar = Some((label.to_owned(), report.bar(label, (total > 0).then_some(total))));
        }
        if let Some((_, bar)) = &*bar {
            bar.reach(done);
        }
    })
}

fn check(ve: &Ve<'_>, verb: &Verb) -> Result<(), Error> {
    if ve.ctid == Ctid::HOST && !matches!(verb, Verb::Set(_)) {
        return Err(refused(Exit::InvalidValue, "Only set actions are allowed for CT0"));
    }
    if !ve.config.exists() && !verb.works_without_config() {
        return Err(Error::Refused {
            message: "Container config file does not exist".to_owned(),
            hint: Some(format!("vzlist -a shows the containers; make one with: vzctl create {}", ve.ctid)),
            exit: Exit::NoVeConfig,
        });
    }
    Ok(())
}

/// A VE ended by itself; its monitor became us. Words: CTID, how, pid and start time of its init.
fn ended(words: &[OsString]) -> ExitCode {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let [ctid, how, pid, start_time] = words[..] else { return Exit::InvalidSyntax.into() };
    let (Some(life), Ok(ctid)) = (Life::parse(pid, start_time), ctid.parse()) else {
        return Exit::InvalidSyntax.into();
    };
    for_monitor(ctid, |node, _| tidy(node, ctid, life, &Reason::parse(how)))
}

/// Does what a monitor calls for: nobody is at a console, and what is to be told is logged.
fn for_monitor(ctid: Ctid, work: impl FnOnce(&Node, &Report) -> Result<(), Error>) -> ExitCode {
    let report = Report::new(cli::Flags { quiet: true, ..cli::Flags::default() });
    let done = Node::open(Paths::host(), report.say()).and_then(|node| {
        report.configure(&node.global);
        report.about(ctid);
        work(&node, &report)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.line(-1, &format!("Error: {}", ve::describe(&error)));
            error.exit().into()
        }
    }
}

/// Logs that processes of a VE were killed. Words: CTID, how many.
fn out_of_memory(words: &[OsString]) -> ExitCode {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let [ctid, kills] = words[..] else { return Exit::InvalidSyntax.into() };
    let (Ok(ctid), Ok(kills)) = (ctid.parse::<Ctid>(), kills.parse::<u64>()) else {
        return Exit::InvalidSyntax.into();
    };
    for_monitor(ctid, |_, report| {
        let what = if kills == 1 { "process was" } else { "processes were" };
        report.line(-1, &format!("WARNING: out of memory: {kills} {what} killed by the kernel"));
        Ok(())
    })
}

/// Lets a VE go on that was left frozen. Words: CTID.
fn left_frozen(words: &[OsString]) -> ExitCode {
    let ctid = words.first().and_then(|word| word.to_str()?.parse::<Ctid>().ok());
    let Some(ctid) = ctid else { return Exit::InvalidSyntax.into() };
    for_monitor(ctid, |node, _| {
        // Whoever has it mends as well.
        let _lock = node.lock(ctid, "mend")?;
        ve::marker::mend(&node.ve(ctid)?)
    })
}

fn tidy(node: &Node, ctid: Ctid, life: Life, reason: &Reason) -> Result<(), Error> {
    life.settle(&node.paths.run_dir(ctid), reason);
    let _lock = Lock::wait(&node.global.lock_dir(), ctid, Instant::now() + ENDED_LOCK)?;
    // Its configuration is read now that nobody changes it.
    ve::ended::ended(&node.ve(ctid)?, life, reason)
}
