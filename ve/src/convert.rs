//! `vzctl convert`: another layout for the files of a VE.
//!
//! ```text
//!  mark ─▶ PRIVATE.convert ─▶ copy ─▶ on the disk ─▶ exchange with PRIVATE (COMMIT) ─▶ VE_LAYOUT ─▶ old one away ─▶ unmark
//! ```
//! The mark tells the next verb that a convert was killed, and by the inode of the new area whether that was before or
//! after the exchange.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use templates::cache::Cache;
use templates::layout::{self, Choice, Empty, Layout, Wish};
use templates::replica::{More, Op, Replica, ReplicaError, Scan, Sink, Thin};
use templates::snapshot::Snapshots;
use vzconf::{ConfFile, Ctid, Exit, Paths};
use vzsys::mount::Detached;
use vzsys::{SysError, fault};

use crate::creating::discard;
use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::{disk, dismantle, record, snapshot};

/// How often progress is told, in bytes.
const TELL: u64 = 4 << 20;

/// What a convert makes of a VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The private area, no link.
    private: PathBuf,
    /// The new area, and after the exchange the old one.
    beside: PathBuf,
    /// The word for VE_LAYOUT.
    layout: String,
    /// Inode of the directory of the new area, once it is there.
    made: Option<u64>,
    /// `TEMPLATE`, and the unpacked templates that the old and the new area lie on.
    templates: PathBuf,
    old_base: Option<String>,
    new_base: Option<String>,
}

/// Gives a stopped VE another layout, with all its files. `word` is that of `--layout`.
///
/// # Errors
/// 21 no such layout, 32 running, 41 mounted, 60 and 63 limits, 91 template, 46 disk space, 155 the copy failed. The
/// VE is then as it was.
pub fn convert(ve: &Ve<'_>, word: &str) -> Result<()> {
    if ve.running().is_some() {
        return Err(Error::refused(Exit::VeRunning, "CT is running (stop it first)"));
    }
    dismantle::mend(ve)?;
    if ve.mounted() {
        return Err(Error::refused(Exit::FsMounted, "CT is mounted (umount first)"));
    }
    let private = real(&ve.existing_private()?)?;
    let from = ve.layout(&private)?;
    let wish: Wish = word.parse().map_err(|error: layout::UnknownLayout| {
        Error::refused(Exit::InvalidValue, format!("Bad parameter for --layout: {error}"))
    })?;
    let choice = disk::choose(ve, &ve.config, wish, &private)?;
    if from == choice.layout && layout::image(from, &private)?.is_some() == choice.image.is_some() {
        ve.say(0, &format!("CT is already on {from}"));
        return Ok(());
    }
    let place = snapshot::Place::new(ve, &private, from);
    let kept = Snapshots::open(place.area(ve)).map_err(snapshot::failed(Exit::ConvertImage))?;
    if !kept.tree().items().is_empty() {
        let hint = format!("Delete them first; they are listed by: vzctl snapshot-list {}", ve.ctid);
        return Err(Error::advised(
            Exit::ConvertImage,
            "Container has snapshots, which are of its layout",
            hint,
        ));
    }
    // A backup reads what would go.
    let _nobody_reads = crate::backup::alone(ve)?;
    ve.say(1, &choice.why);
    let mut mark = plan(ve, from, &choice, private)?;
    let built = build(ve, from, &choice, &mut mark);
    match built {
        Ok(()) => finish(ve, &mark),
        Err(error) => Err(error.with_cleanup(undo(ve, &mark))),
    }?;
    ve.say(0, &format!("Container was converted to {}", choice.layout));
    Ok(())
}

/// The directory itself: a link to it stays what it is.
fn real(private: &Path) -> Result<PathBuf> {
    fs::canonicalize(private).doing(Exit::ConvertImage, || format!("cannot find {}", private.display()))
}

fn plan(ve: &Ve<'_>, from: Layout, choice: &Choice, private: PathBuf) -> Result<Mark> {
    if vzsys::mount::is_mount_point(&private) {
        let message = format!("{} is a mount point, and cannot be replaced", private.display());
        return Err(Error::refused(Exit::ConvertImage, message));
    }
    let mut beside = private.clone().into_os_string();
    beside.push(".convert");
    let old_base =
        if from.shares_template() { layout::base_of(&private)?.map(|record| record.base) } else { None };
    let new_base = if choice.layout.shares_template() { Some(base(ve, old_base.clone())?) } else { None };
    Ok(Mark {
        private,
        beside: beside.into(),
        layout: choice.layout.word().to_owned(),
        made: None,
        templates: ve.config.template_dir(),
        old_base,
        new_base,
    })
}

