//! One call of the `ve` crate for each verb.

use std::ffi::OsString;
use std::rc::Rc;

use ve::exec::What;
use ve::mount::{Check, Mounted};
use ve::set::Then;
use ve::stop::Stopped;
use ve::{
    Error, Ve, console, convert, create, destroy, disk, exec, mount, obstacles, quota, runscript, set, start,
    stop, suspend,
};
use vzconf::change::Changes;
use vzconf::{Exit, params};
use vzsys::process::Ended;

use crate::cli::{CreateOptions, SetMode, SetOptions, Setting, StartOptions, StopOptions, Verb};
use crate::fit::validate::at_start;
use crate::report::{Report, status_json, verdict, verdict_json};

/// Does what the verb says; the value is the exit code.
pub(super) fn run(ve: &mut Ve<'_>, verb: &Verb, report: &Rc<Report>) -> Result<u8, Error> {
    match verb {
        Verb::Create(CreateOptions { from: Some(from), keep_identity, settings, .. }) => {
            let changes = Changes::from_options(params::Verb::Create, &words(settings))?;
            let (from, keep_identity) = (from.clone(), *keep_identity);
            ve::clone::clone(ve, &ve::clone::Options { from, keep_identity, changes })?;
        }
        Verb::Create(options) => create::create(ve, &create_options(options)?)?,
        Verb::Destroy => destroy::destroy(ve)?,
        Verb::Mount => ve.say(
            0,
            match mount::mount(ve)? {
                Mounted::Now => "Container is mounted",
                Mounted::Already => "Container is already mounted",
            },
        ),
        Verb::Umount => {
            mount::umount(ve)?;
            ve.say(0, "Container is unmounted");
        }
        Verb::Start(options) => start_verb(ve, *options)?,
        Verb::Stop(options) => stop_verb(ve, *options)?,
        Verb::Restart(stop, start) => restart(ve, *stop, *start)?,
        Verb::Status { json } => status(ve, *json, report),
        Verb::Enter { exec: typed } => return enter(ve, typed.as_deref(), report),
        Verb::Exec { argv } | Verb::Exec2 { argv } => {
            return Ok(code(exec::exec(ve, &What::Shell(argv.clone()))?, report));
        }
        Verb::Exec3 { argv } => return Ok(code(exec::exec(ve, &What::Direct(argv.clone()))?, report)),
        Verb::Runscript { file } => return Ok(code(runscript::runscript(ve, file)?, report)),
        Verb::Console { tty } => console::console(ve, *tty)?,
        Verb::Set(options) => set_verb(ve, options)?,
        Verb::Snapshot(_)
        | Verb::SnapshotSwitch(..)
        | Verb::SnapshotDelete(_)
        | Verb::SnapshotMount(..)
        | Verb::SnapshotUmount(_)
        | Verb::SnapshotList(_) => super::snapshots::run(ve, verb, report)?,
        Verb::Quotaon => quota::quotaon(ve)?,
        Verb::Quotaoff => quota::quotaoff(ve)?,
        Verb::Quotainit => quota::quotainit(ve)?,
        Verb::Suspend { part, dumpfile } => suspend::suspend(ve, *part, dumpfile.as_deref())?,
        Verb::Resume { part, dumpfile } => suspend::resume(ve, *part, dumpfile.as_deref())?,
        Verb::CheckpointCheck { json } => return checkpoint_check(ve, *json, report),
        Verb::Convert { layout } => convert::convert(ve, layout)?,
        Verb::Compact => disk::compact(ve)?,
    }
    Ok(0)
}

/// The verdict on standard output: 0 nothing is in the way, 16 something is.
fn checkpoint_check(ve: &Ve<'_>, json: bool, report: &Rc<Report>) -> Result<u8, Error> {
    let state = ve.must_run()?;
    let found = obstacles::find(ve, &state);
    report.output(&if json { verdict_json(ve, &found) } else { verdict(ve, &found) });
    Ok(if found.is_empty() { 0 } else { Exit::Chkpnt.code() })
}

fn words(settings: &[Setting]) -> Vec<(&'static str, String)> {
    settings.iter().map(|setting| (setting.option(), setting.given.clone())).collect()
}

