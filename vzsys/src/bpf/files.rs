//! The host's gate for open files of VEs: counts them by the VEs' user namespaces, and refuses those above a limit.
//!
//! ```text
//! /run/vz/bpf/files-2/   a bpffs of our own; what is pinned there lives without any process
//!   counts    numbers of a namespace, by its own number    written by the programs
//!   limits    how many may be open, by the same            written by us
//!   owners    the namespace of a VE, by the VE's number    written by us, read when the VE has gone
//!   excused   tasks that are never refused                 written by us, and gone with the task
//!   alloc     the programs, at their places in the kernel
//!   free
//! ```
//!
//! One set for all VEs of the host. It is complete or none: maps are pinned first and programs last, under a lock, and
//! whoever finds less than all takes that down and begins again. A file keeps its namespace, and so a namespace's number
//! is nobody else's as long as files of it are open, also when its VE has ended.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::btf::Btf;
use super::calls;
use super::file_programs::{COUNT, FAILED, MADE, Maps, NUMBERS, OWNER, Offsets, PEAK, alloc, free};
use super::insn::Insn;
use super::objects::{self, Numbers, Tasks};
use super::sockets::Tally;
use crate::error::{Call, Result, SysError};
use crate::mount::{Detached, Opt, QUIET};

const HOME: &str = "/run/vz/bpf";
const LOCK: &str = "/run/vz/bpf.lock";
/// A later version whose numbers mean something else takes another name: VEs that run keep theirs.
const SET: &str = "/run/vz/bpf/files-2";
const COUNTS: &str = "counts";
const LIMITS: &str = "limits";
const OWNERS: &str = "owners";
const EXCUSED: &str = "excused";
const FREE: &str = "free";
const ALLOC: &str = "alloc";
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// More than VEs of a host.
const MOST: u32 = 16384;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const SECURITY: &str = "/sys/kernel/security";

/// The maps of the gate.
#[derive(Debug)]
pub struct FileGate {
    counts: Numbers<NUMBERS>,
    limits: Numbers<1>,
    owners: Numbers<1>,
    excused: Tasks,
}

impl FileGate {
    /// Whether the kernel has what the gate is made of: BPF among its security modules, a description of its types, and
    /// calls of the programs that it never leaves out; and lets us.
    #[must_use]
    pub fn supported() -> bool {
        // What costs least is asked first.
        Path::new(BTF).exists()
            && !is_forbidden()
            && !leaves_calls_out()
            && security_modules().is_some_and(|list| list.trim().split(',').any(|name| name == "bpf"))
    }

    /// The gate, if it is up: what costs a few calls.
    ///
    /// # Errors
    /// The errno of bpf(2).
    pub fn find() -> Result<Option<Self>> {
        let Some(counts) = Numbers::pinned(&pin(COUNTS))? else { return Ok(None) };
        let others = Numbers::pinned(&pin(LIMITS))?.zip(Numbers::pinned(&pin(OWNERS))?);
        let others = others.zip(Tasks::pinned(&pin(EXCUSED))?);
        Ok(others.map(|((limits, owners), excused)| Self { counts, limits, owners, excused }))
    }

    /// The gate, put up unless it is up already; `None` on a kernel that has no such programs.
    ///
    /// # Errors
    /// The errno of bpf(2), or of making its file system. Nothing is left then.
    pub fn put_up() -> Result<Option<Self>> {
        if let Some(gate) = Self::complete()? {
            return Ok(Some(gate));
        }
        if !Self::supported() {
            return Ok(None);
        }
        let lock = File::create(LOCK).call("open", || LOCK)?;
        flock(&lock, FlockOperation::LockExclusive).call("flock", || LOCK)?;
        // Somebody else's, made while we waited.
        if let Some(gate) = Self::complete()? {
            return Ok(Some(gate));
        }
        mount()?;
        take_down()?;
        let made = make();
        if made.is_err() {
            // What it failed with is what counts.
            let _ = take_down();
        }
        made.map(Some)
    }