/// The unpacked template that the VE is to lie on: the one it lies on, else the one that it was made from.
fn base(ve: &Ve<'_>, old: Option<String>) -> Result<String> {
    if let Some(old) = old {
        return Ok(old);
    }
    let name = ve.config.ostemplate().ok_or_else(|| {
        Error::refused(Exit::VeOstemplateNotSet, "OS template is not specified: an overlay needs one below")
    })?;
    let cache = Cache::open(&ve.config.template_dir());
    let template = cache.find(name)?;
    let base = cache.base(&template, |done| {
        (ve.node.progress)("Unpacking the template", done.read, done.total);
    })?;
    Ok(base.id)
}

fn build(ve: &Ve<'_>, from: Layout, choice: &Choice, mark: &mut Mark) -> Result<()> {
    mark.save(&ve.node.paths, ve.ctid)?;
    if let Some(base) = mark.new_base.as_ref().filter(|base| mark.old_base.as_ref() != Some(base)) {
        Cache::open(&mark.templates).add_ref(base, ve.ctid)?;
    }
    fault::point("convert.marked");
    discard(ve, &mark.beside)?;
    let bases = mark.templates.join("base");
    let empty = Empty {
        area: &mark.beside,
        base: mark.new_base.as_deref().map(|base| (bases.as_path(), base)),
        image: choice.image,
        blanks: &disk::blanks(ve),
        project: None,
    };
    layout::prepare(choice.layout, &empty)?;
    mark.made = Some(inode(&mark.beside)?);
    mark.save(&ve.node.paths, ve.ctid)?;
    fault::point("convert.prepared");
    ve.say(0, &format!("Copying the files of container {} ({from} to {})", ve.ctid, choice.layout));
    let source = layout::mount_hidden(from, &mark.private, &bases)?;
    layout::furnish(choice.layout, &mark.beside, &bases, |tree| {
        copy(ve, &source, tree, choice.layout, &empty)
    })?;
    drop(source);
    fault::point("convert.copied");
    let what = || format!("cannot write {} to the disk", mark.beside.display());
    let dir = File::open(&mark.beside).doing(Exit::ConvertImage, what)?;
    rustix::fs::syncfs(&dir)
        .map_err(|errno| SysError::new("syncfs", mark.beside.display(), errno))
        .doing(Exit::ConvertImage, what)?;
    fault::point("convert.synced");
    // COMMIT: the new area has the place of the old one, and the other way round.
    renameat_with(CWD, &mark.beside, CWD, &mark.private, RenameFlags::EXCHANGE)
        .map_err(|errno| SysError::new("renameat2", format!("{}, EXCHANGE", mark.private.display()), errno))
        .doing(Exit::ConvertImage, || format!("cannot replace {}", mark.private.display()))?;
    fault::point("convert.exchanged");
    Ok(())
}

fn copy(ve: &Ve<'_>, source: &Detached, tree: &Detached, kind: Layout, empty: &Empty<'_>) -> Result<()> {
    let top = |mount: &Detached| PathBuf::from(format!("{}/.", mount.proc_path()));
    let failed = |error: ReplicaError| {
        let full = error.is_full();
        let exit = if full { Exit::FsNoDiskSpace } else { Exit::ConvertImage };
        let hint = if full { " (is DISKSPACE enough, and the disk below?)" } else { "" };
        Error::refused(exit, format!("cannot copy the files of container {}: {error}{hint}", ve.ctid))
    };
    let mut scan = Scan::new(&top(source)).map_err(failed)?;
    let total = scan.measure().map_err(failed)?.bytes;
    if empty.image.is_some() && empty.base.is_none() {
        // In the image it would be an I/O error.
        let image = layout::image(kind, empty.area)?;
        image.map_or(Ok(()), |image| image.expect_room(total)).map_err(layout::LayoutError::from)?;
    }
    let mut sink: Box<dyn Sink> = match empty.base {
        Some((bases, base)) => Box::new(Thin::new(&top(tree), &bases.join(base)).map_err(failed)?),
        None => Box::new(Replica::new(&top(tree)).map_err(failed)?),
    };
    let tell = |done| (ve.node.progress)("Copying the files", done, total);
    let mut counted = Counted { sink: sink.as_mut(), done: 0, told: 0, tell: &tell };
    scan.pass(More::Nothing, &mut counted).map(drop).map_err(failed)
}

