//! The lock of one VE: `<LOCKDIR>/<CTID>.lck`, made with link(2) so that it is there whole or not at all.
//!
//! The file holds three lines: the holder's pid, what it does, and when it started (clock ticks since boot), so that a
//! pid used again is not mistaken for the holder. Files of older tools have two lines or one and are understood.
//!
//! On a disk without a free block the lock is a symbolic link whose target is that text: a short one lies in its inode,
//! and stopping or destroying a VE is what makes room. To link(2) and open(2) of older tools it is in the way as a file is.
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Ctid, Error};

/// How often a stale or unreadable lock file is dealt with before giving up.
const TRIES: u32 = 3;
/// How long a lock file may stay unreadable: other tools create it empty and write to it later.
const SETTLE: Duration = Duration::from_millis(500);
/// A holder may release without exiting (vzd does), so waiting on its pidfd is cut into slices.
const SLICE: Duration = Duration::from_millis(50);

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its command line, blanks between the words.
    pub cmdline: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, cmdline {}", self.pid, self.cmdline)
    }
}

/// A held lock; released on drop by the process that took it (a forked child's drop does nothing).
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    text: String,
    pid: u32,
    stale: bool,
    held: bool,
}

/// What is in the way.
enum Found {
    /// A living process holds it.
    Held(Holder),
    /// Its holder is dead or the file makes no sense.
    Stale,
    /// It went away meanwhile.
    Gone,
}

impl Lock {
    /// Takes the lock of `ctid` in `dir`, which is created if absent. Does not wait for a living holder.
    ///
    /// # Errors
    /// [`Error::Locked`] (9), [`Error::LockFailed`] (3).
    pub fn acquire(dir: &Path, ctid: Ctid) -> Result<Lock, Error> {
        Lock::acquire_as(dir, ctid, "")
    }

    /// As [`Lock::acquire`], with one word in the file about what is being done (`creating`, `starting`).
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn acquire_as(dir: &Path, ctid: Ctid, doing: &str) -> Result<Lock, Error> {
        let path = dir.join(format!("{ctid}.lck"));
        let fail = |source| Error::LockFailed { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(fail)?;
        let mut stale = false;
        for _ in 0..=TRIES {
            match link_new(dir, ctid, doing, &path) {
                Ok(text) => return Ok(Lock { path, text, pid: std::process::id(), stale, held: true }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail(e)),
            }
            match inspect_or_remove(dir, &path).map_err(fail)? {
                Found::Held(holder) => return Err(Error::Locked { ctid, holder: Some(holder) }),
                Found::Stale => stale = true,
                Found::Gone => {}
            }
        }
        Err(Error::Locked { ctid, holder: None })
    }

    /// As [`Lock::acquire`], waiting until `deadline` for the holder to release it or die.
    ///
    /// # Errors
    /// As [`Lock::acquire`]; [`Error::Locked`] once the deadline has passed.
    pub fn wait(dir: &Path, ctid: Ctid, deadline: Instant) -> Result<Lock, Error> {
        loop {
            let error = match Lock::acquire(dir, ctid) {
                Err(error @ Error::Locked { .. }) => error,
                other => return other,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error);
            }
            if let Error::Locked { holder: Some(holder), .. } = &error {
                wait_for_exit(holder.pid, left.min(SLICE));
            }
        }
    }

    /// Who holds the lock now, if a living process does. Takes nothing.
    #[must_use]
    pub fn holder(dir: &Path, ctid: Ctid) -> Option<Holder> {
        let content = look(&dir.join(format!("{ctid}.lck"))).ok()??;
        let (pid, started) = parse(&content)?;
        living(pid, started)
    }

    /// Whether a stale lock file was removed on the way.
    #[must_use]
    pub fn removed_stale(&self) -> bool {
        self.stale
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Releases now and tells whether that worked.
    ///
    /// # Errors
    /// [`Error::LockFailed`].
    pub fn release(mut self) -> Result<(), Error> {
        self.unlink().map_err(|source| Error::LockFailed { path: self.path.clone(), source })
    }

    fn unlink(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.held) || self.pid != std::process::id() {
            return Ok(());
        }
        // An admin may have removed our file and another command taken the lock: theirs stays.
        match look(&self.path)? {
            Some(content) if content == self.text.as_bytes() => fs::remove_file(&self.path),
            _ => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nobody to tell; a lock file of a dead process is stale and gets removed by the next command.
        let _ = self.unlink();
    }
}

/// Writes a file of our own and links it to the lock's name; returns its text.
fn link_new(dir: &Path, ctid: Ctid, doing: &str, path: &Path) -> io::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temp = dir.join(format!("{ctid}.lck{pid:06}{number}"));
    let _ = fs::remove_file(&temp);
    let started = Stat::of(pid).map(|stat| stat.started).unwrap_or_default();
    let text = format!("{pid}\n{doing}\n{started}\n");
    let made: io::Result<()> = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temp)?;
        file.write_all(text.as_bytes())?;
        fs::hard_link(&temp, path)
    })();
    let _ = fs::remove_file(&temp);
    match made {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            symlink(&text, path)?;
        }
        made => made?,
    }
    Ok(text)
}