    /// The gate, if nothing of it is missing.
    fn complete() -> Result<Option<Self>> {
        let Some(gate) = Self::find()? else { return Ok(None) };
        let programs = [FREE, ALLOC].map(|name| objects::pinned(&pin(name)));
        let [free, alloc] = programs;
        Ok((free?.is_some() && alloc?.is_some()).then_some(gate))
    }

    /// Counts from now on for this VE, in place of what it had before, what is opened in the user namespace of this
    /// process and below. `false` when that is our own namespace: then it is not the VE's alone.
    ///
    /// # Errors
    /// The errno of bpf(2) or of looking at the process.
    pub fn admit(&self, ve: u32, process: i32) -> Result<bool> {
        let Some(namespace) = namespace_of(process)? else { return Ok(false) };
        self.dismiss(ve)?;
        self.owners.set(ve, [namespace.into()])?;
        self.counts.set(namespace, [0, 0, 0, 0, ve.into()])?;
        Ok(true)
    }

    /// Forgets a VE, which is gone. One that is not known is no error.
    ///
    /// # Errors
    /// The errno of bpf(2).
    pub fn dismiss(&self, ve: u32) -> Result<()> {
        let Some([namespace]) = self.owners.get(ve)? else { return Ok(()) };
        let namespace = u32::try_from(namespace).unwrap_or(u32::MAX);
        // The number may be another VE's by now, if this one was not dismissed when it ended.
        if self.numbers(ve, namespace)?.is_some() {
            self.limits.remove(namespace)?;
            self.counts.remove(namespace)?;
        }
        self.owners.remove(ve)
    }

    /// What was counted for a VE with this init; `None` when it is not counted.
    ///
    /// # Errors
    /// The errno of bpf(2) or of looking at init.
    pub fn tally(&self, ve: u32, init: i32) -> Result<Option<Tally>> {
        let Some(namespace) = namespace_of(init)? else { return Ok(None) };
        Ok(self.numbers(ve, namespace)?.and_then(tally_of))
    }

    /// Sets how many a VE with this init may have open; what is open stays open. `false` when it is not counted.
    ///
    /// # Errors
    /// The errno of bpf(2) or of looking at init.
    pub fn limit(&self, ve: u32, init: i32, most: Option<u64>) -> Result<bool> {
        let Some(namespace) = namespace_of(init)? else { return Ok(false) };
        if self.numbers(ve, namespace)?.and_then(tally_of).is_none() {
            return Ok(false);
        }
        match most {
            Some(most) => self.limits.set(namespace, [most.min(i64::MAX.cast_unsigned())])?,
            None => self.limits.remove(namespace)?,
        }
        Ok(true)
    }

    /// Whether a VE with this init can open no more than `spare` files.
    ///
    /// # Errors
    /// The errno of bpf(2) or of looking at init.
    pub fn is_short(&self, ve: u32, init: i32, spare: u64) -> Result<bool> {
        let Some(namespace) = namespace_of(init)? else { return Ok(false) };
        let Some(tally) = self.numbers(ve, namespace)?.and_then(tally_of) else { return Ok(false) };
        let limit = self.limits.get(namespace)?;
        Ok(limit.is_some_and(|[most]| tally.count.saturating_add(spare) >= most))
    }

    /// Has a process never refused a file, until it ends; what it starts is. Its files are counted.
    ///
    /// # Errors
    /// The errno of bpf(2).
    pub fn excuse(&self, process: impl AsFd) -> Result<()> {
        self.excused.mark(process.as_fd())
    }

    /// Of a namespace, if it is this VE's.
    fn numbers(&self, ve: u32, namespace: u32) -> Result<Option<[u64; NUMBERS]>> {
        Ok(self.counts.get(namespace)?.filter(|numbers| numbers[OWNER] == u64::from(ve)))
    }

    /// Whether anything is known of a VE.
    ///
    /// # Errors
    /// The errno of bpf(2).
    pub fn knows(&self, ve: u32) -> Result<bool> {
        Ok(self.owners.get(ve)?.is_some())
    }
}

