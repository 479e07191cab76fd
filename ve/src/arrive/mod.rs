//! A VE that comes from another host: whether it can, where it waits, and how it becomes one of this host's.
//!
//! ```text
//! check ─▶ reserve ─▶ (files come into STAGING) ─▶ prepared ─▶ own (COMMIT) ─▶ settle ─▶ start
//!             └───────────── discard, at any time before `own`, and after it when the start fails
//! ```
//! Each step may find its part done already: this is also how an interrupted move is carried on.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use templates::cache::Cache;
use templates::layout::{self, Layout, Limits, Wanted, Wish};
use vzconf::{Action, ConfFile, Config, Ctid, Exit, Lock, Script, names};

mod resume;

pub use self::resume::resume;
use crate::error::{Doing, Error, Result};
use crate::fit::{self, Needs};
use crate::handover::{self, Arrive, Arriving, Epoch, Handover, Part, Then};
use crate::node::{Node, Ve};
use crate::{creating, describe, dismantle, ids, life, mount, record, start};

/// What a host has to know of a VE before it takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its number.
    pub ctid: u32,
    /// Its name.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Bridges that its devices are on.
    pub bridges: Vec<String>,
    /// The word of its layout.
    pub layout: String,
    /// Its files lie in an image, which goes with any file system.
    pub image: bool,
    /// The unpacked template that it lies on.
    pub base: Option<String>,
    /// Bytes that its files take on the disk, and a base that is missing here.
    pub bytes: u64,
    /// The processor's kind, as uname(2) has it.
    pub machine: String,
    /// It is to go on here with its memory.
    pub needs: Option<Needs>,
}

/// Why a host cannot take a VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind of reason.
    pub obstacle: Obstacle,
    /// The reason in words.
    pub text: String,
}

/// Kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// A VE of this number, or something of one, is there.
    Exists,
    /// A command is at work on that number.
    Locked,
    /// The name is another VE's.
    Name,
    /// An address is another VE's.
    Address,
    /// The disk is too full.
    Space,
    /// The layout is not possible there.
    Layout,
    /// IPv6 is switched off there.
    Ipv6,
    /// Another kind of processor.
    Processor,
    /// A bridge is missing.
    Bridge,
    /// CRIU is missing or too old.
    Criu,
    /// The host is another kind: its cgroups, its ids, what its kernel can do.
    Kernel,
}

/// Looks for all reasons against it; changes nothing.
///
/// # Errors
/// 21 for a number or a layout that is none.
pub fn check(node: &Node, subject: &Subject) -> Result<Vec<Problem>> {
    let ctid = number(subject.ctid)?;
    let layout: Layout = layout_of(&subject.layout)?;
    let mut found = Vec::new();
    let mut note = |obstacle, text: String| found.push(Problem { obstacle, text });
    let ve = node.ve(ctid)?;
    let destined = destined(node, ctid, ConfFile::parse(""))?;
    let private = destined.private;
    if ve.config.exists() {
        note(Obstacle::Exists, format!("container {ctid} exists there"));
    } else if fs::symlink_metadata(&private).is_ok() || creating::is_marked(&node.paths, ctid) {
        note(
            Obstacle::Exists,
            format!("a private area of a container {ctid} is there: {}", private.display()),
        );
    }
    if let Some(holder) = Lock::holder(&node.global.lock_dir(), ctid) {
        if holder.pid != std::process::id() {
            note(Obstacle::Locked, format!("container {ctid} is locked there ({holder})"));
        }
    } else if let Some(other) = Handover::load(&node.paths, ctid)? {
        note(
            Obstacle::Locked,
            format!("an earlier move of container {ctid} from {} is not resolved there", other.peer),
        );
    }
    if let Some(name) = &subject.name
        && let Err(error) = names::check_free(&node.paths, name, ctid)
    {
        note(Obstacle::Name, describe(&error));
    }
    for (address, owner) in taken(&subject.addresses)? {
        note(Obstacle::Address, format!("address {address} is in use there by container {owner}"));
    }
    if subject.addresses.iter().any(IpAddr::is_ipv6) && !Path::new("/proc/sys/net/ipv6").is_dir() {
        note(Obstacle::Ipv6, "IPv6 is not available there".to_owned());
    }
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    if machine != subject.machine {
        note(Obstacle::Processor, format!("the processor there is {machine}, not {}", subject.machine));
    }
    for bridge in &subject.bridges {
        if !Path::new("/sys/class/net").join(bridge).exists() {
            note(Obstacle::Bridge, format!("there is no bridge {bridge} there"));
        }
    }
    let parent = vzsys::room::above(&private);
    if let Err(text) = room(&parent, subject.bytes) {
        note(Obstacle::Space, text);
    }
    let memory = node.paths.run_root().join("overlays");
    let wanted = Wanted { wish: Wish::Auto, limits: Limits::default(), parent: &parent, memory: &memory };
    let possible = || layout::choose(&wanted).is_ok_and(|choice| choice.layout == Layout::Overlay);
    if layout == Layout::Overlay && !subject.image && !possible() {
        note(Obstacle::Layout, format!("{} there cannot carry the layout {layout}", parent.display()));
    }
    if let Some(needs) = &subject.needs {
        found.extend(fit::check(node, ctid, &destined.config, needs));
    }
    Ok(found)
}

