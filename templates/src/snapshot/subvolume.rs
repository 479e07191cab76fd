//! Snapshots of subvolumes of btrfs: subvolumes that nobody can write.
//!
//! ```text
//! PRIVATE/data/<id>/        a snapshot
//! PRIVATE/data/<id>.view/   one that somebody reads for a while, who has its flock(2)
//! PRIVATE/next/             the subvolume that the VE is to have, while it is switched; then the one it had
//! PRIVATE/switching         to which snapshot, and the number of that subvolume
//! ```
//! Each is there whole, and on the disk, or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use vzsys::btrfs::{self, Access};
use vzsys::mount::Detached;

use super::error::{Failed, Result};
use super::layers::sync_file_system;
use super::live::{Copied, Places, Shot};
use super::{Area, Id, Keeper, SnapshotError, Target, Tree, read_only, read_plain, write_whole};
use crate::layout::btrfs as area;
use crate::mirror::Mirror;

const VIEW: &str = ".view";
const NEXT: &str = "next";

/// The layout `btrfs`.
#[derive(Debug)]
pub(super) struct Subvolumes<'a>(pub(super) Area<'a>);

/// The files of a VE at one moment, to be read only, with the ids of the disk. The VE goes on. Dropped, they are thrown
/// away; when whoever has it is killed, the next verb does that.
#[derive(Debug)]
pub struct View {
    mount: Option<Detached>,
    data: PathBuf,
    name: OsString,
    /// Says that somebody reads it.
    _held: File,
}

impl View {
    /// Where it can be read, while the value lives. (The dot: a name that may not be a symlink, as the one in /proc is.)
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.mount.as_ref().map(|mount| PathBuf::from(format!("{}/.", mount.proc_path())))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The mount ends first: nobody uses the files then.
        self.mount = None;
        // What cannot be removed now is by the next verb.
        let _ = destroy(&self.data, &self.name);
    }
}

/// A subvolume with all that is in it; gone is as good.
fn destroy(dir: &Path, name: &OsStr) -> Result<()> {
    let path = dir.join(name);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // It cannot be renamed away, because it cannot be written; the kernel empties it in the background.
        _ => crate::removal::remove(&path).failed_at("delete", &path),
    }
}

