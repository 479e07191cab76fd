//! Where the rows come from. Reads only what the asked fields need, takes no lock, and bears with
//! what others do meanwhile: a config that vanishes is not listed, a malformed one is complained of.

mod addresses;
mod config;
mod disk;
mod runtime;
mod status;
mod usage;

use std::path::Path;

use vzconf::{Config, Ctid, Error, Pair, Paths, names};

use self::addresses::Routed;
use self::runtime::Runtime;
use self::usage::{Depth, Meter, Whose};
use super::fields::{Field, Need};
use super::options::{Form, Options, Scope};
use super::row::{Row, Status};

/// The CTID a name stands for.
pub(super) fn by_name(paths: &Paths, name: &str) -> Option<Ctid> {
    names::resolve(paths, name).ok().filter(|ctid| !ctid.is_host())
}

/// What was seen, and what is to be said of it on standard error.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<Row>,
    pub(super) warnings: Vec<String>,
}

/// The VEs that the options and CTIDs may ask for, with what their fields need.
///
/// # Errors
/// When `vz.conf` is needed and cannot be read.
pub(super) fn rows(paths: &Paths, options: &Options, ids: &[Ctid]) -> Result<Seen, Error> {
    let shows = match options.scope {
        Scope::Running if ids.is_empty() => Shows::Running,
        Scope::Running | Scope::All => Shows::Both,
        Scope::Stopped => Shows::Resting,
    };
    let wanted = wanted(paths, options.scope, ids);
    let mut view = View {
        paths,
        needs: Needs::of(options),
        shows,
        wanted: &wanted,
        whose: if ids.is_empty() { Whose::Everybody } else { Whose::Named },
        global: None,
        routed: None,
        meter: None,
        seen: Seen::default(),
    };
    for ctid in &wanted {
        view.look_at(*ctid)?;
    }
    Ok(view.seen)
}

/// The VEs that have a configuration.
pub(crate) fn configured(paths: &Paths) -> Vec<Ctid> {
    runtime::numbered(&paths.conf_dir(), ".conf")
}

fn wanted(paths: &Paths, scope: Scope, ids: &[Ctid]) -> Vec<Ctid> {
    let mut wanted = match scope {
        _ if !ids.is_empty() => ids.to_vec(),
        Scope::Running => runtime::candidates(paths),
        Scope::Stopped => configured(paths),
        // One that runs is listed even when somebody took its config away.
        Scope::All => [configured(paths), runtime::candidates(paths)].concat(),
    };
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Which states are asked for; what is not asked for is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Running,
    Resting,
    Both,
}

/// What has to be read.
#[derive(Debug, Clone, Copy)]
struct Needs {
    config: bool,
    status: bool,
    addresses: bool,
    usage: Option<Depth>,
    layout: bool,
    uptime: bool,
    disk: bool,
}

impl Needs {
    fn of(options: &Options) -> Self {
        let depth = |field: &Field| match (options.form, field.need) {
            // JSON shows all numbers of a beancounter.
            (Form::Json, Need::Numproc | Need::Limits) => Need::Usage,
            (_, need) => need,
        };
        let fields = options.fields.iter().copied().chain(options.sort.map(|sort| sort.field));
        let needed: Vec<Need> = fields.map(depth).collect();
        let need = |need| needed.contains(&need);
        let filtered = options.hostname.is_some() || options.name.is_some() || options.description.is_some();
        Self {
            config: filtered
                || !needed.iter().all(|need| matches!(need, Need::Nothing | Need::Uptime | Need::Numproc)),
            status: need(Need::Status),
            addresses: need(Need::Addresses),
            usage: needed.iter().filter_map(Need::usage).max(),
            layout: need(Need::Layout),
            uptime: need(Need::Uptime),
            disk: need(Need::Disk),
        }
    }
}

impl Need {
    /// How much of the counters it takes.
    fn usage(&self) -> Option<Depth> {
        match self {
            Self::Numproc => Some(Depth::Numproc),
            Self::Limits => Some(Depth::Limits),
            Self::Usage => Some(Depth::All),
            _ => None,
        }
    }
}

