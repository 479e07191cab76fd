//! `vzrestore`: a VE from a backup.
//!
//! It is made and appears as a created one does ([`crate::creating`]). Nothing of the host is changed by
//! what a backup says: places, ids and scripts of the VE it was of are not taken over unless asked for.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use templates::backup::{Head, Load, Totals};
use templates::layout::{self, Choice, Empty, Layout};
use vzconf::{Action, ConfFile, Config, Ctid, Exit, Script};
use vzsys::{fault, room};

use super::dump::Dump;
use crate::creating::{self, Mark};
use crate::error::{Doing, Error, Result};
use crate::interrupted::Wake;
use crate::node::{Node, Ve};
use crate::{disk, handover, mount, quota};

/// What a VE is made from.
#[derive(Debug)]
pub enum Source {
    /// A backup.
    Backup(Box<Load>),
    /// A tar archive.
    Dump(Box<Dump>),
}

impl Source {
    fn head(&self) -> &Head {
        match self {
            Self::Backup(load) => load.head(),
            Self::Dump(dump) => &dump.head,
        }
    }

    fn totals(&self) -> Option<&Totals> {
        match self {
            Self::Backup(load) => load.totals(),
            Self::Dump(_) => None,
        }
    }

    fn into(self, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(Head, Totals)> {
        match self {
            Self::Backup(load) => Ok((*load).into(dir, &mut |done| progress(done.done, done.total))?),
            Self::Dump(dump) => (*dump).into(dir, progress),
        }
    }
}

/// What is to become of a backup.
#[derive(Debug, Default)]
pub struct Wish {
    /// Its number; by default the one it had.
    pub ctid: Option<Ctid>,
    /// Its name; by default the one it had, but for a new number.
    pub name: Option<String>,
    /// Its layout, by its word; by default a plain directory where its disk limits can be kept so, else an image.
    pub layout: Option<String>,
    /// Its action scripts are installed too. They run as root of the host.
    pub scripts: bool,
}

/// A VE that was restored.
#[derive(Debug)]
pub struct Rebuilt {
    /// Its number.
    pub ctid: Ctid,
    /// What the backup told of itself.
    pub head: Head,
    /// What it held.
    pub totals: Totals,
}

/// Makes a VE from a backup. Takes its lock.
///
/// # Errors
/// 44 there is such a VE, 9 it is locked, 131 the name is taken, 46 disk space, 48 the backup is damaged or one that it
/// needs is missing. Nothing is left behind.
pub fn rebuild(node: &Node, load: Source, wish: &Wish) -> Result<Rebuilt> {
    let ctid = match wish.ctid {
        Some(ctid) => ctid,
        None if load.head().ctid == 0 => {
            let message = "the archive does not tell which container it is of; give it a number with --as";
            return Err(Error::refused(Exit::NotEnoughParams, message));
        }
        None => load.head().ctid.to_string().parse()?,
    };
    let (_lock, ve) = node.hold(ctid, "restoring", Wake::Yes)?;
    if ve.config.exists() {
        let message = format!("container {ctid} exists already");
        let hint = format!("Restore it beside that one with --as CTID, or remove it: vzctl destroy {ctid}");
        return Err(Error::advised(Exit::FsPrvtAreaExist, message, hint));
    }
    handover::check(&ve, true)?;
    let draft = Draft::new(&ve, load.head(), wish)?;
    let ve = Ve { node, ctid, config: draft.config.clone() };
    mount::shut(&ve, &draft.mark.private)?;
    mount::warn_if_reachable(&ve, &draft.mark.private, draft.choice.layout);
    check_space(&draft.mark.private, load.totals())?;
    match build(&ve, &draft, load, wish) {
        Ok((head, totals)) => Ok(Rebuilt { ctid, head, totals }),
        Err(error) => Err(error.with_cleanup(draft.mark.undo(&ve))),
    }
}

/// A checked plan; nothing has been touched yet.
struct Draft {
    file: ConfFile,
    config: Config,
    choice: Choice,
    mark: Mark,
    quota: quota::Planned,
}

impl Draft {
    fn new(ve: &Ve<'_>, head: &Head, wish: &Wish) -> Result<Self> {
        let moved = head.ctid != 0 && ve.ctid.get() != head.ctid;
        let mut file = ConfFile::parse(&head.config);
        let paths = &ve.node.paths;
        for (key, dir) in [("VE_ROOT", "root"), ("VE_PRIVATE", "private")] {
            let default = format!("{}/$VEID", paths.vz().join(dir).display());
            file.set(key, ve.node.global.node(key).unwrap_or(&default))?;
        }
        let name = match &wish.name {
            Some(name) => Some(name.clone()).filter(|name| !name.is_empty()),
            None if moved => None,
            None => file.get("NAME").map(str::to_owned).filter(|name| !name.is_empty()),
        };
        match &name {
            Some(name) => file.set("NAME", name)?,
            None => drop(file.remove("NAME")),
        }
        // Two VEs with the same ids would be one to the kernel; 0 is not a range but the host's own.
        match file.get("LOCAL_UID") {
            Some("0") => ve.say(-1, "WARNING: the container is a privileged one (LOCAL_UID=0)"),
            Some(_) if moved => {
                file.remove("LOCAL_UID");
                file.remove("LOCAL_GID");
            }
            _ => {}
        }
        if moved {
            warn_of_addresses(ve, &file, head.ctid);
        }
        let config = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        creating::warn(ve, &config, None);
        let mark = Mark::plan(ve, &config, name)?;
        let choice = choose(ve, &config, wish.layout.as_deref().unwrap_or("auto"), &mark.private)?;
        ve.say(1, &choice.why);
        file.set("VE_LAYOUT", choice.layout.word())?;
        let config = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        let quota = quota::plan(ve, &config, &mark.private, (choice.layout, choice.image.is_some()))?;
        Ok(Self { file, config, choice, mark, quota })
    }
}

/// The layout: what is restored has no template below it.
fn choose(ve: &Ve<'_>, config: &Config, word: &str, private: &Path) -> Result<Choice> {
    let bad =
        |text: String| Error::refused(Exit::InvalidValue, format!("Bad parameter for --layout: {text}"));
    match word.parse::<layout::Wish>().map_err(|error| bad(error.to_string()))? {
        layout::Wish::Only(Layout::Overlay) => Err(bad("a backup has no template for an overlay".to_owned())),
        layout::Wish::Auto => match disk::choose(ve, config, layout::Wish::Only(Layout::Simfs), private) {
            Err(Error::Refused { .. } | Error::Layout(_)) => {
                disk::choose(ve, config, layout::Wish::Only(Layout::Ploop), private)
            }
            chosen => chosen,
        },
        wish => disk::choose(ve, config, wish, private),
    }
}

/// A second VE with the addresses of the first takes them away from it.
fn warn_of_addresses(ve: &Ve<'_>, file: &ConfFile, other: u32) {
    for (key, change) in
        [("IP_ADDRESS", "--ipdel all --ipadd ADDRESS"), ("NETIF", "--netif_del NAME --netif_add NAME")]
    {
        if let Some(value) = file.get(key).filter(|value| !value.is_empty()) {
            let text = format!(
                "WARNING: container {} has the network of container {other} ({key}={value}); before both run, \
                 change it: vzctl set {0} {change} --save",
                ve.ctid
            );
            ve.say(-1, &text);
        }
    }
}

fn check_space(private: &Path, totals: Option<&Totals>) -> Result<()> {
    let Some(totals) = totals else { return Ok(()) };
    let parent = room::above(private);
    let free = room::free(&parent);
    let free = free.doing(Exit::System, || format!("cannot ask for the space in {}", parent.display()))?;
    let available = free / 1024;
    let needed = totals.bytes / 1024;
    if needed <= available {
        return Ok(());
    }
    let text =
        format!("Insufficient disk space in {}; available: {available}, needed: {needed}", parent.display());
    Err(Error::refused(Exit::FsNoDiskSpace, text))
}

fn build(ve: &Ve<'_>, draft: &Draft, load: Source, wish: &Wish) -> Result<(Head, Totals)> {
    let mark = &draft.mark;
    let temp = creating::reserve(ve, mark, draft.quota)?;
    let blanks = disk::blanks(ve);
    let (image, project) = (draft.choice.image, draft.quota.project);
    let empty = Empty { area: &temp, base: None, image, blanks: &blanks, project };
    layout::prepare(draft.choice.layout, &empty)?;
    ve.say(0, &format!("Restoring container private area ({})", mark.private.display()));
    let label = format!("Restoring container {}", ve.ctid);
    let progress = &mut |done, total| (ve.node.progress)(&label, done, total);
    let done = match draft.choice.layout {
        Layout::Simfs => load.into(&temp, progress)?,
        layout => {
            let tree = layout::mount_hidden(layout, &temp, &ve.node.bases())?;
            // The dot: a name that may not be a symlink, as the one in /proc is.
            let done = load.into(Path::new(&format!("{}/.", tree.proc_path())), progress);
            let done = done.map_err(|error| if is_full(&temp) { full(&temp, error) } else { error })?;
            drop(tree);
            let synced = fs::File::open(&temp).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
            synced.doing(Exit::FsNewVePrvt, || format!("cannot sync {}", temp.display()))?;
            done
        }
    };
    fault::point("vzrestore.filled");
    let scripts = if wish.scripts { install_scripts(ve, &done.0)? } else { Vec::new() };
    if !wish.scripts && !done.0.scripts.is_empty() {
        let names: Vec<&str> = done.0.scripts.keys().map(String::as_str).collect();
        ve.say(
            -1,
            &format!("WARNING: its action scripts were left out ({}); see --scripts", names.join(", ")),
        );
    }
    if let Err(error) = creating::commit(ve, mark, draft.quota, &draft.file) {
        let left =
            scripts.iter().filter_map(|path| fs::remove_file(path).err().map(|_| path.display().to_string()));
        return Err(error.with_cleanup(left.collect()));
    }
    Ok(done)
}

/// An image on a full disk tells nobody but the kernel's log why its blocks cannot be written.
fn is_full(dir: &Path) -> bool {
    room::free(dir).is_ok_and(|free| free < 64 << 10)
}

fn full(dir: &Path, error: Error) -> Error {
    let text = format!("Insufficient disk space in {}: {}", dir.display(), crate::describe(&error));
    Error::refused(Exit::FsNoDiskSpace, text)
}

fn install_scripts(ve: &Ve<'_>, head: &Head) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for action in Action::ALL {
        let Some(text) = head.scripts.get(action.suffix()) else { continue };
        let path = ve.node.paths.action_script(Script::Ve(ve.ctid, action));
        let what = || format!("cannot write {}", path.display());
        // Of an earlier VE of this number: no other one may be there while there is no configuration.
        let write = || -> std::io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o755).open(&path)?;
            std::io::Write::write_all(&mut &file, text.as_bytes())?;
            file.sync_all()
        };
        write().doing(Exit::System, what)?;
        made.push(path);
    }
    Ok(made)
}
