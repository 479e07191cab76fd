//! Removing a tree that its owner, a VE, may have shaped as it liked.
//!
//! What lies too deep for descriptors and stack is moved to the top of the tree and comes to its turn there
//! (going up by `..` instead costs the kernel a look at all directories above, each time). Going down is by
//! name, never through a link. One failure does not end the work: what can go goes.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, RenameFlags, ioctl_getflags, ioctl_setflags, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use vzsys::{SysError, btrfs};

/// How far down a tree is gone into at once.
const DEEP: u32 = 64;

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Removes what is at `path`: a tree, a file, or a link alone. Not there counts as removed.
///
/// # Errors
/// The first failed call, when anything is left.
pub(crate) fn remove(path: &Path) -> vzsys::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(SysError::new("unlink", path.display(), Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // Not only as a path: that will not do for deleting a subvolume.
    match openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => remove_at(dir.as_fd(), name),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(SysError::new("open", parent.display(), errno)),
    }
}

/// The same for a name in an open directory.
///
/// # Errors
/// The same.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> vzsys::Result<()> {
    let failed = |errno| SysError::new("unlink", name.display(), errno);
    let name = CString::new(name.as_bytes()).map_err(|_| failed(Errno::INVAL))?;
    match delete(parent, &name, FileType::Unknown) {
        Ok(Deleted::Gone) => return Ok(()),
        Ok(Deleted::Full) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let top = openat(parent, &name, OPEN | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let fault = Emptying::of(top.as_fd());
    match delete(parent, &name, FileType::Directory) {
        Ok(Deleted::Gone) => Ok(()),
        Ok(Deleted::Full) => Err(failed(fault.unwrap_or(Errno::NOTEMPTY))),
        Err(errno) => Err(failed(fault.unwrap_or(errno))),
    }
}

enum Deleted {
    Gone,
    /// A directory with something in it.
    Full,
}

/// Deletes one name, if it is no directory or an empty one.
fn delete(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<Deleted, Errno> {
    match attempt(dir, name, kind) {
        Err(Errno::PERM) if unprotect(dir, name) => attempt(dir, name, kind),
        // Whole, unless another one is in it: that one goes first, then.
        Ok(Deleted::Full) if destroy_subvolume(dir, name) => Ok(Deleted::Gone),
        done => done,
    }
}

/// Deletes a subvolume of btrfs with all its files at once.
fn destroy_subvolume(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    // The number of every subvolume's top; others have it, too.
    const TOP: u64 = 256;
    let may_be = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_ino == TOP);
    may_be
        && openat(dir, name, OPEN | OFlags::DIRECTORY, Mode::empty())
            .is_ok_and(|top| btrfs::is_subvolume(top.as_fd()))
        && btrfs::destroy(dir, OsStr::from_bytes(name.to_bytes())).is_ok()
}

fn attempt(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<Deleted, Errno> {
    if matches!(kind, FileType::Directory | FileType::Unknown) {
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(Deleted::Gone),
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Deleted::Full),
            Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Deleted::Gone),
        Err(errno) => Err(errno),
    }
}

/// Takes the immutable and append-only flags, which a privileged VE may have set, off a directory and a
/// name in it. A file that has other names too keeps them: those may be the host's.
pub(crate) fn unprotect(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let own = openat(dir, c".", OPEN | OFlags::DIRECTORY, Mode::empty()).is_ok_and(|dir| clear_flags(&dir));
    let flagged = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        kind == FileType::Directory || kind == FileType::RegularFile && stat.st_nlink == 1
    });
    let child = flagged && openat(dir, name, OPEN, Mode::empty()).is_ok_and(|file| clear_flags(&file));
    own || child
}

fn clear_flags(file: &OwnedFd) -> bool {
    let held = IFlags::IMMUTABLE | IFlags::APPEND;
    ioctl_getflags(file)
        .is_ok_and(|flags| flags.intersects(held) && ioctl_setflags(file, flags.difference(held)).is_ok())
}

/// A tree that is being emptied.
struct Emptying<'a> {
    top: BorrowedFd<'a>,
    /// How many directories have been moved to the top.
    moved: u64,
    /// The first failure.
    fault: Option<Errno>,
}