/// Tells whose the lock is, and removes it if that is nobody's.
fn inspect_or_remove(dir: &Path, path: &Path) -> io::Result<Found> {
    let settled = Instant::now() + SETTLE;
    loop {
        match look(path)? {
            None => return Ok(Found::Gone),
            Some(content) => match parse(&content) {
                Some((pid, started)) => match living(pid, started) {
                    Some(holder) => return Ok(Found::Held(holder)),
                    None => break,
                },
                None if Instant::now() >= settled => break,
                None => std::thread::sleep(Duration::from_millis(20)),
            },
        }
    }
    // Two commands may see the same stale lock. Whoever removes it must hold the directory's flock and find it stale
    // then: the second one would remove the fresh lock of the first, whose inode may have the number of the stale one.
    let dir = fs::File::open(dir)?;
    flock(&dir, FlockOperation::LockExclusive)?;
    let Some(content) = look(path)? else { return Ok(Found::Gone) };
    if parse(&content).is_some_and(|(pid, started)| living(pid, started).is_some()) {
        return Ok(Found::Gone);
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(Found::Stale),
        // By hand.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::Gone),
        Err(e) => Err(e),
    }
}

/// The text of a lock; `None` when there is none.
fn look(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return look_at_link(path);
        }
        Err(e) => return Err(e),
    };
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&file, 4096), &mut content)?;
    Ok(Some(content))
}

fn look_at_link(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.into_os_string().into_encoded_bytes())),
        // Gone, or a file again: looked at anew in the next round.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The pid and, from our own files, its start time.
fn parse(content: &[u8]) -> Option<(u32, Option<u64>)> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let started = lines.nth(1).and_then(|line| line.trim().parse().ok()).filter(|ticks| *ticks > 0);
    Some((pid, started))
}

/// The process, unless it is dead (a zombie is, and one that is ending) or another one under the same pid.
fn living(pid: u32, started: Option<u64>) -> Option<Holder> {
    let stat = Stat::of(pid)?;
    if stat.is_over() || started.is_some_and(|wanted| wanted != stat.started) {
        return None;
    }
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // Empty while a process is just becoming another program, and of one that has begun to end since it was looked at.
    if raw.is_empty() && Stat::of(pid)?.is_over() {
        return None;
    }
    let cmdline = String::from_utf8_lossy(&raw)
        .chars()
        .map(|c| if c == '\0' || c.is_control() { ' ' } else { c })
        .collect::<String>();
    Some(Holder { pid, cmdline: cmdline.trim_end().to_string() })
}

/// What `/proc/PID/stat` tells of a process.
struct Stat {
    state: char,
    flags: u64,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name in parentheses may hold anything, blanks and parentheses too.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(Stat {
            state: fields.next()?.chars().next()?,
            flags: fields.nth(5)?.parse().ok()?,
            started: fields.nth(12)?.parse().ok()?,
        })
    }

    /// Whether it runs no code of a program any more. A process that is ending is marked so before its state tells, and
    /// a thread of the kernel, which may have the pid of a holder from before a reboot, never held a lock.
    fn is_over(&self) -> bool {
        // From include/linux/sched.h; both have their values since 2.6.
        const PF_EXITING: u64 = 0x4;
        const PF_KTHREAD: u64 = 0x0020_0000;
        matches!(self.state, 'Z' | 'X') || self.flags & (PF_EXITING | PF_KTHREAD) != 0
    }
}

