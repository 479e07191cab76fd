//! vzimport: containers of OpenVZ, LXC and Proxmox become VEs of this host.
//!
//! ```text
//! words ─▶ Origin (kind, configuration, files) ─▶ Foreign (options, notes) ─▶ archive ─▶ create ─▶ report
//! ```
//! The origin is only read. What is created is created as by `vzctl create`: whole or not at all.

mod origin;
mod show;
mod words;

use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

use clap::ArgMatches;
use templates::archive::Progress;
use templates::build::{BuildError, Event};
use templates::cache::Cache;
use templates::foreign;
use ve::create::{self, Brought};
use ve::interrupted::Wake;
use vzconf::change::Changes;
use vzconf::foreign::{Fate, Foreign, Note};
use vzconf::params::{self, Verb};
use vzconf::{Ctid, Exit, Paths};
use vzsys::fault;

use self::origin::Origin;
use crate::cli;
use crate::report::{Failure, Report};
use crate::run;

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::of(error.exit(), &error)
    }
}

/// Runs vzimport; `words` begin with the program's name. Returns what to exit with.
pub fn run(words: impl IntoIterator<Item = OsString>, paths: &Paths) -> Exit {
    let options = match cli::matches(words::command(), words) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let verbose = options.get_flag("verbose").then_some(1);
    let report = Report::of_program(options.get_flag("quiet"), verbose);
    match import(&options, &report, paths) {
        Ok(()) => Exit::Ok,
        Err(failure) => report.fail(&failure),
    }
}

/// What was made, or would be.
struct Outcome<'a> {
    ctid: Ctid,
    origin: &'a Origin,
    foreign: &'a Foreign,
    /// The configuration as it is now; with `--dry-run` the plan.
    plan: Option<String>,
}

fn import(options: &ArgMatches, report: &Rc<Report>, paths: &Paths) -> Result<(), Failure> {
    let json = options.get_flag("json");
    let node = run::node(report, paths, json)?;
    let mut origin = Origin::find(options)?;
    let ctid = ctid(options, &origin)?;
    let mut foreign = origin.read(ctid)?;
    check_options(&mut foreign);
    if let Some(name) = options.get_one::<String>("name") {
        foreign.name = Some(name.clone());
    }
    let files = origin.files(options, &foreign)?;
    let shift = match options.get_one::<u32>("shift") {
        Some(shift) => *shift,
        None if origin.is_unshifted() => 0,
        None => foreign.shift,
    };
    foreign.shift = shift;
    let (_lock, ve) = node.hold(ctid, "importing", Wake::Yes)?;
    origin.files = Some(files.clone());
    if options.get_flag("dry-run") {
        let plan = format!("create container {ctid} from the {} {}", files.kind(), files.path().display());
        show::show(report, json, &Outcome { ctid, origin: &origin, foreign: &foreign, plan: Some(plan) });
        return Ok(());
    }
    // Before anything is copied: is there a place for it?
    create::check_free(&ve)?;
    let cache = Cache::open(&node.global.template_dir());
    let template = foreign.file.get("OSTEMPLATE").map(str::to_owned).or_else(|| tree_name(files.path()));
    let template = template.unwrap_or_else(|| "imported".to_owned());
    let mut tell = |event: Event<'_>| match event {
        Event::Line(line) => ve.say(0, line),
        Event::Progress(Progress { read, total, .. }) => (node.progress)("Reading the files", read, total),
    };
    ve.say(0, &format!("Reading the files of the container ({} {})", files.kind(), files.path().display()));
    let gathered = foreign::gather(&cache, &files, shift, &template, &mut tell)?;
    fault::point("import.gathered");
    let brought = Brought { file: foreign.file.clone(), files: gathered.template.clone() };
    let changes = Changes::from_options(Verb::Set, &all_options(&foreign))?;
    let layout = options.get_one::<String>("layout").cloned();
    let wish = create::Options { layout, changes, brought: Some(brought), ..create::Options::default() };
    create::create(&ve, &wish)?;
    drop(gathered);
    show::show(report, json, &Outcome { ctid, origin: &origin, foreign: &foreign, plan: None });
    Ok(())
}

/// The number that was given, or that it had.
fn ctid(options: &ArgMatches, origin: &Origin) -> Result<Ctid, Failure> {
    match options.get_one::<String>("ctid") {
        Some(word) => word.parse().map_err(|_| {
            Failure::new(Exit::InvalidValue, format!("'{}' is no number of a container", word.escape_debug()))
        }),
        None => origin.number.ok_or_else(|| {
            let hint = "Give one: vzimport SOURCE CTID";
            Failure::advised(Exit::InvalidSyntax, "the container has no number of its own", hint)
        }),
    }
}

/// What `vzctl set` would not take is told, and does not keep the rest from being imported.
fn check_options(foreign: &mut Foreign) {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (option, value) in std::mem::take(&mut foreign.options) {
        let one = [(option.as_str(), value.as_str()), ("save", "")];
        if let Err(error) = Changes::from_options(Verb::Set, &one) {
            let line = format!("--{option} {value}");
            foreign.notes.push(Note { line, fate: Fate::Missing, detail: error.to_string() });
            continue;
        }
        // Of what can be said once only, the last word counts, as there.
        if params::by_option(&option).is_some_and(|param| !param.repeats) {
            kept.retain(|(other, _)| *other != option);
        }
        if !kept.contains(&(option.clone(), value.clone())) {
            kept.push((option, value));
        }
    }
    foreign.options = kept;
}

fn all_options(foreign: &Foreign) -> Vec<(String, String)> {
    let mut all = foreign.options.clone();
    if let Some(name) = &foreign.name {
        all.push(("name".to_owned(), name.clone()));
    }
    all.push(("save".to_owned(), String::new()));
    all
}

/// The distribution of a tree that can be looked at as it is.
fn tree_name(path: &Path) -> Option<String> {
    path.is_dir().then(|| foreign::distribution(path)).flatten()
}