impl Subvolumes<'_> {
    fn data(&self) -> PathBuf {
        self.0.private.join("data")
    }

    fn make_data(&self) -> Result<PathBuf> {
        let data = self.data();
        DirBuilder::new().recursive(true).mode(0o700).create(&data).failed_at("make", &data)?;
        Ok(data)
    }

    fn existing(&self, id: Id) -> Result<PathBuf> {
        let path = self.data().join(id.bare());
        if path.is_dir() { Ok(path) } else { Err(SnapshotError::NoData { id, path }) }
    }

    fn shot(&self, id: Id) -> Result<Shot> {
        let (of, dir) = (area::tree(self.0.private), self.make_data()?);
        Ok(Shot { of, dir, name: id.bare().into(), access: Access::Read, is_others: false })
    }

    fn mark(&self) -> PathBuf {
        self.0.private.join("switching")
    }

    /// The number of the VE's own subvolume.
    fn number(&self, name: &str) -> Result<u64> {
        let path = self.0.private.join(name);
        let top = File::open(&path).failed_at("open", &path)?;
        btrfs::subvolume(top.as_fd()).failed_at("look at", &path)
    }

    /// Which switch is under way, if its subvolume has become the VE's.
    fn switched(&self) -> Result<Option<Id>> {
        let Ok(text) = read_plain(&self.mark()) else { return Ok(None) };
        let Some((id, number)) = text.trim().split_once(' ') else { return Ok(None) };
        let is_own = number.parse() == Ok(self.number(area::ROOT)?);
        Ok(id.parse().ok().filter(|_| is_own))
    }

    /// What a switch needed beside the subvolume goes.
    fn end_switch(&self) -> Result<()> {
        destroy(self.0.private, OsStr::new(NEXT))?;
        let mark = self.mark();
        crate::removal::remove(&mark).failed_at("remove", &mark)
    }

    /// Where a view goes.
    pub(super) fn view_place(&self, id: Id) -> Result<Places> {
        let mut shot = self.shot(id)?;
        shot.name.push(VIEW);
        Ok(Places::Shoot(shot))
    }

    /// The view that was taken. The caller has the VE's lock: nobody takes it for one that is not read any more.
    pub(super) fn view(&self, id: Id) -> Result<View> {
        let (data, mut name) = (self.data(), OsString::from(id.bare()));
        name.push(VIEW);
        let path = data.join(&name);
        let held = File::open(&path).failed_at("open", &path)?;
        held.lock_shared().failed_at("lock", &path)?;
        let mount = Detached::copy_of(&path, false).failed_at("mount", &path)?;
        read_only(&mount)?;
        Ok(View { mount: Some(mount), data, name, _held: held })
    }

    /// Whether somebody reads a view.
    fn is_read(path: &Path) -> bool {
        File::open(path).is_ok_and(|top| matches!(top.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// A snapshot that becomes the subvolume of a new area: as it is, or, on another disk, a copy.
    fn clone_place(&self, of: PathBuf, to: Target<'_>) -> Result<Places> {
        if area::make_shell_like(self.0.private, to.area)? {
            let (dir, name) = (to.area.to_owned(), area::ROOT.into());
            return Ok(Places::Shoot(Shot { of, dir, name, access: Access::Write, is_others: true }));
        }
        area::make_tree(to.area)?;
        let to = area::tree(to.area);
        Ok(Places::Copy(Copied { from: of, to, whole: true, held: Vec::new() }))
    }
}

impl Keeper for Subvolumes<'_> {
    fn mend(&self, listed: &Tree) -> Result<Option<Id>> {
        let data = self.data();
        for entry in fs::read_dir(&data).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let word = name.to_string_lossy();
            let id: Option<Id> = word.parse().ok();
            let stays = match id {
                Some(id) => listed.get(id).is_some(),
                None => word.ends_with(VIEW) && Self::is_read(&entry.path()),
            };
            if !stays {
                destroy(&data, &name)?;
            }
        }
        let switched = self.switched()?;
        if self.mark().exists() || self.0.private.join(NEXT).exists() {
            self.end_switch()?;
        }
        Ok(switched)
    }

    fn take(&self, id: Id) -> Result<()> {
        self.shot(id)?.take()
    }

    fn written(&self) -> Result<(PathBuf, Option<Detached>)> {
        Ok((self.0.private.to_owned(), None))
    }

    fn copy_places(&self, id: Id) -> Result<Places> {
        self.shot(id).map(Places::Shoot)
    }

    fn adopt(&self, _id: Id) -> Result<()> {
        Ok(())
    }

    fn switch(&self, id: Id) -> Result<()> {
        let (of, private) = (self.existing(id)?, self.0.private);
        self.end_switch()?;
        let (dir, name) = (private.to_owned(), NEXT.into());
        let next = Shot { of, dir, name, access: Access::Write, is_others: false };
        next.take()?;
        let number = self.number(NEXT)?;
        write_whole(&self.mark(), format!("{} {number}\n", id.bare()).as_bytes())?;
        vzsys::fault::point("snapshot-switch.copied");
        // COMMIT: the VE has the files of the snapshot.
        renameat_with(CWD, private.join(NEXT), CWD, area::tree(private), RenameFlags::EXCHANGE)
            .map_err(std::io::Error::from)
            .failed_at("exchange the files of", private)?;
        vzsys::fault::point("snapshot-switch.exchanged");
        destroy(private, OsStr::new(NEXT))
    }

    fn stamp(&self) -> Result<u64> {
        self.number(area::ROOT)
    }

    fn remove(&self, id: Id, _current: Option<Id>) -> Result<()> {
        destroy(&self.data(), OsStr::new(&id.bare()))
    }

    fn mount(&self, id: Id) -> Result<Detached> {
        let tree = self.existing(id)?;
        Detached::copy_of(&tree, false).failed_at("mount", &tree)
    }

    fn clone_kept(&self, of: Option<Id>, to: Target<'_>) -> Result<()> {
        let from = of.map_or_else(|| Ok(area::tree(self.0.private)), |id| self.existing(id))?;
        match self.clone_place(from, to)? {
            Places::Shoot(shot) => shot.take(),
            Places::Copy(Copied { from, to, .. }) => {
                let what = || format!("copy {} to {}", from.display(), to.display());
                let mut mirror = Mirror::filling(&from, &to).failed(what())?;
                mirror.compare(|_| {}).and_then(|()| mirror.finish()).failed(what())?;
                mirror.seal().map(drop).failed(what())
            }
        }
    }

    fn clone_places(&self, to: Target<'_>) -> Result<Places> {
        self.clone_place(area::tree(self.0.private), to)
    }

    fn sync(&self) -> Result<()> {
        sync_file_system(self.0.private)
    }
}
