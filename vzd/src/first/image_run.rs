//! What an image has in `/run`: a fresh file system lies over it, and programs expect to find their directories.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

/// No honest image has more there.
const MOST: u32 = 10_000;
const DEEP: u32 = 32;
const SIZE: usize = 4 << 20;

/// Copies the image's directories, links and small files to the fresh `/run`. What is there already stays.
pub(super) fn restore() {
    if let Err(errno) = try_restore() {
        eprintln!("vzinit: cannot restore the image's /run: {errno}");
    }
}

fn try_restore() -> rustix::io::Result<()> {
    // The root alone, without what is mounted on it.
    let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = match fs::openat(&root, "run", flags, Mode::empty()) {
        Ok(from) => from,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let to = fs::open("/run", flags, Mode::empty())?;
    let mut left = MOST;
    copy(from.as_fd(), to.as_fd(), 0, &mut left)
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32, left: &mut u32) -> rustix::io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || *left == 0 || depth == DEEP {
            continue;
        }
        *left -= 1;
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|there| FileType::from_raw_mode(there.st_mode) != FileType::Directory)
        {
            continue;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let _ = fs::mkdirat(to, name, Mode::RWXU);
                let directory = OFlags::RDONLY | OFlags::DIRECTORY;
                let source = fs::openat(from, name, flags | directory, Mode::empty())?;
                let target = fs::openat(to, name, flags | directory, Mode::empty())?;
                copy(source.as_fd(), target.as_fd(), depth + 1, left)?;
                fs::fchown(&target, owner(&stat).0, owner(&stat).1)?;
                fs::fchmod(&target, mode)?;
            }
            FileType::Symlink => {
                let aim = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(aim, to, name)?;
            }
            FileType::RegularFile if usize::try_from(stat.st_size).is_ok_and(|size| size <= SIZE) => {
                let source =
                    fs::openat(from, name, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                let new = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let target = fs::openat(to, name, new, Mode::RUSR | Mode::WUSR)?;
                std::io::copy(
                    &mut std::fs::File::from(source),
                    &mut std::fs::File::from(target.try_clone().map_err(|_| rustix::io::Errno::MFILE)?),
                )
                .map_err(|_| rustix::io::Errno::IO)?;
                fs::fchown(&target, owner(&stat).0, owner(&stat).1)?;
                fs::fchmod(&target, mode)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn owner(stat: &fs::Stat) -> (Option<fs::Uid>, Option<fs::Gid>) {
    (Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))
}