impl<'a> Emptying<'a> {
    /// Empties a directory; returns the first failure, which something that had to stay may be due to.
    fn of(top: BorrowedFd<'a>) -> Option<Errno> {
        let mut work = Self { top, moved: 0, fault: None };
        loop {
            let before = work.moved;
            let done = work.empty(top, 0);
            work.note(done);
            // Each move brings what is below nearer to the top: this ends.
            if work.moved == before {
                return work.fault;
            }
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        self.fault = self.fault.or(done.err());
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let done = self.remove(dir, name, entry.file_type(), depth);
                self.note(done);
            }
        }
        Ok(())
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: u32) -> Result<(), Errno> {
        if matches!(delete(dir, name, kind)?, Deleted::Gone) {
            return Ok(());
        }
        if depth == DEEP {
            return match self.put_aside(dir, name) {
                Err(Errno::PERM) if unprotect(dir, name) | unprotect(self.top, c".") => {
                    self.put_aside(dir, name)
                }
                done => done,
            };
        }
        let inner = openat(dir, name, OPEN | OFlags::DIRECTORY, Mode::empty())?;
        let emptied = self.empty(inner.as_fd(), depth + 1);
        self.note(emptied);
        match delete(dir, name, FileType::Directory)? {
            Deleted::Gone => Ok(()),
            Deleted::Full => Err(Errno::NOTEMPTY),
        }
    }

    /// Moves what lies too deep to the top, where this round or the next one finds it.
    fn put_aside(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            let aside = format!(".vzctl-deep.{}", self.moved);
            self.moved += 1;
            match renameat_with(dir, name, self.top, &aside, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn temp() -> tempfile::TempDir {
        // In memory where there is such a place: disks take long for this.
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    /// A chain of directories, deeper than any path can name, with a file at each level.
    fn chain(top: &Path, depth: usize) {
        let mut dir = openat(CWD, top, OPEN | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, c"deep", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(c"/", &dir, c"link").unwrap();
            dir = openat(&dir, c"deep", OPEN | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_any_stack_and_wider_than_a_batch_is_removed() {
        let dir = temp();
        let tree = dir.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        chain(&tree, 20_000);
        for number in 0..3000 {
            fs::create_dir_all(tree.join(format!("wide/{number}/x"))).unwrap();
            fs::write(tree.join(format!("wide/{number}.file")), "x").unwrap();
        }
        // A thread's stack, as a thread that sweeps would have it.
        let (path, work) = (tree.clone(), std::thread::Builder::new().stack_size(128 << 10));
        work.spawn(move || remove(&path)).unwrap().join().unwrap().unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let dir = temp();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        fs::hard_link(outside.join("file"), tree.join("a/hard")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").is_dir());
        symlink(&outside, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").is_dir() && outside.join("file").is_file());
        remove(&tree).unwrap();
        remove(&dir.path().join("file/none")).unwrap();
    }

    #[test]
    fn protected_files_go_too_but_not_those_with_a_name_elsewhere() {
        // On a disk: tmpfs has had these flags only since 6.6.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("locked/below")).unwrap();
        fs::create_dir_all(tree.join("other")).unwrap();
        for name in ["locked/file", "locked/below/file", "other/shared", "other/plain"] {
            fs::write(tree.join(name), "x").unwrap();
        }
        fs::hard_link(tree.join("other/shared"), dir.path().join("kept")).unwrap();
        let set = |path: &Path, flags| {
            let file = fs::File::open(path).unwrap();
            ioctl_setflags(&file, ioctl_getflags(&file).unwrap().union(flags))
        };
        let done = ["locked/file", "locked/below", "locked", "other/shared"]
            .map(|name| set(&tree.join(name), IFlags::IMMUTABLE));
        if done.iter().any(Result::is_err) {
            println!("\nSKIP: needs root, and files that can be immutable");
            for name in ["locked", "locked/below", "locked/file", "other/shared"] {
                if let Ok(file) = fs::File::open(tree.join(name)) {
                    clear_flags(&file.into());
                }
            }
            return;
        }
        let left = remove(&tree).unwrap_err();
        assert_eq!(left.errno(), Errno::PERM);
        assert!(!tree.join("locked").exists() && !tree.join("other/plain").exists());
        assert!(tree.join("other/shared").exists());
        clear_flags(&fs::File::open(dir.path().join("kept")).unwrap().into());
        remove(&tree).unwrap();
        assert!(!tree.exists() && dir.path().join("kept").exists());
    }
}