fn create_options(options: &CreateOptions) -> Result<create::Options, Error> {
    Ok(create::Options {
        brought: None,
        sample: options.sample.clone(),
        layout: options.layout.clone(),
        ostemplate: options.ostemplate.clone(),
        changes: Changes::from_options(params::Verb::Create, &words(&options.settings))?,
    })
}

fn start_options(options: StartOptions) -> start::Options {
    let check = if options.skip_fsck { Check::Skip } else { Check::Run };
    start::Options { force: options.force, wait: options.wait, skip_remount: options.skip_remount, check }
}

fn stop_options(options: StopOptions) -> stop::Options {
    stop::Options { fast: options.fast, skip_umount: options.skip_umount }
}

fn start_verb(ve: &mut Ve<'_>, options: StartOptions) -> Result<(), Error> {
    if ve.running().is_none() {
        at_start::validate(ve)?;
    }
    start::start(ve, start_options(options))
}

fn stop_verb(ve: &Ve<'_>, options: StopOptions) -> Result<(), Error> {
    if stop::stop(ve, stop_options(options))? == Stopped::Already {
        ve.say(0, "Unable to stop: container is not running");
    }
    Ok(())
}

fn restart(ve: &mut Ve<'_>, stop: StopOptions, start: StartOptions) -> Result<(), Error> {
    start::check_restart(ve, start_options(start))?;
    at_start::validate(ve)?;
    ve.say(0, "Restarting container");
    stop::stop(ve, stop_options(stop))?;
    start::start(ve, start_options(start))
}

fn status(ve: &Ve<'_>, json: bool, report: &Rc<Report>) {
    let status = ve.status();
    let text = if json { status_json(&status) } else { format!("{status}\n") };
    report.output(&text);
}

fn enter(ve: &Ve<'_>, typed: Option<&[OsString]>, report: &Rc<Report>) -> Result<u8, Error> {
    match exec::enter(ve, typed) {
        // Whatever the shell returned, the session went well.
        Ok(Ended::Exited(_)) => Ok(0),
        Ok(Ended::Killed(signal)) => {
            report.line(-1, &format!("got signal {signal}"));
            Ok(0)
        }
        Err(error) => {
            if error.exit() != Exit::VeNotRunning {
                report.line(-1, &format!("enter into CT {} failed", ve.ctid));
            }
            Err(error)
        }
    }
}

/// The command's own code; a signal prints its number and is 3, as in OpenVZ.
fn code(ended: Ended, report: &Rc<Report>) -> u8 {
    match ended {
        Ended::Exited(code) => u8::try_from(code).unwrap_or(Exit::System.code()),
        Ended::Killed(signal) => {
            report.line(-1, &format!("Got signal {signal}"));
            Exit::System.code()
        }
    }
}

/// The options of `set` with its flags: which options need which is checked for all of them together.
fn set_words(options: &SetOptions) -> Vec<(&'static str, String)> {
    let mut words = words(&options.settings);
    let flags = [("save", options.save), ("force", options.force), ("reset_ub", options.reset_ub)];
    words.extend(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag, String::new())));
    let mode = options.mode.map(|mode| match mode {
        SetMode::Restart => "restart",
        SetMode::Ignore => "ignore",
    });
    words.extend(mode.map(|mode| ("setmode", mode.to_owned())));
    words
}

fn set_verb(ve: &mut Ve<'_>, options: &SetOptions) -> Result<(), Error> {
    let changes = Changes::from_options(params::Verb::Set, &set_words(options))?;
    match set::set(ve, &changes)? {
        Then::Done => Ok(()),
        Then::Restart => restart(ve, StopOptions::default(), StartOptions::default()),
    }
}

/// `--dry-run`: what the verb would do, and nothing done.
pub(super) fn dry_run(ve: &Ve<'_>, verb: &Verb, report: &Rc<Report>) -> Result<u8, Error> {
    let plan = match verb {
        Verb::Start(options) => start::plan_text(ve, start_options(*options))?,
        Verb::Create(options) => create::plan_text(ve, &create_options(options)?)?,
        Verb::Set(options) => {
            set::plan_text(ve, &Changes::from_options(params::Verb::Set, &set_words(options))?)?
        }
        Verb::Status { json } => {
            status(ve, *json, report);
            return Ok(0);
        }
        other => format!("would {} container {} (now: {})\n", other.word(), ve.ctid, ve.status()),
    };
    report.output(&plan);
    Ok(0)
}