/// A sink that tells how far it is.
struct Counted<'a> {
    sink: &'a mut dyn Sink,
    done: u64,
    told: u64,
    tell: &'a dyn Fn(u64),
}

impl Sink for Counted<'_> {
    fn op(&mut self, op: Op) -> std::result::Result<(), ReplicaError> {
        fault::point("convert.copying");
        self.sink.op(op)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), ReplicaError> {
        self.done += bytes.len() as u64;
        if self.done - self.told >= TELL {
            self.told = self.done;
            (self.tell)(self.done);
        }
        self.sink.data(offset, bytes)
    }
}

fn inode(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path);
    meta.map(|meta| meta.ino()).doing(Exit::ConvertImage, || format!("cannot look at {}", path.display()))
}

/// What is left to do after the exchange; each step may find its part done.
fn finish(ve: &Ve<'_>, mark: &Mark) -> Result<()> {
    let conf = ve.node.paths.ve_conf(ve.ctid);
    let mut file = ConfFile::load(&conf)?;
    if file.get("VE_LAYOUT") != Some(mark.layout.as_str()) {
        file.set("VE_LAYOUT", &mark.layout)?;
        file.save(&conf)?;
    }
    fault::point("convert.saved");
    discard(ve, &mark.beside)?;
    if let Some(old) = mark.old_base.as_ref().filter(|old| mark.new_base.as_ref() != Some(old)) {
        Cache::open(&mark.templates).drop_ref(old, ve.ctid)?;
    }
    remove(ve)
}

/// Removes what was made; returns what could not be removed.
fn undo(ve: &Ve<'_>, mark: &Mark) -> Vec<String> {
    let mut done = vec![discard(ve, &mark.beside)];
    if let Some(new) = mark.new_base.as_ref().filter(|new| mark.old_base.as_ref() != Some(new)) {
        done.push(Cache::open(&mark.templates).drop_ref(new, ve.ctid).map_err(Into::into));
    }
    // As long as something is left the next verb tries again.
    if done.iter().all(Result::is_ok) {
        done.push(remove(ve));
    }
    done.into_iter().filter_map(|done| done.err().map(|error| crate::describe(&error))).collect()
}

/// Mends what a killed convert left: the VE has the old layout, or the new one. The caller has the lock. Returns
/// whether there was anything; its configuration may have changed. A VE without a mark costs one look-up.
///
/// # Errors
/// What could not be removed or saved.
pub fn mend(ve: &Ve<'_>) -> Result<bool> {
    let Some(mark) = Mark::load(ve)? else { return Ok(false) };
    // The killed one had it, and left its file.
    let _nobody_reads = crate::backup::alone(ve).ok();
    let committed =
        mark.made.is_some() && fs::symlink_metadata(&mark.private).ok().map(|m| m.ino()) == mark.made;
    if committed {
        ve.say(-1, &format!("WARNING: finishing an interrupted conversion to {}", mark.layout));
        return finish(ve, &mark).map(|()| true);
    }
    ve.say(-1, "WARNING: removing what an interrupted conversion left behind");
    let left = undo(ve, &mark);
    if left.is_empty() {
        return Ok(true);
    }
    let message = format!("what an interrupted conversion of container {} left cannot be removed", ve.ctid);
    Err(Error::refused(Exit::System, message).with_cleanup(left))
}

fn path(paths: &Paths, ctid: Ctid) -> PathBuf {
    paths.state_dir().join("converting").join(ctid.to_string())
}

fn remove(ve: &Ve<'_>) -> Result<()> {
    record::remove(&path(&ve.node.paths, ve.ctid))
}

impl Mark {
    fn load(ve: &Ve<'_>) -> Result<Option<Self>> {
        record::read(&path(&ve.node.paths, ve.ctid))
    }

    /// On the disk: after the exchange it is all that tells the old area from the new one.
    fn save(&self, paths: &Paths, ctid: Ctid) -> Result<()> {
        record::write(&path(paths, ctid), self)
    }
}