/// `None` when the programs have never run for it: a kernel that has them and does not call them.
fn tally_of(numbers: [u64; NUMBERS]) -> Option<Tally> {
    let number = |at: usize| u64::try_from(numbers[at].cast_signed()).unwrap_or(0);
    // One that is just being refused is in the count.
    let count = number(COUNT).min(number(PEAK));
    let tally = Tally { count, peak: number(PEAK), failed: number(FAILED), made: number(MADE) };
    (tally.made + tally.failed > 0).then_some(tally)
}

/// The number of a process's user namespace, unless it is ours.
fn namespace_of(process: i32) -> Result<Option<u32>> {
    let number = |path: String| fs::metadata(&path).map(|meta| meta.ino()).call("stat", || path);
    let theirs = number(format!("/proc/{process}/ns/user"))?;
    let ours = number("/proc/self/ns/user".to_owned())?;
    Ok(u32::try_from(theirs).ok().filter(|_| theirs != ours))
}

/// The kernel's list, by names; its file system need not be mounted.
fn security_modules() -> Option<String> {
    let path = Path::new(SECURITY);
    if let Ok(list) = fs::read_to_string(path.join("lsm")) {
        return Some(list);
    }
    // Without its directory the kernel has no such file system, and would look for a module.
    let own = path.exists().then(|| Detached::new("securityfs", "none", &[], QUIET).ok())??;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(own.as_fd(), "lsm", flags, Mode::empty()).ok()?;
    std::io::read_to_string(File::from(file)).ok()
}

/// Whether somebody keeps us from such programs, whatever they are: whoever confines this host. The kernel asks that
/// first, before it finds that this one is for no function.
fn is_forbidden() -> bool {
    let program = [Insn::set64(0, 0), Insn::exit()];
    calls::load_lsm(0, &program, calls::name("vz_probe")).is_err_and(|error| error.errno() == Errno::PERM)
}

fn leaves_calls_out() -> bool {
    let uname = rustix::system::uname();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    may_leave_out(&uname.release().to_string_lossy(), &uname.version().to_string_lossy(), &line)
}

/// Before 6.2 a program of security modules is left out while the same one was interrupted on that processor by another
/// task. That happens only where the kernel may be preempted anywhere; a count would drift away from what is open.
fn may_leave_out(release: &str, version: &str, command_line: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let older = numbers.next().zip(numbers.next()).is_some_and(|release| release < (6, 2));
    let anywhere = |word: &str| matches!(word, "PREEMPT" | "PREEMPT_RT" | "preempt=full");
    older && (version.split_whitespace().any(anywhere) || command_line.split_whitespace().any(anywhere))
}

fn pin(name: &str) -> PathBuf {
    Path::new(SET).join(name)
}

fn mount() -> Result<()> {
    match fs::create_dir(HOME) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(SysError::from_io("mkdir", HOME, &error));
        }
        _ => {}
    }
    let kind = rustix::fs::statfs(HOME).call("statfs", || HOME)?.f_type;
    if u64::try_from(kind).ok() == Some(BPF_FS_MAGIC) {
        return Ok(());
    }
    Detached::new("bpf", "vz", &[Opt::value("mode", "700")], QUIET)?.attach(Path::new(HOME))
}

/// Programs first: without them nothing changes any more.
fn take_down() -> Result<()> {
    for name in [ALLOC, FREE, EXCUSED, OWNERS, LIMITS, COUNTS] {
        match fs::remove_file(pin(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SysError::from_io("unlink", pin(name).display(), &error));
            }
            _ => {}
        }
    }
    match rustix::fs::rmdir(SET) {
        Err(Errno::NOENT) => Ok(()),
        done => done.call("rmdir", || SET),
    }
}