fn number(ctid: u32) -> Result<Ctid> {
    let ctid = Ctid::new(ctid)?;
    if ctid.is_host() { Err(Error::refused(Exit::InvalidValue, "0 is no container")) } else { Ok(ctid) }
}

fn layout_of(word: &str) -> Result<Layout> {
    let known = Layout::ALL.into_iter().find(|layout| layout.word() == word);
    known.ok_or_else(|| Error::refused(Exit::InvalidValue, format!("the layout '{word}' is not known there")))
}

fn taken(addresses: &[IpAddr]) -> Result<Vec<(IpAddr, Ctid)>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let all = netns::all_addresses()?;
    let owner =
        |address: &IpAddr| all.iter().find(|(_, theirs)| theirs.contains(address)).map(|(ctid, _)| *ctid);
    Ok(addresses.iter().filter_map(|address| Some((*address, owner(address)?))).collect())
}

fn room(dir: &Path, bytes: u64) -> std::result::Result<(), String> {
    let free = vzsys::room::free(dir).map_err(|error| error.to_string())?;
    if free > bytes {
        return Ok(());
    }
    Err(format!(
        "not enough disk space in {} there; available: {}, needed: {} (KiB)",
        dir.display(),
        free / 1024,
        bytes / 1024
    ))
}

/// Everything that a VE brings besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Luggage {
    /// Its configuration file.
    pub conf: Vec<u8>,
    /// Suffixes and texts of its action scripts.
    pub scripts: Vec<(String, Vec<u8>)>,
    /// It brings a dump.
    pub dump: bool,
    /// It brings its memory, about so many bytes, and goes on here.
    pub memory: Option<u64>,
}

/// The configuration as this host has it.
struct Destined {
    file: ConfFile,
    config: Config,
    private: PathBuf,
}

/// Paths are this host's own; what a configuration could say of other places of the host is left out, and so is a
/// range of ids, which may be somebody else's here: files do not depend on it.
fn destined(node: &Node, ctid: Ctid, mut file: ConfFile) -> Result<Destined> {
    for key in ["TEMPLATE", "DUMPDIR", "LOCKDIR", "LOGFILE", "LOGGING", "LOG_LEVEL", "VERBOSE"] {
        file.remove(key);
    }
    if file.get("LOCAL_UID").is_some_and(|uid| uid.trim() != "0") {
        file.remove("LOCAL_UID");
        file.remove("LOCAL_GID");
    }
    for (key, dir) in [("VE_ROOT", "root"), ("VE_PRIVATE", "private")] {
        let usual = || format!("{}/$VEID", node.paths.vz().join(dir).display());
        let place = node.global.node(key).map_or_else(usual, str::to_owned);
        file.remove(key);
        file.set(key, &place)?;
    }
    let config = node.global.with_file(ctid, Some(file.clone()));
    let private = config
        .ve_private()
        .ok_or_else(|| Error::refused(Exit::VePrivateNotSet, "VE_PRIVATE is not set in vz.conf"))?;
    Ok(Destined { file, config, private })
}

