//! Starting a program of the host that serves us through a socket, with descriptors and mounts of its own.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitiesSecureBits, UnshareFlags, set_capabilities_secure_bits};

use crate::error::{Call, Result, SysError};
use crate::mount::{Detached, Opt, QUIET};
use crate::process::PidFd;
use crate::raw::{self, Cloned};

/// The number of the first descriptor that the program is given; the others follow.
pub const FIRST_FD: i32 = 3;

/// A directory that only the program sees mounted, and where.
#[derive(Debug)]
pub struct Shown<'a> {
    /// What is mounted.
    pub mount: &'a Detached,
    /// Where, below [`Serve::place`].
    pub name: &'static str,
}

/// How a program is started.
#[derive(Debug)]
pub struct Serve<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments, without its own name.
    pub arguments: &'a [&'a str],
    /// What it finds open from [`FIRST_FD`] on, in this order, besides `/dev/null` as its standard files.
    pub fds: &'a [BorrowedFd<'a>],
    /// Mounts that nobody else sees.
    pub shown: &'a [Shown<'a>],
    /// An existing directory that they are mounted in, hidden for the program by an empty one.
    pub place: PathBuf,
    /// Whether a change of its user leaves its capabilities as they are (capabilities(7), `SECBIT_NO_SETUID_FIXUP`).
    pub keep_capabilities: bool,
    /// Whether its limits are raised as far as we may: what it starts can set them no higher than its own.
    pub unlimited: bool,
}

impl Serve<'_> {
    /// Starts it as our child. The caller must be single-threaded.
    ///
    /// # Errors
    /// The errno of clone3(2). A program that cannot be executed ends with 127.
    pub fn start(&self) -> Result<(i32, PidFd)> {
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| SysError::new("execve", self.program.display(), Errno::INVAL))
        };
        let file = text(self.program.as_os_str().as_bytes())?;
        let mut argv = vec![file.clone()];
        for argument in self.arguments {
            argv.push(text(argument.as_bytes())?);
        }
        let env = [format!("PATH={}", crate::spawn::PATH), "HOME=/".to_owned()]
            .map(|entry| CString::new(entry).unwrap_or_default());
        match raw::clone3(0, None, libc::SIGCHLD)? {
            Cloned::Parent { pid, pidfd } => Ok((pid, PidFd::from_fd(pidfd))),
            Cloned::Child => {
                if self.prepare().is_ok() {
                    let _ = nix::unistd::execve(&file, &argv, &env);
                }
                raw::exit_now(127)
            }
        }
    }

    fn prepare(&self) -> Result<()> {
        raw::reset_signals();
        // Signals of our terminal are ours to act upon; it must be left to end in order.
        rustix::process::setsid().call("setsid", || "")?;
        rustix::process::chdir("/").call("chdir", || "/")?;
        self.show()?;
        if self.unlimited {
            raise_limits();
        }
        if self.keep_capabilities {
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
                .call("prctl", || "PR_SET_SECUREBITS")?;
        }
        self.hand_over()
    }

    fn show(&self) -> Result<()> {
        if self.shown.is_empty() {
            return Ok(());
        }
        crate::join::unshare(UnshareFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).call("mount", || "/, MS_REC|MS_PRIVATE")?;
        Detached::new("tmpfs", "vz", &[Opt::value("mode", "0755")], QUIET)?.attach(&self.place)?;
        for shown in self.shown {
            let path = self.place.join(shown.name);
            // Not asked what it is: a file system of ours has nobody yet who would answer.
            fs::create_dir(&path).call("mkdir", || path.display().to_string())?;
            shown.mount.attach(&path)?;
        }
        Ok(())
    }

    /// Moves the descriptors to where they are expected, away from one another first.
    fn hand_over(&self) -> Result<()> {
        let count = i32::try_from(self.fds.len()).unwrap_or(i32::MAX);
        let above = FIRST_FD + count + 1;
        let null = open_null()?;
        let away: Vec<OwnedFd> = self
            .fds
            .iter()
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, above).call("fcntl", || "F_DUPFD"))
            .collect::<Result<_>>()?;
        for number in 0..3 {
            raw::dup_onto(null.as_fd(), number)?;
        }
        raw::cloexec_from(3)?;
        for (number, fd) in (FIRST_FD..).zip(&away) {
            raw::dup_onto(fd.as_fd(), number)?;
        }
        // Closed by exec: an owner's close now would hit what was just put there.
        std::mem::forget((away, null));
        Ok(())
    }
}

fn open_null() -> Result<OwnedFd> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open", || "/dev/null")?;
    // Not among the numbers that are about to be given away.
    rustix::io::fcntl_dupfd_cloexec(&null, 100).call("fcntl", || "F_DUPFD")
}

/// As far as we may; without CAP_SYS_RESOURCE the hard limits stay. Not those that a new user namespace keeps for all
/// its users together: they are its maker's to choose.
fn raise_limits() {
    use Resource::{As, Core, Cpu, Data, Fsize, Locks, Nice, Nofile, Rss, Rtprio, Rttime, Stack};
    for resource in [As, Core, Cpu, Data, Fsize, Locks, Nice, Nofile, Rss, Rtprio, Rttime, Stack] {
        let now = getrlimit(resource);
        // No process may have more files than the kernel's own limit.
        let wanted = (resource == Resource::Nofile).then_some(1 << 20);
        if wanted.is_none() || now.maximum.is_some_and(|hard| Some(hard) < wanted) {
            let raised = Rlimit { current: now.current, maximum: wanted };
            let _ = setrlimit(resource, raised);
        }
    }
}
