//! What a stopped call is answered.
//!
//! Nothing is ever opened by a name that a VE gave. What the caller's memory says is read once, and may have changed
//! by the time the kernel would look: whoever plays with that gets the VE's own table, or what the kernel gives him,
//! and may have either anyway. So this is a redirection, and no guard.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use ve::inside::Counts;
use ve::monitor::Charge;
use vzsys::affinity;
use vzsys::notify::{Listener, Notification};
use vzsys::trap::{self, Abi, Call};

use super::block::Block;
use super::caller::{Caller, PATH};
use super::watchdog::Watchdog;
use super::{path, reply};

/// A call that its servers die of is the kernel's in the end.
const ATTEMPTS: u64 = 4;

const AT_FDCWD: i32 = -100;
const O_ACCMODE: u64 = 3;
const O_EXCL_CREAT: u64 = 0o300;
const O_DIRECTORY: u64 = 0o200_000;
const O_CLOEXEC: u64 = 0o2_000_000;
const R_OK: u64 = 4;

/// Who answers.
pub(super) struct Desk {
    watchdog: Rc<Watchdog>,
    base: u32,
    user_namespace: PathBuf,
    device: (u32, u32),
    counts: Counts,
    block: Block,
}

enum Answer {
    Proceed,
    Value(i64),
    Errno(Errno),
    /// The table, with or without close-on-exec.
    Table {
        close_on_exec: bool,
    },
}

impl Desk {
    pub(super) fn new(charge: &Charge, watchdog: Rc<Watchdog>) -> Self {
        let namespace = format!("/proc/{}/ns/user", charge.init.pid);
        let proc = rustix::fs::stat("/proc").map_or(0, |stat| stat.st_dev);
        Self {
            watchdog,
            base: charge.base,
            user_namespace: std::fs::read_link(namespace).unwrap_or_default(),
            device: (rustix::fs::major(proc), rustix::fs::minor(proc)),
            counts: Counts::new(charge),
            block: Block::default(),
        }
    }

    /// How long [`Desk::tick`] can wait.
    pub(super) fn left(&self) -> Option<Duration> {
        self.counts.left()
    }

    /// Counts what has to be counted regularly.
    pub(super) fn tick(&mut self) {
        self.counts.tick();
    }

    /// Answers a call, if its caller still waits.
    pub(super) fn answer(&mut self, listener: &Listener, call: &Notification, attempt: u64) {
        let answer = if attempt > ATTEMPTS { Answer::Proceed } else { self.judge(listener, call) };
        // A caller that is gone needs no answer.
        let _ = match answer {
            Answer::Proceed => listener.proceed(call),
            Answer::Value(value) => listener.answer(call, value),
            Answer::Errno(errno) => listener.refuse(call, errno),
            Answer::Table { close_on_exec } => self.give(listener, call, close_on_exec),
        };
    }

    fn give(&mut self, listener: &Listener, call: &Notification, close_on_exec: bool) -> vzsys::Result<()> {
        let counts = &self.counts;
        let Ok(file) = self.block.open(self.base, || counts.table()) else {
            return listener.refuse(call, Errno::IO);
        };
        match listener.give(call, file.as_fd(), close_on_exec) {
            // It has too many descriptors.
            Err(error) if error.errno() == Errno::MFILE => listener.refuse(call, Errno::MFILE),
            Err(error) if error.errno() != Errno::NOENT => listener.refuse(call, Errno::IO),
            done => done,
        }
    }

    fn judge(&self, listener: &Listener, call: &Notification) -> Answer {
        let Some(abi) = call.abi else { return Answer::Proceed };
        let caller = Caller::of(call, &self.watchdog);
        match trap::call(abi, call.number) {
            None => Answer::Proceed,
            Some(Call::Sysinfo) => {
                let Some(figures) = self.counts.figures() else { return Answer::Proceed };
                let bytes = reply::sysinfo(abi, &figures);
                written(caller.write(listener, call, call.arguments[0], &bytes))
            }
            Some(Call::Affinity) => self.affinity(caller, abi, listener, call),
            Some(kind) if self.means_table(caller, kind, call) => {
                self.of_table(caller, kind, abi, listener, call)
            }
            Some(_) => Answer::Proceed,
        }
    }