/// Keeps the number and makes a place for the files. The caller holds the VE's lock and has checked.
///
/// # Errors
/// 3, 48; nothing is left then.
pub fn reserve(
    node: &Node,
    subject: &Subject,
    luggage: &Luggage,
    (id, epoch, peer): (&str, u64, &str),
) -> Result<Handover> {
    let ctid = number(subject.ctid)?;
    let layout = layout_of(&subject.layout)?;
    let mut destined = destined(node, ctid, ConfFile::parse_bytes(&luggage.conf))?;
    destined.file.set("VE_LAYOUT", layout.word())?;
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", destined.private.display()));
    let dump = destined.config.dump_file().filter(|_| luggage.dump);
    let arriving = Arriving {
        stage: Arrive::Reserved,
        staging: beside(".arriving"),
        private: destined.private.clone(),
        base: subject.base.clone(),
        dump: dump.map(|path| (PathBuf::from(format!("{}.arriving", path.display())), path)),
        then: Then::Rest,
        memory: luggage.memory.and_then(|bytes| fit::place(node, ctid, &destined.config, bytes)),
    };
    let handover =
        Handover::new(id.to_owned(), ctid, epoch, peer.to_owned(), Part::Arriving(arriving.clone()));
    handover.save(&node.paths)?;
    vzsys::fault::point("arrive.reserved");
    match furnish(node, ctid, &arriving, &destined, luggage) {
        Ok(()) => Ok(handover),
        Err(error) => Err(error.with_cleanup(discard(node, &handover))),
    }
}

fn furnish(
    node: &Node,
    ctid: Ctid,
    arriving: &Arriving,
    destined: &Destined,
    luggage: &Luggage,
) -> Result<()> {
    let dir = handover::luggage(&node.paths, ctid);
    remove_tree(&dir)?;
    fs::create_dir_all(&dir).doing(Exit::System, || format!("cannot create {}", dir.display()))?;
    record::store(&dir.join("conf"), &destined.file.to_bytes())?;
    for (suffix, text) in &luggage.scripts {
        let known = Action::ALL.into_iter().find(|action| action.suffix() == suffix);
        let action = known.ok_or_else(|| {
            Error::refused(Exit::InvalidValue, format!("'{suffix}' is no action of a script"))
        })?;
        record::store(&dir.join(action.suffix()), text)?;
    }
    let ve = node.ve(ctid)?;
    mount::shut(&ve, &arriving.private)?;
    creating::discard(&ve, &arriving.staging)?;
    if let Some(base) = &arriving.base {
        templates::cache::check_name(base)?;
        Cache::open(&node.global.template_dir()).add_ref(base, ctid)?;
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&arriving.staging)
        .doing(Exit::FsNewVePrvt, || format!("cannot create {}", arriving.staging.display()))?;
    if let Some((staged, _)) = &arriving.dump {
        remove_tree(staged)?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(staged);
        made.doing(Exit::System, || format!("cannot create {}", staged.display()))?;
    }
    if luggage.dump {
        // They are in the dump.
        ids::claim(&destined.config, ctid)?;
    }
    if luggage.memory.is_some() {
        let memory = arriving.memory.as_ref();
        let memory = memory.ok_or_else(|| Error::refused(Exit::FsNoDiskSpace, "no room for its memory"))?;
        remove_tree(memory)?;
        // CRIU opens some of it as the VE's root.
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(memory);
        made.doing(Exit::System, || format!("cannot create {}", memory.display()))?;
        ids::claim(&destined.config, ctid)?;
    }
    Ok(())
}

