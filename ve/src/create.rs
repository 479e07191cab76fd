//! `vzctl create`.
//!
//! ```text
//!  mark ─▶ PRIVATE.tmp ─▶ post-create ─▶ CTID.conf ─▶ rename to PRIVATE (COMMIT) ─▶ unmark
//! ```
//! What it has in common with a clone and a restore is in [`crate::creating`].

use std::path::Path;

use templates::archive::Progress;
use templates::cache::{Cache, Template};
use templates::layout::{self, Choice, Layout, New, Wish};
use vzconf::change::{Changes, Node as ChangeNode};
use vzconf::{ConfFile, Config, Exit, Mac};
use vzsys::fault;

use crate::creating::{self, Mark};
use crate::error::{Error, Result};
use crate::guest;
use crate::node::Ve;
use crate::{disk, mount, quota};

/// What to make.
#[derive(Debug, Default)]
pub struct Options {
    /// `--config`: a sample by name.
    pub sample: Option<String>,
    /// `--layout`.
    pub layout: Option<String>,
    /// `--ostemplate`.
    pub ostemplate: Option<String>,
    /// Every other option.
    pub changes: Changes,
    /// What is brought from elsewhere instead of a template and a sample.
    pub brought: Option<Brought>,
}

/// A container from elsewhere.
#[derive(Debug)]
pub struct Brought {
    /// Its configuration, as far as it is taken over as it is.
    pub file: ConfFile,
    /// Its files, as an archive that no other VE is made from. They stay what they are: it is no new system.
    pub files: Template,
}

/// Creates a VE from a template.
///
/// # Errors
/// 82 sample, 44 private area exists, 29/91 template, 46 disk space, 48 private area, 131 name,
/// 21 bad values, 79 script. Nothing is left behind.
pub fn create(ve: &Ve<'_>, options: &Options) -> Result<()> {
    crate::handover::check(ve, true)?;
    let draft = Draft::new(ve, options)?;
    mount::shut(ve, &draft.mark.private)?;
    mount::warn_if_reachable(ve, &draft.mark.private, draft.choice.layout);
    if let Err(error) = build(ve, &draft) {
        return Err(error.with_cleanup(draft.mark.undo(ve)));
    }
    ve.say(0, "Container private area was created");
    Ok(())
}

/// A checked plan of the new VE; nothing has been touched yet.
#[derive(Debug)]
struct Draft {
    file: ConfFile,
    config: Config,
    /// Where it is to be; a configuration that was there before stays when this fails.
    mark: Mark,
    template: Template,
    choice: Choice,
    quota: quota::Planned,
    /// The machine id and the host keys are its own already.
    keeps_identity: bool,
}

impl Draft {
    fn new(ve: &Ve<'_>, options: &Options) -> Result<Self> {
        let had_config = ve.config.exists();
        let mut file = match &options.brought {
            Some(_) if had_config => {
                let conf = ve.node.paths.ve_conf(ve.ctid);
                let message = format!("Container config file {} already exists", conf.display());
                return Err(Error::refused(Exit::CpConfig, message));
            }
            Some(brought) => brought.file.clone(),
            None => sample(ve, options.sample.as_deref(), had_config)?,
        };
        let base = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        let node = change_node();
        options.changes.apply_to(&mut file, &base, ve.ctid, &node)?;
        let config = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        creating::warn(ve, &config, Some(&options.changes));
        let name = options.changes.value("name").filter(|name| !name.is_empty()).map(str::to_owned);
        let mut mark = Mark::plan(ve, &config, name)?;
        let private = &mark.private;
        let brought = options.brought.as_ref().map(|brought| brought.files.clone());
        let keeps_identity = brought.is_some();
        let template = match brought {
            Some(files) => files,
            None => template(ve, options.ostemplate.as_deref(), &config)?,
        };
        let choice = match keeps_identity {
            true => layout_of_brought(ve, options, &config, private)?,
            false => choose_layout(ve, options, &config, private)?,
        };
        let quota = quota::plan(ve, &config, private, (choice.layout, choice.image.is_some()))?;
        if choice.layout.shares_template() {
            mark.base = Some((config.template_dir(), template.base_id()));
        }
        let mut draft = Self { file, config, mark, template, choice, quota, keeps_identity };
        draft.complete(ve)?;
        Ok(draft)
    }

    fn complete(&mut self, ve: &Ve<'_>) -> Result<()> {
        complete(ve, &mut self.file, &self.config)?;
        self.file.set("OSTEMPLATE", &self.template.name)?;
        self.file.set("VE_LAYOUT", self.choice.layout.word())?;
        Ok(())
    }
}

/// The values that every new config records.
pub(crate) fn complete(ve: &Ve<'_>, file: &mut ConfFile, config: &Config) -> Result<()> {
    let default = |key: &str, dir: &str| {
        ve.node
            .global
            .node(key)
            .map_or_else(|| format!("{}/$VEID", ve.node.paths.vz().join(dir).display()), str::to_owned)
    };
    for (key, dir) in [("VE_ROOT", "root"), ("VE_PRIVATE", "private")] {
        if file.get(key).is_none() {
            file.set(key, &default(key, dir))?;
        }
    }
    // Plain numbers: programs that read this file know no suffixes.
    for key in ["DISKSPACE", "DISKINODES", "PHYSPAGES", "SWAPPAGES"] {
        if let Some(value) = config.own(key).map(str::to_owned) {
            file.set(key, &value)?;
        }
    }
    Ok(())
}