/// A whole set; what was there is gone already.
fn make() -> Result<FileGate> {
    let places = Places::find()?;
    let gate = FileGate {
        counts: Numbers::make(calls::name("vz_files"), MOST)?,
        limits: Numbers::make(calls::name("vz_file_limits"), MOST)?,
        owners: Numbers::make(calls::name("vz_file_owners"), MOST)?,
        excused: Tasks::make(calls::name("vz_file_excused"))?,
    };
    let maps = Maps {
        counts: gate.counts.fd().as_raw_fd(),
        limits: gate.limits.fd().as_raw_fd(),
        excused: gate.excused.fd().as_raw_fd(),
    };
    let load = |function, code: &[Insn], name| calls::load_lsm(function, code, calls::name(name));
    let free = load(places.free, &free(places.offsets, maps), "vz_file_free")?;
    let alloc = load(places.alloc, &alloc(places.offsets, maps), "vz_file_alloc")?;
    rustix::fs::mkdir(SET, Mode::RWXU).call("mkdir", || SET)?;
    objects::pin(gate.excused.fd(), &pin(EXCUSED))?;
    for (map, name) in [(gate.counts.fd(), COUNTS), (gate.limits.fd(), LIMITS), (gate.owners.fd(), OWNERS)] {
        objects::pin(map, &pin(name))?;
    }
    let put = |program: BorrowedFd<'_>, name| objects::pin(objects::link(program)?.as_fd(), &pin(name));
    put(free.as_fd(), FREE)?;
    put(alloc.as_fd(), ALLOC)?;
    Ok(gate)
}

/// Where the programs stand and what they look at, in the running kernel.
struct Places {
    alloc: u32,
    free: u32,
    offsets: Offsets,
}

impl Places {
    fn find() -> Result<Self> {
        let data = fs::read(BTF).call("read", || BTF)?;
        let missing = |what: &str| SysError::new("read", format_args!("{BTF}: {what}"), Errno::NOENT);
        let btf = Btf::parse(&data).ok_or_else(|| missing("no descriptions"))?;
        let function = |name: &str| btf.function(name).ok_or_else(|| missing(name));
        let offset = |of: &str, path: &[&str]| {
            let found = btf.offset(of, path).and_then(|offset| i16::try_from(offset).ok());
            found.ok_or_else(|| missing(&format!("{of}.{}", path.join("."))))
        };
        Ok(Self {
            alloc: function("bpf_lsm_file_alloc_security")?,
            free: function("bpf_lsm_file_free_security")?,
            offsets: Offsets {
                credentials: offset("file", &["f_cred"])?,
                namespace: offset("cred", &["user_ns"])?,
                parent: offset("user_namespace", &["parent"])?,
                number: offset("user_namespace", &["ns", "inum"])?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_below_nothing() {
        let below = (-3_i64).cast_unsigned();
        assert_eq!(tally_of([below, 5, 1, 9, 101]), Some(Tally { count: 0, peak: 5, failed: 1, made: 9 }));
        assert_eq!(tally_of([6, 5, 1, 9, 101]).map(|tally| tally.count), Some(5));
        assert_eq!(tally_of([0, 0, 0, 0, 101]), None);
    }

    #[test]
    fn old_kernels_that_are_preempted_anywhere_are_told() {
        let usual = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.177-1";
        for (release, version, line, want) in [
            ("6.1.0-56-amd64", usual, "quiet", false),
            ("6.1.0-56-amd64", usual, "quiet preempt=full", true),
            ("6.1.0-56-rt-amd64", "#1 SMP PREEMPT_RT Debian", "quiet", true),
            ("5.15.0", "#1 SMP PREEMPT Mon", "", true),
            ("6.2.0", "#1 SMP PREEMPT_RT", "", false),
            ("6.12.95+deb12-amd64", usual, "preempt=full", false),
        ] {
            assert_eq!(may_leave_out(release, version, line), want, "{release} {version} {line}");
        }
    }

    #[test]
    fn our_own_namespace_is_nobodys() {
        assert_eq!(namespace_of(std::process::id().cast_signed()).unwrap(), None);
    }
}