struct View<'a> {
    paths: &'a Paths,
    needs: Needs,
    shows: Shows,
    wanted: &'a [Ctid],
    whose: Whose,
    /// `vz.conf`, once something needed it.
    global: Option<Config>,
    /// Live addresses, likewise.
    routed: Option<Routed>,
    /// Counters, likewise.
    meter: Option<Meter>,
    seen: Seen,
}

impl View<'_> {
    fn look_at(&mut self, ctid: Ctid) -> Result<(), Error> {
        let runtime = Runtime::of(self.paths, ctid);
        let unasked = if runtime.is_some() { Shows::Resting } else { Shows::Running };
        let nobody = runtime.is_none() && !status::exists(&self.paths.ve_conf(ctid));
        if self.shows == unasked || nobody {
            return Ok(());
        }
        let mut row = Row::new(ctid);
        let config = if self.needs.config || runtime.is_none() { Some(self.config(ctid)?) } else { None };
        if let Some(config) = &config {
            let unset = if runtime.is_some() { Pair::UNLIMITED } else { Pair::both(0) };
            config::fill(&mut row, config, unset);
            if self.needs.disk && is_host(self.paths) {
                disk::fill(&mut row, self.paths, config, runtime.is_some());
            }
            if self.needs.layout {
                row.layout = config::layout(config);
            }
        }
        let shown = match (&runtime, &config) {
            (Some(runtime), _) => {
                self.running(&mut row, runtime);
                true
            }
            (None, Some(config)) => self.at_rest(&mut row, config),
            (None, None) => false,
        };
        if shown {
            self.seen.rows.push(row);
        }
        Ok(())
    }

    fn running(&mut self, row: &mut Row, runtime: &Runtime) {
        row.status = Status::Running;
        if self.needs.addresses {
            let routed = self.routed.get_or_insert_with(|| Routed::ask(self.paths, self.wanted));
            if let Some(live) = routed.of(self.paths, row.ctid, &row.ip) {
                row.ip = live;
            }
        }
        if let Some(depth) = self.needs.usage {
            let meter = self.meter.get_or_insert_with(|| Meter::new(self.paths, depth, self.whose));
            meter.read(row, self.paths);
        }
        if self.needs.uptime {
            row.uptime = Some(runtime.uptime());
        }
        config::assume_running(row);
    }

    /// A VE at rest is only shown when it has a config (be it one we cannot read) and a private area.
    fn at_rest(&self, row: &mut Row, config: &Config) -> bool {
        if !config.exists() && !status::exists(&self.paths.ve_conf(row.ctid)) {
            return false;
        }
        let Some(private) = config.ve_private().filter(|private| status::exists(private)) else {
            return false;
        };
        if self.needs.status {
            let dump = config.dump_file();
            row.status = status::at_rest(config.ve_root().as_deref(), &private, dump.as_deref());
        }
        true
    }

    /// The merged config; of a VE whose own cannot be read, that of the node.
    fn config(&mut self, ctid: Ctid) -> Result<Config, Error> {
        let global = match self.global.take() {
            Some(global) => global,
            // What is wrong with vz.conf is for vzctl to say: monitors run this every minute.
            None => Config::global(self.paths)?,
        };
        let path = self.paths.ve_conf(ctid);
        let config = if is_odd(&path) {
            self.warn(&[format!("{}: not a regular file", path.display())]);
            global.with_file(ctid, None)
        } else {
            match global.for_ve(ctid) {
                Ok(config) => {
                    self.warn(&config.warnings()[global.warnings().len()..]);
                    config
                }
                Err(error) => {
                    self.warn(&[ve::describe(&error)]);
                    global.with_file(ctid, None)
                }
            }
        };
        self.global = Some(global);
        Ok(config)
    }

    fn warn(&mut self, warnings: &[String]) {
        self.seen.warnings.extend(warnings.iter().map(|warning| format!("Warning: {warning}\n")));
    }
}

/// Whether a path leads to something that reading could block on, or never end.
fn is_odd(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// Whether this is the running host's own tree: kernel state belongs to that one only.
fn is_host(paths: &Paths) -> bool {
    paths.run_root() == Paths::host().run_root()
}