/// Whether nothing is in the way of a VE that is to be brought from elsewhere: told before its files are copied.
///
/// # Errors
/// 44 private area exists, 48 it cannot be made, 82 configuration exists.
pub fn check_free(ve: &Ve<'_>) -> Result<()> {
    creating::check_private(ve.ctid, &ve.private()?)?;
    if ve.config.exists() {
        let conf = ve.node.paths.ve_conf(ve.ctid);
        let message = format!("Container config file {} already exists", conf.display());
        return Err(Error::refused(Exit::CpConfig, message));
    }
    Ok(())
}

/// The address that generated ones of this node depend on.
#[must_use]
pub fn host_mac() -> Mac {
    netns::host_mac().ok().flatten().unwrap_or(Mac([0; 6]))
}

/// What generated MAC addresses and CPU shares depend on.
pub(crate) fn change_node() -> ChangeNode {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // Without an Ethernet device generated addresses depend on the VE and interface alone.
    let mac = netns::host_mac().ok().flatten().unwrap_or(Mac([0; 6]));
    ChangeNode { cpus: u32::try_from(cpus).unwrap_or(1), mac }
}

/// The sample's text, or the config that is there already.
fn sample(ve: &Ve<'_>, asked: Option<&str>, had_config: bool) -> Result<ConfFile> {
    let paths = &ve.node.paths;
    if had_config {
        let conf = paths.ve_conf(ve.ctid);
        if asked.is_some() {
            let message =
                format!("Container config file {} already exists, can't use --config", conf.display());
            return Err(Error::refused(Exit::CpConfig, message));
        }
        ve.say(-1, &format!("WARNING: config file {} already exists, it will be used", conf.display()));
        ve.say(-1, "WARNING: no sample was applied to it");
        return Ok(ConfFile::load(&conf)?);
    }
    let Some(name) = asked.or_else(|| ve.node.global.configfile()) else { return Ok(ConfFile::parse("")) };
    Ok(vzconf::samples::instantiate(paths, name)?)
}

fn template(ve: &Ve<'_>, asked: Option<&str>, config: &Config) -> Result<Template> {
    let name = asked.or_else(|| config.ostemplate()).or_else(|| ve.node.global.def_ostemplate());
    let Some(name) = name else {
        return Err(Error::refused(Exit::VeOstemplateNotSet, "OS template is not specified"));
    };
    Ok(Cache::open(&config.template_dir()).find(name)?)
}

fn choose_layout(ve: &Ve<'_>, options: &Options, config: &Config, private: &Path) -> Result<Choice> {
    let word = options.layout.as_deref().or(config.layout()).or(ve.node.global.layout()).unwrap_or("auto");
    let wish: Wish = word.parse().map_err(|error: layout::UnknownLayout| {
        Error::refused(Exit::InvalidValue, format!("Bad parameter for --layout: {error}"))
    })?;
    let choice = disk::choose(ve, config, wish, private)?;
    ve.say(1, &choice.why);
    Ok(choice)
}

/// Files that no other VE shares need no overlay; where the file system keeps no limit of a directory, an image does.
fn layout_of_brought(ve: &Ve<'_>, options: &Options, config: &Config, private: &Path) -> Result<Choice> {
    let choose = |wish| disk::choose(ve, config, Wish::Only(wish), private);
    let choice = match options.layout.as_deref() {
        None | Some("auto") => choose(Layout::Simfs).or_else(|_| choose(Layout::Ploop))?,
        Some("overlay") => {
            let message =
                "Bad parameter for --layout: what is brought from elsewhere has no template to lie on";
            return Err(Error::advised(Exit::InvalidValue, message, "Use --layout simfs or ploop"));
        }
        Some(_) => choose_layout(ve, options, config, private)?,
    };
    ve.say(1, &choice.why);
    Ok(choice)
}

/// `--dry-run`: what a create would do.
///
/// # Errors
/// As a create would fail in its checks.
pub fn plan_text(ve: &Ve<'_>, options: &Options) -> Result<String> {
    let draft = Draft::new(ve, options)?;
    Ok(format!(
        "create {} (layout {}) from template {}\nwrite {}:\n{}",
        draft.mark.private.display(),
        draft.choice.layout,
        draft.template.name,
        ve.node.paths.ve_conf(ve.ctid).display(),
        draft.file,
    ))
}

fn build(ve: &Ve<'_>, draft: &Draft) -> Result<()> {
    let temp = creating::reserve(ve, &draft.mark, draft.quota)?;
    ve.say(0, &format!("Creating container private area ({})", draft.template.name));
    fill(ve, draft, &temp)?;
    fault::point("create.filled");
    ve.say(0, "Performing postcreate actions");
    match draft.keeps_identity {
        true => guest::post_import(ve, draft.choice.layout, &temp)?,
        false => guest::post_create(ve, draft.choice.layout, &temp)?,
    }
    fault::point("create.postcreate");
    creating::commit(ve, &draft.mark, draft.quota, &draft.file)
}

fn fill(ve: &Ve<'_>, draft: &Draft, temp: &Path) -> Result<()> {
    let cache = Cache::open(&draft.config.template_dir());
    let blanks = disk::blanks(ve);
    let new = New {
        area: temp,
        cache: &cache,
        template: &draft.template,
        ctid: ve.ctid,
        image: draft.choice.image,
        blanks: &blanks,
        project: draft.quota.project,
    };
    let progress = &mut |done: Progress| {
        (ve.node.progress)("Unpacking the template", done.read, done.total);
    };
    Ok(layout::create(draft.choice.layout, &new, progress)?)
}