    fn means_table(&self, caller: Caller<'_>, kind: Call, call: &Notification) -> bool {
        let [first, second, ..] = call.arguments;
        let (directory, address) = match kind {
            Call::Open | Call::Stat | Call::Stat64 | Call::Access | Call::Readlink => (AT_FDCWD, first),
            _ => (signed(first), second),
        };
        let mut buffer = [0; PATH];
        let Some(text) = caller.string(address, &mut buffer) else { return false };
        if !path::may_be_table(text) {
            return false;
        }
        let from = if text.starts_with(b"/") { Some(Vec::new()) } else { caller.directory(directory) };
        from.is_some_and(|from| path::is_table(&from, text)) && caller.in_own_root()
    }

    fn of_table(
        &self,
        caller: Caller<'_>,
        kind: Call,
        abi: Abi,
        listener: &Listener,
        call: &Notification,
    ) -> Answer {
        let [_, second, third, _, fifth, _] = call.arguments;
        let stat = |address| {
            let bytes = reply::stat(kind, abi, self.device);
            written(caller.write(listener, call, address, &bytes))
        };
        match kind {
            Call::Open => self.open(caller, listener, call, second),
            Call::OpenAt => self.open(caller, listener, call, third),
            Call::OpenAt2 => match how(caller, third) {
                // Ways to look up that `/proc` may be out of reach of.
                None | Some((_, 1..)) => Answer::Proceed,
                Some((flags, 0)) => self.open(caller, listener, call, flags),
            },
            Call::Stat | Call::Stat64 => stat(second),
            Call::StatAt => stat(third),
            Call::Statx => stat(fifth),
            Call::Access => self.access(caller, listener, call, second),
            Call::AccessAt => self.access(caller, listener, call, third),
            // It is no link.
            Call::Readlink | Call::ReadlinkAt => Answer::Errno(Errno::INVAL),
            Call::Sysinfo | Call::Affinity => Answer::Proceed,
        }
    }

    /// A thread's own mask, with as many CPUs in it as the VE has. Of other threads' it is told what the kernel has:
    /// their numbers are those of a namespace of the VE's.
    fn affinity(&self, caller: Caller<'_>, abi: Abi, listener: &Listener, call: &Notification) -> Answer {
        let [of, length, address, ..] = call.arguments;
        if !matches!(signed(of), 0) && caller.own_number() != Some(signed(of)) {
            return Answer::Proceed;
        }
        let Some(cpus) = self.counts.cpus() else { return Answer::Proceed };
        let Some(mut mask) = reply::mask(call.tid, abi, length) else { return Answer::Proceed };
        affinity::keep_first(&mut mask, cpus);
        match caller.write(listener, call, address, &mask) {
            Ok(()) => Answer::Value(i64::try_from(mask.len()).unwrap_or_default()),
            Err(errno) => Answer::Errno(errno),
        }
    }

    /// Whether the caller may read it. Asked of a thread that is known to wait still, or it might be another's.
    fn may_read(&self, caller: Caller<'_>, listener: &Listener, call: &Notification) -> bool {
        caller.is_root(self.base, &self.user_namespace) && listener.waits(call)
    }

    fn open(&self, caller: Caller<'_>, listener: &Listener, call: &Notification, flags: u64) -> Answer {
        if flags & O_EXCL_CREAT == O_EXCL_CREAT {
            Answer::Errno(Errno::EXIST)
        } else if flags & O_DIRECTORY != 0 {
            Answer::Errno(Errno::NOTDIR)
        } else if flags & O_ACCMODE != 0 || !self.may_read(caller, listener, call) {
            Answer::Errno(Errno::ACCESS)
        } else {
            Answer::Table { close_on_exec: flags & O_CLOEXEC != 0 }
        }
    }

    fn access(&self, caller: Caller<'_>, listener: &Listener, call: &Notification, mode: u64) -> Answer {
        let allowed = match mode & 7 {
            0 => true,
            R_OK => self.may_read(caller, listener, call),
            _ => false,
        };
        if allowed { Answer::Value(0) } else { Answer::Errno(Errno::ACCESS) }
    }
}

fn written(done: Result<(), Errno>) -> Answer {
    done.map_or_else(Answer::Errno, |()| Answer::Value(0))
}

/// Flags and resolution of a `struct open_how`.
fn how(caller: Caller<'_>, address: u64) -> Option<(u64, u64)> {
    let mut bytes = [0; 24];
    if caller.read(address, &mut bytes)? != bytes.len() {
        return None;
    }
    let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
    Some((word(0), word(16)))
}

/// A descriptor, which is the lower half of its argument.
#[allow(clippy::cast_possible_truncation)]
fn signed(argument: u64) -> i32 {
    argument as u32 as i32
}
