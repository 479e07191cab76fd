//! The processes of a VE: who they are, freezing, killing, waiting for their end.
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use vzsys::process::{PidFd, timespec};

use crate::error::{Error, Result};
use crate::hierarchy::Controller;
use crate::knob;
use crate::tree::{self, Dir};
use crate::ve_cgroup::VeCgroup;

/// The v1 controllers that list a VE's processes in one file: a VE cannot make cgroups there.
const FLAT: [Controller; 7] = [
    Controller::Freezer,
    Controller::Pids,
    Controller::Memory,
    Controller::Devices,
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Io,
];
/// How often a round of signals is sent to processes that fork faster than they are found.
const KILL_ROUNDS: usize = 100;

impl VeCgroup {
    /// Host pids of all processes of the VE.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(dir) = FLAT.iter().find_map(|c| self.v1_dir(*c)) {
            let file = dir.join("cgroup.procs");
            match File::open(&file).and_then(|f| read_pids(f, &mut pids)) {
                Err(e) if !vanished(&e) => return Err(Error::file("read", file, e)),
                _ => return Ok(pids),
            }
        }
        for dir in self.dirs() {
            let failed = |errno: Errno| Error::file("read", &dir, errno);
            let Some(top) = Dir::open(&dir).map_err(failed)? else { continue };
            tree::walk(top, |d| list_processes(d, &mut pids)).map_err(failed)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether any process is in it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn is_populated(&self) -> Result<bool> {
        if let Some(dir) = self.v2_dir() {
            let file = dir.join("cgroup.events");
            match knob::read(&file) {
                Ok(text) if knob::keyed(&text, "populated") == Some(1) => return Ok(true),
                Ok(_) if self.hierarchies().v1().is_empty() => return Ok(false),
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(Error::file("read", file, errno)),
            }
        }
        Ok(!self.processes()?.is_empty())
    }

    /// Waits until the last process is gone; `false` when some are left at the deadline.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn wait_empty(&self, deadline: Instant) -> Result<bool> {
        if let Some(dir) = self.v2_dir()
            && !wait_event(&dir, "populated", 0, deadline)?
        {
            return Ok(false);
        }
        // v1 tells of no emptiness, but each process tells of its end.
        while let Some(pid) = self.processes()?.first().copied() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let failed = |e: vzsys::SysError| Error::file("wait for", format!("/proc/{pid}"), e.errno());
            match PidFd::open(pid).map_err(failed)? {
                Some(process) if process.wait_ended(Some(Duration::ZERO)).map_err(failed)? => {
                    // A zombie: its cgroup lets go of it on its own in a moment.
                    std::thread::sleep(Duration::from_micros(200));
                }
                Some(process) => drop(process.wait_ended(Some(left)).map_err(failed)?),
                None => {}
            }
        }
        Ok(true)
    }

    /// Sends SIGKILL to all processes of the VE, new ones included. Does not wait for their end.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn kill_all(&self) -> Result<()> {
        if let Some(file) = self.v2_dir().map(|dir| dir.join("cgroup.kill")) {
            match knob::write(&file, "1") {
                Ok(()) => {}
                // Kernels before 5.14 have no such file.
                Err(Errno::NOENT | Errno::NODEV) => return self.kill_each(),
                Err(errno) => return Err(Error::file("write", file, errno)),
            }
            if !self.hierarchies().v1().is_empty() {
                // Whatever got into the v1 trees alone, such as a half-done join: nothing that forks.
                for pid in self.processes()? {
                    kill(pid);
                }
                // Only the v2 freezer lets go what is killed; who was frozen by v1's waits to be thawed.
                if let Some(dir) = self.v1_dir(Controller::Freezer) {
                    let _ = knob::write(&dir.join("freezer.state"), "THAWED");
                }
            }
            return Ok(());
        }
        self.kill_each()
    }

    /// Sends SIGKILL to all processes of a VE that is frozen, its init first: with that one signal it is decided. They end
    /// when it is thawed, on cgroup v2 at once, and do nothing before.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn kill_frozen(&self, init: i32) -> Result<()> {
        let processes = self.processes()?;
        kill(init);
        for pid in processes {
            kill(pid);
        }
        Ok(())
    }

    fn kill_each(&self) -> Result<()> {
        // v1: a frozen process cannot fork, and gets its signal when thawed. No freezer: rounds do it.
        let freezer = self.v1_dir(Controller::Freezer).map(|dir| dir.join("freezer.state"));
        let frozen = freezer.as_ref().is_some_and(|file| knob::write(file, "FROZEN").is_ok());
        let mut result = Ok(());
        for _ in 0..KILL_ROUNDS {
            let pids = match self.processes() {
                Ok(pids) => pids,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let alive = pids.iter().filter(|pid| kill(**pid)).count();
            if alive == 0 || frozen {
                break;
            }
        }
        if let (true, Some(file)) = (frozen, freezer) {
            let _ = knob::write(&file, "THAWED");
        }
        result
    }

    /// The directory whose freezer stops the VE's processes: v1's where it is mounted, because there a debugger's
    /// tracees stay where they are too.
    #[must_use]
    pub fn freezer_dir(&self) -> Option<PathBuf> {
        self.v1_dir(Controller::Freezer).or_else(|| self.v2_dir())
    }

    /// Stops all processes where they are, and waits until they stand still. Thawed again on failure.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the deadline, [`Error::File`].
    pub fn freeze(&self, deadline: Instant) -> Result<()> {
        let frozen = match (self.v1_dir(Controller::Freezer), self.v2_dir()) {
            (Some(dir), _) => self.freeze_v1(&dir, deadline),
            (None, Some(dir)) => {
                self.write("cgroup.freeze", &dir, "1").and_then(|()| wait_event(&dir, "frozen", 1, deadline))
            }
            (None, None) => Err(Error::NoHierarchy),
        };
        match frozen {
            Ok(true) => Ok(()),
            failed => {
                let thawed = self.thaw();
                failed?;
                thawed?;
                Err(Error::TimedOut { ctid: self.ctid(), what: "frozen" })
            }
        }
    }

    /// The same while somebody traces them: they are not waited for. Whoever lets them go finds them frozen.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn hold(&self) -> Result<()> {
        match (self.v1_dir(Controller::Freezer), self.v2_dir()) {
            (Some(dir), _) => self.write("freezer.state", &dir, "FROZEN"),
            (None, Some(dir)) => self.write("cgroup.freeze", &dir, "1"),
            (None, None) => Err(Error::NoHierarchy),
        }
    }

    /// Whether its processes are stopped, or on the way to it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match (self.v1_dir(Controller::Freezer), self.v2_dir()) {
            (Some(dir), _) => knob::read(&dir.join("freezer.state")).is_ok_and(|state| state != "THAWED"),
            (None, Some(dir)) => knob::read(&dir.join("cgroup.freeze")).is_ok_and(|state| state == "1"),
            (None, None) => false,
        }
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn thaw(&self) -> Result<()> {
        match (self.v1_dir(Controller::Freezer), self.v2_dir()) {
            (Some(dir), _) => self.write("freezer.state", &dir, "THAWED"),
            (None, Some(dir)) => self.write("cgroup.freeze", &dir, "0"),
            (None, None) => Err(Error::NoHierarchy),
        }
    }

    fn freeze_v1(&self, dir: &Path, deadline: Instant) -> Result<bool> {
        let file = dir.join("freezer.state");
        let mut pause = Duration::from_micros(50);
        loop {
            // Written again each time: that makes the kernel look again at what did not stop at first.
            self.write("freezer.state", dir, "FROZEN")?;
            if knob::read(&file).map_err(|errno| Error::file("read", &file, errno))? == "FROZEN" {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(pause); // this file knows no poll(2)
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn write(&self, file: &str, dir: &Path, value: &str) -> Result<()> {
        let file = dir.join(file);
        knob::write(&file, value).map_err(|errno| Error::file("write", file, errno))
    }
}

/// Waits until `key` of `cgroup.events` is `value`; a cgroup that is gone is neither populated nor not
/// frozen. `false` at the deadline.
fn wait_event(dir: &Path, key: &str, value: u64, deadline: Instant) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let failed = |errno: Errno| Error::file("read", &path, errno);
    let file = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
        Err(errno) => return Err(failed(errno)),
    };
    loop {
        let text = match read_start(&file) {
            Ok(text) => text,
            Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(failed(errno)),
        };
        if knob::keyed(&text, key).is_none_or(|now| now == value) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&file, PollFlags::PRI)];
        match rustix::event::poll(&mut fds, timespec(Some(left)).as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn read_start(file: &OwnedFd) -> std::result::Result<String, Errno> {
    let mut buffer = [0u8; 256];
    let n = rustix::io::pread(file, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// Sends SIGKILL; `false` when there is no such process any more.
fn kill(pid: i32) -> bool {
    match PidFd::open(pid) {
        Ok(Some(process)) => {
            process.signal(Signal::KILL).is_ok() && !process.wait_ended(Some(Duration::ZERO)).unwrap_or(true)
        }
        _ => false,
    }
}

fn list_processes(dir: &Dir, pids: &mut Vec<i32>) -> std::result::Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(dir.as_fd(), "cgroup.procs", flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match read_pids(file, pids) {
        Err(e) if !vanished(&e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// ENODEV: the cgroup was removed while open. EOPNOTSUPP: it is threaded, and its processes are listed
/// by the domain above.
fn vanished(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP))
}

fn read_pids(mut file: File, pids: &mut Vec<i32>) -> std::io::Result<()> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // 0 stands for a process outside of our pid namespace.
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    Ok(())
}

impl VeCgroup {
    /// v2 `cgroup.events`, where poll(2) and inotify(7) tell of changes of `populated` and `frozen`; `None`
    /// on legacy hosts.
    #[must_use]
    pub fn events_file(&self) -> Option<PathBuf> {
        self.v2_dir().map(|dir| dir.join("cgroup.events"))
    }
}