fn wait_for_exit(pid: u32, at_most: Duration) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Interrupted or woken: the caller looks at the lock again in any case.
        Ok(pidfd) => drop(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))),
        Err(rustix::io::Errno::SRCH) => {}
        Err(_) => std::thread::sleep(at_most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ve() -> Ctid {
        Ctid::new(101).unwrap()
    }

    fn lock_file(dir: &Path, content: &str) {
        fs::write(dir.join("101.lck"), content).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn second_taker_is_told_who_holds_it_and_drop_releases() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("made/on/demand");
        let lock = Lock::acquire(&dir, ve()).unwrap();
        assert_eq!(names(&dir), ["101.lck"]);
        let error = Lock::acquire(&dir, ve()).unwrap_err();
        assert_eq!(error.exit().code(), 9);
        let text = error.to_string();
        assert!(text.starts_with("Container already locked\nLocked by: pid "), "{text}");
        assert!(text.contains(&format!("pid {}, cmdline ", std::process::id())), "{text}");
        Lock::acquire(&dir, Ctid::new(102).unwrap()).unwrap();
        drop(lock);
        Lock::acquire(&dir, ve()).unwrap().release().unwrap();
        assert!(names(&dir).is_empty());
    }

    #[test]
    fn stale_files_of_every_kind_are_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let reused = format!("{}\n\n1\n", std::process::id());
        for content in [format!("{}\n\n", dead.id()), "rubbish".to_string(), String::new(), reused] {
            lock_file(tmp.path(), &content);
            let lock = Lock::acquire(tmp.path(), ve()).unwrap();
            assert!(lock.removed_stale(), "{content:?}");
        }
        assert!(names(tmp.path()).is_empty());
    }

    #[test]
    fn on_a_full_disk_the_lock_is_a_link_and_counts_as_well() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("101.lck");
        let started = Stat::of(std::process::id()).unwrap().started;
        symlink(format!("{}\nstop\n{started}\n", std::process::id()), &path).unwrap();
        assert_eq!(Lock::acquire(tmp.path(), ve()).unwrap_err().exit().code(), 9);
        assert_eq!(Lock::holder(tmp.path(), ve()).unwrap().pid, std::process::id());
        fs::remove_file(&path).unwrap();
        symlink("2147483646\nstop\n1\n", &path).unwrap();
        assert!(Lock::acquire(tmp.path(), ve()).unwrap().removed_stale());
        assert!(names(tmp.path()).is_empty());
    }

    #[test]
    fn foreign_two_line_files_of_living_processes_count() {
        let tmp = tempfile::tempdir().unwrap();
        for content in [format!("{}\nstarting\n", std::process::id()), std::process::id().to_string()] {
            lock_file(tmp.path(), &content);
            assert_eq!(Lock::acquire(tmp.path(), ve()).unwrap_err().exit().code(), 9);
            assert_eq!(Lock::holder(tmp.path(), ve()).unwrap().pid, std::process::id());
        }
    }

    #[test]
    fn zombie_holder_is_dead() {
        let tmp = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Stat::of(child.id()).unwrap().state != 'Z' {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        lock_file(tmp.path(), &format!("{}\n\n", child.id()));
        Lock::acquire(tmp.path(), ve()).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_replaced_lock_is_not_released() {
        let tmp = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(tmp.path(), ve()).unwrap();
        fs::rename(tmp.path().join("101.lck"), tmp.path().join("kept")).unwrap();
        lock_file(tmp.path(), "1\n\n");
        drop(lock);
        assert!(tmp.path().join("101.lck").exists());
    }

    #[test]
    fn of_many_takers_of_a_stale_lock_exactly_one_wins_at_a_time() {
        let tmp = tempfile::tempdir().unwrap();
        let inside = AtomicU32::new(0);
        let won = AtomicU32::new(0);
        lock_file(tmp.path(), "2147483646\n\n");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let until = Instant::now() + Duration::from_secs(60);
                    for _ in 0..20 {
                        let lock = Lock::wait(tmp.path(), ve(), until).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        won.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if won.load(Ordering::SeqCst).is_multiple_of(3) {
                            // Die without releasing: the next taker finds a stale file.
                            let dead = lock.path().with_extension("dead");
                            fs::write(&dead, "2147483646\n\n").unwrap();
                            fs::rename(&dead, lock.path()).unwrap();
                            std::mem::forget(lock);
                        }
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 160);
    }

    #[test]
    fn wait_ends_when_the_holder_dies_and_at_the_deadline() {
        let tmp = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        lock_file(tmp.path(), &format!("{}\n\n", child.id()));
        let error = Lock::wait(tmp.path(), ve(), Instant::now() + Duration::from_millis(120)).unwrap_err();
        assert_eq!(error.exit().code(), 9);
        let waiter = std::thread::scope(|scope| {
            let until = Instant::now() + Duration::from_secs(60);
            let waiter = scope.spawn(move || Lock::wait(tmp.path(), ve(), until).map(|l| l.removed_stale()));
            child.kill().unwrap();
            waiter.join().unwrap()
        });
        child.wait().unwrap();
        assert!(waiter.unwrap());
    }
}