/// All has come, and is on the disk: from here on only the source decides.
///
/// # Errors
/// 3.
pub fn prepared(node: &Node, handover: &mut Handover, then: Then) -> Result<()> {
    let Part::Arriving(arriving) = &mut handover.part else { return Ok(()) };
    arriving.then = then;
    arriving.stage = Arrive::Prepared;
    handover.save(&node.paths)?;
    vzsys::fault::point("arrive.prepared");
    Ok(())
}

/// The source has given the VE away: it becomes this host's. May be done again.
///
/// # Errors
/// 3, 131 name; 17 for one that is to go on and has not, whose memory is gone.
pub fn settle(node: &Node, handover: &Handover) -> Result<()> {
    let Part::Arriving(arriving) = &handover.part else { return Ok(()) };
    if arriving.then == Then::Resume && !handover.is_owned(&node.paths) {
        resume::can(handover)?;
    }
    own(node, handover)?;
    place(node, handover)
}

fn own(node: &Node, handover: &Handover) -> Result<()> {
    // COMMIT: the VE is this host's.
    handover::own(&node.paths, handover)?;
    vzsys::fault::point("arrive.owned");
    Ok(())
}

/// Everything where it belongs.
fn place(node: &Node, handover: &Handover) -> Result<()> {
    let Part::Arriving(arriving) = &handover.part else { return Ok(()) };
    let ctid = number(handover.ctid)?;
    let dir = handover::luggage(&node.paths, ctid);
    for action in Action::ALL {
        if let Ok(text) = fs::read(dir.join(action.suffix())) {
            let path = node.paths.action_script(Script::Ve(ctid, action));
            record::store(&path, &text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .doing(Exit::System, || format!("cannot make {} executable", path.display()))?;
        }
    }
    let moves = [Some((&arriving.staging, &arriving.private)), arriving.dump.as_ref().map(|(a, b)| (a, b))];
    for (from, to) in moves.into_iter().flatten() {
        if fs::symlink_metadata(from).is_ok() {
            fs::rename(from, to).doing(Exit::FsNewVePrvt, || format!("cannot rename {}", from.display()))?;
        }
    }
    vzsys::fault::point("arrive.moved");
    if let Some((_, dump)) = &arriving.dump {
        // A dump is of one of its lives, which go on being counted here.
        let saved = criu::Images::peek::<crate::Saved>(dump)
            .map_err(|source| Error::Criu { source, exit: Exit::Restore })?;
        life::set(&node.paths, ctid, saved.life)?;
    }
    if dir.join("conf").exists() {
        let file = ConfFile::load(&dir.join("conf"))?;
        file.save(&node.paths.ve_conf(ctid))?;
        if let Some(name) = file.get("NAME").filter(|name| !name.is_empty()) {
            names::assign(&node.paths, ctid, name, None)?;
        }
    }
    handover::set_epoch(&node.paths, ctid, &Epoch { number: handover.epoch, left_for: None })?;
    vzsys::fault::point("arrive.settled");
    Ok(())
}

/// Does what is to be done with a VE that has settled: starts it, mounts it, or leaves it.
///
/// # Errors
/// As the verb.
pub fn wake(node: &Node, handover: &Handover) -> Result<()> {
    let Part::Arriving(arriving) = &handover.part else { return Ok(()) };
    let ve = node.ve(number(handover.ctid)?)?;
    match arriving.then {
        Then::Start if ve.running().is_none() => {
            start::start(&ve, start::Options { force: true, ..start::Options::default() })
        }
        Then::Resume if ve.running().is_none() => resume::again(&ve, arriving),
        Then::Mount => mount::mount(&ve).map(drop),
        Then::Start | Then::Resume | Then::Rest => Ok(()),
    }
}

/// The memory of a VE that was to go on is lost, or its source for ever: it will be started from its disk.
///
/// # Errors
/// 3.
pub fn without_memory(node: &Node, handover: &mut Handover) -> Result<()> {
    let Part::Arriving(arriving) = &mut handover.part else { return Ok(()) };
    arriving.then = Then::Start;
    handover.save(&node.paths)
}

/// Gives a VE that has come what came for it while it was on its way.
pub fn deliver(ve: &Ve<'_>, packets: &[Vec<u8>]) {
    let addresses: Vec<IpAddr> = ve.config.ip_addresses().iter().map(|ip| ip.addr).collect();
    netns::deliver(packets, &addresses);
}

/// The move is over here; whether the source knows is noted elsewhere.
///
/// # Errors
/// 3.
pub fn conclude(node: &Node, handover: &Handover) -> Result<()> {
    let ctid = number(handover.ctid)?;
    remove_tree(&handover::luggage(&node.paths, ctid))?;
    if let Part::Arriving(Arriving { memory: Some(memory), .. }) = &handover.part {
        remove_tree(memory)?;
    }
    Handover::forget(&node.paths, ctid)
}

/// Sets what has been copied aside, for the admin to look at; the next one takes its place. `None` when there is
/// nothing.
pub fn keep_copy(node: &Node, handover: &Handover) -> Option<PathBuf> {
    let Part::Arriving(arriving) = &handover.part else { return None };
    let ve = node.ve(number(handover.ctid).ok()?).ok()?;
    let aside = PathBuf::from(format!("{}.kept", arriving.private.display()));
    creating::discard(&ve, &aside).ok()?;
    fs::rename(&arriving.staging, &aside).ok()?;
    Some(aside)
}

/// Removes all that came, of a VE that is not, or not any more, this host's. Returns what could not be removed;
/// then the record stays, and the next verb tries again.
pub fn discard(node: &Node, handover: &Handover) -> Vec<String> {
    let (Part::Arriving(arriving), Ok(ctid)) = (&handover.part, number(handover.ctid)) else {
        return Vec::new();
    };
    // First: whatever happens next, it is not this host's.
    let mut done = vec![handover::disown(&node.paths, &handover.id)];
    let paths = &node.paths;
    match node.ve(ctid) {
        Ok(ve) if ve.running().is_some() => {
            return vec![format!("container {ctid} runs here")];
        }
        Ok(ve) => {
            // One that was held here when whoever held it was killed.
            done.push(dismantle::mend(&ve).map(drop));
            done.push(names::remove_all(paths, ctid).map_err(Into::into));
            done.push(remove_tree(&paths.ve_conf(ctid)));
            done.push(creating::discard(&ve, &arriving.staging));
            done.push(creating::discard(&ve, &arriving.private));
            done.push(forget_root(&ve));
        }
        Err(error) => done.push(Err(error)),
    }
    for action in Action::ALL {
        done.push(remove_tree(&paths.action_script(Script::Ve(ctid, action))));
    }
    let dump = arriving.dump.iter().flat_map(|(staged, path)| [staged, path]);
    for path in dump.chain(&arriving.memory) {
        done.push(remove_tree(path));
    }
    if let Some(base) = &arriving.base {
        done.push(Cache::open(&node.global.template_dir()).drop_ref(base, ctid).map_err(Into::into));
    }
    done.push(handover::set_epoch(paths, ctid, &Epoch::default()));
    done.push(remove_tree(&handover::luggage(paths, ctid)));
    if done.iter().all(Result::is_ok) {
        done.push(Handover::forget(paths, ctid));
    }
    done.into_iter().filter_map(|done| done.err().map(|error| describe(&error))).collect()
}

/// A failed start may have made its mount point, and ids are claimed by one.
fn forget_root(ve: &Ve<'_>) -> Result<()> {
    ids::release(&ve.node.paths.idmap_dir(), ve.ctid);
    life::forget(&ve.node.paths, ve.ctid);
    if let Ok(root) = ve.root() {
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

/// A file or tree of the host's own; not there counts as removed.
fn remove_tree(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    gone.doing(Exit::System, || format!("cannot remove {}", path.display()))
}
